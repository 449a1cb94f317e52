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

/// How many steps of one shard are remembered while the archive cannot go on.
const MOST_STEPS: usize = 1 << 16;

/// What was read up to a sequence number, and what of it the archive does not hold yet.
#[derive(Debug)]
struct Step {
    sequence: String,
    /// How many records each node's log needs.
    needs: Vec<(NodeId, u64)>,
}

impl Step {
    /// Goes on to `sequence`: from there on both are held, or neither.
    fn extend(&mut self, sequence: &str, node: NodeId, needed: u64) {
        sequence.clone_into(&mut self.sequence);
        match self.needs.iter_mut().find(|(of, _)| *of == node) {
            Some((_, most)) => *most = needed.max(*most),
            None => self.needs.push((node, needed)),
        }
    }
}

/// The positions in all shards.
#[derive(Debug)]
pub struct Shards {
    directory: PathBuf,
    kept: Kept,
    /// What was read and the archive does not hold yet, by shard.
    under_way: BTreeMap<String, VecDeque<Step>>,
    most_steps: usize,
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
        Ok(Self {
            directory: archive.to_owned(),
            kept,
            under_way: BTreeMap::new(),
            most_steps: MOST_STEPS,
            changed: false,
        })
    }

    /// Where to read on; none: from the shard's beginning.
    pub fn after(&self, shard: &str) -> Option<&str> {
        self.kept.shards.get(shard).map(String::as_str)
    }

    /// A record of the stream was read, and is in the archive once the node's log has `needed` records.
    pub fn read(&mut self, shard: &str, sequence: &str, node: NodeId, needed: u64) {
        let steps = self.under_way.entry(shard.to_owned()).or_default();
        let is_full = steps.len() >= self.most_steps;
        match steps.back_mut() {
            // A gap that stays must not take ever more memory: what comes behind it is one step.
            Some(last) if is_full => last.extend(sequence, node, needed),
            _ => steps.push_back(Step { sequence: sequence.to_owned(), needs: vec![(node, needed)] }),
        }
    }

    /// Everything that the archive does not hold is read again.
    pub fn forget(&mut self) {
        self.under_way.clear();
    }

    /// Goes on past what the archive holds, durably; `size` says how long a node's log is there.
    pub fn keep(&mut self, size: impl Fn(&NodeId) -> u64) -> io::Result<()> {
        for (shard, steps) in &mut self.under_way {
            let is_held = |step: &mut Step| step.needs.iter().all(|(node, needed)| size(node) >= *needed);
            while let Some(step) = steps.pop_front_if(is_held) {
                self.kept.shards.insert(shard.clone(), step.sequence);
                self.changed = true;
            }
        }
        if std::mem::take(&mut self.changed) {
            replace(&self.directory, FILE, &serde_json::to_vec(&self.kept)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_archive_cannot_go_on_memory_stays_bounded_and_no_position_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (NodeId::from_random([1; 10]), NodeId::from_random([2; 10]));
        let mut shards = Shards::open(dir.path(), "stream").unwrap();
        shards.most_steps = 4;
        for n in 1..=1_000_u64 {
            let node = if n % 2 == 0 { one.clone() } else { other.clone() };
            shards.read("shard", &n.to_string(), node, n);
        }
        assert_eq!(shards.under_way["shard"].len(), 4);
        assert_eq!(shards.under_way["shard"].back().unwrap().needs.len(), 2);
        let mut after = |sizes: (u64, u64)| {
            shards.keep(|node| if *node == one { sizes.0 } else { sizes.1 }).unwrap();
            Shards::open(dir.path(), "stream").unwrap().after("shard").map(str::to_owned)
        };
        assert_eq!(after((1_000, 0)), None);
        assert_eq!(after((1_000, 1)).as_deref(), Some("2"));
        assert_eq!(after((1_000, 3)).as_deref(), Some("3"));
        assert_eq!(after((1_000, 998)).as_deref(), Some("3"), "999 is missing");
        assert_eq!(after((999, 999)).as_deref(), Some("3"), "1,000 is missing");
        assert_eq!(after((1_000, 999)).as_deref(), Some("1000"));
    }
}
