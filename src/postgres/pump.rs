//! Bytes both ways, observed and recorded, until something ends.
//!
//! [`super::outward`] takes the client's messages to the target, [`super::inward`] the target's answers to the client.
//!
//! Both run in the connection's one task. When the connection must end, both are dropped where they
//! stand; what they have written is kept in structs, so that a goodbye is said only where one
//! message ended and the next has not begun.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::access::Access;
use crate::audit::{Body, Recorder, Totals, Unrecordable};
use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::time::Timestamp;
use crate::gateway::live::LiveConnection;

use super::codec::frame::Splitter;
use super::codec::walker::Walker;
use super::codec::{CodecError, encode};
use super::guard::{self, Guard};
use super::inward::Inward;
use super::lexer::Strings;
use super::observe::{Event, Observer, Outcome};
use super::outward::{Batch, Outward};
use super::record::{self, Hidden};
use super::serve::{close, hear_out};
use super::sqlstate::Goodbye;
use super::upstream::Canceller;
use super::{ClientStream, TargetStream};

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
    pub client: ClientStream,
    pub from_client: BytesMut,
    pub target: TargetStream,
    pub from_target: BytesMut,
    /// As the target told when it was ready.
    pub settings: guard::Settings,
}

/// How it ended. Both sockets are closed.
#[derive(Debug)]
pub(super) struct Pumped {
    pub reason: EndReason,
    pub totals: Totals,
    /// It ended amid a statement, which the target was told to cancel.
    pub amid_a_statement: bool,
}

/// What both directions share.
pub(super) struct Shared<'a> {
    pub(super) recorder: &'a Recorder,
    observer: Mutex<Observer>,
    hidden: Mutex<Hidden>,
    /// Raised after the target's answers were observed.
    pub(super) answered: Notify,
    started: Instant,
    /// As the target last told.
    escapes: AtomicBool,
    plain_encoding: AtomicBool,
    utf8: AtomicBool,
    clock: &'a Clock,
    last_byte: AtomicU64,
    /// Something of the target's has not been taken by the client.
    pub(super) delivers: AtomicBool,
    statements: AtomicU64,
    pub(super) from_client: AtomicU64,
    pub(super) from_target: AtomicU64,
}

/// Why a direction stopped.
pub(super) enum Stop {
    End(EndReason),
    /// It has said that it is over: what it asked for before is still done.
    ClientDone,
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
    fn new(recorder: &'a Recorder, clock: &'a Clock, settings: guard::Settings, limits: Limits) -> Self {
        let now = u64::try_from(clock.now().as_micros()).unwrap_or(0);
        Self {
            recorder,
            observer: Mutex::new(Observer::new(limits.max_message).reading(settings.strings)),
            hidden: Mutex::default(),
            answered: Notify::new(),
            started: Instant::now(),
            escapes: AtomicBool::new(settings.strings == Strings::Escaped),
            plain_encoding: AtomicBool::new(settings.encoding_is_plain),
            utf8: AtomicBool::new(settings.encoding_is_utf8),
            clock,
            last_byte: AtomicU64::new(now),
            delivers: AtomicBool::new(false),
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

    pub(super) fn observer(&self) -> MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn seen(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
        self.last_byte.store(now, Ordering::Relaxed);
    }

    /// How the target reads strings, as it last told.
    fn strings(&self) -> Strings {
        if self.escapes.load(Ordering::Relaxed) { Strings::Escaped } else { Strings::Standard }
    }

    pub(super) fn settings(&self) -> guard::Settings {
        let encoding_is_plain = self.plain_encoding.load(Ordering::Relaxed);
        let encoding_is_utf8 = self.utf8.load(Ordering::Relaxed);
        guard::Settings { strings: self.strings(), encoding_is_plain, encoding_is_utf8 }
    }

    pub(super) fn bodies(&self, events: &mut Vec<Event>) -> Vec<Body> {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .drain(..)
            .filter_map(|event| {
                if matches!(event, Event::StatementBegun(_)) {
                    self.statements.fetch_add(1, Ordering::Relaxed);
                }
                if let Event::Parameter { name, value } = &event {
                    if let Some(strings) = Strings::reported(name, value) {
                        self.escapes.store(strings == Strings::Escaped, Ordering::Relaxed);
                    }
                    if let Some(is_plain) = record::plain_encoding(name, value) {
                        self.plain_encoding.store(is_plain, Ordering::Relaxed);
                        self.utf8.store(record::is_utf8(value), Ordering::Relaxed);
                    }
                }
                record::body(&event, self.strings(), &mut hidden)
            })
            .collect()
    }

    /// Resolves when no byte has gone either way for `limit`, unless the target is at work: not on a result that the client
    /// does not take.
    async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = i64::try_from(self.last_byte.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            let mut until = Timestamp::from_micros(last).plus(limit);
            let now = self.clock.now();
            if now >= until {
                let is_at_work = self.observer().is_at_work();
                if !is_at_work || self.delivers.load(Ordering::Relaxed) {
                    return;
                }
                // When it is done, bytes come.
                until = now.plus(limit);
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
    let Sides { client, from_client, target, from_target, settings } = sides;
    let (client_read, client_write) = tokio::io::split(client);
    let (target_read, target_write) = tokio::io::split(target);
    let shared = Shared::new(live.recorder(), &access.clock, settings, limits);
    let mut outward = Outward {
        shared: &shared,
        guard: Guard::new(access, live.current_permit()),
        read: client_read,
        write: target_write,
        splitter: Splitter::new(limits.max_message),
        buffer: from_client,
        batch: Batch::default(),
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
        held: BytesMut::new(),
        passing: false,
        events: Vec::new(),
    };
    let mut stop = live.stop_signal();
    let stopped = async {
        // One from its beginning to its end: what it has taken and not yet recorded is in it.
        let mut answers = std::pin::pin!(inward.run());
        tokio::select! {
            biased;
            stopped = outward.run() => match stopped {
                // The target reads that too, when it has done what came before, and closes.
                Stop::ClientDone => match answers.await {
                    Stop::TargetGone => Stop::ClientGone,
                    otherwise => otherwise,
                },
                stopped => stopped,
            },
            stopped = &mut answers => stopped,
        }
    };
    let stopped = tokio::select! {
        biased;
        reason = stop.stopped() => Stop::End(reason),
        broken = access.journal.failed() => broken.into(),
        stopped = stopped => stopped,
        () = shared.idle(limits.idle) => Stop::End(EndReason::Idle),
    };
    let mut events = Vec::new();
    shared.observer().finish(shared.now_us(), &mut events);
    let amid_a_statement = events.iter().any(is_unresolved);
    let canceller = amid_a_statement.then_some(canceller);
    let reason = Box::pin(finish(outward, inward, stopped, canceller)).await;
    let bodies = shared.bodies(&mut events);
    if !bodies.is_empty() {
        // Should the journal be broken, the end record says so or the next start does.
        let _told_there = shared.recorder.note_wait(&bodies).await;
    }
    Pumped { reason, totals: shared.totals(), amid_a_statement }
}

fn is_unresolved(event: &Event) -> bool {
    matches!(event, Event::StatementEnded(ended) if ended.outcome == Outcome::Unresolved)
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
        Stop::ClientGone | Stop::ClientDone => (EndReason::ClientClosed, None),
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
        if matches!(reason, EndReason::Protocol { .. }) {
            // Perhaps in the middle of a message that is too long.
            hear_out(&mut client).await;
        }
        let taken = close(&mut client, goodbye.filter(|_| at_boundary)).await;
        if !taken && cut {
            // The client does not read. Without this the kernel would keep what is on the way to it,
            // and the connection, for as long as the client likes.
            let _closed_already = client.get_ref().0.get_ref().set_zero_linger();
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
