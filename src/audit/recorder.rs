//! One connection's recording, as the gateway holds it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Unrecordable;
use super::backlog::StreamRule;
use super::encode::{self, Encoded};
use super::journal::{Handle, Room};
use super::queue::Task;
use super::record::{Body, Totals};
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
    journal: Arc<Handle>,
    /// What its environment asks of the stream.
    stream: Option<StreamRule>,
    /// Set under the queue's lock, so that nothing is queued after the end.
    ended: AtomicBool,
    /// What a call that did not wait could not record.
    failed: OnceLock<Unrecordable>,
}

impl Recorder {
    pub(super) fn new(recording: ConnectionId, journal: Arc<Handle>, stream: Option<StreamRule>) -> Self {
        let (ended, failed) = (AtomicBool::new(false), OnceLock::new());
        let shared = Shared { recording, journal, stream, ended, failed };
        Self { shared: Arc::new(shared) }
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
        let room = self.shared.journal.room(size(&bodies)).await?;
        let journal = &self.shared.journal;
        let records = journal.push_and_wait(Some(room), || self.shared.task(bodies)).await?;
        journal.confirmed(records, self.shared.stream.as_ref()).await
    }

    /// Queues `body` behind what was recorded before and does not wait for it. Never dropped
    /// silently: when the queue is full, this and every later call on this recording fails.
    /// Prefer [`Recorder::note_wait`].
    pub fn note(&self, body: Body) -> Result<(), Unrecordable> {
        let bodies = self.encode(&[body])?;
        let queued = self.shared.journal.try_room(size(&bodies));
        queued.and_then(|room| self.shared.queue(bodies, room)).inspect_err(|why| {
            let _ = self.shared.failed.set(why.clone());
        })
    }

    /// Queues `body` behind what was recorded before. Waits only for room in the queue, not for the
    /// disk; should the disk fail later, the next call says so. Cancel-safe: dropped before it
    /// returns, nothing was queued.
    pub async fn note_wait(&self, body: Body) -> Result<(), Unrecordable> {
        let bodies = self.encode(&[body])?;
        let room = self.shared.journal.room(size(&bodies)).await?;
        self.shared.queue(bodies, room)
    }

    /// Writes the recording's last record; durable on return. Statements that have no result get
    /// the outcome `unknown`. A recording that has ended already stays as it is.
    pub async fn end(self, reason: EndReason, totals: Totals) -> Result<(), Unrecordable> {
        let task = || self.shared.finish(reason, Some(totals));
        self.shared.journal.push_and_wait(None, task).await.map(drop)
    }

    /// Leaves a recording alone that did not begin.
    pub(super) fn forget(self) {
        self.shared.ended.store(true, Ordering::Release);
    }

    fn encode(&self, bodies: &[Body]) -> Result<Vec<Encoded>, Unrecordable> {
        if let Some(why) = self.shared.failed.get() {
            return Err(why.clone());
        }
        self.shared.journal.within(self.shared.stream.as_ref())?;
        Ok(encode::bodies(bodies))
    }
}

fn size(bodies: &[Encoded]) -> usize {
    bodies.iter().map(|body| body.fields.len()).sum()
}

impl Shared {
    fn queue(&self, bodies: Vec<Encoded>, room: Room) -> Result<(), Unrecordable> {
        self.journal.push(Some(room), None, || self.task(bodies))
    }

    fn task(&self, bodies: Vec<Encoded>) -> Result<Task, Unrecordable> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Unrecordable::Ended);
        }
        Ok(Task::Record { recording: self.recording.clone(), bodies })
    }

    fn finish(&self, reason: EndReason, totals: Option<Totals>) -> Result<Task, Unrecordable> {
        if self.ended.swap(true, Ordering::AcqRel) {
            return Err(Unrecordable::Ended);
        }
        Ok(Task::End { recording: self.recording.clone(), reason, totals })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Acquire) {
            // Fails only when the journal is closed or broken; recovery ends the recording then.
            let _ = self.journal.push(None, None, || self.finish(EndReason::Internal, None));
        }
    }
}
