//! A canary: an event that is recorded on purpose, fetched back from where the log goes, and verified as an auditor would.
//! A recording that silently became worthless is noticed within the hour.
//!
//! 1. The place is taken in the stream, or in the journal's files, and the log's state in the writer.
//! 2. An event with a random text is recorded, and a checkpoint over it signed.
//! 3. What came after that place is read back: every line must follow from those before it, the text must be among
//!    them, and the checkpoint must hold and be over exactly these lines ([`check`]).

mod check;
mod source;

use std::io;
use std::path::PathBuf;

use super::Unrecordable;
use super::journal::Journal;
use super::note::{BadCheckpoint, VerifyKey};
use super::record::ControlEntry;
use super::signer::NotSigned;
use super::signing::NoCheckpoint;
use super::stream::kinesis::{NotRead, Reader};
use crate::crypto;
use crate::domain::event::{Action, Event};
use crate::domain::id::NodeId;
use check::Check;
use source::Source;

/// Where a canary is fetched back from.
#[derive(Debug, Clone)]
pub enum From {
    /// The journal's directory.
    Journal(PathBuf),
    Stream(Reader),
}

/// Why a canary has not come back as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError {
    #[error(transparent)]
    Unrecordable(#[from] Unrecordable),
    #[error("no checkpoint over it is signed: {0}")]
    NotSigned(NotSigned),
    #[error("the journal cannot be read back: {0}")]
    Journal(String),
    #[error("the stream cannot be read back: {0}")]
    Stream(#[from] NotRead),
    #[error("it has not come back with a checkpoint over it")]
    NotBack,
    #[error("record {n} is not as it was recorded: {what}")]
    Altered { n: u64, what: String },
    #[error("the checkpoint over {size} records is not over these")]
    Rewritten { size: u64 },
    #[error(transparent)]
    BadCheckpoint(#[from] BadCheckpoint),
}

impl CanaryError {
    /// Whether it says that what came back is not what was recorded: looking again is of no use.
    pub fn is_about_the_log(&self) -> bool {
        matches!(self, Self::Altered { .. } | Self::Rewritten { .. } | Self::BadCheckpoint(_))
    }
}

impl std::convert::From<NoCheckpoint> for CanaryError {
    fn from(error: NoCheckpoint) -> Self {
        match error {
            NoCheckpoint::Unrecordable(why) => Self::Unrecordable(why),
            NoCheckpoint::NotSigned(why) => Self::NotSigned(why),
        }
    }
}

impl std::convert::From<io::Error> for CanaryError {
    fn from(error: io::Error) -> Self {
        Self::Journal(error.to_string())
    }
}

/// One that is under way.
#[derive(Debug)]
pub struct Canary {
    node: NodeId,
    check: Check,
    source: Source,
}

impl Canary {
    /// Records it in `journal`, whose checkpoints `key` opens.
    pub async fn release(journal: &Journal, key: &VerifyKey, from: From) -> Result<Self, CanaryError> {
        // The places before the log's state: what is recorded after it comes after them.
        let shards = source::ends(&from).await?;
        let head = journal.head().await?;
        let text = crypto::hex(&crypto::random::<16>());
        let event = Event::done(Action::Canary).with("text", text.as_str());
        let entry = ControlEntry { outbox: None, at: journal.now(), event };
        journal.control(&[entry]).await?;
        journal.checkpoint().await?;
        let source = Source::new(from, shards, head.place);
        let check = Check::new(key.clone(), head.log, text);
        Ok(Self { node: key.node().clone(), check, source })
    }

    /// Reads on; whether it is proved. `Ok(false)`: not yet. After an error [about the log](CanaryError::is_about_the_log)
    /// it is lost.
    pub async fn look(&mut self) -> Result<bool, CanaryError> {
        self.source.read(&mut self.check, &self.node).await?;
        self.check.is_proved()
    }
}
