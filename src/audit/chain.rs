//! How records are linked. Three hashes, each with its own tag, so that none can stand for another:
//!
//! - a record:            `r = H(0x00 ‖ json)`
//! - in its recording:    `h₋₁ = H("sallyport recording v1\n" ‖ rec)`, `hᵢ = H(0x01 ‖ hᵢ₋₁ ‖ rᵢ)`
//! - in the node's log:   `j₋₁ = H("sallyport journal v1\n" ‖ node)`,  `jₙ = H(0x02 ‖ jₙ₋₁ ‖ rₙ)`
//!
//! As only `r` enters a chain, a record can be withheld and replaced by its hash, and the chain
//! still proves the others.

use crate::crypto::{Hash, sha256};
use crate::domain::id::NodeId;

const RECORD: &[u8] = &[0x00];
const RECORDING: &[u8] = &[0x01];
const JOURNAL: &[u8] = &[0x02];

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

impl RecordingChain {
    pub fn start(recording: &str) -> Self {
        Self { next: 0, head: sha256(&[b"sallyport recording v1\n", recording.as_bytes()]) }
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

/// The node's log: what a checkpoint signs. Today a linear chain; a Merkle tree takes its place
/// here when proofs of single records are needed, without a change to records or files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    size: u64,
    head: Hash,
}

impl Log {
    pub fn start(node: &NodeId) -> Self {
        Self { size: 0, head: sha256(&[b"sallyport journal v1\n", node.as_str().as_bytes()]) }
    }

    /// How many records it holds; also the index `n` of the next one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What a checkpoint over `size` records says.
    pub fn root(&self) -> Hash {
        self.head
    }

    /// The value that the next record's line would carry.
    pub fn after(&self, record: &Hash) -> Hash {
        sha256(&[JOURNAL, &self.head, record])
    }

    pub fn push(&mut self, record: &Hash) {
        self.head = self.after(record);
        self.size = self.size.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    // Computed with coreutils' sha256sum from the formulas above.
    const RECORD_HASH: &str = "0fe7f04cd9688fb996eea9ae1248cbe83b4d04805413f35ab25ad9deb5a3cb32";
    const RECORDING_HEAD: &str = "1351e0c1ba6bf4dbf7d197d36dbd4a4302dea438af9be3145f020bcf54613ed6";
    const LOG_ROOT: &str = "1a1afdc0bac8709acb167338f556367bff17e05619a8cee4b559a80353781b1e";

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
