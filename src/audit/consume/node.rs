//! One node's log, put together from parcels that come in any order and more than once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::archive::NodeArchive;
use super::waiting::{self, Waiting};
use super::{Alarm, AlarmKind};
use crate::audit::chain::record_hash;
use crate::audit::line::parse_line;
use crate::audit::merkle::Tree;
use crate::audit::note::{Checkpoint, VerifyKey};
use crate::audit::stream::parcel::Heading;
use crate::crypto::{Hash, sha256};
use crate::domain::id::NodeId;
use crate::domain::time::{Timestamp, humane};

/// How many records' hashes are remembered, for duplicates and for checkpoints that come late.
const RECENT: usize = 1 << 16;

/// When to worry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Records that came may wait so long for those before them.
    pub gap: Duration,
    /// A node may be silent for so long.
    pub silence: Duration,
}

#[derive(Debug)]
pub struct Node {
    id: NodeId,
    key: Option<VerifyKey>,
    archive: NodeArchive,
    waiting: Waiting,
    /// Checkpoints that wait for the records that they cover.
    notes: BTreeMap<u64, Note>,
    recent: Recent,
    /// When something was heard of the node last.
    heard: Timestamp,
    is_silent: bool,
    /// Since when something has been missing, and whether that was said.
    gap: Option<(Timestamp, bool)>,
    alarms: Vec<Alarm>,
}

#[derive(Debug)]
struct Note {
    arrived: Timestamp,
    checkpoint: Checkpoint,
    text: String,
}

/// The last records of the archive.
#[derive(Debug)]
struct Recent {
    /// Of all records before them.
    before: Tree,
    /// Hash of the record, and of its line.
    hashes: VecDeque<(Hash, Hash)>,
}

impl Recent {
    fn push(&mut self, record: Hash, line: &[u8]) {
        if self.hashes.len() == RECENT
            && let Some((oldest, _)) = self.hashes.pop_front()
        {
            self.before.push(&oldest);
        }
        self.hashes.push_back((record, sha256(&[line])));
    }

    fn line(&self, n: u64) -> Option<&Hash> {
        let index = usize::try_from(n.checked_sub(self.before.size())?).ok()?;
        self.hashes.get(index).map(|(_, line)| line)
    }

    /// The root over the first `size` records, if that is not too long ago.
    fn root(&self, size: u64) -> Option<Hash> {
        let more = usize::try_from(size.checked_sub(self.before.size())?).ok()?;
        let mut tree = self.before.clone();
        for (record, _) in self.hashes.iter().take(more) {
            tree.push(record);
        }
        (tree.size() == size).then(|| tree.root())
    }
}

impl Node {
    /// Goes on with what the archive has of it. Without a key its checkpoints are kept unchecked, and that is an
    /// alarm.
    pub fn open(archive: &Path, id: NodeId, key: Option<VerifyKey>, now: Timestamp) -> io::Result<Self> {
        let archive = NodeArchive::open(archive, &id)?;
        archive.pack_leftovers()?;
        let recent = Recent { before: archive.log().tree().clone(), hashes: VecDeque::new() };
        let mut node = Self {
            id,
            key,
            archive,
            waiting: Waiting::new(),
            notes: BTreeMap::new(),
            recent,
            heard: now,
            is_silent: false,
            gap: None,
            alarms: Vec::new(),
        };
        if node.key.is_none() {
            let what = "its checkpoints are not checked: give the node's public key".to_owned();
            node.alarm(now, AlarmKind::UnknownNode, what);
        }
        Ok(node)
    }

    pub fn archive(&mut self) -> &mut NodeArchive {
        &mut self.archive
    }

    #[cfg(test)]
    pub(super) fn set_most_held(&mut self, bytes: usize) {
        self.waiting.set_most(bytes);
    }

    /// How many records are in the archive, without a gap.
    pub fn size(&self) -> u64 {
        self.archive.log().size()
    }

    /// What there is to say since it was asked last.
    pub fn alarms(&mut self) -> Vec<Alarm> {
        std::mem::take(&mut self.alarms)
    }

    fn alarm(&mut self, at: Timestamp, kind: AlarmKind, what: String) {
        self.alarms.push(Alarm { at, node: Some(self.id.clone()), kind, what });
    }

    /// Whether the log has come to what there was no room for: that has to be read again.
    pub fn wants_again(&mut self) -> bool {
        self.waiting.wants_again(self.archive.log().size())
    }

    /// Takes a parcel that came under `key` at `arrived`. Gives the size that the log must reach before the parcel
    /// can be forgotten.
    pub fn take(
        &mut self,
        key: &str,
        heading: Heading,
        bytes: &[u8],
        (arrived, now): (Timestamp, Timestamp),
    ) -> io::Result<u64> {
        self.heard = self.heard.max(arrived);
        self.archive.heard(arrived);
        let needed = match heading {
            Heading::Lines => {
                let mut needed = 0;
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    needed = needed.max(self.line(line, (arrived, now))?);
                }
                needed
            }
            Heading::Part { n, index, of } => self.piece(key, (n, index, of), bytes, (arrived, now))?,
            Heading::Checkpoint => self.note(bytes, (arrived, now))?,
        };
        if let Some((lines, pieces)) = self.waiting.is_newly_full() {
            let (lines, pieces, first) = (lines >> 20, pieces >> 20, self.size());
            let what = format!(
                "{lines} MiB, and {pieces} MiB of pieces of lines, wait for record {first}, which has not come: there \
                 is no room for more"
            );
            self.alarm(now, AlarmKind::Full, what);
        }
        self.drain(now)?;
        Ok(needed)
    }

    fn piece(
        &mut self,
        key: &str,
        (n, index, of): (u64, u32, u32),
        bytes: &[u8],
        at: (Timestamp, Timestamp),
    ) -> io::Result<u64> {
        let size = self.size();
        match self.waiting.piece(key, (n, index, of), bytes, size) {
            waiting::Piece::Whole(line) => _ = self.line(&line, at)?,
            waiting::Piece::Waits => {}
            waiting::Piece::NoLine => {
                self.alarm(at.1, AlarmKind::Malformed, format!("the pieces of record {n} are no line"));
                return Ok(0);
            }
        }
        Ok(if n < size { 0 } else { n.saturating_add(1) })
    }

    /// Takes a line with its line feed.
    fn line(&mut self, line: &[u8], (arrived, now): (Timestamp, Timestamp)) -> io::Result<u64> {
        let parsed = line.strip_suffix(b"\n").and_then(|line| parse_line(line).ok());
        let Some(parsed) = parsed else {
            let start: String = String::from_utf8_lossy(line).chars().take(40).collect();
            self.alarm(now, AlarmKind::Malformed, format!("not a line of a log: {start}"));
            return Ok(0);
        };
        let n = parsed.n;
        if n < self.size() {
            self.compare(n, line, now)?;
            return Ok(0);
        }
        if self.waiting.line(n, line, arrived, self.size()) == waiting::Line::Second {
            self.alarm(now, AlarmKind::Different, format!("record {n} has come with two contents"));
        }
        Ok(n.saturating_add(1))
    }

    /// A line that is in the archive already must be the same.
    fn compare(&mut self, n: u64, line: &[u8], now: Timestamp) -> io::Result<()> {
        let same = match self.recent.line(n) {
            Some(hash) => *hash == sha256(&[line]),
            None => self.archive.line(n)?.as_deref() == Some(line),
        };
        if !same {
            self.alarm(
                now,
                AlarmKind::Different,
                format!("record {n} is in the archive with another content"),
            );
        }
        Ok(())
    }

    /// Appends what follows from what there is.
    fn drain(&mut self, now: Timestamp) -> io::Result<()> {
        loop {
            self.meet()?;
            let n = self.size();
            let Some(candidates) = self.waiting.candidates(n) else { return Ok(()) };
            let log = self.archive.log();
            let follows = candidates.iter().find_map(|line| {
                let parsed = parse_line(line.strip_suffix(b"\n")?).ok()?;
                let record = record_hash(parsed.json);
                (log.after(&record) == parsed.hash).then_some((record, line))
            });
            let Some((record, line)) = follows else {
                let what = format!("record {n} does not follow from those before it");
                self.alarm(now, AlarmKind::Broken, what);
                return Ok(());
            };
            self.recent.push(record, line);
            self.archive.append(line, &record, now);
        }
    }

    /// Takes a checkpoint.
    fn note(&mut self, bytes: &[u8], (arrived, now): (Timestamp, Timestamp)) -> io::Result<u64> {
        let note = String::from_utf8_lossy(bytes).into_owned();
        let checkpoint = match &self.key {
            Some(key) => key.open(&note).map_err(|error| error.to_string()),
            None => Checkpoint::unchecked(&note).ok_or_else(|| "it is malformed".to_owned()),
        };
        let checkpoint = match checkpoint {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.alarm(now, AlarmKind::Forged, format!("a checkpoint does not hold: {error}"));
                return Ok(0);
            }
        };
        let size = checkpoint.size;
        if size > self.size() {
            let root = checkpoint.root;
            let other = self.notes.entry(size).or_insert(Note { arrived, checkpoint, text: note });
            if other.checkpoint.root != root {
                self.two_logs(size, now);
            }
            return Ok(size);
        }
        match self.recent.root(size) {
            Some(root) if root == checkpoint.root => self.archive.checkpoint(size, &note)?,
            Some(_) => self.rewritten(size, now),
            // Long ago: it was met when it came first, if it was that one.
            None => {
                if self.archive.root(size)?.is_some_and(|root| root != checkpoint.root) {
                    self.two_logs(size, now);
                }
            }
        }
        Ok(0)
    }

    fn two_logs(&mut self, size: u64, now: Timestamp) {
        let what = format!("two checkpoints over {size} records are signed, and they are of two logs");
        self.alarm(now, AlarmKind::Rewritten, what);
    }

    fn rewritten(&mut self, size: u64, now: Timestamp) {
        let what = format!("the checkpoint over {size} records is not of the log that arrived");
        self.alarm(now, AlarmKind::Rewritten, what);
    }

    /// Keeps the checkpoint that covers what there is now, if one waits.
    fn meet(&mut self) -> io::Result<()> {
        let size = self.size();
        let Some(Note { checkpoint, text, .. }) = self.notes.remove(&size) else { return Ok(()) };
        if self.archive.log().root() == checkpoint.root {
            return self.archive.checkpoint(size, &text);
        }
        self.rewritten(size, self.heard);
        Ok(())
    }

    /// Looks whether something has been missing, or nothing heard, for too long. When it `is_last`, nobody will look
    /// again: then it counts how long ago what waits, or anything at all, arrived.
    pub fn watch(&mut self, patience: &Patience, now: Timestamp, is_last: bool) {
        let mut notes = self.notes.values().map(|note| note.arrived);
        let is_long = |arrived: Timestamp| now.since(arrived) >= patience.gap;
        let is_overdue = is_last && (self.waiting.arrivals().any(is_long) || notes.any(is_long));
        let first = self.waiting.first().or(self.notes.keys().next().copied());
        match (first, self.gap) {
            (None, Some((_, true))) => {
                self.gap = None;
                self.alarm(now, AlarmKind::GapClosed, format!("{} records, without a gap", self.size()));
            }
            (None, _) => self.gap = None,
            (Some(_), None) if !is_overdue => self.gap = Some((now, false)),
            (Some(first), gap) => {
                let (since, is_said) = gap.unwrap_or((now, false));
                if !is_said && (is_overdue || now.since(since) >= patience.gap) {
                    self.gap = Some((since, true));
                    let what = format!("records from {} to before {first} have not come", self.size());
                    self.alarm(now, AlarmKind::Gap, what);
                }
            }
        }
        // A look that ends at once cannot wait: what an earlier one heard counts.
        let heard = if is_last { self.archive.arrived().unwrap_or(self.heard) } else { self.heard };
        let silence = now.since(heard);
        let is_silent = silence >= patience.silence;
        if is_silent != self.is_silent {
            self.is_silent = is_silent;
            let (kind, what) = if is_silent {
                (AlarmKind::Silent, format!("nothing has been heard of it for {}", humane(silence)))
            } else {
                (AlarmKind::Heard, "it is heard again".to_owned())
            };
            self.alarm(now, kind, what);
        }
    }
}
