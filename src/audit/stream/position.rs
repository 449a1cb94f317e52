//! How far the stream has confirmed the log, kept in a file: after a restart, shipping goes on from there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::audit::backlog::Mark;
use crate::audit::base;
use crate::audit::files::Place;
use crate::domain::id::NodeId;

/// The file's name, in the audit directory.
pub(super) const FILE: &str = "shipped";
const NEW: &str = "shipped.new";

/// Everything before it is in the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    #[serde(flatten)]
    pub(super) mark: Mark,
    /// Number of the journal file with the next line, and the line's offset there.
    pub(super) file: u32,
    pub(super) offset: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    v: u32,
    stream: String,
    #[serde(flatten)]
    position: Position,
}

impl Position {
    /// The first record that is here.
    pub(super) fn start(directory: &Path, node: &NodeId) -> io::Result<Self> {
        let (before, file) = base::read(directory, node)?;
        if before.log.size() > 0 {
            tracing::warn!(
                records = before.log.size(),
                "the stream lacks what came before the log's first file here"
            );
        }
        let mark = Mark { records: before.log.size(), bytes: before.bytes };
        Ok(Self { mark, file, offset: 0 })
    }

    pub(super) fn place(&self) -> Place {
        Place { file: self.file, offset: self.offset }
    }

    /// What was kept for `stream`; none when nothing was, or for another one.
    pub(super) fn read(directory: &Path, stream: &str) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(directory.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept: Option<Kept> = serde_json::from_str(&text).ok();
        let kept = kept.filter(|kept| kept.v == 1 && kept.stream == stream);
        if kept.is_none() {
            tracing::warn!(stream, "the audit log goes to another stream than before: all of it is sent");
        }
        Ok(kept.map(|kept| kept.position))
    }

    /// Durable on return.
    pub(super) fn keep(&self, directory: &Path, stream: &str) -> io::Result<()> {
        let kept = Kept { v: 1, stream: stream.to_owned(), position: *self };
        let mut options = File::options();
        let mut file =
            options.create(true).truncate(true).write(true).mode(0o600).open(directory.join(NEW))?;
        file.write_all(&serde_json::to_vec(&kept)?)?;
        file.sync_all()?;
        fs::rename(directory.join(NEW), directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }
}
