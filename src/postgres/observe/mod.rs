//! Joins both directions of a connection into statements: what was run, with which values, and
//! what came of it. Pure: frames and instants in, [`Event`]s out.
//!
//! 1. [`Observer::client`] reads a message *before* it is forwarded and pushes events. On
//!    [`Observed::Hold`] nothing has changed: the caller lets the target's answers come in and asks
//!    again. An error ends the connection, and the message is not forwarded.
//! 2. [`Observer::flush`] is called before the messages observed so far are forwarded; it pushes
//!    what was prepared but not run. Then the events are made durable, then the bytes go.
//! 3. [`Observer::server`] reads what the target sends; [`Observer::finish`] ends what is open when
//!    the connection does.
//!
//! # How a name finds its statement
//! The maps of statements and portals hold what *will* be true if all that was forwarded succeeds,
//! and every change remembers what was there before. The target's answers come in order; an error
//! undoes the changes of the failed message and of all that the target then skips, up to `Sync`.
//! So within one batch a name is never ambiguous: where its definition fails, its use is skipped.
//! Across batches it would be: a `Parse` that failed, then a `Bind` of the older statement. Such a
//! use is held until the definition's fate is known. What SQL itself does to names (`PREPARE`,
//! `DEALLOCATE`, `DISCARD`, cursors) is not followed: it makes the names it could have touched
//! uncertain, and a use of them says so. SQL inside stored functions, or put together from
//! pieces, can do the same unseen; its text, or the call of the function, is on record.

mod change;
mod clause;
mod client;
mod copy;
mod event;
mod param;
mod pending;
mod refusal;
mod server;
mod sql;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use clause::CopyOf;
pub use event::{Begun, Direction, Ended, Event, How, Outcome};
pub use param::{LONGEST_SHOWN, Param, Value};
pub use refusal::{Refusal, ToRun};

use super::codec::backend::TransactionStatus;
use super::lexer::Strings;
use change::{Meter, Portal, Slots, Statement};
use copy::Copy;
use pending::{Pending, Queue};

/// Whether a client's message may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// After the events are durable.
    Forward,
    /// Not before more of the target's answers have been observed: forward what was observed
    /// earlier, then [`super::codec::encode::flush`] when `flush` says so (else the target may
    /// keep its answers to itself), and submit the message again after each answer.
    Hold { flush: bool },
}

/// How many named statements, and how many portals, a client may keep.
pub const MOST_NAMES: usize = 10_000;
/// How many bytes of SQL and values may be kept for a client, beside the longest message twice.
pub const MOST_KEPT: usize = 64 * 1024 * 1024;
/// How many messages may be unanswered before the next is held.
const MOST_PENDING: usize = 16_384;

/// One connection's observer, from the target's first `ReadyForQuery` on.
#[derive(Debug, Default)]
pub struct Observer {
    statements: Slots<Statement>,
    portals: Slots<Portal>,
    meter: Meter,
    queue: Queue,
    /// Counts messages that are answered; versions of names are these numbers too.
    last_id: u64,
    /// Counts what ends a batch: `Sync`, `Query`, `FunctionCall`.
    batch: u64,
    last_n: u64,
    /// The target skips everything until a `Sync` that has not come yet.
    failed: bool,
    /// The statement whose failure let the target skip others last.
    failed_by: Option<u64>,
    /// What ended right before a `Sync`, of which the transaction's state is about to be told.
    held: Vec<Event>,
    /// How the target reads strings, as far as it has told.
    strings: Strings,
    copy: Option<Copy>,
    /// The pending message that may turn the connection to COPY: what follows waits for it.
    may_copy: Option<u64>,
    /// What was prepared, for who runs it by SQL.
    by_name: sql::ByName,
    unrecorded: BTreeMap<u64, Unrecorded>,
    /// The last message that the target was asked to answer without waiting for more.
    asked: u64,
    terminated: bool,
    /// Something was sent since the last `ReadyForQuery`: settings and the transaction may be others than was told.
    unsettled: bool,
    /// As last told; none before anything was run: no transaction is open then.
    status: Option<TransactionStatus>,
    /// The next statement is refused.
    refusal: Option<Box<Refusal>>,
    /// What the last error is to be replaced by.
    replacement: Option<Bytes>,
}

/// A `Parse` or `Bind` that no execution has recorded yet.
#[derive(Debug)]
struct Unrecorded {
    begun: Begun,
    /// The versions of the statement, and of the portal, that it is about.
    versions: [u64; 2],
}

impl Observer {
    /// Whoever may send messages of up to `longest` bytes may replace a statement that long by another.
    pub fn new(longest: usize) -> Self {
        let meter = Meter::allowing(longest.saturating_mul(2).saturating_add(MOST_KEPT));
        Self { meter, ..Self::default() }
    }

    /// Of a connection whose target told that it reads strings so.
    pub fn reading(mut self, strings: Strings) -> Self {
        self.strings = strings;
        self
    }

    /// Bytes of SQL and values that are kept for the client.
    pub fn kept_bytes(&self) -> usize {
        self.meter.bytes()
    }

    /// Whether the target is at work on what it has been asked to answer, and does not wait for the client: what is to be
    /// copied, or the end of a batch.
    pub fn is_at_work(&self) -> bool {
        let reads_client = self.copy.as_ref().is_some_and(Copy::reads_client);
        !reads_client && self.queue.has_run_until(self.asked)
    }

    /// How many of the client's messages the target has not answered.
    pub fn unanswered(&self) -> usize {
        self.queue.len()
    }

    /// Pushes a [`How::Prepare`] for everything prepared or bound, and not run, since the last
    /// call: planning alone may run code. To be called before what was observed is forwarded.
    pub fn flush(&mut self, now_us: u64, out: &mut Vec<Event>) {
        let mut unrecorded = std::mem::take(&mut self.unrecorded);
        // A Bind tells its statement's SQL too: no second record for the Parse.
        let bound: Vec<u64> = unrecorded
            .iter()
            .filter(|(id, entry)| entry.versions[1] == **id)
            .map(|(_, entry)| entry.versions[0])
            .collect();
        for version in bound {
            unrecorded.remove(&version);
        }
        for (id, Unrecorded { mut begun, versions }) in unrecorded {
            self.last_n += 1;
            begun.n = self.last_n;
            let run = pending::Run::new(begun.n, now_us, versions, None);
            out.push(Event::StatementBegun(begun));
            if let Some(item) = self.queue.by_id(id) {
                item.run = Some(Box::new(run));
            } else {
                let outcome = Outcome::Skipped { after: self.failed_by };
                out.push(Event::StatementEnded(run.end(outcome, now_us)));
            }
        }
    }

    /// The connection ends: so does every statement and COPY that is still open.
    pub fn finish(&mut self, now_us: u64, out: &mut Vec<Event>) {
        self.release(None, out);
        if let Some(copy) = self.copy.take() {
            copy.end(None, out);
        }
        while let Some(mut item) = self.queue.pop() {
            if let Some(run) = item.run.take() {
                let outcome = run.failure.clone().unwrap_or(Outcome::Unresolved);
                out.push(Event::StatementEnded(run.end(outcome, now_us)));
            }
        }
        self.terminated = true;
    }

    /// A statement ended. When the transaction's state is what the target tells next, it is told with that.
    fn told(&mut self, ended: Ended, out: &mut Vec<Event>) {
        let event = Event::StatementEnded(ended);
        if self.queue.next_is_certain_sync() == Some(true) {
            self.held.push(event);
        } else {
            out.push(event);
        }
    }

    fn release(&mut self, status: Option<TransactionStatus>, out: &mut Vec<Event>) {
        for mut event in self.held.drain(..) {
            if let Event::StatementEnded(ended) = &mut event {
                ended.transaction = status;
            }
            out.push(event);
        }
    }

    /// Marks as uncertain what SQL of this text could have done to names known by now.
    fn mark_uncertain(&mut self, touches: sql::Touches, before: u64) {
        if touches.statements {
            self.statements.mark_uncertain(before);
            self.queue.mark_statements_uncertain(before);
        }
        if touches.portals {
            self.portals.mark_uncertain(before);
            self.queue.mark_portals_uncertain(before);
        }
    }

    /// Names may stand for something else than was seen.
    pub fn distrust_names(&mut self) {
        let all = sql::Touches { statements: true, portals: true };
        self.mark_uncertain(all, self.last_id.saturating_add(1));
        self.portals.mark_unnamed_uncertain();
    }

    /// Undoes the changes of a message that failed or was skipped.
    fn undo(&mut self, item: &mut Pending) {
        match item.undo.take() {
            Some(pending::Undo::Statement(change)) => {
                let id = change.version;
                if let Some(change) = self.statements.undo(change) {
                    self.queue.relink_statement(id, change);
                }
            }
            Some(pending::Undo::Portal(change)) => {
                let id = change.version;
                if let Some(change) = self.portals.undo(change) {
                    self.queue.relink_portal(id, change);
                }
            }
            None => {}
        }
        if self.may_copy == Some(item.id) {
            self.may_copy = None;
        }
    }

    /// What a name stands for is unknown until a change made in an earlier batch is answered.
    fn is_unresolved(&self, version: Option<(u64, u64)>) -> bool {
        version
            .is_some_and(|(id, batch)| batch < self.batch && self.queue.first_id().is_some_and(|f| f <= id))
    }
}

/// A copy that does not keep the frame it came in: for what is kept under a name.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
