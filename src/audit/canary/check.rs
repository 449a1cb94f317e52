//! Whether what came back is what was recorded: the lines from just before the canary on, in any order and more than
//! once, and a checkpoint over them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::CanaryError;
use crate::audit::chain::{Log, record_hash};
use crate::audit::line::parse_line;
use crate::audit::note::{Checkpoint, VerifyKey};
use crate::crypto::Hash;

/// So many records are taken, from the canary on: a checkpoint is signed right after it.
const MOST: usize = 1 << 18;

#[derive(Debug, Clone)]
pub(super) struct Check {
    key: VerifyKey,
    text: String,
    /// The log before the canary, as the writer knows it.
    before: Log,
    /// The log as far as lines have come without a gap, and their hashes.
    log: Log,
    records: Vec<Hash>,
    /// Lines that wait for those before them.
    held: BTreeMap<u64, Held>,
    /// Checkpoints, by their sizes, that wait for lines or for the canary.
    notes: BTreeMap<u64, Checkpoint>,
    /// The canary's index.
    seen: Option<u64>,
}

#[derive(Debug, Clone)]
struct Held {
    record: Hash,
    /// What the line says that the log's chain is after it.
    chain: Hash,
    is_canary: bool,
}

/// What a canary's record says.
#[derive(Deserialize)]
struct Said {
    node: String,
    rec: String,
    action: Option<String>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    text: Option<String>,
}

impl Check {
    /// Of a canary that says `text` and is in the log after `before`.
    pub(super) fn new(key: VerifyKey, before: Log, text: String) -> Self {
        let log = before.clone();
        let (records, held, notes) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { key, text, before, log, records, held, notes, seen: None }
    }

    /// Takes a line, without its line feed.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), CanaryError> {
        let next = self.log.size();
        let altered = |n: u64, what: &str| CanaryError::Altered { n, what: what.to_owned() };
        let line = parse_line(line).map_err(|error| altered(next, &error.to_string()))?;
        let most = self.before.size().saturating_add(u64::try_from(MOST).unwrap_or(u64::MAX));
        if line.n < next || line.n >= most {
            return Ok(());
        }
        let held =
            Held { record: record_hash(line.json), chain: line.hash, is_canary: self.is_canary(line.json) };
        self.held.entry(line.n).or_insert(held);
        while let Some(held) = self.held.remove(&self.log.size()) {
            let n = self.log.size();
            if held.chain != self.log.after(&held.record) {
                return Err(altered(n, "it does not follow from those before it"));
            }
            self.log.push(&held.record);
            self.records.push(held.record);
            if held.is_canary {
                self.seen = Some(n);
            }
        }
        Ok(())
    }

    fn is_canary(&self, json: &[u8]) -> bool {
        let node = self.key.node().as_str();
        serde_json::from_slice::<Said>(json).is_ok_and(|said| {
            let text = said.detail.and_then(|detail| detail.text);
            let is_ours = said.node == node && said.rec == node;
            is_ours && said.action.as_deref() == Some("canary") && text.as_deref() == Some(self.text.as_str())
        })
    }

    /// Takes a checkpoint.
    pub(super) fn note(&mut self, note: &str) -> Result<(), CanaryError> {
        let checkpoint = self.key.open(note)?;
        if checkpoint.size >= self.before.size() {
            self.notes.insert(checkpoint.size, checkpoint);
        }
        Ok(())
    }

    /// Whether the canary has come back, and a checkpoint vouches for it.
    pub(super) fn is_proved(&mut self) -> Result<bool, CanaryError> {
        let mut proved = false;
        let size = self.log.size();
        for checkpoint in self.notes.extract_if(..=size, |_, _| true) {
            let (size, checkpoint) = checkpoint;
            let more = usize::try_from(size.saturating_sub(self.before.size())).unwrap_or(usize::MAX);
            let mut log = self.before.clone();
            for record in self.records.iter().take(more) {
                log.push(record);
            }
            if log.root() != checkpoint.root {
                return Err(CanaryError::Rewritten { size });
            }
            proved |= self.seen.is_some_and(|n| n < size);
        }
        Ok(proved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::SigningKey;
    use crate::audit::line::write_line;
    use crate::domain::id::NodeId;

    struct World {
        key: SigningKey,
        before: Log,
        lines: Vec<Vec<u8>>,
        notes: Vec<String>,
    }

    /// A log of eight records, the canary is the sixth; a checkpoint after each.
    fn world() -> World {
        let node = NodeId::from_random([1; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), node.clone()).unwrap();
        let mut log = Log::start(&node);
        let (mut before, mut lines, mut notes) = (log.clone(), Vec::new(), Vec::new());
        for n in 0..8 {
            let what = if n == 5 { "\"canary\",\"detail\":{\"text\":\"tweet\"}" } else { "\"login\"" };
            let json = format!("{{\"node\":\"{node}\",\"rec\":\"{node}\",\"n\":{n},\"action\":{what}}}");
            let hash = record_hash(json.as_bytes());
            if n == 3 {
                before = log.clone();
            }
            let mut line = Vec::new();
            write_line(&mut line, n, &log.after(&hash), json.as_bytes());
            line.pop();
            lines.push(line);
            log.push(&hash);
            notes.push(key.sign(log.size(), &log.root()).unwrap());
        }
        World { key, before, lines, notes }
    }

    fn check(world: &World) -> Check {
        Check::new(world.key.verify_key(), world.before.clone(), "tweet".to_owned())
    }

    #[test]
    fn lines_in_any_order_and_twice_and_a_checkpoint_prove_it() {
        let world = world();
        let mut check = check(&world);
        for n in [7, 1, 6, 4, 4, 3] {
            check.line(&world.lines[n]).unwrap();
            check.note(&world.notes[n]).unwrap();
            assert!(!check.is_proved().unwrap(), "{n}");
        }
        check.line(&world.lines[5]).unwrap();
        assert!(check.is_proved().unwrap());
    }

    #[test]
    fn a_checkpoint_from_before_it_proves_nothing() {
        let world = world();
        let mut check = check(&world);
        for line in &world.lines {
            check.line(line).unwrap();
        }
        for note in &world.notes[..5] {
            check.note(note).unwrap();
        }
        assert!(!check.is_proved().unwrap());
        check.note(&world.notes[5]).unwrap();
        assert!(check.is_proved().unwrap());
    }

    #[test]
    fn another_canary_is_not_this_one() {
        let world = world();
        let mut check = Check::new(world.key.verify_key(), world.before.clone(), "other".to_owned());
        for (line, note) in world.lines.iter().zip(&world.notes) {
            check.line(line).unwrap();
            check.note(note).unwrap();
        }
        assert!(!check.is_proved().unwrap());
    }

    #[test]
    fn no_byte_of_the_canarys_line_or_its_checkpoint_can_be_changed() {
        let world = world();
        for index in 0..world.lines[5].len() {
            let mut check = check(&world);
            let mut line = world.lines[5].clone();
            line[index] ^= 1;
            let mut outcome = Ok(());
            for line in [&world.lines[3], &world.lines[4], &line, &world.lines[6]] {
                outcome = outcome.and_then(|()| check.line(line));
            }
            let proved = outcome.and_then(|()| check.note(&world.notes[6])).and_then(|()| check.is_proved());
            assert!(!matches!(proved, Ok(true)), "byte {index}");
        }
        for index in 0..world.notes[6].len() {
            let mut check = check(&world);
            for line in &world.lines {
                check.line(line).unwrap();
            }
            let mut note = world.notes[6].clone().into_bytes();
            note[index] ^= 1;
            let Ok(note) = String::from_utf8(note) else { continue };
            assert!(check.note(&note).is_err(), "byte {index}");
        }
        // Signed, but over something else.
        let mut check = check(&world);
        for line in &world.lines {
            check.line(line).unwrap();
        }
        check.note(&world.key.sign(7, &[9; 32]).unwrap()).unwrap();
        assert_eq!(check.is_proved(), Err(CanaryError::Rewritten { size: 7 }));
    }
}
