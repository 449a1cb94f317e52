//! What waits to be written: many async callers on one side, the writer's thread on the other.
//!
//! The queue is bounded by the bytes it holds. When it is full, callers wait for room (the
//! connection they serve stands still: back-pressure), so that memory stays bounded whatever the
//! disk does. Order in the queue is the order of the log.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Unrecordable;
use super::chain::Log;
use super::encode::{Effect, Fields, Stamp};
use super::files::Place;
use super::record::Totals;
use crate::domain::deny::EndReason;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// Told how many records are durable then, those of the job among them.
pub(super) type Done = oneshot::Sender<Result<u64, Unrecordable>>;

/// One thing for the writer to do.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) stamp: Stamp,
    /// Told once the job is durable, or failed.
    pub(super) done: Option<Done>,
    /// The job's share of the queue's bytes, given back when it is written.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum Task {
    Begin {
        recording: ConnectionId,
        context: Arc<[u8]>,
        fields: Fields,
    },
    Record {
        recording: ConnectionId,
        bodies: Vec<(Fields, Effect)>,
    },
    End {
        recording: ConnectionId,
        reason: EndReason,
        totals: Option<Totals>,
    },
    Control {
        events: Vec<(Timestamp, Fields)>,
    },
    /// Tell where the log stands, once all of it is durable.
    Head(oneshot::Sender<Head>),
    /// Keep a checkpoint over the first `size` records.
    Checkpoint {
        size: u64,
        note: String,
    },
    Close,
}

/// Where the log stands.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) log: Log,
    /// Where the next line begins, or the next file does.
    pub(super) place: Place,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Why nothing is taken any more.
    shut: Option<Unrecordable>,
}

/// What a look at the queue gave.
#[derive(Debug)]
pub(super) enum Taken {
    /// All that waited.
    Jobs(VecDeque<Job>),
    /// Nothing came in time.
    Nothing,
    /// The queue is shut and empty.
    Shut,
}

impl State {
    fn taken(&mut self) -> Taken {
        if !self.jobs.is_empty() {
            return Taken::Jobs(std::mem::take(&mut self.jobs));
        }
        if self.shut.is_some() { Taken::Shut } else { Taken::Nothing }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the job that `make` gives. `make` runs under the queue's lock, so that what it reads
    /// (the clock) is in the queue's order.
    pub(super) fn push(&self, make: impl FnOnce() -> Result<Job, Unrecordable>) -> Result<(), Unrecordable> {
        let mut state = self.lock();
        if let Some(why) = &state.shut {
            return Err(why.clone());
        }
        state.jobs.push_back(make()?);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes all there are.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        while state.jobs.is_empty() && state.shut.is_none() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken()
    }

    /// As [`Self::take`], until `due` at the latest.
    pub(super) fn take_until(&self, due: Instant) -> Taken {
        let time = due.saturating_duration_since(Instant::now());
        let empty = |state: &mut State| state.jobs.is_empty() && state.shut.is_none();
        let waited = self.filled.wait_timeout_while(self.lock(), time, empty);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.taken()
    }

    /// Takes nothing more; gives what was not yet taken.
    pub(super) fn shut(&self, why: Unrecordable) -> VecDeque<Job> {
        let mut state = self.lock();
        state.shut.get_or_insert(why);
        drop(state);
        self.filled.notify_all();
        std::mem::take(&mut self.lock().jobs)
    }
}
