//! Statements that are not to reach the target: what would be run, and whose error is replaced by ours.

use bytes::Bytes;

use super::{Observer, Outcome};
use crate::postgres::codec::backend::{Report, TransactionStatus};
use crate::postgres::codec::frame::Frame;
use crate::postgres::codec::frontend::ClientMessage;

/// What the server says of a text that it cannot parse, as the one is that stands in for a refused statement.
const SYNTAX_ERROR: &[u8] = b"42601";

/// A refusal of ours in place of a statement's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The whole `ErrorResponse`.
    pub report: Bytes,
    pub sqlstate: Bytes,
    pub message: Bytes,
}

/// What a message would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRun {
    Sql {
        sql: Bytes,
        /// The server reads the text when it gets this message, not before.
        is_parsed_now: bool,
    },
    /// It cannot be told: a function by its number, a name that may stand for something else.
    Unknown,
}

impl Observer {
    /// What a client's message would run, as far as is known before it is observed; `None` when it runs nothing.
    pub fn to_run(&self, frame: &Frame) -> Option<ToRun> {
        match ClientMessage::read(frame).ok()? {
            ClientMessage::Query { sql } => Some(ToRun::Sql { sql, is_parsed_now: true }),
            ClientMessage::Parse(parse) => Some(ToRun::Sql { sql: parse.sql, is_parsed_now: true }),
            ClientMessage::Execute { portal, .. } => {
                let slot = self.portals.slot(&portal).filter(|slot| slot.certain);
                let known = slot.and_then(|slot| slot.value.as_ref());
                Some(known.map_or(ToRun::Unknown, |portal| ToRun::Sql {
                    sql: portal.sql.clone(),
                    is_parsed_now: false,
                }))
            }
            ClientMessage::FunctionCall(_) => Some(ToRun::Unknown),
            _ => None,
        }
    }

    /// Whether there may be portals that SQL's FETCH and MOVE could run by their names.
    pub fn has_named_portals(&self) -> bool {
        self.portals.has_named()
    }

    /// Whether the target has told of everything that was forwarded: its settings, and whether a transaction is open, it
    /// tells with `ReadyForQuery` at the latest.
    pub fn is_settled(&self) -> bool {
        !self.unsettled
    }

    /// Counts what ends a batch of messages: a failure lets the server skip what follows in it.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether a transaction is open; `None` while that depends on answers that have not come.
    pub fn in_transaction(&self) -> Option<bool> {
        self.is_settled().then(|| self.status.is_some_and(|status| status != TransactionStatus::Idle))
    }

    /// Whether the next message that is observed, if it runs anything, is refused: something that the server cannot parse
    /// goes in its place.
    pub fn refuse_next(&mut self, refusal: Option<Refusal>) {
        self.refusal = refusal.map(Box::new);
    }

    /// What the error that was observed last is to be replaced by.
    pub fn replacement(&mut self) -> Option<Bytes> {
        self.replacement.take()
    }

    /// What came of a statement by an error, ours where it was refused.
    pub(super) fn failure(&mut self, refusal: Option<&Refusal>, report: &Report) -> Outcome {
        match refusal.filter(|_| report.sqlstate == SYNTAX_ERROR) {
            Some(Refusal { report, sqlstate, message }) => {
                self.replacement = Some(report.clone());
                Outcome::Failed { sqlstate: sqlstate.clone(), message: message.clone() }
            }
            None => super::pending::outcome_of(report),
        }
    }
}
