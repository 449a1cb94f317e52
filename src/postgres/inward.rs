//! Target to client: bytes go on as they came; the walker reads along for results. The error of a statement that was refused
//! here is replaced by ours.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use crate::gateway::scratch;

use super::codec::walker::{GATHERED, Walker};
use super::observe::Event;
use super::pump::{Shared, Stop};
use super::{ClientStream, TargetStream};

/// How long the rest of a message may take to reach a client that is about to be cut.
const BOUNDARY_WITHIN: Duration = Duration::from_millis(500);

/// Target to client.
pub(super) struct Inward<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) read: ReadHalf<TargetStream>,
    pub(super) write: WriteHalf<ClientStream>,
    pub(super) walker: Walker,
    /// What is being written to the client; bytes leave it as they are written.
    pub(super) chunk: Bytes,
    /// How many of the chunk's bytes end where its last whole message does; `None` when all of
    /// the chunk lies inside one message.
    pub(super) boundary: Option<usize>,
    /// The beginning of an error that has not come whole: until it has, it is not known whose it is.
    pub(super) held: BytesMut,
    /// An error that is too long to be held has begun to go on: the rest of it does too.
    pub(super) passing: bool,
    pub(super) events: Vec<Event>,
}

/// A chunk that is changed on its way.
#[derive(Debug, Default)]
struct Changed {
    bytes: BytesMut,
    /// So much of the chunk is in `bytes`, or was replaced.
    from: usize,
}

impl Changed {
    /// Takes what lies before `to` as it is.
    fn keep(&mut self, chunk: &[u8], to: usize) {
        self.bytes.extend_from_slice(chunk.get(self.from..to).unwrap_or_default());
        self.from = to;
    }
}

impl Inward<'_> {
    pub(super) async fn run(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.deliver().await {
                return stop;
            }
            match scratch::read(&mut self.read).await {
                Ok(chunk) if chunk.is_empty() => return Stop::TargetGone,
                Err(_) => return Stop::TargetGone,
                Ok(chunk) => {
                    self.shared.seen(&self.shared.from_target, chunk.len());
                    self.chunk = chunk;
                    if let Err(stop) = self.observe().await {
                        return stop;
                    }
                }
            }
        }
    }

    /// Reads along in the chunk, before any of it reaches the client.
    async fn observe(&mut self) -> Result<(), Stop> {
        self.walk()?;
        self.shared.answered.notify_one();
        let bodies = self.shared.bodies(&mut self.events);
        if !bodies.is_empty() {
            self.shared.recorder.note_wait(&bodies).await?;
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<(), Stop> {
        let (mut at, mut begin) = (0, 0);
        let is_at_end = self.walker.at_boundary() || !self.held.is_empty();
        self.boundary = is_at_end.then_some(0);
        let mut changed = (!self.held.is_empty()).then(Changed::default);
        let mut observer = self.shared.observer();
        let now = self.shared.now_us();
        while let Some(message) = self.walker.next(&self.chunk, &mut at)? {
            observer.server(&message, now, &mut self.events)?;
            let held = self.held.split();
            if let Some(replacement) = observer.replacement() {
                let changed = changed.get_or_insert_default();
                changed.keep(&self.chunk, begin);
                changed.bytes.extend_from_slice(&replacement);
                changed.from = at;
            } else if !held.is_empty() {
                changed.get_or_insert_default().bytes.extend_from_slice(&held);
            }
            if self.walker.at_boundary() {
                self.boundary = Some(at);
                self.passing = false;
            }
            begin = at;
        }
        drop(observer);
        let may_be_held = self.walker.is_within_error() && !self.passing;
        let is_held = may_be_held && self.held.len() + self.chunk.len() - begin <= GATHERED;
        self.passing |= may_be_held && !is_held;
        if changed.is_some() || is_held {
            self.rewrite(changed.unwrap_or_default(), begin, is_held);
        }
        Ok(())
    }

    /// Puts together what of the chunk goes on, where that is not all of it as it came. From `begin` on lies what has
    /// not come whole.
    fn rewrite(&mut self, mut changed: Changed, begin: usize, is_held: bool) {
        if is_held {
            changed.keep(&self.chunk, begin);
            self.held.extend_from_slice(self.chunk.get(begin..).unwrap_or_default());
            self.boundary = Some(changed.bytes.len());
        } else {
            let held = self.held.split();
            if !held.is_empty() {
                // Longer than any error that could be ours: on with it.
                changed.bytes.extend_from_slice(&held);
                self.boundary = None;
            }
            let whole = self.boundary.unwrap_or(0);
            changed.keep(&self.chunk, whole.max(changed.from));
            self.boundary = self.boundary.map(|_| changed.bytes.len());
            changed.keep(&self.chunk, self.chunk.len());
        }
        self.chunk = changed.bytes.freeze();
    }

    async fn deliver(&mut self) -> Result<(), Stop> {
        let had_some = self.chunk.has_remaining();
        self.shared.delivers.store(had_some, Ordering::Relaxed);
        while self.chunk.has_remaining() {
            let written = self.write.write(&self.chunk).await.map_err(|_| Stop::ClientGone)?;
            if written == 0 {
                return Err(Stop::ClientGone);
            }
            self.chunk.advance(written);
            self.boundary = self.boundary.and_then(|boundary| boundary.checked_sub(written));
        }
        if had_some {
            self.write.flush().await.map_err(|_| Stop::ClientGone)?;
        }
        self.shared.delivers.store(false, Ordering::Relaxed);
        self.chunk = Bytes::new();
        self.boundary = (self.walker.at_boundary() || !self.held.is_empty()).then_some(0);
        Ok(())
    }

    /// Writes the client as much as ends a message, if the rest of it comes and the client takes it
    /// in time.
    pub(super) async fn reach_boundary(&mut self) -> bool {
        let ending = tokio::time::timeout(BOUNDARY_WITHIN, self.end_message());
        matches!(ending.await, Ok(Ok(true)))
    }

    async fn end_message(&mut self) -> Result<bool, Stop> {
        loop {
            let end = self.boundary.unwrap_or(self.chunk.len()).min(self.chunk.len());
            let part = self.chunk.split_to(end);
            self.write.write_all(&part).await.map_err(|_| Stop::ClientGone)?;
            if self.boundary.is_some() {
                return Ok(true);
            }
            self.chunk = scratch::read(&mut self.read).await.map_err(|_| Stop::TargetGone)?;
            if self.chunk.is_empty() {
                return Ok(false);
            }
            // No further than the first end: what follows is no longer for this client.
            let mut at = 0;
            while self.walker.next(&self.chunk, &mut at)?.is_some() && !self.walker.at_boundary() {}
            self.boundary = self.walker.at_boundary().then_some(at);
        }
    }
}
