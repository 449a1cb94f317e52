//! The journal as the rest of the gateway holds it: a handle to the writer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::Unrecordable;
use super::backlog::{Backlog, StreamRule, StreamRules};
use super::desk::{Desk, Work};
use super::encode::{self, Stamp};
use super::medium::{Directory, Medium};
use super::next_file;
use super::note::{SigningKey, VerifyKey};
use super::queue::{Job, Queue, Task};
use super::record::{ControlEntry, Opening, Recovered};
use super::recorder::Recorder;
use super::recover::{self, Damage};
use super::signing::{Signing, newest_checkpoint};
use super::spares::Spares;
use super::tell::{Done, Messengers, Waiting};
use super::writer::{Sizes, Writer};
use crate::clock::Clock;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// How many bytes may wait to be written.
const QUEUE_BYTES: usize = 32 << 20;
/// What a job takes of the queue beside its records' bytes.
const JOB_BYTES: usize = 512;

/// How a journal is kept.
#[derive(Debug)]
pub struct JournalOptions {
    /// Signs checkpoints; it also says whose journal this is.
    pub key: SigningKey,
    /// Size of a journal file in bytes, allocated when it is created.
    pub file_size: u64,
    /// Bytes at each file's end that only the ends of recordings may use, when there is no room for
    /// a next file.
    pub reserve: u64,
    /// What is asked of the stream that the log goes to; empty where it goes to none.
    pub stream: StreamRules,
}

impl JournalOptions {
    /// Files of 64 MiB with 1 MiB in reserve.
    pub fn new(key: SigningKey) -> Self {
        Self { key, file_size: 64 << 20, reserve: 1 << 20, stream: StreamRules::new() }
    }
}

/// What opening a journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Records there were.
    pub records: u64,
    /// What had to be repaired after a crash; `None` after a clean shutdown.
    pub repaired: Option<Recovered>,
    /// The highest outbox id that is recorded: the store's outbox goes on behind it.
    pub outbox: Option<i64>,
    /// The latest instant that a record carries: time must not be before it.
    pub latest: Option<Timestamp>,
}

/// Why a journal cannot be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use the audit directory `{}`", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the audit directory `{}` is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the audit log is damaged: {0}: run `sallyport audit verify` and keep a copy before anything else"
    )]
    Damaged(Damage),
    #[error("cannot start the audit log's writer")]
    Thread(#[source] io::Error),
    #[error("cannot keep the audit log")]
    Unrecordable(#[from] Unrecordable),
}

/// The node's audit log. Clones are handles to the same journal.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) handle: Arc<Handle>,
}

/// What journal and recorders share. When the last one goes, the writer stops.
#[derive(Debug)]
pub(super) struct Handle {
    queue: Arc<Queue>,
    desk: Arc<dyn Work>,
    /// Those who do the writer's work.
    helping: TaskTracker,
    pub(super) spares: Arc<Spares>,
    messengers: Arc<Messengers>,
    room: Arc<Semaphore>,
    failed: watch::Receiver<Option<Unrecordable>>,
    pub(super) clock: Clock,
    pub(super) signing: Signing,
    backlog: Arc<Backlog>,
    stream: StreamRules,
    opened: Instant,
    key: VerifyKey,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the journal is open.
    lock: Mutex<Option<File>>,
}

/// A share of the queue's bytes.
pub(super) type Room = OwnedSemaphorePermit;

impl Journal {
    /// Opens the journal in `directory`, makes the directory if there is none, repairs what a crash
    /// left (never more than a write that was not acknowledged) and starts the writer. Reads the
    /// whole log; call it before the gateway serves.
    pub fn open(
        directory: &Path,
        clock: Clock,
        options: JournalOptions,
    ) -> Result<(Self, Recovery), JournalError> {
        Self::open_on(directory, clock, options, |medium| medium)
    }

    /// As [`Journal::open`], with `wrap` around the medium: tests make it fail.
    pub(super) fn open_on<M: Medium + 'static>(
        directory: &Path,
        clock: Clock,
        options: JournalOptions,
        wrap: impl FnOnce(Directory) -> M,
    ) -> Result<(Self, Recovery), JournalError> {
        let unusable = |source| JournalError::Directory { path: directory.to_owned(), source };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let lock = lock(directory)?;
        next_file::remove_left(directory);
        let opened = Instant::now();
        let stamp = Stamp { at: clock.now(), mono: 0 };
        let key = options.key.verify_key();
        let found = recover::scan(directory, &key)?;
        let (position, recovery) = recover::repair(directory, found)?;
        let number = Some(position.file).filter(|file| *file > 0);
        let medium = wrap(Directory::open(directory, number).map_err(unusable)?);
        let sizes = Sizes { file: options.file_size, reserve: options.reserve };
        let backlog = Backlog::new(clock.clone(), position.mark());
        let unreadable = |source| JournalError::Read { path: directory.to_owned(), source };
        let newest = newest_checkpoint(directory, &options.key.verify_key()).map_err(unreadable)?;
        let signed = newest.map(|checkpoint| checkpoint.size);
        let spares = Arc::new(Spares::default());
        let shared = (backlog.clone(), spares.clone());
        let mut writer = Writer::new(medium, options.key.clone(), (position, signed), sizes, shared);
        writer.settle().map_err(|broken| broken.unrecordable())?;
        if let Some(repaired) = &recovery.repaired {
            writer.recover(repaired, stamp).map_err(|broken| broken.unrecordable())?;
        }
        writer.checkpoint().map_err(|broken| broken.unrecordable())?;

        let queue = Arc::new(Queue::default());
        let (fail, failed) = watch::channel(None);
        let messengers = Arc::new(Messengers::default());
        let desk = Arc::new(Desk::new(writer, queue.clone(), messengers.clone(), fail));
        let run = {
            let desk = desk.clone();
            move || desk.run()
        };
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(run);
        let handle = Handle {
            queue,
            desk,
            helping: TaskTracker::new(),
            spares,
            messengers,
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            failed,
            clock,
            signing: Signing::new(options.key),
            backlog,
            stream: options.stream,
            opened,
            key,
            thread: Mutex::new(Some(thread.map_err(JournalError::Thread)?)),
            lock: Mutex::new(Some(lock)),
        };
        Ok((Self { handle: Arc::new(handle) }, recovery))
    }

    /// Records events of the control recording, in order; they are durable on return.
    pub async fn control(&self, entries: &[ControlEntry]) -> Result<(), Unrecordable> {
        if entries.is_empty() {
            return self.handle.healthy();
        }
        let events: Vec<_> = entries.iter().map(|entry| (entry.at, encode::event(entry))).collect();
        let size = events.iter().map(|(_, fields)| fields.len()).sum();
        let room = self.handle.room(size).await?;
        self.handle.push_and_wait(Some(room), Task::Control { events }).await.map(drop)
    }

    /// Starts a recording; its first record is durable on return. Call it before anything else
    /// learns of the connection (in particular before the store's `connection_opened` event):
    /// verification takes an opened connection without a recording for a removed recording.
    ///
    /// Dropped before it returns, the recording may exist; it is then ended as
    /// [`crate::domain::deny::EndReason::Internal`]. Not confirmed by the stream in time, it exists, and is ended as
    /// [`crate::domain::deny::EndReason::Unrecordable`].
    pub async fn begin(&self, opening: Opening) -> Result<Recorder, Unrecordable> {
        let recording = opening.context.connection.clone();
        let rule = self.handle.stream.get(&opening.context.environment).copied();
        self.handle.within(rule.as_ref())?;
        let context: Arc<[u8]> = encode::context(&opening.context).into();
        let recorder = Recorder::new(recording, context, self.handle.clone(), rule);
        let written = recorder.begin(encode::opened(&opening.opened)).await?;
        if let Err(why) = self.handle.confirmed(written, rule.as_ref()).await {
            recorder.give_up(&why);
            return Err(why);
        }
        Ok(recorder)
    }

    /// Resolves once the journal is broken, with why: every connection must end then. Never
    /// resolves on a clean shutdown. Cancel-safe.
    pub async fn failed(&self) -> Unrecordable {
        let mut failed = self.handle.failed.clone();
        loop {
            if let Some(why) = failed.borrow_and_update().clone() {
                return why;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether records can still be written, as far as is known.
    pub fn healthy(&self) -> Result<(), Unrecordable> {
        self.handle.healthy()
    }

    /// What time it is by the journal's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.handle.clock.now()
    }

    /// The public half of the key that signs checkpoints.
    pub fn verify_key(&self) -> &VerifyKey {
        &self.handle.key
    }

    /// How far the stream is behind.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.handle.backlog
    }

    /// Ends recordings that are still open as [`crate::domain::deny::EndReason::Shutdown`], signs a
    /// last checkpoint and lets go of the directory. Every later call fails.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.handle.have_done(Task::Close).await?;
        self.handle.stop();
        Ok(())
    }
}

impl Handle {
    fn mono(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn healthy(&self) -> Result<(), Unrecordable> {
        match &*self.failed.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// Waits for room for `size` bytes: first come, first served. Cancel-safe.
    pub(super) async fn room(&self, size: usize) -> Result<Room, Unrecordable> {
        self.healthy()?;
        let acquired = self.room.clone().acquire_many_owned(share(size)).await;
        acquired.map_err(|_| Unrecordable::Closed)
    }

    pub(super) fn try_room(&self, size: usize) -> Result<Room, Unrecordable> {
        self.healthy()?;
        self.room.clone().try_acquire_many_owned(share(size)).map_err(|_| Unrecordable::Backlog)
    }

    /// Queues a job for the writer's thread.
    pub(super) fn push(&self, job: Job) -> Result<(), Unrecordable> {
        self.queue.push(job)
    }

    /// Queues a job. Where somebody waits for it and the disk is fast, it is done on the caller's thread, together
    /// with what others bring whom that thread serves; it has to be called on a Tokio runtime then.
    pub(super) fn push_or_help(&self, job: Job) -> Result<(), Unrecordable> {
        if job.done.is_none() {
            return self.queue.push(job);
        }
        if let Some(pledge) = self.queue.push_or_pledge(job)? {
            let desk = Arc::clone(&self.desk);
            // Not done here: whoever waits here may not be looked after for a while.
            self.helping.spawn(async move {
                if let Some(jobs) = pledge.take() {
                    desk.help(jobs);
                }
            });
        }
        Ok(())
    }

    /// As [`Self::push_or_help`], and waits; gives how many records are durable then.
    ///
    /// Dropped after its first poll, the task is done all the same.
    async fn push_and_wait(&self, room: Option<Room>, task: Task) -> Result<u64, Unrecordable> {
        let (done, waiting) = self.done();
        self.push_or_help(self.job(task, room, Some(done)))?;
        self.wait(waiting).await
    }

    /// Has the writer's thread do it, and waits.
    pub(super) async fn have_done(&self, task: Task) -> Result<u64, Unrecordable> {
        let (done, waiting) = Done::new();
        self.push(self.job(task, None, Some(done)))?;
        self.wait(waiting).await
    }

    /// The two ends of a wait, for one who waits on the runtime that it is called on.
    pub(super) fn done(&self) -> (Done, Waiting) {
        self.messengers.done()
    }

    pub(super) fn job(&self, task: Task, room: Option<Room>, done: Option<Done>) -> Job {
        Job { task, stamp: self.stamp(), done, room }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { at: self.clock.now(), mono: self.mono() }
    }

    /// The node whose log it is.
    pub(super) fn node(&self) -> &NodeId {
        self.key.node()
    }

    /// Whether the stream is within the bounds of `rule`.
    pub(super) fn within(&self, rule: Option<&StreamRule>) -> Result<(), Unrecordable> {
        rule.map_or(Ok(()), |rule| self.backlog.within(rule))
    }

    /// Where `rule` asks for it, waits until the stream has confirmed so many records.
    pub(super) async fn confirmed(
        &self,
        records: u64,
        rule: Option<&StreamRule>,
    ) -> Result<(), Unrecordable> {
        let Some(rule) = rule.filter(|rule| rule.confirmed) else { return Ok(()) };
        let mut failed = self.failed.clone();
        tokio::select! {
            confirmed = self.backlog.until_confirmed(records, rule) => confirmed,
            Ok(why) = failed.wait_for(Option::is_some) => Err(why.clone().unwrap_or(Unrecordable::Closed)),
        }
    }

    /// Waits until a job is durable; gives how many records are then.
    pub(super) async fn wait(&self, waiting: Waiting) -> Result<u64, Unrecordable> {
        if let Ok(result) = waiting.await {
            return result;
        }
        // The writer went without a word: it panicked.
        self.healthy()?;
        Err(Unrecordable::Failed { detail: "the audit log's writer stopped".into() })
    }

    /// Waits for the writer's thread, which has nothing more to do, and releases the directory.
    fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What is queued is still written; this waits for one sync, on a thread that may have undertaken to do it.
        self.queue.end();
        let _ = self.push(self.job(Task::Close, None, None));
        self.stop();
    }
}

/// The permits that a job of `size` bytes takes. One larger than the queue takes the whole queue.
fn share(size: usize) -> u32 {
    u32::try_from((size + JOB_BYTES).min(QUEUE_BYTES)).unwrap_or(u32::MAX)
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("lock");
    let unusable = |source| JournalError::Directory { path: directory.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path).map_err(unusable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::InUse { path: directory.to_owned() }),
        Err(error) => Err(unusable(error.into())),
    }
}
