//! Where the writer works: its thread, or one on which somebody waits for a record.
//!
//! On a disk that syncs in little time, who waits writes and syncs on their own thread, as soon as others that it serves
//! have added theirs: no hand-over to the writer's thread and back. The queue sees to it that only one is at work, and in
//! its order. What others bring meanwhile is done by their own threads, or, where these came too early, by the one that is at work, for
//! as long as [`HELP_WITHIN`]; the rest is the writer's thread's.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Unrecordable;
use super::medium::Medium;
use super::queue::{Job, Queue, Taken};
use super::tell::Messengers;
use super::writer::{Batch, Broken, Writer, reject};

/// Who helps begins with nothing more after so long: its thread serves none of its connections meanwhile.
const HELP_WITHIN: Duration = Duration::from_micros(500);

/// What callers see of the desk.
pub(super) trait Work: Send + Sync + Debug {
    /// Does what [`super::queue::Pledge::take`] gave.
    fn help(&self, jobs: VecDeque<Job>);
}

/// The writer, with what it works on and whom it tells of its end.
#[derive(Debug)]
pub(super) struct Desk<M> {
    /// Never contended: the queue lets only one work.
    writer: Mutex<Writer<M>>,
    queue: Arc<Queue>,
    messengers: Arc<Messengers>,
    failed: watch::Sender<Option<Unrecordable>>,
}

impl<M: Medium> Desk<M> {
    pub(super) fn new(
        writer: Writer<M>,
        queue: Arc<Queue>,
        messengers: Arc<Messengers>,
        failed: watch::Sender<Option<Unrecordable>>,
    ) -> Self {
        Self { writer: Mutex::new(writer), queue, messengers, failed }
    }

    /// Works until the journal is closed or broken.
    pub(super) fn run(&self) {
        let _watch = Watch(self);
        loop {
            let (due, pace) = self.with_writer(|writer| (writer.due(), writer.pace()));
            let taken = self.queue.take(due, pace.helps);
            if matches!(taken, Taken::Shut) || !self.work(taken, true) {
                // Before the directory may be another process's.
                self.with_writer(Writer::ends_here);
                self.queue.finished(None, false);
                return;
            }
        }
    }

    fn with_writer<T>(&self, work: impl FnOnce(&mut Writer<M>) -> T) -> T {
        // Who panicked with it has shut the queue: nothing comes any more.
        work(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives `false` once nothing may follow. `expects` others that come meanwhile.
    fn work(&self, taken: Taken, expects: bool) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        let (stamp, outcome) = match taken {
            Taken::Shut => return false,
            Taken::Nothing => (None, writer.sync()),
            Taken::Jobs(jobs) => {
                let stamp = jobs.back().map(|job| job.stamp);
                let until = writer.pace().again.map(|(count, patience)| (count, Instant::now() + patience));
                let prepared = writer.prepare(jobs, &mut batch);
                let gathered = prepared.and_then(|()| {
                    if expects { self.gather(&mut writer, &mut batch, until) } else { Ok(()) }
                });
                (stamp, gathered.and_then(|()| writer.complete(&mut batch, &self.messengers)))
            }
        };
        let Err(cause) = outcome else {
            if batch.closed {
                reject(self.queue.shut(Unrecordable::Closed), &Unrecordable::Closed);
            }
            return !batch.closed;
        };
        let why = cause.unrecordable();
        let rest = self.queue.shut(why.clone());
        self.report(&why);
        for (done, _) in batch.waiting {
            done.tell(Err(why.clone()));
        }
        reject(rest, &why);
        if let Some(stamp) = stamp.filter(|_| cause.reserve_usable) {
            writer.use_reserve(&why, stamp);
        }
        false
    }

    /// Adds what came while the batch was put together. Where `until` says so, those who waited for the last one are
    /// waited for, and what they bring is put together as it comes.
    fn gather(
        &self,
        writer: &mut Writer<M>,
        batch: &mut Batch,
        until: Option<(usize, Instant)>,
    ) -> Result<(), Broken> {
        while !batch.waiting.is_empty() && !batch.closed {
            let more = self.queue.more(batch.waiting.len(), until);
            if more.is_empty() {
                break;
            }
            writer.prepare(more, batch)?;
            if until.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn report(&self, why: &Unrecordable) {
        tracing::error!(%why, "the audit log is broken: nothing can be recorded");
        self.failed.send_replace(Some(why.clone()));
    }
}

impl<M: Medium> Work for Desk<M> {
    fn help(&self, jobs: VecDeque<Job>) {
        let _watch = Watch(self);
        let (began, mut jobs) = (Instant::now(), Some(jobs));
        while let Some(taken) = jobs {
            let pace = self.work(Taken::Jobs(taken), false).then(|| self.with_writer(|writer| writer.pace()));
            jobs = self.queue.finished(pace, began.elapsed() < HELP_WITHIN);
        }
    }
}

/// Shuts the queue should who works panic.
struct Watch<'a, M: Medium>(&'a Desk<M>);

impl<M: Medium> Drop for Watch<'_, M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = Unrecordable::Failed { detail: "the audit log's writer panicked".into() };
            reject(self.0.queue.shut(why.clone()), &why);
            self.0.report(&why);
            // Before the directory may be another process's.
            self.0.with_writer(Writer::ends_here);
            self.0.queue.finished(None, false);
        }
    }
}
