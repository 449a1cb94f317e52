//! What waits to be written: many async callers on one side, the writer's thread on the other.
//!
//! The queue is bounded by the bytes it holds. When it is full, callers wait for room (the
//! connection they serve stands still: back-pressure), so that memory stays bounded whatever the
//! disk does. Order in the queue is the order of the log.
//!
//! Who works on what is here, the writer's thread or a caller's, does so alone: from [`Queue::take`] to the next, or from
//! [`Pledge::take`] until [`Queue::finished`] gives nothing more.
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
/// What the end of a recording may come to, in bytes: its last record, and one for each statement without a result.
const END_BYTES: usize = 4 << 10;

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
    /// Somebody works on what was taken.
    is_busy: bool,
    /// Threads on which somebody has undertaken to do the work in a moment, each once.
    pledges: Pledges,
    /// By whom what there is has to be done.
    whose: Whose,
    /// Who waits had better do the work on their own thread.
    helps: bool,
    /// Why nothing is taken any more.
    shut: Option<Unrecordable>,
}

/// Who has to do the work, the less choosy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Whose {
    /// Whoever comes first of those who have undertaken to; the writer's thread where nobody has.
    #[default]
    Pledged,
    /// Whoever is at work, or the writer's thread: who undertook some of it came while another was at work, and does not
    /// come again.
    Left,
    /// The writer's thread, whoever has undertaken to do it.
    Writers,
}

#[derive(Debug)]
enum Pledges {
    By(Vec<ThreadId>),
    /// Nobody may any more: the thread that would is waiting for the writer's to end.
    Over,
}

impl Default for Pledges {
    fn default() -> Self {
        Self::By(Vec::new())
    }
}

impl Pledges {
    fn is_empty(&self) -> bool {
        match self {
            Self::By(threads) => threads.is_empty(),
            Self::Over => true,
        }
    }

    /// Whether this is the thread's only one.
    fn add(&mut self, thread: ThreadId) -> bool {
        match self {
            Self::By(threads) if !threads.contains(&thread) => {
                threads.push(thread);
                true
            }
            Self::By(_) | Self::Over => false,
        }
    }

    fn remove(&mut self, thread: ThreadId) {
        if let Self::By(threads) = self {
            threads.retain(|other| *other != thread);
        }
    }
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
    /// Whether callers should do the work themselves and let the writer's thread sleep.
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
        self.awaited += usize::from(is_awaited(&job));
        if matches!(job.task, Task::End { .. }) {
            self.bytes = self.bytes.saturating_add(END_BYTES);
        }
        let takes_long = matches!(job.task, Task::Checkpoint { .. } | Task::Close);
        if takes_long || self.bytes >= GATHER_BYTES {
            self.whose = Whose::Writers;
        }
        self.jobs.push_back(job);
    }

    /// Whether somebody does it in a moment who is not the writer's thread.
    fn is_pledged(&self) -> bool {
        !self.pledges.is_empty() && self.whose == Whose::Pledged && self.can_be_helped()
    }

    /// Whether somebody may do it who is not the writer's thread.
    fn can_be_helped(&self) -> bool {
        let is_over = matches!(self.pledges, Pledges::Over);
        self.helps && self.whose < Whose::Writers && !is_over && self.shut.is_none()
    }

    /// A thread keeps its pledge no more: nobody may wait for what others have undertaken of what it leaves.
    fn leave(&mut self, thread: ThreadId) {
        self.pledges.remove(thread);
        if self.awaited > 0 {
            self.whose = self.whose.max(Whose::Left);
        }
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
            Until::Free => return !self.is_busy,
        };
        is_there && !self.is_busy && !self.is_pledged()
    }

    fn taken(&mut self) -> Taken {
        self.is_busy = true;
        if !self.jobs.is_empty() {
            return Taken::Jobs(self.take_all());
        }
        if self.shut.is_some() { Taken::Shut } else { Taken::Nothing }
    }

    fn take_all(&mut self) -> VecDeque<Job> {
        (self.bytes, self.awaited, self.whose) = (0, 0, Whose::default());
        // As many will come again.
        let next = VecDeque::with_capacity(self.jobs.len());
        std::mem::replace(&mut self.jobs, next)
    }
}

fn is_awaited(job: &Job) -> bool {
    job.done.is_some() || !matches!(job.task, Task::Record { .. })
}

/// The undertaking to do the writer's work; the writer's thread does it should this be dropped.
#[derive(Debug)]
pub(super) struct Pledge {
    queue: Arc<Queue>,
    thread: ThreadId,
    is_kept: bool,
}

impl Pledge {
    /// Everything there is by now, for the caller to do and then call [`Queue::finished`]; `None` where somebody else
    /// has done it or does.
    pub(super) fn take(mut self) -> Option<VecDeque<Job>> {
        self.is_kept = true;
        let mut state = self.queue.lock();
        if state.is_busy || !state.can_be_helped() {
            // Who is at work sees to what is left, or the writer's thread.
            state.leave(self.thread);
            self.queue.wake(state);
            return None;
        }
        state.pledges.remove(self.thread);
        if state.awaited == 0 {
            self.queue.wake(state);
            return None;
        }
        state.is_busy = true;
        Some(state.take_all())
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut state = self.queue.lock();
            state.leave(self.thread);
            self.queue.wake(state);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that hold the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the writer's thread do what somebody waits for.
    pub(super) fn push(&self, job: Job) -> Result<(), Unrecordable> {
        let mut state = self.lock();
        if let Some(why) = &state.shut {
            return Err(why.clone());
        }
        // Who has undertaken to do it may come to it late: its thread may be at something that takes a while.
        if is_awaited(&job) {
            state.whose = Whose::Writers;
        }
        state.push(job);
        self.wake(state);
        Ok(())
    }

    /// As [`Self::push`]. Where that is quicker, the caller undertakes to do what there is in a moment, once for each
    /// thread: others that it serves may have something to add. They wait for that: it must be a task of its own. Who
    /// comes on another thread undertakes the same, and need not wait for this one.
    pub(super) fn push_or_pledge(self: &Arc<Self>, job: Job) -> Result<Option<Pledge>, Unrecordable> {
        let mut state = self.lock();
        if let Some(why) = &state.shut {
            return Err(why.clone());
        }
        state.push(job);
        let thread = thread::current().id();
        // The writer's thread may be at work, and wait for what the others bring.
        let is_expected = matches!(state.sleeps, Some(Until::More(_)));
        if state.can_be_helped() && !is_expected && state.pledges.add(thread) {
            return Ok(Some(Pledge { queue: Arc::clone(self), thread, is_kept: false }));
        }
        self.wake(state);
        Ok(None)
    }

    /// The work that was taken is done; `pace` where it goes on. Gives what somebody waits for meanwhile and nobody has
    /// undertaken, if the caller `goes_on`.
    pub(super) fn finished(&self, pace: Option<Pace>, goes_on: bool) -> Option<VecDeque<Job>> {
        let mut state = self.lock();
        state.helps = pace.is_some_and(|pace| pace.helps);
        let is_nobodys = state.whose == Whose::Left || state.pledges.is_empty();
        if goes_on && state.awaited > 0 && state.can_be_helped() && is_nobodys {
            return Some(state.take_all());
        }
        state.is_busy = false;
        self.wake(state);
        None
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
        (state.is_busy, state.helps) = (false, helps);
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
        state.pledges = Pledges::Over;
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
