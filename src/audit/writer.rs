//! What owns the journal's files, and works on one thread at a time ([`super::desk`]): it writes all that waits once, syncs
//! once, and then tells everybody who waits (group commit). Records that nobody waits for are written
//! with the next that somebody waits for, or within a few milliseconds ([`super::queue`]), and synced with it, or [`SYNC_WITHIN`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::Unrecordable;
use super::backlog::{Backlog, Mark};
use super::chain::{Log, RecordingChain};
use super::encode::{self, Effect, Encoded, Fields, Record, Stamp};
use super::files::Place;
use super::line::{LONGEST_RECORD, line_length, write_line};
use super::medium::{Medium, NotAllocated};
use super::note::SigningKey;
use super::queue::{Head, Job, Pace, Task};
use super::record::{Body, Ended, Recovered, StatementEnd, StatementOutcome, Totals};
use super::spares::Spares;
use super::tell::{Done, Messengers};
use crate::crypto::{Hash, hex};
use crate::domain::deny::EndReason;
use crate::domain::id::{ConnectionId, NodeId};

/// At most this many bytes are written between two syncs, plus one record: what a crash can tear.
pub(super) const LARGEST_BATCH: usize = 4 << 20;
/// Upper bound of what a recovery may discard.
pub(super) const LARGEST_TEAR: u64 = (LARGEST_BATCH + 2 * LONGEST_RECORD) as u64;

/// How long what is written and nobody waits for may stay without a sync.
const SYNC_WITHIN: Duration = Duration::from_millis(50);

/// So small a part of a sync is waited for those who waited for the last one;
const AGAIN_SHARE: u32 = 8;
/// not longer than this,
const AGAIN_WITHIN: Duration = Duration::from_micros(500);
/// and not at all where it is less than a thread needs to sleep and wake up.
const AGAIN_AT_LEAST: Duration = Duration::from_micros(50);

/// Who waits syncs on their own thread where that takes less: a hand-over costs two wake-ups, and a thread that syncs serves
/// none of its connections meanwhile.
const HELP_BELOW: Duration = Duration::from_micros(500);
/// So many bytes are left in the file where somebody helps.
const HELP_ROOM: u64 = 1 << 20;

/// An open recording.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    pub(super) chain: RecordingChain,
    pub(super) context: Arc<[u8]>,
    /// Statements without a result so far.
    pub(super) under_way: BTreeSet<u64>,
}

/// Where the log stands: what recovery finds and the writer goes on from.
#[derive(Debug, Clone)]
pub(super) struct Position {
    pub(super) log: Log,
    /// Bytes of all lines of the log.
    pub(super) bytes: u64,
    pub(super) control: RecordingChain,
    pub(super) recordings: HashMap<ConnectionId, Recording>,
    /// Number of the current file; 0 before there is one.
    pub(super) file: u32,
    /// Where the current file's data ends.
    pub(super) offset: u64,
    /// How many bytes the current file has allocated.
    pub(super) allocated: u64,
}

impl Position {
    pub(super) fn mark(&self) -> Mark {
        Mark { records: self.log.size(), bytes: self.bytes }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) file: u64,
    pub(super) reserve: u64,
}

#[derive(Debug)]
pub(super) struct Writer<M> {
    medium: M,
    key: SigningKey,
    position: Position,
    /// How many records the newest checkpoint covers; none when there is none.
    signed: Option<u64>,
    sizes: Sizes,
    backlog: Arc<Backlog>,
    spares: Arc<Spares>,
    /// Lines not yet written; they belong at `position.offset - buffer.len()`.
    buffer: Vec<u8>,
    /// What the records in `buffer` were in.
    spent: Vec<Vec<u8>>,
    /// What has been written since the last sync.
    unsynced: Option<Unsynced>,
    /// Write into the reserve: the next file could not be allocated.
    last_gasp: bool,
    /// How many waited for the last batch, and how long its sync took.
    last: (usize, Duration),
    /// The latest instant of a record, by the clock that nobody can set: none that the writer adds is before it.
    mono: u64,
}

#[derive(Debug, Clone, Copy)]
struct Unsynced {
    bytes: usize,
    due: Instant,
}

/// Why the writer stops for ever.
#[derive(Debug)]
pub(super) struct Broken {
    detail: String,
    /// The files are whole, there is only no more room: the reserve can be used.
    pub(super) reserve_usable: bool,
}

impl Broken {
    fn io(what: &str, error: &io::Error) -> Self {
        Self { detail: format!("{what}: {error}"), reserve_usable: false }
    }

    pub(super) fn unrecordable(&self) -> Unrecordable {
        Unrecordable::Failed { detail: self.detail.as_str().into() }
    }
}

/// Jobs that are written and synced together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Who waits for it, and what becomes of their jobs if it is durable.
    pub(super) waiting: Vec<(Done, Result<(), Unrecordable>)>,
    /// The jobs' shares of the queue's bytes.
    room: Option<OwnedSemaphorePermit>,
    /// The journal is closed with it: nothing may follow.
    pub(super) closed: bool,
}

/// Why one job was not done.
enum Undone {
    /// This job alone.
    Refused(Unrecordable),
    Broken(Broken),
}

impl From<Broken> for Undone {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl<M: Medium> Writer<M> {
    pub(super) fn new(
        medium: M,
        key: SigningKey,
        (position, signed): (Position, Option<u64>),
        sizes: Sizes,
        (backlog, spares): (Arc<Backlog>, Arc<Spares>),
    ) -> Self {
        let (buffer, spent, unsynced, last_gasp) = (Vec::new(), Vec::new(), None, false);
        // Nobody helps before a sync has been measured.
        let last = (0, Duration::MAX);
        Self {
            medium,
            key,
            position,
            signed,
            sizes,
            backlog,
            spares,
            buffer,
            spent,
            unsynced,
            last_gasp,
            last,
            mono: 0,
        }
    }

    fn node(&self) -> &NodeId {
        self.key.node()
    }

    /// Makes durable what was found: a process that was killed may have written without a sync, and
    /// a checkpoint must not vouch for what a power failure can still take away.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        if self.position.file == 0 {
            return Ok(());
        }
        self.medium.sync().map_err(|error| Broken::io("cannot sync the journal", &error))
    }

    /// Writes what recovery has to say and ends the recordings that a crash left open.
    pub(super) fn recover(&mut self, recovered: &Recovered, stamp: Stamp) -> Result<(), Broken> {
        self.control(stamp, encode::recovered(recovered))?;
        for recording in &recovered.recordings {
            self.finish(recording, &EndReason::Crashed, None, stamp)?;
        }
        self.flush()
    }

    /// When what was written has to be synced, should nothing else come.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unsynced.map(|unsynced| unsynced.due)
    }

    pub(super) fn pace(&self) -> Pace {
        let (waited, sync) = self.last;
        // A small part of a sync, which each of them that comes too late has to wait for.
        let patience = (sync / AGAIN_SHARE).min(AGAIN_WITHIN);
        let again = (waited > 1 && patience >= AGAIN_AT_LEAST).then_some((waited, patience));
        // The next file takes longer than a sync.
        let in_file = self.position.offset.saturating_add(self.sizes.reserve).saturating_add(HELP_ROOM);
        let helps = sync < HELP_BELOW && in_file <= self.position.allocated;
        Pace { again, helps }
    }

    /// Gives the records of `jobs` their places in the log. They are done when [`Self::complete`] says so.
    pub(super) fn prepare(&mut self, jobs: VecDeque<Job>, batch: &mut Batch) -> Result<(), Broken> {
        batch.waiting.reserve(jobs.len());
        for job in jobs {
            if batch.closed {
                reject([job].into(), &Unrecordable::Closed);
                continue;
            }
            batch.closed = matches!(job.task, Task::Close);
            match (&mut batch.room, job.room) {
                // Given back as one.
                (Some(all), Some(room)) => all.merge(room),
                (all, room) => *all = all.take().or(room),
            }
            let result = match self.perform(job.task, job.stamp) {
                Ok(()) => Ok(()),
                Err(Undone::Refused(why)) => Err(why),
                Err(Undone::Broken(cause)) => {
                    batch.waiting.extend(job.done.map(|done| (done, Ok(()))));
                    return Err(cause);
                }
            };
            batch.waiting.extend(job.done.map(|done| (done, result)));
        }
        Ok(())
    }

    /// Writes the batch, makes it durable where somebody waits for that, and tells them.
    pub(super) fn complete(&mut self, batch: &mut Batch, messengers: &Messengers) -> Result<(), Broken> {
        let is_due = self.unsynced.is_some_and(|unsynced| unsynced.due <= Instant::now());
        if batch.waiting.is_empty() && !batch.closed && !is_due {
            self.write()?;
        } else {
            self.flush()?;
        }
        batch.room = None;
        if !batch.waiting.is_empty() {
            self.last.0 = batch.waiting.len();
        }
        let size = self.position.log.size();
        messengers.tell(batch.waiting.drain(..).map(|(done, result)| (done, result.map(|()| size))));
        Ok(())
    }

    fn perform(&mut self, task: Task, stamp: Stamp) -> Result<(), Undone> {
        match task {
            Task::Begin { recording, context, record } => {
                if self.position.recordings.contains_key(&recording) {
                    return Err(Undone::Refused(Unrecordable::Ended));
                }
                let chain = RecordingChain::start(recording.as_str());
                let begun = Recording { chain, context, under_way: BTreeSet::new() };
                self.position.recordings.insert(recording.clone(), begun);
                let written = self.record(&recording, record);
                if written.is_err() {
                    // Without its first record it is no recording that could be ended.
                    self.position.recordings.remove(&recording);
                }
                written
            }
            Task::Record { recording, context, first, rest } => {
                if !self.is_of(&recording, &context) {
                    return Err(Undone::Refused(Unrecordable::Ended));
                }
                first.into_iter().chain(rest).try_for_each(|record| self.record(&recording, record))
            }
            Task::End { recording, context, reason, totals } => {
                // One that never began ends no other of its name.
                if self.is_of(&recording, &context) {
                    self.finish(&recording, &reason, totals, stamp)?;
                }
                Ok(())
            }
            Task::Control { events } => {
                for (at, fields) in events {
                    self.control(Stamp { at, ..stamp }, fields)?;
                }
                Ok(())
            }
            Task::Head(tell) => {
                self.flush()?;
                // Who asked may have gone.
                let _ = tell.send(self.head());
                Ok(())
            }
            Task::Checkpoint { size, note } => Ok(self.keep(size, &note)?),
            Task::Close => {
                let open: Vec<_> = self.position.recordings.keys().cloned().collect();
                for recording in open {
                    self.finish(&recording, &EndReason::Shutdown, None, stamp)?;
                }
                Ok(self.checkpoint()?)
            }
        }
    }

    /// Whether the recording is open, and the one of this context, which each has for itself.
    fn is_of(&self, recording: &ConnectionId, context: &Arc<[u8]>) -> bool {
        self.position.recordings.get(recording).is_some_and(|state| Arc::ptr_eq(&state.context, context))
    }

    fn record(&mut self, recording: &ConnectionId, record: Record) -> Result<(), Undone> {
        let Some(state) = self.position.recordings.get(recording) else {
            return Err(Undone::Refused(Unrecordable::Ended));
        };
        if record.chain.next() != state.chain.next().saturating_add(1) {
            let detail = format!("a record of {recording} came out of its turn");
            return Err(Broken { detail, reserve_usable: false }.into());
        }
        let Record { json, hash, chain, effect, mono } = record;
        self.append(json, &hash)?;
        self.mono = self.mono.max(mono);
        if let Some(state) = self.position.recordings.get_mut(recording) {
            state.chain = chain;
            match effect {
                Effect::None => {}
                Effect::Starts(statement) => _ = state.under_way.insert(statement),
                Effect::Ends(statement) => _ = state.under_way.remove(&statement),
            }
        }
        Ok(())
    }

    /// Adds a record of the writer's own to a recording.
    fn follow(&mut self, recording: &ConnectionId, encoded: &Encoded, stamp: Stamp) -> Result<(), Undone> {
        let Some(state) = self.position.recordings.get(recording) else {
            return Err(Undone::Refused(Unrecordable::Ended));
        };
        let place = (recording.as_str(), &state.chain);
        let stamp = Stamp { mono: stamp.mono.max(self.mono), ..stamp };
        let record = encode::record(Vec::new(), place, stamp, self.key.node(), &state.context, encoded);
        self.record(recording, record)
    }

    /// Ends a recording: every statement gets a result, the recording its last record. One that has
    /// ended already stays as it is.
    fn finish(
        &mut self,
        recording: &ConnectionId,
        reason: &EndReason,
        totals: Option<Totals>,
        stamp: Stamp,
    ) -> Result<(), Broken> {
        let Some(state) = self.position.recordings.get(recording) else { return Ok(()) };
        for statement in state.under_way.clone() {
            let end = StatementEnd::new(statement, StatementOutcome::Unknown);
            for encoded in encode::bodies(&[Body::StatementEnd(end)]) {
                self.must_follow(recording, &encoded, stamp)?;
            }
        }
        let Some(state) = self.position.recordings.get(recording) else { return Ok(()) };
        let ended = Ended { reason: reason.clone(), totals, chain: hex(state.chain.head()) };
        let ended = Encoded { fields: encode::ended(&ended), effect: Effect::None };
        self.must_follow(recording, &ended, stamp)?;
        self.position.recordings.remove(recording);
        Ok(())
    }

    fn must_follow(
        &mut self,
        recording: &ConnectionId,
        encoded: &Encoded,
        stamp: Stamp,
    ) -> Result<(), Broken> {
        match self.follow(recording, encoded, stamp) {
            Ok(()) | Err(Undone::Refused(_)) => Ok(()),
            Err(Undone::Broken(broken)) => Err(broken),
        }
    }

    fn control(&mut self, stamp: Stamp, fields: Fields) -> Result<(), Broken> {
        let place = (self.node().as_str(), &self.position.control);
        let stamp = Stamp { mono: stamp.mono.max(self.mono), ..stamp };
        let event = Encoded { fields, effect: Effect::None };
        let Record { json, hash, chain, mono, .. } =
            encode::record(Vec::new(), place, stamp, self.node(), &[], &event);
        self.append(json, &hash)?;
        self.mono = mono;
        self.position.control = chain;
        Ok(())
    }

    /// Puts the record at the log's end, in the buffer.
    fn append(&mut self, json: Vec<u8>, hash: &Hash) -> Result<(), Broken> {
        let (n, after) = (self.position.log.size(), self.position.log.after(hash));
        let length = u64::try_from(line_length(n, json.len())).unwrap_or(u64::MAX);
        self.make_room(length)?;
        write_line(&mut self.buffer, n, &after, &json);
        self.spent.push(json);
        self.position.offset = self.position.offset.saturating_add(length);
        self.position.bytes = self.position.bytes.saturating_add(length);
        self.position.log.push_with(hash, after);
        let unsynced = self.unsynced.map_or(0, |unsynced| unsynced.bytes);
        if self.buffer.len().saturating_add(unsynced) >= LARGEST_BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Goes to the next file when `length` bytes do not fit in this one before its reserve.
    fn make_room(&mut self, length: u64) -> Result<(), Broken> {
        let reserve = if self.last_gasp { 0 } else { self.sizes.reserve };
        let end = self.position.offset.saturating_add(length);
        if self.position.file > 0 && end.saturating_add(reserve) <= self.position.allocated {
            return Ok(());
        }
        if self.last_gasp {
            return Err(Broken { detail: "the reserve is used up".to_owned(), reserve_usable: false });
        }
        // The next file exists only once this one is whole: recovery relies on it.
        self.flush()?;
        let number = self.position.file.saturating_add(1);
        let size = self.sizes.file.max(length.saturating_add(self.sizes.reserve));
        self.medium.allocate(number, size).map_err(|NotAllocated { error, is_gone }| Broken {
            detail: format!("cannot allocate {size} bytes for the next journal file: {error}"),
            reserve_usable: is_gone && self.position.file > 0,
        })?;
        self.position.file = number;
        self.position.offset = 0;
        self.position.allocated = size;
        Ok(())
    }

    /// Writes what is gathered and makes it durable, with what was written before.
    fn flush(&mut self) -> Result<(), Broken> {
        self.write()?;
        self.sync()
    }

    fn write(&mut self) -> Result<(), Broken> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let start = self.position.offset.saturating_sub(length);
        let written = self.medium.write(start, &self.buffer);
        written.map_err(|error| Broken::io("cannot write to the journal", &error))?;
        let unsynced =
            self.unsynced.get_or_insert_with(|| Unsynced { bytes: 0, due: Instant::now() + SYNC_WITHIN });
        unsynced.bytes = unsynced.bytes.saturating_add(self.buffer.len());
        self.buffer.clear();
        self.spares.give_back(&mut self.spent);
        Ok(())
    }

    /// Makes durable what has been written.
    pub(super) fn sync(&mut self) -> Result<(), Broken> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        self.medium.sync().map_err(|error| Broken::io("cannot sync the journal", &error))?;
        self.last.1 = began.elapsed();
        self.unsynced = None;
        // Called with an empty buffer only: all that is in the log has been written.
        self.backlog.made_durable(self.position.mark());
        Ok(())
    }

    /// Where the log stands.
    fn head(&self) -> Head {
        let place = Place { file: self.position.file.max(1), offset: self.position.offset };
        Head { log: self.position.log.clone(), place }
    }

    /// Signs for all that is durable, at the beginning and at the end; waits for the key as long as that takes. What
    /// cannot be signed then stays unsigned, except that no log begins without a checkpoint.
    pub(super) fn checkpoint(&mut self) -> Result<(), Broken> {
        self.flush()?;
        let size = self.position.log.size();
        if self.signed == Some(size) {
            // The one that there is counts as new: the stream may not have it.
            self.backlog.signed_checkpoint();
            return Ok(());
        }
        match self.key.sign(size, &self.position.log.root()) {
            Ok(note) => self.keep(size, &note),
            Err(why) if self.signed.is_some() => {
                tracing::warn!(%why, size, "there is no checkpoint over the audit log's last records");
                Ok(())
            }
            Err(why) => {
                let detail = format!("a new log needs a checkpoint: {why}");
                Err(Broken { detail, reserve_usable: false })
            }
        }
    }

    /// Stores a checkpoint over the first `size` records, unless there is one that covers more.
    fn keep(&mut self, size: u64, note: &str) -> Result<(), Broken> {
        if self.signed > Some(size) {
            return Ok(());
        }
        self.medium.checkpoint(note).map_err(|error| Broken {
            // The journal's own file is not touched here.
            reserve_usable: error.kind() == io::ErrorKind::StorageFull,
            ..Broken::io("cannot write a checkpoint", &error)
        })?;
        self.signed = Some(size);
        self.backlog.signed_checkpoint();
        Ok(())
    }

    /// Nothing is recorded any more, but for ends in the current file.
    pub(super) fn ends_here(&mut self) {
        self.medium.ends_here();
    }

    /// There is no room for a next file: ends the open recordings in this one's reserve.
    pub(super) fn use_reserve(&mut self, why: &Unrecordable, stamp: Stamp) {
        self.ends_here();
        self.last_gasp = true;
        let reason = EndReason::Unrecordable { detail: why.to_string() };
        let open: Vec<_> = self.position.recordings.keys().cloned().collect();
        let mut ended = Ok(());
        for recording in open {
            ended = ended.and_then(|()| self.finish(&recording, &reason, None, stamp));
        }
        let kept = self.checkpoint();
        if let Err(broken) = ended.and(kept) {
            tracing::error!(detail = %broken.detail, "the audit log's reserve did not hold all ends");
        }
    }
}

pub(super) fn reject(jobs: VecDeque<Job>, why: &Unrecordable) {
    for done in jobs.into_iter().filter_map(|job| job.done) {
        done.tell(Err(why.clone()));
    }
}
