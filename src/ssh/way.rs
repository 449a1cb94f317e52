//! A client's connections to its target, as far as they tell the target nothing: met ahead, and idle
//! between two forwards.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::client::{self, DialError, Met, Upstream};
use crate::config::SshTarget;
use crate::domain::time::Timestamp;

/// How long a target that was met ahead waits for a channel: it counts us among its strangers.
const AHEAD_FOR: Duration = Duration::from_secs(5);

/// A client's connections to its target.
#[derive(Debug)]
pub(super) struct Way {
    target: Arc<SshTarget>,
    /// Closes all of them.
    pub cut: CancellationToken,
    /// For the first channel.
    ahead: Mutex<Option<Ahead>>,
    meetings: TaskTracker,
    /// Upstream connections that carry no channel at the moment.
    idle: Mutex<Vec<Upstream>>,
}

/// A target that is being met.
#[derive(Debug)]
pub(super) struct Meeting {
    /// The outer `None`: nobody took it in time.
    met: AbortOnDropHandle<Option<Result<Met, DialError>>>,
    from: watch::Receiver<Option<IpAddr>>,
}

impl Meeting {
    /// The address that we come from, once that is known; none where there is no connection.
    pub(super) async fn from(&mut self) -> Option<IpAddr> {
        // An error: the other end is gone and has not said.
        self.from.wait_for(Option::is_some).await.ok().and_then(|from| *from)
    }
}

#[derive(Debug)]
struct Ahead {
    meeting: Meeting,
    taken: CancellationToken,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    /// Begins to meet the target. `now` is what its certificate is judged by. To be called on the thread
    /// that carries the client's connection.
    pub(super) fn begin(target: Arc<SshTarget>, now: Timestamp) -> Self {
        let (cut, meetings) = (CancellationToken::new(), TaskTracker::new());
        let way = Self { target, cut, ahead: Mutex::default(), meetings, idle: Mutex::default() };
        let taken = CancellationToken::new();
        let meeting = way.meet(now, Some(taken.clone()));
        *held(&way.ahead) = Some(Ahead { meeting, taken });
        way
    }

    /// A target that is met, or about to be.
    pub(super) fn meeting(&self, now: Timestamp) -> Meeting {
        match held(&self.ahead).take() {
            Some(Ahead { meeting, taken }) => {
                taken.cancel();
                meeting
            }
            None => self.meet(now, None),
        }
    }

    pub(super) async fn met(&self, meeting: Meeting, now: Timestamp) -> Result<Met, DialError> {
        match meeting.met.await {
            Ok(Some(Ok(met))) if !met.is_closed() => Ok(met),
            Ok(Some(Err(error))) => Err(error),
            // It had waited too long, here or there.
            _ => client::meet(&self.target, now, &self.cut, watch::Sender::default()).await,
        }
    }

    /// A connection that carries no channel, if there is one.
    pub(super) fn idle(&self) -> Option<Upstream> {
        held(&self.idle).pop().filter(|upstream| !upstream.is_closed())
    }

    /// Keeps a connection for the next forward, beside at most `most` others.
    pub(super) fn give_back(&self, upstream: Upstream, most: usize) {
        let mut idle = held(&self.idle);
        if idle.len() < most && !upstream.is_closed() {
            idle.push(upstream);
        }
    }

    /// Closes everything. Nothing is left of what was being met.
    pub(super) async fn close(&self) {
        drop(held(&self.ahead).take());
        self.cut.cancel();
        self.meetings.close();
        self.meetings.wait().await;
    }

    /// With `taken`, gives up what nobody takes in time.
    fn meet(&self, now: Timestamp, taken: Option<CancellationToken>) -> Meeting {
        let (target, cut) = (Arc::clone(&self.target), self.cut.clone());
        let (said, from) = watch::channel(None);
        let met = self.meetings.spawn(async move {
            let met = client::meet(&target, now, &cut, said).await;
            match taken {
                Some(taken) => tokio::time::timeout(AHEAD_FOR, taken.cancelled()).await.ok().map(|()| met),
                None => Some(met),
            }
        });
        Meeting { met: AbortOnDropHandle::new(met), from }
    }
}
