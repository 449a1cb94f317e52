//! One connection's recording, as the gateway holds it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Unrecordable;
use super::backlog::StreamRule;
use super::chain::RecordingChain;
use super::encode::{self, ENVELOPE, Effect, Encoded, Fields, Record, Stamp};
use super::journal::{Handle, Room};
use super::queue::{Job, Task};
use super::record::{Body, Totals};
use super::tell::Done;
use crate::domain::deny::EndReason;
use crate::domain::id::ConnectionId;

/// Records what one connection does. Clones record into the same recording; the order in which
/// their calls are made is the order of the log.
///
/// When the last clone is dropped without [`Recorder::end`], the recording is ended as
/// [`EndReason::Internal`].
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    recording: ConnectionId,
    /// As it stands in every record.
    context: Arc<[u8]>,
    journal: Arc<Handle>,
    /// What its environment asks of the stream.
    stream: Option<StreamRule>,
    /// Held while something is queued: what is queued is in the order of its numbers, and nothing follows the end.
    turn: Mutex<Turn>,
    /// What a call that did not wait could not record.
    failed: OnceLock<Unrecordable>,
}

#[derive(Debug)]
struct Turn {
    /// Of what has been queued.
    chain: RecordingChain,
    ended: bool,
}

impl Recorder {
    /// Of a recording that [`Self::begin`] begins.
    pub(super) fn new(
        recording: ConnectionId,
        context: Arc<[u8]>,
        journal: Arc<Handle>,
        stream: Option<StreamRule>,
    ) -> Self {
        // Nor is it ended before it has begun.
        let turn = Mutex::new(Turn { chain: RecordingChain::start(recording.as_str()), ended: true });
        let shared = Shared { recording, context, journal, stream, turn, failed: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Records the recording's first record; gives how many records are durable on return. Dropped after its first poll,
    /// it may be recorded.
    pub(super) async fn begin(&self, fields: Fields) -> Result<u64, Unrecordable> {
        let body = Encoded { fields, effect: Effect::None };
        let journal = &self.shared.journal;
        let room = journal.room(self.shared.size(std::slice::from_ref(&body))).await?;
        let (done, waiting) = journal.done();
        self.shared.begin(&body, room, done)?;
        drop(body);
        // Refused, it may be another's.
        journal.wait(waiting).await.inspect_err(|_| self.shared.turn().ended = true)
    }

    /// Ends a recording that began and cannot go on.
    pub(super) fn give_up(self, why: &Unrecordable) {
        let reason = EndReason::Unrecordable { detail: why.to_string() };
        // Fails when it has ended, or when nothing can be recorded any more.
        let _ = self.shared.finish(reason, None, None);
    }

    pub fn connection(&self) -> &ConnectionId {
        &self.shared.recording
    }

    /// Records all of `bodies`, in order, with one wait; they are durable on return, and confirmed by the
    /// stream where the environment asks for it.
    ///
    /// Not cancel-safe in one sense: when dropped after its first poll, the bodies may or may not be
    /// recorded. They are never recorded in part.
    pub async fn record(&self, bodies: &[Body]) -> Result<(), Unrecordable> {
        let bodies = self.encode(bodies)?;
        let journal = &self.shared.journal;
        let room = journal.room(self.shared.size(&bodies)).await?;
        let (done, waiting) = journal.done();
        self.shared.queue(bodies, room, Some(done))?;
        let records = journal.wait(waiting).await?;
        journal.confirmed(records, self.shared.stream.as_ref()).await
    }

    /// Queues `body` behind what was recorded before and does not wait for it. Never dropped
    /// silently: when the queue is full, this and every later call on this recording fails.
    /// Prefer [`Recorder::note_wait`].
    pub fn note(&self, body: Body) -> Result<(), Unrecordable> {
        let bodies = self.encode(&[body])?;
        let room = self.shared.journal.try_room(self.shared.size(&bodies));
        room.and_then(|room| self.shared.queue(bodies, room, None)).inspect_err(|why| {
            let _ = self.shared.failed.set(why.clone());
        })
    }

    /// Queues all of `bodies`, in order, behind what was recorded before. Waits only for room in the queue, not for the
    /// disk; should the disk fail later, the next call says so. Cancel-safe: dropped before it
    /// returns, nothing was queued.
    pub async fn note_wait(&self, bodies: &[Body]) -> Result<(), Unrecordable> {
        let bodies = self.encode(bodies)?;
        let room = self.shared.journal.room(self.shared.size(&bodies)).await?;
        self.shared.queue(bodies, room, None)
    }

    /// Writes the recording's last record; durable on return. Statements that have no result get
    /// the outcome `unknown`. A recording that has ended already stays as it is.
    pub async fn end(self, reason: EndReason, totals: Totals) -> Result<(), Unrecordable> {
        let (done, waiting) = self.shared.journal.done();
        self.shared.finish(reason, Some(totals), Some(done))?;
        self.shared.journal.wait(waiting).await.map(drop)
    }

    /// What the journal knows the recording by.
    #[cfg(test)]
    pub(super) fn context(&self) -> Arc<[u8]> {
        self.shared.context.clone()
    }

    /// Leaves the recording open, as a crash does.
    #[cfg(test)]
    pub(super) fn forget(self) {
        self.shared.turn().ended = true;
    }

    fn encode(&self, bodies: &[Body]) -> Result<Vec<Encoded>, Unrecordable> {
        if let Some(why) = self.shared.failed.get() {
            return Err(why.clone());
        }
        self.shared.journal.within(self.shared.stream.as_ref())?;
        Ok(encode::bodies(bodies))
    }
}

impl Shared {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        // It changes as a whole, once the queue has what it tells of.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the records of `bodies` take of the queue.
    fn size(&self, bodies: &[Encoded]) -> usize {
        bodies.iter().map(|body| ENVELOPE + self.context.len() + body.fields.len()).sum()
    }

    /// Puts the records together here, and not on the writer's thread, for which all connections wait.
    fn queue(&self, bodies: Vec<Encoded>, room: Room, done: Option<Done>) -> Result<(), Unrecordable> {
        let mut turn = self.turn();
        if turn.ended {
            return Err(Unrecordable::Ended);
        }
        let (stamp, mut chain) = (self.journal.stamp(), turn.chain.clone());
        let mut records = bodies.into_iter().map(|body| self.put_together(&mut chain, &body, stamp));
        let (first, rest) = (records.next(), records.collect());
        let (recording, context) = (self.recording.clone(), self.context.clone());
        let task = Task::Record { recording, context, first, rest };
        self.journal.push_or_help(Job { task, stamp, done, room: Some(room) })?;
        turn.chain = chain;
        Ok(())
    }

    fn begin(&self, body: &Encoded, room: Room, done: Done) -> Result<(), Unrecordable> {
        let mut turn = self.turn();
        let (stamp, mut chain) = (self.journal.stamp(), turn.chain.clone());
        let record = self.put_together(&mut chain, body, stamp);
        let task = Task::Begin { recording: self.recording.clone(), context: self.context.clone(), record };
        self.journal.push_or_help(Job { task, stamp, done: Some(done), room: Some(room) })?;
        *turn = Turn { chain, ended: false };
        Ok(())
    }

    fn put_together(&self, chain: &mut RecordingChain, body: &Encoded, stamp: Stamp) -> Record {
        let (buffer, place) = (self.journal.spares.take(), (self.recording.as_str(), &*chain));
        let record = encode::record(buffer, place, stamp, self.journal.node(), &self.context, body);
        *chain = record.chain.clone();
        record
    }

    fn finish(
        &self,
        reason: EndReason,
        totals: Option<Totals>,
        done: Option<Done>,
    ) -> Result<(), Unrecordable> {
        let mut turn = self.turn();
        if turn.ended {
            return Err(Unrecordable::Ended);
        }
        let (recording, context) = (self.recording.clone(), self.context.clone());
        let task = Task::End { recording, context, reason, totals };
        self.journal.push_or_help(Job { task, stamp: self.journal.stamp(), done, room: None })?;
        turn.ended = true;
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Fails when it has ended, or when the journal is closed or broken: recovery ends the recording then.
        let _ = self.finish(EndReason::Internal, None, None);
    }
}
