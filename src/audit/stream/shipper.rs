//! Reads what is durable, sends it, sends again what the stream did not take, and keeps how far it came.
//!
//! Nothing is given up: whatever fails is tried again, later and later, while the [backlog](super::super::backlog)
//! grows, until its bounds end what makes it grow.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

use super::position::Position;
use super::window::{Batch, Start, Window, pause};
use super::{Limits, Outcome, Stream};
use crate::audit::backlog::{Backlog, Durable};
use crate::audit::checkpoints;
use crate::audit::files::{Lines, Read};
use crate::audit::journal::Journal;
use crate::audit::line::parse_line;
use crate::clock::Clock;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// How much is read ahead of what is confirmed, in bytes.
const WINDOW: usize = 16 << 20;
/// How often the position is kept while it moves.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Why the log cannot be shipped.
#[derive(Debug, thiserror::Error)]
pub enum NotShipped {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the audit log is damaged at record {n}: run `sallyport audit verify`")]
    Damaged { n: u64 },
}

/// What its owner hears of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What was wrong the last time that something was sent; none when nothing was.
    pub failing: Option<String>,
    /// Parcels that were confirmed, and that had to be sent again.
    pub confirmed: u64,
    pub repeated: u64,
}

/// Ships one node's log. Owned by the one task that runs it.
#[derive(Debug)]
pub struct Shipper<S> {
    stream: S,
    clock: Clock,
    backlog: Arc<Backlog>,
    durable: watch::Receiver<Durable>,
    source: Source,
    window: Window,
    kept: Position,
    kept_at: Timestamp,
    /// Whole requests that failed in a row.
    failures: u32,
    checkpoints: u64,
    health: watch::Sender<Health>,
}

/// The journal as the shipper reads it.
#[derive(Debug)]
struct Source {
    directory: PathBuf,
    lines: Lines,
    /// Of the next line to be read.
    next: Position,
}

/// A line, read.
struct Taken {
    key: Arc<str>,
    n: u64,
    line: Vec<u8>,
    start: Start,
}

/// What a line's record says of its place.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    rec: std::borrow::Cow<'a, str>,
    at: Timestamp,
}

impl<S: Stream> Shipper<S> {
    /// Goes on from what was kept in the journal's `directory`, or from the first record. What the stream lacks is
    /// the journal's backlog from now on; how it does is told to `health`.
    pub fn open(
        directory: &Path,
        (node, clock): (NodeId, Clock),
        journal: &Journal,
        (stream, limits): (S, Limits),
        health: watch::Sender<Health>,
    ) -> Result<Self, NotShipped> {
        let unreadable = |source| NotShipped::Read { path: directory.to_owned(), source };
        let kept = Position::read(directory, stream.name()).map_err(unreadable)?;
        let (backlog, durable) = (journal.backlog().clone(), journal.backlog().durable());
        let size = durable.borrow().mark.records;
        let kept = match kept {
            Some(kept) if stands(directory, &kept, size).map_err(unreadable)? => kept,
            Some(kept) => {
                tracing::warn!(?kept, "what was kept of the stream's position is not of this log");
                Position::start(directory, &node).map_err(unreadable)?
            }
            None => Position::start(directory, &node).map_err(unreadable)?,
        };
        backlog.confirm(kept.mark, None);
        let lines = Lines::follow_from(directory, kept.place());
        let source = Source { directory: directory.to_owned(), lines, next: kept };
        let window = Window::new(node, limits);
        let kept_at = clock.now();
        let (failures, checkpoints) = (0, 0);
        Ok(Self {
            stream,
            clock,
            backlog,
            durable,
            source,
            window,
            kept,
            kept_at,
            failures,
            checkpoints,
            health,
        })
    }

    /// Ships until it is dropped. Fails when the log cannot be read.
    pub async fn run(mut self) -> Result<(), NotShipped> {
        loop {
            self.step().await?;
        }
    }

    /// Ships until the stream has all that is durable when it looks: what is still to be done before a stop.
    pub async fn finish(mut self) -> Result<(), NotShipped> {
        while !self.backlog.is_settled() {
            self.step().await?;
        }
        self.keep(true);
        Ok(())
    }

    /// Reads what there is room for, sends one batch, or waits for what is next.
    async fn step(&mut self) -> Result<(), NotShipped> {
        let durable = *self.durable.borrow_and_update();
        self.fill(durable).await?;
        let batch = self.window.batch(self.clock.now());
        if batch.parcels.is_empty() {
            self.settle();
            self.wait().await;
            return Ok(());
        }
        self.send(&batch).await;
        self.settle();
        Ok(())
    }

    /// Waits for more to be durable, or for the time to try again.
    async fn wait(&mut self) {
        let next_try = self.window.next_try();
        let clock = self.clock.clone();
        let tried = async {
            match next_try {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.durable.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = tried => {}
        }
    }

    /// Reads on, up to what is durable and the window's size; then the newest checkpoint, if it is new.
    async fn fill(&mut self, durable: Durable) -> Result<(), NotShipped> {
        let room = WINDOW.saturating_sub(self.window.bytes());
        if room > 0 && self.source.next.mark.records < durable.mark.records {
            for taken in self.read(durable.mark.records, room).await? {
                self.window.push_line(&taken.key, taken.n, &taken.line, taken.start);
            }
        }
        let all = self.source.next.mark.records >= durable.mark.records;
        if all && self.checkpoints != durable.checkpoints {
            self.checkpoints = durable.checkpoints;
            let directory = &self.source.directory;
            let unreadable = |source| NotShipped::Read { path: directory.clone(), source };
            if let Some(note) = checkpoints::newest(directory).map_err(unreadable)? {
                let start = Start { position: self.source.next, at: self.clock.now() };
                self.window.push_checkpoint(&note, start);
            }
        }
        Ok(())
    }

    /// Lines up to record `until`, of about `room` bytes.
    async fn read(&mut self, until: u64, room: usize) -> Result<Vec<Taken>, NotShipped> {
        let empty = Lines::follow_from(&self.source.directory, self.source.next.place());
        let directory = self.source.directory.clone();
        let left = Source { directory: directory.clone(), lines: empty, next: self.source.next };
        let mut source = std::mem::replace(&mut self.source, left);
        let read = tokio::task::spawn_blocking(move || {
            let taken = source.take(until, room);
            (source, taken)
        });
        let (source, taken) = read
            .await
            .map_err(|error| NotShipped::Read { path: directory, source: io::Error::other(error) })?;
        self.source = source;
        taken
    }

    async fn send(&mut self, batch: &Batch) {
        let outcomes = self.stream.put(&batch.parcels).await;
        let now = self.clock.now();
        let mut health = self.health.borrow().clone();
        health.failing = None;
        match outcomes {
            Ok(outcomes) => {
                self.failures = 0;
                for index in 0..batch.parcels.len() {
                    let outcome = outcomes.get(index).unwrap_or(&Outcome::Throttled);
                    if *outcome == Outcome::Confirmed {
                        self.window.confirmed(batch, index);
                        health.confirmed = health.confirmed.saturating_add(1);
                    } else {
                        self.window.failed(batch, index, now);
                        health.repeated = health.repeated.saturating_add(1);
                        health.failing.get_or_insert_with(|| match outcome {
                            Outcome::Failed(why) => why.clone(),
                            _ => "the stream is throttled".to_owned(),
                        });
                    }
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let parcels = u64::try_from(batch.parcels.len()).unwrap_or(u64::MAX);
                health.repeated = health.repeated.saturating_add(parcels);
                health.failing = Some(error.to_string());
            }
        }
        self.health.send_if_modified(|old| std::mem::replace(old, health.clone()) != health);
        if self.failures > 0 {
            self.clock.sleep(pause(self.failures)).await;
        }
    }

    /// Tells what is confirmed, and keeps it from time to time.
    fn settle(&mut self) {
        let start = self.window.start();
        let position = start.map_or(self.source.next, |start| start.position);
        self.backlog.confirm(position.mark, start.map(|start| start.at));
        if start.is_none() {
            self.backlog.confirm_checkpoints(self.checkpoints);
        }
        self.keep(false);
    }

    /// Should it fail, more is sent again after a restart, and no less.
    fn keep(&mut self, now: bool) {
        let position = self.window.start().map_or(self.source.next, |start| start.position);
        let is_due = now || self.clock.now().since(self.kept_at) >= KEEP_EVERY;
        if position == self.kept || !is_due {
            return;
        }
        if let Err(error) = position.keep(&self.source.directory, self.stream.name()) {
            tracing::warn!(%error, "cannot keep how far the stream has confirmed the audit log");
        }
        (self.kept, self.kept_at) = (position, self.clock.now());
    }
}

impl Source {
    fn take(&mut self, until: u64, room: usize) -> Result<Vec<Taken>, NotShipped> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while self.next.mark.records < until && bytes < room {
            let n = self.next.mark.records;
            // What is durable is a whole line.
            let read = self.lines.next();
            let read = read.map_err(|source| NotShipped::Read { path: self.directory.clone(), source })?;
            let Read::Line(place) = read else { return Err(NotShipped::Damaged { n }) };
            let mut line = self.lines.line().to_vec();
            let parsed = parse_line(&line).ok().filter(|parsed| parsed.n == n);
            let head = parsed.and_then(|parsed| serde_json::from_slice::<Head<'_>>(parsed.json).ok());
            let head = head.ok_or(NotShipped::Damaged { n })?;
            let (key, at) = (Arc::from(&*head.rec), head.at);
            line.push(b'\n');
            let position = Position { file: place.file, offset: place.offset, ..self.next };
            bytes += line.len();
            self.next.mark.records = n.saturating_add(1);
            let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
            self.next.mark.bytes = self.next.mark.bytes.saturating_add(length);
            let after = self.lines.place();
            (self.next.file, self.next.offset) = (after.file, after.offset);
            taken.push(Taken { key, n, line, start: Start { position, at } });
        }
        Ok(taken)
    }
}

/// Whether the line at `kept` is the one that it names, or the next that there will be.
fn stands(directory: &Path, kept: &Position, size: u64) -> io::Result<bool> {
    if kept.mark.records >= size {
        return Ok(kept.mark.records == size);
    }
    let mut lines = Lines::follow_from(directory, kept.place());
    let found = matches!(lines.next()?, Read::Line(_));
    Ok(found && parse_line(lines.line()).is_ok_and(|line| line.n == kept.mark.records))
}
