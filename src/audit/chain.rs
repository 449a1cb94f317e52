//! How records are linked. Each hash has its own tag, so that none can stand for another:
//!
//! - a record:            `r = H(0x00 ‖ json)`, a leaf of the node's [Merkle tree](super::merkle) (its nodes: 0x01)
//! - in the node's log:   `j₋₁ = H("sallyport journal v1\n" ‖ node)`,  `jₙ = H(0x02 ‖ jₙ₋₁ ‖ rₙ)`
//! - in its recording:    `h₋₁ = H("sallyport recording v1\n" ‖ rec)`, `hᵢ = H(0x03 ‖ hᵢ₋₁ ‖ rᵢ)`
//!
//! A line carries `j`, which tells at which line a log was altered; a checkpoint signs the tree's root, which
//! proves single records without the others. As only `r` enters them, a record can be withheld and replaced
//! by its hash, and the others are still proved.

use super::merkle::{KeptTree, Tree};
use crate::crypto::{Hash, from_hex, hex, sha256};
use crate::domain::id::NodeId;

const RECORD: &[u8] = &[0x00];
const JOURNAL: &[u8] = &[0x02];
const RECORDING: &[u8] = &[0x03];

/// The hash of one record, exactly as stored (without the line's end).
pub fn record_hash(json: &[u8]) -> Hash {
    sha256(&[RECORD, json])
}

/// The chain of one recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingChain {
    next: u64,
    head: Hash,
}

/// As kept in files.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptChain {
    next: u64,
    head: String,
}

impl RecordingChain {
    pub fn start(recording: &str) -> Self {
        Self { next: 0, head: sha256(&[b"sallyport recording v1\n", recording.as_bytes()]) }
    }

    /// As kept in files.
    pub(super) fn kept(&self) -> KeptChain {
        KeptChain { next: self.next, head: hex(&self.head) }
    }

    /// None when it cannot be a chain's.
    pub(super) fn from_kept(kept: &KeptChain) -> Option<Self> {
        Some(Self { next: kept.next, head: from_hex(&kept.head)? })
    }

    /// The `seq` of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Covers all records so far.
    pub fn head(&self) -> &Hash {
        &self.head
    }

    pub fn push(&mut self, record: &Hash) {
        self.head = sha256(&[RECORDING, &self.head, record]);
        self.next = self.next.saturating_add(1);
    }
}

/// The node's log: its chain, and the tree whose root a checkpoint signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    head: Hash,
    tree: Tree,
}

/// The log's chain value after a record, from the one before it.
pub(super) fn after(head: &Hash, record: &Hash) -> Hash {
    sha256(&[JOURNAL, head, record])
}

/// As kept in files.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptLog {
    head: String,
    tree: KeptTree,
}

impl Log {
    pub fn start(node: &NodeId) -> Self {
        let head = sha256(&[b"sallyport journal v1\n", node.as_str().as_bytes()]);
        Self { head, tree: Tree::default() }
    }

    /// As kept in files.
    pub(super) fn kept(&self) -> KeptLog {
        KeptLog { head: hex(&self.head), tree: self.tree.kept() }
    }

    /// None when it cannot be a log's.
    pub(super) fn from_kept(kept: &KeptLog) -> Option<Self> {
        Some(Self { head: from_hex(&kept.head)?, tree: Tree::from_kept(&kept.tree)? })
    }

    /// The tree alone.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// How many records it holds; also the index `n` of the next one.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// What a checkpoint over `size` records says.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The value that the next record's line would carry.
    pub fn after(&self, record: &Hash) -> Hash {
        after(&self.head, record)
    }

    pub fn push(&mut self, record: &Hash) {
        self.push_with(record, self.after(record));
    }

    /// As [`Self::push`], with what [`Self::after`] gave for the record.
    pub(super) fn push_with(&mut self, record: &Hash, after: Hash) {
        self.head = after;
        self.tree.push(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with coreutils' sha256sum from the formulas above.
    const RECORD_HASH: &str = "0fe7f04cd9688fb996eea9ae1248cbe83b4d04805413f35ab25ad9deb5a3cb32";
    const RECORDING_HEAD: &str = "137d8d5fc5c19855c44560939e2fd79a74a709ab673d041699815530bf751162";
    const LOG_HEAD: &str = "1a1afdc0bac8709acb167338f556367bff17e05619a8cee4b559a80353781b1e";
    const LOG_ROOT: &str = "169f0d1725c36a3625930ae2113c06bf50a4d1f82cf7d7f1d32d8eec3a590e71";

    #[test]
    fn chains_follow_their_published_formulas() {
        let record = record_hash(br#"{"v":1}"#);
        assert_eq!(hex(&record), RECORD_HASH);
        let mut recording = RecordingChain::start("con-0000000000000000");
        recording.push(&record);
        recording.push(&record);
        assert_eq!((hex(recording.head()).as_str(), recording.next()), (RECORDING_HEAD, 2));
        let mut log = Log::start(&"nod-0000000000000000".parse().unwrap());
        log.push(&record);
        assert_eq!(hex(&log.after(&record)), LOG_HEAD);
        log.push(&record);
        assert_eq!((hex(&log.root()).as_str(), log.size()), (LOG_ROOT, 2));
    }

    #[test]
    fn a_record_can_be_replaced_by_its_hash_and_the_chain_still_holds() {
        let mut whole = RecordingChain::start("con-0000000000000000");
        let mut redacted = whole.clone();
        let secret_hash = record_hash(b"{\"sql\":\"secret\"}");
        for record in [&b"{\"a\":1}"[..], b"{\"sql\":\"secret\"}", b"{\"c\":3}"] {
            whole.push(&record_hash(record));
        }
        redacted.push(&record_hash(b"{\"a\":1}"));
        redacted.push(&secret_hash);
        redacted.push(&record_hash(b"{\"c\":3}"));
        assert_eq!(whole, redacted);
    }
}
