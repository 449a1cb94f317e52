//! One node's log, put together from parcels that come in any order and more than once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::archive::NodeArchive;
use super::{Alarm, AlarmKind};
use crate::audit::chain::record_hash;
use crate::audit::line::{LONGEST_LINE, parse_line};
use crate::audit::merkle::Tree;
use crate::audit::note::{Checkpoint, VerifyKey};
use crate::audit::stream::parcel::Heading;
use crate::crypto::{Hash, sha256};
use crate::domain::id::NodeId;
use crate::domain::time::{Timestamp, humane};

/// How much may wait for what comes before it, in bytes. A node ships less ahead of what is confirmed.
const MOST_HELD: usize = 128 << 20;
/// How many contents of one record wait for the one that follows from those before it.
const MOST_CANDIDATES: usize = 4;
/// How many records' hashes are remembered, for duplicates and for checkpoints that come late.
const RECENT: usize = 1 << 16;
/// The pieces of a longer line are no line.
const MOST_PIECES: u32 = 4096;

/// Of so many lines pieces wait for the others at a time.
const MOST_PARTIAL: usize = 1024;

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
    /// Lines that wait for those before them.
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Lines came that there was no room for: they are to be read again.
    has_dropped: bool,
    most_held: usize,
    pieces: HashMap<String, Pieces>,
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

/// Contents of a record, and when the first of them arrived.
#[derive(Debug)]
struct Held {
    arrived: Timestamp,
    lines: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Note {
    arrived: Timestamp,
    checkpoint: Checkpoint,
    text: String,
}

#[derive(Debug)]
struct Pieces {
    n: u64,
    pieces: Vec<Vec<u8>>,
}

impl Pieces {
    fn length(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
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
            held: BTreeMap::new(),
            held_bytes: 0,
            has_dropped: false,
            most_held: MOST_HELD,
            pieces: HashMap::new(),
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
        self.most_held = bytes;
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

    /// Whether there is room now for lines that there was none for: they have to be read again.
    pub fn wants_again(&mut self) -> bool {
        self.held.is_empty() && std::mem::take(&mut self.has_dropped)
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
        self.drain(now)?;
        Ok(needed)
    }

    fn piece(
        &mut self,
        key: &str,
        (n, index, of): (u64, u32, u32),
        bytes: &[u8],
        (arrived, now): (Timestamp, Timestamp),
    ) -> io::Result<u64> {
        if n < self.size() {
            // Pieces of a line that is here already: what is in them was compared when it was whole.
            self.pieces.remove(key);
            return Ok(0);
        }
        if !self.has_room_for_piece(key, bytes.len()) {
            self.alarm(
                now,
                AlarmKind::Malformed,
                format!("more pieces of lines than are read at a time, at record {n}"),
            );
            self.has_dropped = true;
            return Ok(n.saturating_add(1));
        }
        let at = usize::try_from(index.saturating_sub(1)).unwrap_or(usize::MAX);
        let pieces = self.pieces.entry(key.to_owned()).or_insert(Pieces { n, pieces: Vec::new() });
        if pieces.n != n {
            *pieces = Pieces { n, pieces: Vec::new() };
        }
        let length = pieces.length();
        if of > MOST_PIECES || length.saturating_add(bytes.len()) > LONGEST_LINE + 1 + bytes.len() {
            self.alarm(now, AlarmKind::Malformed, format!("the pieces of record {n} are no line"));
            self.pieces.remove(key);
            return Ok(0);
        }
        if at > pieces.pieces.len() {
            // The stream lost one, or the archive was begun in the middle: it counts as missing.
            return Ok(n.saturating_add(1));
        }
        pieces.pieces.truncate(at);
        pieces.pieces.push(bytes.to_vec());
        if index == of {
            let whole = std::mem::take(&mut pieces.pieces).concat();
            self.pieces.remove(key);
            self.line(&whole, (arrived, now))?;
        }
        Ok(n.saturating_add(1))
    }

    /// Whether another piece can wait for those that belong to it. Lines that have come another way need theirs no more.
    fn has_room_for_piece(&mut self, key: &str, bytes: usize) -> bool {
        let has_room = |pieces: &HashMap<String, Pieces>| {
            let length: usize = pieces.values().map(Pieces::length).sum();
            let is_one_of_few = pieces.len() < MOST_PARTIAL || pieces.contains_key(key);
            is_one_of_few && length.saturating_add(bytes) <= self.most_held
        };
        if has_room(&self.pieces) {
            return true;
        }
        let size = self.archive.log().size();
        self.pieces.retain(|_, pieces| pieces.n >= size);
        has_room(&self.pieces)
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
        if n > self.size() && self.held_bytes.saturating_add(line.len()) > self.most_held {
            if !std::mem::replace(&mut self.has_dropped, true) {
                let (mib, first) = (self.held_bytes >> 20, self.size());
                let what = format!(
                    "{mib} MiB wait for record {first}, which has not come: there is no room for more"
                );
                self.alarm(now, AlarmKind::Gap, what);
            }
            return Ok(n.saturating_add(1));
        }
        let held = self.held.entry(n).or_insert(Held { arrived, lines: Vec::new() });
        let held = &mut held.lines;
        if held.iter().any(|other| other == line) {
            return Ok(n.saturating_add(1));
        }
        let others = held.len();
        if others < MOST_CANDIDATES {
            held.push(line.to_vec());
            self.held_bytes = self.held_bytes.saturating_add(line.len());
        }
        if others > 0 {
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
            let Some(Held { lines: candidates, .. }) = self.held.remove(&n) else { return Ok(()) };
            self.held_bytes -= candidates.iter().map(Vec::len).sum::<usize>();
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
        let mut waiting = self.held.values().map(|held| held.arrived);
        let mut notes = self.notes.values().map(|note| note.arrived);
        let is_long = |arrived: Timestamp| now.since(arrived) >= patience.gap;
        let is_overdue = is_last && (waiting.any(is_long) || notes.any(is_long));
        let first = self.held.keys().next().or(self.notes.keys().next()).copied();
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
