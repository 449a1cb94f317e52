//! A connection that carries bytes under a permit: registered in the hub, recorded, and ended
//! through one path whatever the reason.
//!
//! 1. [`begin`]: register, *then* check the right once more, then make the beginning durable.
//! 2. The protocol pumps bytes until something ends, or until [`LiveConnection::stop_signal`] says so.
//! 3. [`LiveConnection::finish`]: the end record, the store's note, and the place in the hub given up.
//!
//! A connection that is dropped without `finish` (a panic) is still ended in the record by its
//! recorder, and in the store by the sweep.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::Access;
use crate::access::hub::{CurrentPermit, Registration, StopSignal};
use crate::audit::record::Tls;
use crate::audit::ssh::SshClient;
use crate::audit::{Opening, Recorder, Totals, Unrecordable};
use crate::crypto;
use crate::domain::connection::{Connection, Ended};
use crate::domain::deny::{Deny, EndReason};
use crate::domain::event::{Action, Event};
use crate::domain::id::ConnectionId;
use crate::domain::principal::Actor;
use crate::domain::session::Permit;

/// What a client said of itself when it connected.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub client: SocketAddr,
    pub application: Option<String>,
    pub database: Option<String>,
    pub tls: Option<Tls>,
    pub ssh: Option<SshClient>,
}

#[derive(Debug)]
pub struct LiveConnection {
    access: Arc<Access>,
    permit: Permit,
    recorder: Recorder,
    client: SocketAddr,
    // Last: the connection counts as live until everything above is gone.
    registration: Registration,
}

/// Begins a connection under `permit`; its beginning is durable when this returns.
pub async fn begin(access: &Arc<Access>, permit: &Permit, arrival: &Arrival) -> Result<LiveConnection, Deny> {
    let id = ConnectionId::from_random(crypto::random());
    let registration = access.hub.register(id.clone(), permit);
    if access.hub.is_closed() {
        return Err(Deny::ShuttingDown);
    }
    // From here a revocation finds us in the hub; one that came before shows in this check.
    let permit = access.recheck(permit).await?;
    access.hub.renew(permit.clone());
    // The recording comes first: a connection that the record knows of and has no recording is
    // what a removed recording looks like.
    let policy_hash = access.rules().policy.hash().to_owned();
    let mut opening = Opening::new(&permit, id.clone(), arrival.client, &policy_hash);
    opening.opened.application.clone_from(&arrival.application);
    opening.opened.database.clone_from(&arrival.database);
    opening.opened.client_tls.clone_from(&arrival.tls);
    opening.opened.client_ssh.clone_from(&arrival.ssh);
    let begun = access.journal.begin(opening).await;
    let recorder = begun.map_err(|error| Deny::Unrecordable { detail: error.to_string() })?;
    let connection = Connection {
        id: id.clone(),
        session: permit.session().id.clone(),
        principal: Actor::from(permit.principal()),
        target: permit.target().name.clone(),
        node: access.node.clone(),
        client: arrival.client,
        opened_at: access.now(),
        ended: None,
    };
    let event = event(Action::ConnectionOpened, &permit, &id, arrival.client)
        .with("application", arrival.application.clone())
        .with("database", arrival.database.clone());
    let stored = access.store.open_connection(&connection, &[event]).await;
    stored.map_err(|error| Deny::StoreUnavailable { detail: error.to_string() })?;
    // The recording has begun and says all that the event says: nobody waits for it.
    access.publish_beside();
    metrics::counter!("sallyport_connections_total").increment(1);
    Ok(LiveConnection { access: Arc::clone(access), permit, recorder, client: arrival.client, registration })
}

impl LiveConnection {
    pub fn id(&self) -> &ConnectionId {
        self.registration.connection()
    }

    /// As it was when the connection began.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// As it was last confirmed: what each use is judged by.
    pub fn current_permit(&self) -> &CurrentPermit {
        self.registration.permit()
    }

    /// It is a connection for replication: it ends when that is no longer permitted.
    pub fn replicates(&self) {
        self.registration.replicates();
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub fn stop_signal(&self) -> StopSignal {
        self.registration.stop_signal()
    }

    /// Writes the end down and gives up the place in the hub. The sockets are closed by now.
    pub async fn finish(self, reason: EndReason, totals: Totals) {
        let Self { access, permit, recorder, client, registration } = self;
        let id = registration.connection().clone();
        tracing::info!(connection = %id, principal = %permit.principal().name, target = %permit.target().name, end = reason.code(), "connection ended");
        metrics::counter!("sallyport_connections_ended_total", "end" => reason.code()).increment(1);
        if let Err(error) = recorder.end(reason.clone(), totals).await {
            unrecordable(&access, &error);
        }
        let event = event(Action::ConnectionEnded, &permit, &id, client)
            .with("end", reason.code())
            .with("why", reason.to_string());
        let ended = Ended { at: access.now(), reason };
        // What fails here is made good by the sweep: the connection is no longer in the hub.
        if let Err(error) = access.store.close_connection(&id, &ended, &[event]).await {
            tracing::error!(connection = %id, %error, "a connection's end is not in the store yet");
        } else if let Err(error) = access.publish().await {
            tracing::error!(connection = %id, %error, "a connection's end waits in the outbox to be recorded");
        }
    }
}

fn event(action: Action, permit: &Permit, id: &ConnectionId, client: SocketAddr) -> Event {
    let mut event = Event::done(action)
        .by(permit.principal())
        .from(Some(client))
        .on(permit.target())
        .about_session(permit.session());
    event.connection = Some(id.clone());
    event
}

fn unrecordable(access: &Access, error: &Unrecordable) {
    tracing::error!(node = %access.node, %error, "the audit log does not take records");
}
