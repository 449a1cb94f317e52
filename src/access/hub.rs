//! What is live on this node: every connection is registered here while it carries bytes, and this
//! is the one place that ends them, whatever the reason.
//!
//! A connection registers *before* its right is checked for the last time, so that no revocation
//! falls in between. Ending is a level, not an edge: the reason stays set, and whoever looks at it
//! later sees it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::id::{ConnectionId, PrincipalId, SessionId};
use crate::domain::name::TargetName;
use crate::domain::session::Permit;
use crate::domain::time::Timestamp;

/// How long [`Hub::end`] waits for a connection that was told to end.
const END_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Default)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    live: Mutex<HashMap<ConnectionId, Entry>>,
    /// Sessions with live connections, of which one was for replication: what they connect as may replicate.
    replicating: Mutex<HashSet<SessionId>>,
    /// Raised when a connection registers, so that the deadline timer looks again.
    registered: Notify,
    /// Set once the node stops: what registers after that is not let in.
    closed: AtomicBool,
}

struct Entry {
    live: Live,
    permit: CurrentPermit,
    stop: watch::Sender<Option<EndReason>>,
    done: watch::Receiver<bool>,
}

/// What one is told of a live connection.
#[derive(Debug, Clone)]
pub struct Live {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub principal: PrincipalId,
    pub target: TargetName,
    pub ends_at: Timestamp,
}

/// A connection's permit as it was last confirmed: who somebody is, their groups above all, may change
/// while it lives.
#[derive(Debug, Clone)]
pub struct CurrentPermit(Arc<ArcSwap<Permit>>);

impl CurrentPermit {
    pub fn get(&self) -> Arc<Permit> {
        self.0.load_full()
    }
}

/// One connection that was told to end.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    pub connection: ConnectionId,
    /// Whether it was over when the call returned.
    pub ended: bool,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("live", &self.count()).finish()
    }
}

impl Hub {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<ConnectionId, Entry>> {
        // A panic while the map was held cannot leave it half-changed: each use is one map call.
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replicating(&self) -> std::sync::MutexGuard<'_, HashSet<SessionId>> {
        self.inner.replicating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what the session's live connections connect as was let replicate.
    pub fn has_replicated(&self, session: &SessionId) -> bool {
        self.replicating().contains(session)
    }

    /// Enters a connection. It counts as live until the registration is dropped.
    pub fn register(&self, connection: ConnectionId, permit: &Permit) -> Registration {
        let (stop, stopped) = watch::channel(None);
        let (done, over) = watch::channel(false);
        let live = Live {
            connection: connection.clone(),
            session: permit.session().id.clone(),
            principal: permit.principal().id.clone(),
            target: permit.target().name.clone(),
            ends_at: permit.ends_at(),
        };
        let permit = CurrentPermit(Arc::new(ArcSwap::from_pointee(permit.clone())));
        let entry = Entry { live, permit: permit.clone(), stop, done: over };
        self.entries().insert(connection.clone(), entry);
        self.inner.registered.notify_waiters();
        Registration { hub: self.clone(), connection, permit, stopped, done }
    }

    /// Has the live connections of the permit's session be judged by it from here on.
    pub fn renew(&self, permit: Permit) {
        let permit = Arc::new(permit);
        for entry in self.entries().values().filter(|entry| entry.live.session == permit.session().id) {
            entry.permit.0.store(Arc::clone(&permit));
        }
    }

    /// Lets nothing new in. What registered before is counted from here on; what registers after
    /// finds the hub closed.
    pub fn close(&self) {
        let _entries = self.entries();
        self.inner.closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    pub fn count(&self) -> usize {
        self.entries().len()
    }

    pub fn live(&self) -> Vec<Live> {
        self.entries().values().map(|entry| entry.live.clone()).collect()
    }

    pub fn is_live(&self, connection: &ConnectionId) -> bool {
        self.entries().contains_key(connection)
    }

    /// Whether a connection of the session is live.
    pub fn is_connected(&self, session: &SessionId) -> bool {
        self.entries().values().any(|entry| entry.live.session == *session)
    }

    /// Tells every connection that `which` picks to end, and returns at once.
    pub fn tell(
        &self,
        which: impl Fn(&Live) -> bool,
        reason: &EndReason,
    ) -> Vec<(ConnectionId, watch::Receiver<bool>)> {
        self.entries()
            .values()
            .filter(|entry| which(&entry.live))
            .map(|entry| {
                // The first reason stays: it is what really ended the connection.
                entry.stop.send_if_modified(|stop| {
                    let first = stop.is_none();
                    if first {
                        *stop = Some(reason.clone());
                    }
                    first
                });
                (entry.live.connection.clone(), entry.done.clone())
            })
            .collect()
    }

    /// Ends every connection that `which` picks, and waits until they are over (5 s at most).
    pub async fn end(&self, which: impl Fn(&Live) -> bool, reason: EndReason) -> Vec<Cut> {
        let told = self.tell(which, &reason);
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        let mut cuts = Vec::with_capacity(told.len());
        for (connection, mut done) in told {
            // An error means that the registration is gone without having said so: over as well.
            let ended = tokio::time::timeout_at(deadline, done.wait_for(|done| *done)).await.is_ok();
            cuts.push(Cut { connection, ended });
        }
        cuts
    }

    /// Ends connections as their sessions' time runs out; runs until dropped.
    pub async fn enforce_deadlines(&self, clock: &Clock) {
        loop {
            let registered = self.inner.registered.notified();
            tokio::pin!(registered);
            // Enabled before the look, so that a registration in between wakes us.
            registered.as_mut().enable();
            let now = clock.now();
            self.tell(|live| live.ends_at <= now, &EndReason::Expired);
            let next = self.entries().values().map(|entry| entry.live.ends_at).filter(|end| *end > now).min();
            match next {
                Some(next) => tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = registered => {}
                },
                None => registered.await,
            }
        }
    }
}

/// A connection's place in the hub. Dropping it says that the connection is over.
#[derive(Debug)]
pub struct Registration {
    hub: Hub,
    connection: ConnectionId,
    permit: CurrentPermit,
    stopped: watch::Receiver<Option<EndReason>>,
    done: watch::Sender<bool>,
}

impl Registration {
    pub fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    pub fn permit(&self) -> &CurrentPermit {
        &self.permit
    }

    /// It is a connection for replication from here on.
    pub fn replicates(&self) {
        self.hub.replicating().insert(self.permit.get().session().id.clone());
    }

    /// A handle that resolves when the connection is to end.
    pub fn stop_signal(&self) -> StopSignal {
        StopSignal { stopped: self.stopped.clone() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.hub.entries();
        let gone = entries.remove(&self.connection);
        let session = gone.map(|entry| entry.live.session);
        if let Some(session) =
            session.filter(|gone| entries.values().all(|entry| entry.live.session != *gone))
        {
            self.hub.replicating().remove(&session);
        }
        drop(entries);
        self.done.send_replace(true);
    }
}

/// Tells a connection that it is to end, and why.
#[derive(Debug, Clone)]
pub struct StopSignal {
    stopped: watch::Receiver<Option<EndReason>>,
}

impl StopSignal {
    /// Resolves when the connection must end. Cancel-safe; resolves again when asked again. A hub
    /// that went away is a reason to end, not to go on.
    pub async fn stopped(&mut self) -> EndReason {
        match self.stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(EndReason::Internal),
            Err(_) => EndReason::Internal,
        }
    }

    /// The reason, if the connection must end.
    pub fn reason(&self) -> Option<EndReason> {
        self.stopped.borrow().clone()
    }
}
