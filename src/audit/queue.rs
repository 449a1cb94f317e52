//! What waits to be written: many async callers on one side, the writer's thread on the other.
//!
//! The queue is bounded by the bytes it holds. When it is full, callers wait for room (the
//! connection they serve stands still: back-pressure), so that memory stays bounded whatever the
//! disk does. Order in the queue is the order of the log.
//!
//! Who works on what is here, the writer's thread or a caller, does so alone: from [`Queue::take`] to the next, or from
//! [`Pledge::take`] to [`Queue::finished`].
//!
//! What nobody waits for is gathered, for [`GATHER`] at most: a result, an echo, is mostly followed by something
//! that somebody does wait for, and is then written with it, for one wake-up and one write.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Unrecordable;
use super::chain::Log;
use super::encode::{Fields, Record, Stamp};
use super::files::Place;
use super::record::Totals;
use super::tell::Done;
use crate::domain::deny::EndReason;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// How long the writer leaves alone what nobody waits for.
const GATHER: Duration = Duration::from_millis(2);
/// How many bytes of it, about.
const GATHER_BYTES: usize = 256 << 10;

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
        record: Record,
    },
    Record {
        recording: ConnectionId,
        context: Arc<[u8]>,
        /// Mostly the only one.
        first: Option<Record>,
        rest: Vec<Record>,
    },
    End {
        recording: ConnectionId,
        context: Arc<[u8]>,
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
    /// The jobs' share of the queue's bytes.
    bytes: usize,
    /// So many jobs somebody waits for.
    awaited: usize,
    /// The writer sleeps until there is something at all, or something to be done at once.
    sleeps: Option<Until>,
    /// Who works on what was taken.
    at_work: Worker,
    /// Whoever finds nobody at work had better do it.
    helps: bool,
    /// Nobody may undertake it any more: the thread that would is waiting for the writer's to end.
    ending: bool,
    /// Why nothing is taken any more.
    shut: Option<Unrecordable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Worker {
    #[default]
    Nobody,
    /// Somebody on that thread has undertaken to, in a moment.
    Pledged(ThreadId),
    Somebody,
}

/// What the writer sleeps for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Something,
    Urgent,
    /// So many that somebody waits for, though the writer is at work.
    More(usize),
    /// Nobody is at work.
    Free,
}

/// What the last batch tells of the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Whoever was just told comes back at about the same time: how many are waited for, and how long, once the first
    /// is there. Without this they would part in two halves, each of which waits for the other's sync.
    pub(super) again: Option<(usize, Duration)>,
    /// Whether a caller that is alone should not wake the writer's thread.
    pub(super) helps: bool,
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
    fn push(&mut self, job: Job) {
        self.bytes =
            self.bytes.saturating_add(job.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        self.awaited += usize::from(job.done.is_some() || !matches!(job.task, Task::Record { .. }));
        let takes_long =
            matches!(job.task, Task::Checkpoint { .. } | Task::Close) || self.bytes >= GATHER_BYTES;
        self.jobs.push_back(job);
        if takes_long || self.waits_for_another_thread() {
            self.give_up_pledge();
        }
    }

    /// Whether somebody on another thread than this one has undertaken the work, and it is not only that one's. It may
    /// come to it late: its thread may be at something that takes a while.
    fn waits_for_another_thread(&self) -> bool {
        let Worker::Pledged(thread) = self.at_work else { return false };
        self.awaited > 1 && thread != thread::current().id()
    }

    fn is_urgent(&self) -> bool {
        self.is_awaited_by(1)
    }

    fn is_awaited_by(&self, count: usize) -> bool {
        self.awaited >= count || self.bytes >= GATHER_BYTES || self.shut.is_some()
    }

    fn is_something(&self) -> bool {
        !self.jobs.is_empty() || self.shut.is_some()
    }

    fn has(&self, until: Until) -> bool {
        let is_there = match until {
            Until::Something => self.is_something(),
            Until::Urgent => self.is_urgent(),
            Until::More(count) => return self.is_awaited_by(count),
            Until::Free => true,
        };
        is_there && self.at_work == Worker::Nobody
    }

    fn taken(&mut self) -> Taken {
        self.at_work = Worker::Somebody;
        if !self.jobs.is_empty() {
            return Taken::Jobs(self.take_all());
        }
        if self.shut.is_some() { Taken::Shut } else { Taken::Nothing }
    }

    fn take_all(&mut self) -> VecDeque<Job> {
        (self.bytes, self.awaited) = (0, 0);
        // As many will come again.
        let next = VecDeque::with_capacity(self.jobs.len());
        std::mem::replace(&mut self.jobs, next)
    }

    fn give_up_pledge(&mut self) {
        if matches!(self.at_work, Worker::Pledged(_)) {
            self.at_work = Worker::Nobody;
        }
    }

    /// Nobody is at work any more. Who came meanwhile is not alone, and will not be soon.
    fn free(&mut self, helps: bool) {
        self.at_work = Worker::Nobody;
        self.helps = helps && self.awaited == 0;
    }

    fn is_alone(&self) -> bool {
        let is_little = self.awaited == 0 && self.bytes < GATHER_BYTES;
        self.helps && !self.ending && self.at_work == Worker::Nobody && is_little
    }
}

/// The undertaking to do the writer's work; the writer's thread does it should this be dropped.
#[derive(Debug)]
pub(super) struct Pledge(Option<Arc<Queue>>);

impl Pledge {
    /// Everything there is by now, for the caller to do and then call [`Queue::finished`]; `None` where the writer's
    /// thread does it.
    pub(super) fn take(mut self) -> Option<VecDeque<Job>> {
        let queue = self.0.take()?;
        let mut state = queue.lock();
        if !matches!(state.at_work, Worker::Pledged(_)) {
            return None;
        }
        state.at_work = Worker::Somebody;
        Some(state.take_all())
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            let mut state = queue.lock();
            state.give_up_pledge();
            queue.wake(state);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Unrecordable> {
        let mut state = self.lock();
        if let Some(why) = &state.shut {
            return Err(why.clone());
        }
        state.push(job);
        self.wake(state);
        Ok(())
    }

    /// As [`Self::push`]. Where nobody is at work or waits, the caller undertakes to do what there is in a moment: others
    /// that its thread serves may have something to add. They wait for that: it must be a task of its own. Who comes on
    /// another thread does not, and has the writer's thread do it.
    pub(super) fn push_or_pledge(self: &Arc<Self>, job: Job) -> Result<Option<Pledge>, Unrecordable> {
        let mut state = self.lock();
        if let Some(why) = &state.shut {
            return Err(why.clone());
        }
        let is_alone = state.is_alone();
        if is_alone {
            state.at_work = Worker::Pledged(thread::current().id());
        }
        state.push(job);
        if is_alone && matches!(state.at_work, Worker::Pledged(_)) {
            return Ok(Some(Pledge(Some(Arc::clone(self)))));
        }
        self.wake(state);
        Ok(None)
    }

    /// The work that was taken is done; `pace` where it goes on.
    pub(super) fn finished(&self, pace: Option<Pace>) {
        let mut state = self.lock();
        state.free(pace.is_some_and(|pace| pace.helps));
        self.wake(state);
    }

    /// A wake-up costs a system call, whether anybody sleeps or not.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakes = state.sleeps.is_some_and(|until| state.has(until));
        if wakes {
            state.sleeps = None;
        }
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// For the writer's thread, which has done what it took before: waits for jobs and takes all there are; until `due`
    /// at the latest. While there is much to do the thread is woken for what somebody waits for, and finds the rest
    /// there.
    pub(super) fn take(&self, due: Option<Instant>, helps: bool) -> Taken {
        let gathered = || Some(Instant::now() + GATHER);
        let mut state = self.lock();
        state.free(helps);
        state = self.sleep(state, Until::Urgent, gathered());
        if !state.is_something() {
            state = self.sleep(state, Until::Something, due);
            if !state.is_urgent() && state.is_something() {
                state = self.sleep(state, Until::Urgent, gathered());
            }
        }
        self.sleep(state, Until::Free, None).taken()
    }

    /// For the writer's thread, which is at work for `waiting`: what else is there that somebody waits for. While
    /// fewer than so many wait, until that instant, it sleeps until half of the others are there.
    pub(super) fn more(&self, waiting: usize, until: Option<(usize, Instant)>) -> VecDeque<Job> {
        let mut state = self.lock();
        if let Some((count, due)) = until {
            let missing = count.saturating_sub(waiting);
            if missing == 0 {
                return VecDeque::new();
            }
            state = self.sleep(state, Until::More(missing.div_ceil(2)), Some(due));
        }
        if state.awaited == 0 { VecDeque::new() } else { state.take_all() }
    }

    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Until,
        due: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        while !state.has(until) {
            state.sleeps = Some(until);
            state = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(time) => {
                    let waited = self.filled.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.sleeps = None;
        state
    }

    /// What is left is the writer's thread's.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.give_up_pledge();
        self.wake(state);
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
