//! How far each shard of the stream was read, kept beside the archive: only past what the archive holds.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::archive::replace;
use crate::domain::id::NodeId;

const FILE: &str = "shards";

/// The sequence number after which a shard is read on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    stream: String,
    shards: BTreeMap<String, String>,
}

/// The positions in all shards.
#[derive(Debug)]
pub struct Shards {
    directory: PathBuf,
    kept: Kept,
    /// What was read and the archive does not hold yet, by shard: the sequence number, and what it takes.
    under_way: BTreeMap<String, VecDeque<(String, NodeId, u64)>>,
    changed: bool,
}

impl Shards {
    /// As kept for `stream`; from the beginning for another one.
    pub fn open(archive: &Path, stream: &str) -> io::Result<Self> {
        let kept = match fs::read(archive.join(FILE)) {
            Ok(text) => serde_json::from_slice::<Kept>(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let kept = if kept.stream == stream {
            kept
        } else {
            Kept { stream: stream.to_owned(), shards: BTreeMap::new() }
        };
        Ok(Self { directory: archive.to_owned(), kept, under_way: BTreeMap::new(), changed: false })
    }

    /// Where to read on; none: from the shard's beginning.
    pub fn after(&self, shard: &str) -> Option<&str> {
        self.kept.shards.get(shard).map(String::as_str)
    }

    /// A record of the stream was read, and is in the archive once the node's log has `needed` records.
    pub fn read(&mut self, shard: &str, sequence: &str, node: NodeId, needed: u64) {
        let entry = (sequence.to_owned(), node, needed);
        self.under_way.entry(shard.to_owned()).or_default().push_back(entry);
    }

    /// Everything that the archive does not hold is read again.
    pub fn forget(&mut self) {
        self.under_way.clear();
    }

    /// Goes on past what the archive holds, durably; `size` says how long a node's log is there.
    pub fn keep(&mut self, size: impl Fn(&NodeId) -> u64) -> io::Result<()> {
        for (shard, entries) in &mut self.under_way {
            while let Some((sequence, node, needed)) = entries.pop_front() {
                if size(&node) < needed {
                    entries.push_front((sequence, node, needed));
                    break;
                }
                self.kept.shards.insert(shard.clone(), sequence);
                self.changed = true;
            }
        }
        if std::mem::take(&mut self.changed) {
            replace(&self.directory, FILE, &serde_json::to_vec(&self.kept)?)?;
        }
        Ok(())
    }
}
