//! What an observer tells.

use std::sync::Arc;

use bytes::Bytes;

use super::{CopyOf, Param};
use crate::crypto::Hash;
use crate::postgres::codec::backend::TransactionStatus;
use crate::postgres::fingerprint::Fingerprint;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    StatementBegun(Begun),
    StatementEnded(Ended),
    CopyBegun {
        n: u64,
        direction: Direction,
    },
    CopyEnded {
        n: u64,
        direction: Direction,
        /// As its text says; none for a query, and where it cannot be told.
        of: Option<CopyOf>,
        /// As the target told when all was done.
        rows: Option<u64>,
        /// Messages of copy data.
        chunks: u64,
        bytes: u64,
        sha256: Hash,
        /// Whether the sender said that this was all.
        complete: bool,
    },
    /// A command that decides what later statements mean was done.
    Set {
        n: u64,
        settings: &'static [&'static str],
        /// The command, or its head.
        sql: Bytes,
    },
    /// As told after each batch.
    TransactionState(TransactionStatus),
    /// A setting that the target reported.
    Parameter {
        name: Bytes,
        value: Bytes,
    },
    /// The implicit commit at `Sync` failed: statements that were told as done were undone.
    CommitFailed {
        sqlstate: Bytes,
        message: Bytes,
    },
}

/// How a statement was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A `Query`, which may hold several statements.
    Simple,
    /// An `Execute`.
    Extended,
    /// A `Parse` or `Bind` that was not followed by its execution.
    Prepare,
    /// A `FunctionCall` of the function with this OID.
    Function(u32),
}

/// A statement is about to be forwarded. Every one ends in one [`Ended`] with the same `n`.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// Counts from 1 in this connection.
    pub n: u64,
    pub how: How,
    /// Name of the prepared statement; empty for the unnamed one.
    pub statement: Bytes,
    /// Name of the portal; empty for the unnamed one.
    pub portal: Bytes,
    /// In the client's encoding; empty when the name is not known to the gateway.
    pub sql: Bytes,
    /// Of the text; none when that is not known.
    pub fingerprint: Option<Fingerprint>,
    pub params: Arc<[Param]>,
    /// False when the target may have run something else under this name.
    pub certain: bool,
    /// The first execution of the portal that this one fetches more rows of.
    pub resumes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The row limit was reached; more rows may be fetched.
    Suspended,
    Failed {
        sqlstate: Bytes,
        message: Bytes,
    },
    /// SQLSTATE 57014: by request or by a timeout.
    Cancelled {
        message: Bytes,
    },
    /// An earlier message of the batch failed: the target did not run this one.
    Skipped {
        /// The statement that failed; none when it was no statement's.
        after: Option<u64>,
    },
    /// The connection ended before the target answered: it may have run or not.
    Unresolved,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub n: u64,
    pub outcome: Outcome,
    /// Command tags, the first [`Ended::MOST_TAGS`] of them.
    pub tags: Vec<Bytes>,
    /// How many commands completed.
    pub commands: u64,
    /// Rows sent to the client.
    pub rows: u64,
    /// Sum of the counts in the command tags.
    pub affected: u64,
    /// Bytes of rows and of copied data sent to the client.
    pub bytes: u64,
    /// From begin to the first row or copied data, or else to what first answered it, in microseconds.
    pub first_us: Option<u64>,
    /// From begin to end, in microseconds.
    pub total_us: u64,
    /// The transaction's state, when the target told it right after this statement.
    pub transaction: Option<TransactionStatus>,
}

impl Ended {
    pub const MOST_TAGS: usize = 64;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the target.
    In,
    /// To the client.
    Out,
}
