//! How far the stream is behind the journal, and what follows from it: the writer says what is durable, the
//! shipper what the stream confirmed, and a recording goes on only while both are within its environment's bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Unrecordable;
use crate::clock::Clock;
use crate::domain::target::Environment;
use crate::domain::time::{Timestamp, humane};

/// A place in the node's log, counted from its first record.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Mark {
    /// Records before it.
    pub records: u64,
    /// Bytes of their lines.
    pub bytes: u64,
}

/// How far behind the stream may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub bytes: u64,
    pub age: Duration,
}

/// What is asked of the stream for one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRule {
    /// Past them nothing is recorded any more, so nothing is done.
    pub limit: Bounds,
    /// A record counts as recorded only once the stream has confirmed it.
    pub confirmed: bool,
}

/// The rules by environment; none where nothing is streamed.
pub type StreamRules = BTreeMap<Environment, StreamRule>;

/// What is not yet confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    pub records: u64,
    pub bytes: u64,
    /// How long the oldest of it has been durable.
    pub age: Duration,
}

impl Behind {
    pub fn is_past(&self, bounds: &Bounds) -> bool {
        self.bytes > bounds.bytes || self.age > bounds.age
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records ({} KiB) behind for {}", self.records, self.bytes >> 10, humane(self.age))
    }
}

/// Shared by the writer, the shipper and the recordings.
#[derive(Debug)]
pub struct Backlog {
    clock: Clock,
    state: Mutex<State>,
    durable: watch::Sender<Durable>,
    confirmed: watch::Sender<u64>,
}

/// What the writer made durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) mark: Mark,
    /// Grows with every checkpoint that was signed.
    pub(super) checkpoints: u64,
}

#[derive(Debug, Default)]
struct State {
    confirmed: Mark,
    /// As [`Durable::checkpoints`], of those that the stream has.
    checkpoints: u64,
    /// When the oldest record that is not confirmed was written; none when all are confirmed.
    oldest: Option<Timestamp>,
}

impl Backlog {
    /// Of a journal that holds everything up to `mark`. Until a shipper says otherwise, all of it is confirmed.
    pub(super) fn new(clock: Clock, mark: Mark) -> Arc<Self> {
        let durable = Durable { mark, checkpoints: 0 };
        Arc::new(Self {
            clock,
            state: Mutex::new(State { confirmed: mark, checkpoints: 0, oldest: None }),
            durable: watch::Sender::new(durable),
            confirmed: watch::Sender::new(mark.records),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before `mark` is on the disk.
    pub(super) fn made_durable(&self, mark: Mark) {
        let mut state = self.lock();
        if state.oldest.is_none() && mark.records > state.confirmed.records {
            state.oldest = Some(self.clock.now());
        }
        self.durable.send_if_modified(|durable| std::mem::replace(&mut durable.mark, mark) != mark);
    }

    pub(super) fn signed_checkpoint(&self) {
        self.durable.send_modify(|durable| durable.checkpoints = durable.checkpoints.wrapping_add(1));
    }

    pub(super) fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// The stream has everything before `mark`; the next record was written at `oldest`, if it is known.
    pub(super) fn confirm(&self, mark: Mark, oldest: Option<Timestamp>) {
        let mut state = self.lock();
        state.confirmed = mark;
        let all = mark.records >= self.durable.borrow().mark.records;
        state.oldest = if all { None } else { oldest.or(state.oldest).or(Some(self.clock.now())) };
        drop(state);
        self.confirmed.send_replace(mark.records);
    }

    /// The stream has all that there is, and the checkpoints up to number `checkpoints`.
    pub(super) fn confirm_checkpoints(&self, checkpoints: u64) {
        self.lock().checkpoints = checkpoints;
    }

    /// Whether the stream has everything, the newest checkpoint as well.
    pub fn is_settled(&self) -> bool {
        let (state, durable) = (self.lock(), *self.durable.borrow());
        state.confirmed.records >= durable.mark.records && state.checkpoints == durable.checkpoints
    }

    /// What the stream does not have yet.
    pub fn behind(&self) -> Behind {
        let state = self.lock();
        let durable = self.durable.borrow().mark;
        Behind {
            records: durable.records.saturating_sub(state.confirmed.records),
            bytes: durable.bytes.saturating_sub(state.confirmed.bytes),
            age: state.oldest.map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest)),
        }
    }

    /// Whether a recording under `rule` may go on.
    pub(super) fn within(&self, rule: &StreamRule) -> Result<(), Unrecordable> {
        let behind = self.behind();
        if behind.is_past(&rule.limit) { Err(Unrecordable::Behind { behind }) } else { Ok(()) }
    }

    /// Returns once the first `records` are confirmed; fails when `rule`'s bounds are passed before.
    pub(super) async fn until_confirmed(&self, records: u64, rule: &StreamRule) -> Result<(), Unrecordable> {
        let mut confirmed = self.confirmed.subscribe();
        loop {
            if *confirmed.borrow_and_update() >= records {
                return Ok(());
            }
            self.within(rule)?;
            // No later than the oldest is too old.
            let left =
                rule.limit.age.saturating_sub(self.behind().age).saturating_add(Duration::from_micros(1));
            tokio::select! {
                changed = confirmed.changed() => if changed.is_err() {
                    return Err(Unrecordable::Closed);
                },
                () = self.clock.sleep(left) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(records: u64) -> Mark {
        Mark { records, bytes: records * 100 }
    }

    fn backlog() -> (Clock, Arc<Backlog>) {
        let clock = Clock::manual(Timestamp::from_micros(0));
        (clock.clone(), Backlog::new(clock, mark(10)))
    }

    const RULE: StreamRule =
        StreamRule { limit: Bounds { bytes: 500, age: Duration::from_mins(1) }, confirmed: true };

    #[test]
    fn what_is_not_confirmed_has_a_size_and_an_age() {
        let (clock, backlog) = backlog();
        assert_eq!(backlog.behind(), Behind::default());
        backlog.made_durable(mark(12));
        clock.advance(Duration::from_mins(1));
        assert!(backlog.within(&RULE).is_ok());
        let behind = Behind { records: 2, bytes: 200, age: Duration::from_mins(1) };
        assert_eq!(backlog.behind(), behind);
        clock.advance(Duration::from_micros(1));
        assert!(backlog.within(&RULE).is_err(), "too old");
        backlog.confirm(mark(12), None);
        assert_eq!(backlog.behind(), Behind::default());
        backlog.made_durable(mark(17));
        assert!(backlog.within(&RULE).is_ok());
        backlog.made_durable(mark(18));
        assert!(backlog.within(&RULE).is_err(), "too much");
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_confirmation_or_of_the_bound() {
        let (clock, backlog) = backlog();
        backlog.made_durable(mark(11));
        let tasks = tokio_util::task::TaskTracker::new();
        let waiter = |records| {
            let backlog = backlog.clone();
            tasks.spawn(async move { backlog.until_confirmed(records, &RULE).await })
        };
        let (first, second) = (waiter(11), waiter(12));
        tokio::task::yield_now().await;
        backlog.made_durable(mark(12));
        backlog.confirm(mark(11), Some(clock.now()));
        assert_eq!(first.await.unwrap(), Ok(()));
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(61));
        assert!(matches!(second.await.unwrap(), Err(Unrecordable::Behind { .. })));
    }
}
