//! What observers of file transfers tell.

use bytes::Bytes;

use super::lost::Lost;
use super::stream::StreamSummary;
use crate::crypto::Hash;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    /// Is about to be forwarded, and must be durable before it is.
    Asked(Asked),
    /// What came of it: every [`Asked`] gets one with the same `n`.
    Answered(Answered),
    /// The bytes are no longer understood: comes once, after an answer to all that was asked.
    Lost { why: Lost },
    /// At the end, after [`FileEvent::Lost`]: what passed from the first byte not understood on.
    Opaque { client: StreamSummary, server: StreamSummary },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Counts from 1 in this channel.
    pub n: u64,
    pub op: FileOp,
    /// As it came: relative paths are relative to where the server began. Empty when the request
    /// names a handle that had not been given.
    pub path: Bytes,
    /// The second path of those operations that have one.
    pub to: Option<Bytes>,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub n: u64,
    pub op: FileOp,
    pub path: Bytes,
    pub to: Option<Bytes>,
    pub outcome: Outcome,
    /// What came from the target; for operations that can read.
    pub read: Option<Content>,
    /// What went to the target; for operations that can write.
    pub written: Option<Content>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOp {
    /// Answered when the file is closed, or could not be opened.
    Open(OpenFlags),
    /// Of a directory; answered when it was opened.
    List,
    Remove,
    /// Fails when `to` exists.
    Rename,
    /// Replaces `to`.
    PosixRename,
    Mkdir,
    Rmdir,
    /// `path` is the link, `to` where it points.
    Symlink,
    /// `path` is the old name, `to` the new one.
    Hardlink,
    /// Of the file that a path leads to.
    Setstat,
    /// Of a symbolic link itself.
    Lsetstat,
    /// Of an open file.
    Fsetstat,
    /// Of what is in the open file `path` into the open file `to`, by the target itself.
    CopyData,
    /// A file that scp sends or fetches.
    ScpFile,
    /// A directory that scp sends or fetches files into.
    ScpDirectory,
    /// A request that is not known, by its name.
    Extended(Bytes),
}

impl FileOp {
    /// As it is called in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::PosixRename => "posix-rename",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Setstat => "setstat",
            Self::Lsetstat => "lsetstat",
            Self::Fsetstat => "fsetstat",
            Self::CopyData => "copy-data",
            Self::ScpFile => "scp-file",
            Self::ScpDirectory => "scp-directory",
            Self::Extended(_) => "extended",
        }
    }
}

/// The `pflags` of an open (draft-ietf-secsh-filexfer-02, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    pub fn reads(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub fn writes(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub fn appends(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub fn creates(self) -> bool {
        self.0 & 0x08 != 0
    }

    pub fn truncates(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Fails when the file exists.
    pub fn excludes(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// What a request sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<Owner>,
    /// Permissions, and perhaps the type of the file, as `stat` has them.
    pub mode: Option<u32>,
    pub times: Option<Times>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

/// In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub accessed: u64,
    pub modified: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed {
        /// `SSH_FX_…` of SFTP; 1 or 2 of scp.
        code: u32,
        /// As it came, its first [`Outcome::LONGEST_MESSAGE`] bytes.
        message: Bytes,
    },
    /// The connection ended, or was no longer understood, before there was an answer.
    Unknown,
}

impl Outcome {
    pub const LONGEST_MESSAGE: usize = 512;

    pub(super) fn failed(code: u32, message: &[u8]) -> Self {
        let kept = message.get(..Self::LONGEST_MESSAGE).unwrap_or(message);
        Self::Failed { code, message: Bytes::copy_from_slice(kept) }
    }
}

/// What passed of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Those that the reader or the writer acknowledged.
    pub bytes: u64,
    /// Of the bytes from `from` on. None when they did not pass one after another: with holes, more
    /// than once, or too far out of order.
    pub sha256: Option<Hash>,
    /// Where in the file the hashed bytes begin; 0 but where a transfer was resumed.
    pub from: u64,
}
