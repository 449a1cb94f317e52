//! Bytes both ways, observed and recorded, until something ends.
//!
//! - **Client to target**: whole messages are taken as they come, observed, recorded, and only when
//!   their records are durable forwarded, as one write. One wait serves all that came together.
//! - **Target to client**: bytes go on as they came; the walker reads along for results.
//!
//! Both run in the connection's one task. When the connection must end, both are dropped where they
//! stand; what they have written is kept in structs, so that a goodbye is said only where one
//! message ended and the next has not begun.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::{client, server};

use crate::access::Access;
use crate::audit::{Body, Recorder, Totals, Unrecordable};
use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::time::Timestamp;
use crate::gateway::live::LiveConnection;
use crate::gateway::scratch;

use super::codec::frame::{Piece, Splitter};
use super::codec::walker::Walker;
use super::codec::{CodecError, encode};
use super::mask::Strings;
use super::observe::{Event, Observed, Observer, Outcome};
use super::record;
use super::serve::close;
use super::sqlstate::Goodbye;
use super::upstream::Canceller;

/// How much is gathered before it is recorded and forwarded, in bytes.
const BATCH: usize = 256 * 1024;
/// How long the rest of a message may take to reach a client that is about to be cut.
const BOUNDARY_WITHIN: Duration = Duration::from_millis(500);
/// How long the target may take to hear that it is over.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub max_message: usize,
    pub idle: Option<Duration>,
}

/// Both streams, with what was read of them too early.
#[derive(Debug)]
pub(super) struct Sides {
    pub client: server::TlsStream<TcpStream>,
    pub from_client: BytesMut,
    pub target: client::TlsStream<TcpStream>,
    pub from_target: BytesMut,
    /// As the target told when it was ready.
    pub strings: Strings,
}

/// How it ended. Both sockets are closed.
#[derive(Debug)]
pub(super) struct Pumped {
    pub reason: EndReason,
    pub totals: Totals,
}

/// What both directions share.
struct Shared<'a> {
    recorder: &'a Recorder,
    observer: Mutex<Observer>,
    /// Raised after the target's answers were observed.
    answered: Notify,
    started: Instant,
    /// As the target last told.
    escapes: AtomicBool,
    clock: &'a Clock,
    last_byte: AtomicU64,
    statements: AtomicU64,
    from_client: AtomicU64,
    from_target: AtomicU64,
}

/// Why a direction stopped.
enum Stop {
    End(EndReason),
    ClientGone,
    TargetGone,
}

impl From<Unrecordable> for Stop {
    fn from(error: Unrecordable) -> Self {
        Self::End(EndReason::Unrecordable { detail: error.to_string() })
    }
}

impl From<CodecError> for Stop {
    fn from(error: CodecError) -> Self {
        Self::End(EndReason::Protocol { detail: error.to_string() })
    }
}

impl<'a> Shared<'a> {
    fn new(recorder: &'a Recorder, clock: &'a Clock, strings: Strings) -> Self {
        let now = u64::try_from(clock.now().as_micros()).unwrap_or(0);
        Self {
            recorder,
            observer: Mutex::new(Observer::reading(strings)),
            answered: Notify::new(),
            started: Instant::now(),
            escapes: AtomicBool::new(strings == Strings::Escaped),
            clock,
            last_byte: AtomicU64::new(now),
            statements: AtomicU64::new(0),
            from_client: AtomicU64::new(0),
            from_target: AtomicU64::new(0),
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            statements: self.statements.load(Ordering::Relaxed),
            bytes_from_client: self.from_client.load(Ordering::Relaxed),
            bytes_from_target: self.from_target.load(Ordering::Relaxed),
            channels: 0,
        }
    }

    fn observer(&self) -> MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn seen(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
        self.last_byte.store(now, Ordering::Relaxed);
    }

    fn bodies(&self, events: &mut Vec<Event>) -> Vec<Body> {
        events
            .drain(..)
            .filter_map(|event| {
                if matches!(event, Event::StatementBegun(_)) {
                    self.statements.fetch_add(1, Ordering::Relaxed);
                }
                if let Event::Parameter { name, value } = &event
                    && let Some(strings) = Strings::reported(name, value)
                {
                    self.escapes.store(strings == Strings::Escaped, Ordering::Relaxed);
                }
                let escapes = self.escapes.load(Ordering::Relaxed);
                record::body(&event, if escapes { Strings::Escaped } else { Strings::Standard })
            })
            .collect()
    }

    /// Resolves when no byte has gone either way for `limit`.
    async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = i64::try_from(self.last_byte.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            let until = Timestamp::from_micros(last).plus(limit);
            if self.clock.now() >= until {
                return;
            }
            self.clock.sleep_until(until).await;
        }
    }
}

pub(super) async fn run(
    access: &Access,
    live: &LiveConnection,
    sides: Sides,
    canceller: &Canceller,
    limits: Limits,
) -> Pumped {
    let Sides { client, from_client, target, from_target, strings } = sides;
    let (client_read, client_write) = tokio::io::split(client);
    let (target_read, target_write) = tokio::io::split(target);
    let shared = Shared::new(live.recorder(), &access.clock, strings);
    let mut outward = Outward {
        shared: &shared,
        read: client_read,
        write: target_write,
        splitter: Splitter::new(limits.max_message),
        buffer: from_client,
        batch: Vec::new(),
        batched: 0,
        events: Vec::new(),
        between_messages: true,
    };
    let mut inward = Inward {
        shared: &shared,
        read: target_read,
        write: client_write,
        walker: Walker::new(),
        chunk: from_target.freeze(),
        boundary: Some(0),
        events: Vec::new(),
    };
    let mut stop = live.stop_signal();
    let stopped = tokio::select! {
        biased;
        reason = stop.stopped() => Stop::End(reason),
        broken = access.journal.failed() => broken.into(),
        stopped = outward.run() => stopped,
        stopped = inward.run() => stopped,
        () = shared.idle(limits.idle) => Stop::End(EndReason::Idle),
    };
    let mut events = Vec::new();
    shared.observer().finish(shared.now_us(), &mut events);
    let unresolved =
        |event: &Event| matches!(event, Event::StatementEnded(ended) if ended.outcome == Outcome::Unresolved);
    let canceller = events.iter().any(unresolved).then_some(canceller);
    let reason = finish(outward, inward, stopped, canceller).await;
    for body in shared.bodies(&mut events) {
        // Should the journal be broken, the end record says so or the next start does.
        if shared.recorder.note_wait(body).await.is_err() {
            break;
        }
    }
    Pumped { reason, totals: shared.totals() }
}

/// Says goodbye where that is possible and closes both sockets; with a `canceller`, the target is
/// told to stop the statement that it may still be at work on.
async fn finish(
    outward: Outward<'_>,
    mut inward: Inward<'_>,
    stopped: Stop,
    canceller: Option<&Canceller>,
) -> EndReason {
    let Outward { read: client_read, write: mut target_write, between_messages, .. } = outward;
    let (reason, goodbye) = match stopped {
        Stop::ClientGone => (EndReason::ClientClosed, None),
        Stop::TargetGone => (EndReason::TargetClosed, Some(Goodbye::from(&EndReason::TargetClosed))),
        Stop::End(reason) => {
            let goodbye = Goodbye::from(&reason);
            (reason, Some(goodbye))
        }
    };
    let cancelling = async {
        let Some(canceller) = canceller else { return };
        // The role's server processes are terminated with the credential; this ends the
        // statement even where the session goes on.
        let sent = tokio::time::timeout(CANCEL_WITHIN, canceller.cancel()).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("a running statement could not be cancelled at the target");
        }
    };
    let cut = reason.ends_the_right();
    let telling = async {
        let at_boundary = goodbye.is_some() && inward.reach_boundary().await;
        let mut client = client_read.unsplit(inward.write);
        let taken = close(&mut client, goodbye.filter(|_| at_boundary)).await;
        if !taken && cut {
            // The client does not read. Without this the kernel would keep what is on the way to it,
            // and the connection, for as long as the client likes.
            let _closed_already = client.get_ref().0.set_zero_linger();
        }
    };
    // At the same time: a cancelled statement is what ends a message that is halfway here.
    tokio::join!(telling, cancelling);
    // The target last: where many connections end at once, its processes would take the processor
    // from the clients that have not been told yet.
    let parting = async {
        if between_messages {
            target_write.write_all(&encode::terminate()).await?;
        }
        target_write.shutdown().await
    };
    let _told = tokio::time::timeout(CANCEL_WITHIN, parting).await;
    reason
}

/// Client to target.
struct Outward<'a> {
    shared: &'a Shared<'a>,
    read: ReadHalf<server::TlsStream<TcpStream>>,
    write: WriteHalf<client::TlsStream<TcpStream>>,
    splitter: Splitter,
    buffer: BytesMut,
    /// Observed, not yet forwarded.
    batch: Vec<Bytes>,
    batched: usize,
    events: Vec<Event>,
    /// Whether what was written to the target ends where a message ends.
    between_messages: bool,
}

impl Outward<'_> {
    async fn run(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.pass_on().await {
                return stop;
            }
            if self.buffer.is_empty() {
                // An idle connection holds no memory of what went through it.
                self.buffer = BytesMut::new();
            }
            match scratch::read_into(&mut self.read, &mut self.buffer).await {
                Ok(0) | Err(_) => return Stop::ClientGone,
                Ok(read) => self.shared.seen(&self.shared.from_client, read),
            }
        }
    }

    /// Observes, records and forwards every message that is there.
    async fn pass_on(&mut self) -> Result<(), Stop> {
        loop {
            // What came before a message that we cannot accept is still forwarded.
            let next = self.splitter.next(&mut self.buffer);
            let piece = match next {
                Ok(Some(piece)) => piece,
                Ok(None) => return self.forward().await,
                Err(error) => {
                    self.forward().await?;
                    return Err(error.into());
                }
            };
            if let Err(error) = self.observe(&piece).await {
                self.forward().await?;
                return Err(error);
            }
            self.batched += piece.raw().len();
            let terminate = matches!(&piece, Piece::Frame(frame) if frame.tag == b'X');
            if terminate {
                self.forward().await?;
                return Err(Stop::ClientGone);
            }
            self.batch.push(piece.raw().clone());
            if self.batched >= BATCH {
                self.forward().await?;
            }
        }
    }

    /// Waits with a message whose meaning depends on answers that have not come.
    async fn observe(&mut self, piece: &Piece) -> Result<(), Stop> {
        loop {
            let answered = self.shared.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            let observed = {
                let mut observer = self.shared.observer();
                observer.piece(piece, self.shared.now_us(), &mut self.events)?
            };
            match observed {
                Observed::Forward => return Ok(()),
                Observed::Hold { flush } => {
                    if flush {
                        self.batch.push(encode::flush());
                    }
                    self.forward().await?;
                    answered.await;
                }
            }
        }
    }

    /// Makes the records of the batch durable, then writes the batch to the target.
    async fn forward(&mut self) -> Result<(), Stop> {
        self.shared.observer().flush(self.shared.now_us(), &mut self.events);
        let bodies = self.shared.bodies(&mut self.events);
        if !bodies.is_empty() {
            self.shared.recorder.record(&bodies).await?;
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.between_messages = false;
        for bytes in self.batch.drain(..) {
            self.write.write_all(&bytes).await.map_err(|_| Stop::TargetGone)?;
        }
        self.batched = 0;
        self.write.flush().await.map_err(|_| Stop::TargetGone)?;
        self.between_messages = self.splitter.at_boundary();
        Ok(())
    }
}

/// Target to client.
struct Inward<'a> {
    shared: &'a Shared<'a>,
    read: ReadHalf<client::TlsStream<TcpStream>>,
    write: WriteHalf<server::TlsStream<TcpStream>>,
    walker: Walker,
    /// What is being written to the client; bytes leave it as they are written.
    chunk: Bytes,
    /// How many of the chunk's bytes end where its last whole message does; `None` when all of
    /// the chunk lies inside one message.
    boundary: Option<usize>,
    events: Vec<Event>,
}

impl Inward<'_> {
    async fn run(&mut self) -> Stop {
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
        let mut at = 0;
        self.boundary = self.walker.at_boundary().then_some(0);
        {
            let mut observer = self.shared.observer();
            let now = self.shared.now_us();
            while let Some(message) = self.walker.next(&self.chunk, &mut at)? {
                observer.server(&message, now, &mut self.events)?;
                if self.walker.at_boundary() {
                    self.boundary = Some(at);
                }
            }
        }
        self.shared.answered.notify_one();
        for body in self.shared.bodies(&mut self.events) {
            self.shared.recorder.note_wait(body).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self) -> Result<(), Stop> {
        let had_some = self.chunk.has_remaining();
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
        self.chunk = Bytes::new();
        self.boundary = self.walker.at_boundary().then_some(0);
        Ok(())
    }

    /// Writes the client as much as ends a message, if the rest of it comes and the client takes it
    /// in time.
    async fn reach_boundary(&mut self) -> bool {
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
