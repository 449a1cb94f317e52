//! Search across recordings: who did what, where, when. See `docs/search.md`.
//!
//! 1. [`extract`]: from records to texts: lines as a terminal showed them, statements, paths.
//! 2. [`text`]: when a text is the same as another.
//! 3. [`signature`]: what a block of a recording's text may hold, in a few bytes.
//! 4. [`feed`]: follows the log and keeps the signatures in an [`Index`], a file beside the log.
//! 5. [`find`]: picks blocks by signature, newest first, reads them in the log and finds the text there.
//! 6. [`mod@scan`]: the same from the log alone, without an index.
//!
//! The index is neither authority nor evidence: every hit was read in the log, and the index can be thrown away and
//! made anew at any time.

mod block;
mod extract;
mod feed;
mod find;
mod index;
mod matching;
mod places;
mod scan;
mod schema;
mod signature;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod typed;

use std::path::PathBuf;

use crate::domain::id::{ConnectionId, PrincipalId, SessionId};
use crate::domain::name::{AccessName, TargetName};
use crate::domain::principal::Actor;
use crate::domain::time::Timestamp;

pub use extract::KINDS;
pub use index::{Index, Progress};
pub use scan::scan;

/// What is looked for. Everything that is given must apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Case and the amount of white space do not matter. An empty text is found everywhere.
    pub text: String,
    /// A name or an id.
    pub principal: Option<String>,
    pub target: Option<TargetName>,
    pub session: Option<SessionId>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// One of [`KINDS`].
    pub kind: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Only what is older than this record: [`Found::next`] of the page before.
    pub before: Option<u64>,
}

impl Query {
    pub fn new(text: &str, limit: usize) -> Self {
        Self {
            text: text.to_owned(),
            principal: None,
            target: None,
            session: None,
            from: None,
            to: None,
            kind: None,
            limit,
            before: None,
        }
    }
}

/// A record in which the text was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Index of the record in the node's log.
    pub n: u64,
    pub connection: ConnectionId,
    pub session: SessionId,
    pub principal: Actor,
    pub target: TargetName,
    pub access: AccessName,
    pub break_glass: bool,
    pub at: Timestamp,
    /// Place of the record in its recording. Of a line that a terminal showed, the record that completed it.
    pub seq: u64,
    pub kind: &'static str,
    /// The text with what stands around it, on one line.
    pub excerpt: String,
    /// In so many further places of the record the text is as well.
    pub more: u64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Newest first.
    pub hits: Vec<Hit>,
    /// Where to go on; none when everything was looked at.
    pub next: Option<u64>,
    /// There are recordings that the other filters let through and that were left out, because they may not be read.
    /// It does not depend on the text, so that nobody learns from it what is in them.
    pub withheld: bool,
    /// Some of what may hold the text cannot be read: files of the log were moved away, or removed once they were in the
    /// archive.
    pub moved: bool,
}

/// Decides whether what somebody did on a target may be read.
pub type May<'a> = dyn FnMut(&PrincipalId, &TargetName) -> bool + 'a;

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("the text is too long: look for at most {} characters of it", text::LONGEST_NEEDLE)]
    TooLong,
    #[error("`{given}` is no kind of record that holds text: give one of {}", KINDS.join(", "))]
    UnknownKind { given: String },
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the audit log is damaged: {what}: run `sallyport audit verify`")]
    Damaged { what: String },
    #[error("cannot use the search index `{}`: see to its directory's space and rights", path.display())]
    Index {
        path: PathBuf,
        #[source]
        source: IndexError,
    },
}

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("it does not belong to this log")]
    Stale,
}

impl SearchError {
    /// Whether the question is to blame.
    pub const fn is_the_askers(&self) -> bool {
        matches!(self, Self::TooLong | Self::UnknownKind { .. })
    }
}
