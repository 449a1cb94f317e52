//! A client's connection from its first byte to its last, phase by phase:
//!
//! 1. `recognise`: keys exchanged, the client authenticated → [`Visitor`]
//! 2. `access::admit`: principal and target's name → permit; without one the [`lobby`](super::lobby) tells what to
//!    do, and may come back with a permit
//! 3. `gateway::live::begin`: registered, checked once more, its beginning durable
//! 4. `carry`: each channel in a task of its own, until something ends
//! 5. goodbye in every channel, programs on the target ended, both sides' connections closed; the end
//!    written down

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::authenticate::{self, Authenticator, Jump, Known};
use super::carrier::{Carrier, Parts};
use super::channels::Channels;
use super::goodbye::{CUT_STATUS, Exit, Partings};
use super::lobby::{Admitted, Left, Lobby};
use super::presence::Presences;
use super::server::{self, ARRIVALS, Arrival, ClientChannel, Opening, Presence, Running};
use super::session::Prelude;
use super::settings::Settings;
use super::way::Way;
use crate::access::Access;
use crate::access::connect::RefusedConnection;
use crate::access::credential::error_chain;
use crate::access::refusal::Refusal;
use crate::audit::Unrecordable;
use crate::audit::ssh::SshClient;
use crate::config::SshTarget;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::session::Permit;
use crate::gateway::accept::{HandshakeSlot, NotPromoted};
use crate::gateway::boxed;
use crate::gateway::live::{self, LiveConnection};
use crate::gateway::stream::{Abrupt, Revocable};

/// How long targets get to end the programs of a connection that ends.
const HANG_UP_WITHIN: Duration = Duration::from_millis(200);
/// How long channels get to write down their ends.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The SSH gateway.
#[derive(Debug)]
pub struct SshGateway {
    pub(super) access: Arc<Access>,
    pub(super) settings: Arc<Settings>,
    pub(super) presences: Presences,
    partings: Arc<Partings>,
    /// Cancelled when the gateway lets nothing new in any more.
    pub(super) stopping: CancellationToken,
}

/// A client that has proved who it is.
pub(super) struct Visitor {
    pub known: Known,
    pub client: SocketAddr,
    pub software: String,
    pub arrivals: boxed::Receiver<Arrival>,
    pub exit: Exit,
}

impl Visitor {
    /// How they came, for the record.
    pub(super) fn leg(&self) -> SshClient {
        SshClient {
            software: self.software.clone(),
            auth: self.known.way.as_str().to_owned(),
            key: self.known.key.clone(),
            jump: self.known.jump.clone().map(Box::new),
        }
    }
}

impl SshGateway {
    pub fn new(access: Arc<Access>, settings: Settings, stopping: CancellationToken) -> Self {
        let settings = Arc::new(settings);
        let presences = Presences::new(Arc::clone(&settings), access.clock.clone());
        Self { access, settings, presences, partings: Arc::default(), stopping }
    }

    /// Serves one connection. Errors are told to the client and recorded; nothing is left to return.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, slot: HandshakeSlot) {
        let cut = CancellationToken::new();
        // Also when this is dropped: a stranger that has to go.
        let _cut_at_the_end = cut.clone().drop_guard();
        let presence = match self.presences.own().await {
            Ok(presence) => presence,
            Err(error) => {
                let error = error_chain(&error);
                return tracing::error!(error, "the gateway cannot certify its own key");
            }
        };
        let Some(visitor) = self.recognise(&presence, stream, client, None, cut).await else { return };
        match slot.promote() {
            Ok(_place) => {
                drop(slot);
                self.settle(visitor).await;
            }
            Err(NotPromoted::Full { limit }) => {
                let deny = Deny::TooManyConnections { limit };
                self.record_refusal(&visitor, &deny).await;
                visitor.exit.leave(Some(&deny.to_string())).await;
            }
            Err(NotPromoted::Evicted) => {}
        }
    }

    /// Phase 1. Strangers are recorded when they tried to prove something.
    pub(super) async fn recognise<S>(
        &self,
        presence: &Presence,
        stream: S,
        client: SocketAddr,
        jump: Option<Jump>,
        cut: CancellationToken,
    ) -> Option<Visitor>
    where
        S: Abrupt + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Revocable::new(stream, cut.clone());
        let activity = stream.activity();
        let authenticator =
            Authenticator::new(Arc::clone(&self.access), Arc::clone(&self.settings), client, jump);
        let (known, failed) = (authenticator.known(), authenticator.failed());
        let meeting = async {
            let (sender, mut arrivals) = boxed::channel(ARRIVALS);
            let mut running = server::run(presence, stream, authenticator, sender).await.ok()?;
            let software = tokio::select! {
                _ = running.ended() => return None,
                arrived = arrivals.recv() => match arrived {
                    Some(Arrival::Authenticated { software }) => software,
                    _ => return None,
                },
            };
            Some((running, arrivals, software))
        };
        let met = tokio::time::timeout(self.settings.handshake_timeout, Box::pin(meeting)).await;
        match (met, known.get().cloned()) {
            (Ok(Some((running, arrivals, software))), Some(known)) => {
                let exit = Exit { handle: running.handle(), running, activity, cut };
                Some(Visitor { known, client, software, arrivals, exit })
            }
            (met, _) => {
                cut.cancel();
                let counter = if met.is_err() {
                    metrics::counter!("sallyport_handshakes_timed_out_total")
                } else {
                    metrics::counter!("sallyport_handshakes_refused_total")
                };
                counter.increment(1);
                if let Some(failed) = failed.get() {
                    self.record_failure(&failed.claimed, &failed.why, client).await;
                }
                None
            }
        }
    }

    /// A stranger's attempt; counted, so that a stranger cannot fill the log.
    async fn record_failure(&self, claimed: &str, why: &str, client: SocketAddr) {
        if self.access.admit_token_attempt("", client.ip()).is_err() {
            return;
        }
        let refused =
            RefusedConnection { principal: None, client, wanted: None, claimed, code: "unproved", why };
        self.access.record_refused_connection(refused).await;
    }

    async fn record_login(&self, known: &Known, client: SocketAddr) -> Result<(), Refusal> {
        if known.way == authenticate::Way::Interactive {
            // It is, since the password.
            return Ok(());
        }
        self.access.record_login(&known.principal, Some(client), known.way.as_str()).await
    }

    async fn record_refusal(&self, visitor: &Visitor, deny: &Deny) {
        let refused = RefusedConnection {
            principal: Some(&visitor.known.principal),
            client: visitor.client,
            wanted: visitor.known.wanted.as_ref(),
            claimed: &visitor.known.claimed,
            code: deny.code(),
            why: &deny.to_string(),
        };
        self.access.record_refused_connection(refused).await;
    }

    /// Phases 2 to 5.
    pub(super) async fn settle(self: &Arc<Self>, mut visitor: Visitor) {
        let admitted = match &visitor.known.wanted {
            Some(wanted) => match self.admit(&visitor.known, wanted).await {
                Ok(permit) => Ok(Admitted { permit, channel: None }),
                Err(deny) => {
                    self.record_refusal(&visitor, &deny).await;
                    Err(Some(deny))
                }
            },
            // What is wanted is on record with who wants it; of one who names nothing, that they came is.
            None => match self.record_login(&visitor.known, visitor.client).await {
                Ok(()) => Err(None),
                Err(refusal) => return visitor.exit.leave(Some(&refusal.to_string())).await,
            },
        };
        let deny = match admitted {
            Ok(admitted) => return Box::pin(self.begin(visitor, admitted)).await,
            Err(deny) => deny,
        };
        let mut lobby = Lobby::new(self, &visitor, deny);
        match lobby.wait(&mut visitor).await {
            // What else is open goes on beside it: a jump, above all.
            Left::Admitted(admitted) => {
                tokio::join!(Box::pin(self.begin(visitor, *admitted)), lobby.empty());
            }
            Left::Gone => {
                tokio::join!(visitor.exit.leave(None), lobby.empty());
            }
            Left::Told(reason) => {
                let why = reason.to_string();
                tokio::join!(visitor.exit.leave(Some(&why)), lobby.empty());
            }
        }
    }

    pub(super) async fn admit(
        &self,
        known: &Known,
        wanted: &crate::access::connect::Wanted,
    ) -> Result<Permit, Deny> {
        // Of another protocol's target, say so whether or not there is a session.
        self.access.rules().targets.find(&wanted.target)?.route.ssh()?;
        self.access.admit(&known.principal, wanted).await
    }

    /// Phases 3 to 5.
    async fn begin(&self, visitor: Visitor, admitted: Admitted) {
        let Admitted { permit, channel } = admitted;
        let begun = async {
            let rules = self.access.rules();
            let target = Arc::clone(rules.targets.find(&permit.target().name)?.route.ssh()?);
            let Some(login) = target.logins.get(permit.access()).cloned() else {
                let (target, access) = (permit.target().name.clone(), permit.access().clone());
                return Err(Deny::AccessGone { target, access });
            };
            let way = Way::begin(Arc::clone(&target), self.access.now());
            let arrival = arrival(&visitor);
            let live = live::begin(&self.access, &permit, &arrival).await?;
            Ok((live, target, login, way))
        };
        match begun.await {
            Ok((live, target, login, way)) => {
                self.carry(visitor, live, (target, login, way), channel).await;
            }
            Err(deny) => {
                self.record_refusal(&visitor, &deny).await;
                if let Some((channel, _)) = channel {
                    let (_, to) = channel.into_halves();
                    super::goodbye::tell(&to, &deny.to_string(), true, CUT_STATUS).await;
                }
                visitor.exit.leave(Some(&deny.to_string())).await;
            }
        }
    }

    async fn carry(
        &self,
        visitor: Visitor,
        live: LiveConnection,
        (target, login, way): (Arc<SshTarget>, String, Way),
        first: Option<(ClientChannel, Prelude)>,
    ) {
        let Visitor { mut arrivals, mut exit, .. } = visitor;
        let carrier = Arc::new(Carrier::new(Parts {
            access: Arc::clone(&self.access),
            settings: Arc::clone(&self.settings),
            permit: live.current_permit().clone(),
            recorder: live.recorder().clone(),
            target,
            login,
            client: exit.handle.clone(),
            way,
            partings: Arc::clone(&self.partings),
        }));
        let reason = conversation(&carrier, &live, &mut arrivals, &mut exit.running, first).await;
        // From here on nothing of the client's goes to the target any more; why, before the target's
        // side is closed: a channel that only saw that would not tell.
        let parting = self.partings.begin();
        carrier.ending.begin(reason.clone());
        carrier.tasks.close();
        carrier.telling.close();
        let why = (reason != EndReason::ClientClosed).then(|| reason.to_string());
        let leaving = exit.leave_after(carrier.telling.wait(), why.as_deref());
        let leaving = async {
            beside(leaving, &mut arrivals, why.as_deref().unwrap_or_default()).await;
            drop(parting);
            carrier.left.cancel();
        };
        tokio::join!(hang_up(&carrier), leaving);
        if tokio::time::timeout(END_WITHIN, carrier.tasks.wait()).await.is_err() {
            tracing::warn!(connection = %live.id(), "some channels did not end in time");
        }
        let totals = carrier.totals();
        live.finish(reason, totals).await;
    }
}

/// Gives the channels time to end what runs on the target, and closes every connection to it.
async fn hang_up(carrier: &Carrier) {
    carrier.client_first().await;
    let _does_not_answer = tokio::time::timeout(HANG_UP_WITHIN, carrier.tasks.wait()).await;
    let _takes_its_time = tokio::time::timeout(HANG_UP_WITHIN, carrier.way.close()).await;
}

/// Answers what the client still opens, so that nothing of it keeps a goodbye from it.
async fn beside(leaving: impl Future<Output = ()>, arrivals: &mut boxed::Receiver<Arrival>, why: &str) {
    tokio::pin!(leaving);
    loop {
        let arrived = tokio::select! {
            () = &mut leaving => return,
            arrived = arrivals.recv() => arrived,
        };
        let answer = async {
            match arrived {
                Some(Arrival::Opened(Opening::Session, channel, reply)) => {
                    reply.accept().await;
                    super::goodbye::tell(&channel.to, why, false, CUT_STATUS).await;
                }
                Some(Arrival::Opened(_, _, reply)) => reply.prohibit(why.to_owned()).await,
                // Dropped answers refuse.
                Some(_) => {}
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut leaving => return,
            () = answer => {}
        }
    }
}

/// Phase 4: until something ends.
async fn conversation(
    carrier: &Arc<Carrier>,
    live: &LiveConnection,
    arrivals: &mut boxed::Receiver<Arrival>,
    running: &mut Running,
    first: Option<(ClientChannel, Prelude)>,
) -> EndReason {
    let mut stop = live.stop_signal();
    let channels = Channels::new(carrier);
    if let Some((channel, prelude)) = first {
        channels.serve_session(channel, None, prelude).await;
    }
    let idle = carrier.idle(carrier.settings.idle_timeout);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            biased;
            reason = stop.stopped() => return reason,
            reason = carrier.ending.begun() => return reason,
            broken = carrier.access.journal.failed() => return unrecordable(&broken),
            _ = running.ended() => return EndReason::ClientClosed,
            () = &mut idle => return EndReason::Idle,
            arrived = arrivals.recv() => match arrived {
                Some(arrival) => tokio::select! {
                    biased;
                    reason = stop.stopped() => return reason,
                    () = channels.take(arrival) => {}
                },
                None => return EndReason::ClientClosed,
            },
        }
    }
}

fn unrecordable(error: &Unrecordable) -> EndReason {
    EndReason::Unrecordable { detail: error.to_string() }
}

fn arrival(visitor: &Visitor) -> live::Arrival {
    let (client, ssh) = (visitor.client, Some(visitor.leg()));
    live::Arrival { client, application: None, database: None, tls: None, ssh }
}
