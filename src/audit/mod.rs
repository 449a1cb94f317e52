//! The tamper-evident record of what was done. See `docs/audit-log.md` for the format.
//!
//! A connection's recording starts with [`Journal::begin`], goes on with [`Recorder::record`] and
//! ends with [`Recorder::end`]. What a function here reports as recorded is on the disk; what
//! cannot be recorded comes back as [`Unrecordable`], and must then not happen.

pub mod asciicast;
pub mod chain;
mod checkpoints;
mod clip;
mod encode;
mod files;
mod journal;
pub mod line;
mod medium;
pub mod note;
mod queue;
pub mod record;
mod recorder;
mod recover;
pub mod replay;
pub mod ssh;
#[cfg(test)]
mod tests;
mod transcript;
pub mod verify;
pub mod vt;
mod writer;

use std::sync::Arc;

pub use journal::{CHECKPOINT_EVERY, Journal, JournalError, JournalOptions, Recovery};
pub use note::{SigningKey, VerifyKey};
pub use record::{Body, ControlEntry, Opening, Totals};
pub use recorder::Recorder;
pub use recover::Damage;

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
}
