//! The tamper-evident record of what was done. See `docs/audit-log.md` for the format
//! and `docs/audit-record.md` for what a record says.
//!
//! A connection's recording starts with [`Journal::begin`], goes on with [`Recorder::record`] and
//! ends with [`Recorder::end`]. What a function here reports as recorded is on the disk; what
//! cannot be recorded comes back as [`Unrecordable`], and must then not happen.

pub mod asciicast;
pub mod backlog;
pub mod base;
mod blocks;
mod body;
pub mod bundle;
pub mod canary;
pub mod chain;
mod checkpoints;
mod clip;
pub mod consume;
mod desk;
mod encode;
pub mod export;
mod files;
mod journal;
pub mod kms;
pub mod line;
mod medium;
pub mod merkle;
mod next_file;
pub mod note;
mod queue;
pub mod record;
mod recorder;
mod recover;
pub mod replay;
mod scan;
mod screen;
pub mod search;
pub mod signer;
mod signing;
mod since;
mod spares;
pub mod ssh;
pub mod stream;
pub mod tail;
mod tell;
#[cfg(test)]
mod tests;
pub mod tiles;
mod transcript;
pub mod verify;
pub mod vt;
pub mod witness;
mod writer;

use std::sync::Arc;

pub use journal::{Journal, JournalError, JournalOptions, Recovery};
pub use note::{SigningKey, VerifyKey};
pub use record::{Body, ControlEntry, Opening, Totals};
pub use recorder::Recorder;
pub use recover::Damage;
pub use signing::{CHECKPOINT_EVERY, NoCheckpoint, Signed, newest_checkpoint};

/// Something could not be recorded, so it must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecordable {
    /// The journal is broken (disk full, I/O error) until the node is started again.
    #[error("the audit log is broken: {detail}")]
    Failed { detail: Arc<str> },
    /// The journal was closed: the node is shutting down.
    #[error("the audit log is closed")]
    Closed,
    /// The recording has ended, or one of that name exists already.
    #[error("the recording has ended")]
    Ended,
    /// The queue was full when a note that could not wait was added.
    #[error("the audit log cannot keep up")]
    Backlog,
    /// The stream is further behind than the target's environment allows.
    #[error("the audit stream is {behind}, more than is allowed")]
    Behind { behind: backlog::Behind },
}
