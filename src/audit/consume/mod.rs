//! The other end of the stream: puts the nodes' logs together again, finds what is missing, twice or altered, and
//! keeps them in an archive. It believes nobody: each log's chain and its checkpoints are checked on the way.
//!
//! - [`node`]: one node's log, put together from parcels that come in any order and more than once
//! - [`archive`]: where it is kept: a directory that `audit verify`, `replay` and `search` read like a node's own
//! - [`waiting`]: what came before its turn
//! - [`shards`]: how far each shard of the stream was read
//! - [`consumer`]: all nodes of a stream
//! - [`objects`]: closed files in a bucket, written once and locked
//! - [`log_group`]: control records for those who act upon them

pub mod archive;
pub mod consumer;
pub mod log_group;
pub mod node;
pub mod objects;
pub mod shards;
mod waiting;

use serde::Serialize;

use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    pub at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    pub kind: AlarmKind,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Bytes in the stream that no node of ours writes.
    Malformed,
    /// A node whose key was not given: its checkpoints are not checked.
    UnknownNode,
    /// Records are missing.
    Gap,
    GapClosed,
    /// More waits for what is missing than there is room for. It is read again.
    Full,
    /// One record has two contents.
    Different,
    /// A record does not follow from those before it.
    Broken,
    /// A checkpoint's signature does not hold.
    Forged,
    /// A checkpoint is not of the log that arrived.
    Rewritten,
    /// Nothing is heard of a node any more, not even that nothing happened.
    Silent,
    Heard,
    /// Another object is where a segment of the archive should be.
    Occupied,
}

impl AlarmKind {
    /// Whether it says that something is not as it should be, and is not mended by reading on.
    pub fn is_wrong(self) -> bool {
        !matches!(self, Self::GapClosed | Self::Heard | Self::Full)
    }
}
