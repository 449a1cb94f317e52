//! Proves, from the files and the public key alone, that the log is what was written: nothing
//! altered, removed, inserted, reordered or cut off. Names the first record that is not.
//!
//! 1. Every line follows from the one before it (index and chain).
//! 2. Every recording is whole: `seq` without holes, from `opened` to `ended`, and its own chain.
//! 3. Every checkpoint's signature holds, and its root is the log's at that size. The newest says
//!    how long the log is at least.
//! 4. A checkpoint that somebody else kept (a pin) matches too: the defence against one who holds
//!    the signing key.
//! 5. Every connection that the control recording saw opened has a recording.
//!
//! Memory is bounded by the number of recordings, not by the log's length.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::chain::{Log, RecordingChain, record_hash};
use super::checkpoints::{self, Checkpoints};
use super::files::{BadBytes, Lines, Place, Read};
use super::line::{Envelope, Line, parse_line};
use super::medium::{CHECKPOINTS, NEWEST_CHECKPOINT, file_name};
use super::note::{BadCheckpoint, Checkpoint, VerifyKey};
use crate::crypto::{Hash, hex};

/// Progress is told every so many records.
const PROGRESS_EVERY: u64 = 4096;

/// What to verify.
#[derive(Debug)]
pub struct Options<'a> {
    pub directory: &'a Path,
    pub key: &'a VerifyKey,
    /// Files with a checkpoint that was copied elsewhere earlier.
    pub pins: &'a [PathBuf],
}

/// Why it cannot be told whether the log is whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the pinned checkpoint `{}`", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub files: u32,
    /// Records that were checked and are whole.
    pub records: u64,
    pub recordings: u64,
    /// Recordings without an end: the connections are live, or the node stopped and has not been
    /// started since.
    pub unfinished: Vec<String>,
    /// Recordings whose opening no control record tells of (yet). Not a sign of tampering: the
    /// control record comes from the store, later.
    pub unannounced: u64,
    pub checkpoints: u64,
    /// Records that a checkpoint vouches for: those with `n` below this.
    pub covered: u64,
    /// Bytes at the end of a write that is under way or was torn, and that nothing vouches for.
    pub torn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<Finding>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// The first thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: String,
    /// Byte offset in the file, where it makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Index of the first record that is not vouched for.
    pub n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rec: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub kind: Kind,
    pub what: String,
}

/// What kind of damage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A record's bytes, or its line's, are not those that were written.
    Altered,
    Removed,
    /// A record that stands there a second time, or belongs elsewhere.
    Inserted,
    Reordered,
    /// The log ends before the records that a checkpoint vouches for.
    Truncated,
    Zeroed,
    FileMissing,
    /// The lines follow from each other, but not to what a checkpoint vouches for.
    Rewritten,
    /// A recording's records do not make a whole recording.
    BrokenRecording,
    /// A connection was opened, and there is no recording of it.
    MissingRecording,
    CheckpointMissing,
    CheckpointForged,
    KeyMismatch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.n)?;
        if let (Some(rec), Some(seq)) = (&self.rec, self.seq) {
            write!(f, " ({rec}, seq {seq})")?;
        }
        write!(f, " in `{}`", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_bad {
            None => writeln!(f, "the audit log is whole")?,
            Some(finding) => writeln!(f, "THE AUDIT LOG IS NOT WHOLE\nfirst bad: {finding}")?,
        }
        writeln!(f, "checked:    {} records in {} files", self.records, self.files)?;
        writeln!(f, "vouched:    {} records, by {} checkpoints", self.covered, self.checkpoints)?;
        writeln!(f, "recordings: {}, {} without an end", self.recordings, self.unfinished.len())?;
        for recording in &self.unfinished {
            writeln!(f, "  no end:   {recording}")?;
        }
        if self.torn > 0 {
            writeln!(f, "at the end: {} bytes of an unfinished write", self.torn)?;
        }
        Ok(())
    }
}

/// Checks the log in `options.directory`. `progress` is called now and then with the number of
/// records checked so far.
pub fn verify(options: &Options<'_>, progress: &mut dyn FnMut(u64)) -> Result<Report, VerifyError> {
    let unreadable = |source| VerifyError::Read { path: options.directory.to_owned(), source };
    let mut verifier = Verifier::new(options.key);
    // Checkpoints first: the log may grow meanwhile, what they vouch for does not.
    if let Err(finding) = verifier.checkpoints(options)? {
        verifier.report.first_bad = Some(*finding);
        return Ok(verifier.report);
    }
    let mut lines = Lines::open(options.directory);
    let outcome = verifier.lines(&mut lines, progress).map_err(unreadable)?;
    if let Err(finding) = outcome {
        verifier.report.first_bad = Some(*finding);
    }
    progress(verifier.log.size());
    Ok(verifier.finish())
}

type Checked<T = ()> = Result<T, Box<Finding>>;

/// A checkpoint to be met, and where it is from.
#[derive(Debug)]
struct Vouched {
    checkpoint: Checkpoint,
    source: String,
}

struct Verifier<'a> {
    key: &'a VerifyKey,
    log: Log,
    control: RecordingChain,
    open: HashMap<String, RecordingChain>,
    ended: HashSet<String>,
    /// Connections that control records saw opened, without a recording so far, and where that was.
    awaited: HashMap<String, (Place, u64)>,
    /// Recordings that no control record spoke of so far.
    unannounced: HashSet<String>,
    /// Notes of `checkpoints.log`, still to be read.
    stream: Option<Checkpoints>,
    /// The newest checkpoint and pins, by size, the smallest last; and the stream's next.
    vouched: Vec<Vouched>,
    report: Report,
}

fn finding(file: &str, n: u64, kind: Kind, what: impl Into<String>) -> Finding {
    Finding { file: file.to_owned(), offset: None, n, rec: None, seq: None, kind, what: what.into() }
}

fn at(place: Place, n: u64, kind: Kind, what: impl Into<String>) -> Finding {
    let mut finding = finding(&file_name(place.file), n, kind, what);
    finding.offset = Some(place.offset);
    finding
}

fn bad_checkpoint(file: &str, n: u64, error: &BadCheckpoint) -> Finding {
    let kind = match error {
        BadCheckpoint::OtherKey | BadCheckpoint::OtherOrigin { .. } => Kind::KeyMismatch,
        BadCheckpoint::Malformed | BadCheckpoint::Forged => Kind::CheckpointForged,
    };
    finding(file, n, kind, error.to_string())
}

impl<'a> Verifier<'a> {
    fn new(key: &'a VerifyKey) -> Self {
        Self {
            key,
            log: Log::start(key.node()),
            control: RecordingChain::start(key.node().as_str()),
            open: HashMap::new(),
            ended: HashSet::new(),
            awaited: HashMap::new(),
            unannounced: HashSet::new(),
            stream: None,
            vouched: Vec::new(),
            report: Report::default(),
        }
    }

    /// Opens what vouches for the log.
    fn checkpoints(&mut self, options: &Options<'_>) -> Result<Checked, VerifyError> {
        let unreadable = |source| VerifyError::Read { path: options.directory.to_owned(), source };
        let newest = checkpoints::newest(options.directory).map_err(unreadable)?;
        self.stream = Some(Checkpoints::open(options.directory).map_err(unreadable)?);
        let mut notes = Vec::new();
        for path in options.pins {
            let note = File::open(path).and_then(checkpoints::read_note);
            let note = note.map_err(|source| VerifyError::Pin { path: path.clone(), source })?;
            notes.push((path.display().to_string(), note));
        }
        let Some(newest) = newest else {
            let what = "there is no checkpoint: nothing vouches for the log";
            return Ok(Err(finding(NEWEST_CHECKPOINT, 0, Kind::CheckpointMissing, what).into()));
        };
        notes.push((NEWEST_CHECKPOINT.to_owned(), newest));
        for (source, note) in notes {
            match self.key.open(&note) {
                Ok(checkpoint) => self.vouched.push(Vouched { checkpoint, source }),
                Err(error) => return Ok(Err(bad_checkpoint(&source, 0, &error).into())),
            }
        }
        let next = self.next_of_stream().map_err(unreadable)?;
        if let Ok(None) = next {
            let what = "there is no checkpoint in it: nothing vouches for the log";
            return Ok(Err(finding(CHECKPOINTS, 0, Kind::CheckpointMissing, what).into()));
        }
        Ok(next.map(|_| ()).and_then(|()| self.meet(Place { file: 1, offset: 0 })))
    }

    /// Reads the stream's next checkpoint into its place among the others.
    fn next_of_stream(&mut self) -> io::Result<Checked<Option<()>>> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Ok(None)) };
        let checkpoint = match stream.next(self.key)? {
            None => {
                self.stream = None;
                return Ok(Ok(None));
            }
            Some(Err(error)) => return Ok(Err(bad_checkpoint(CHECKPOINTS, self.log.size(), &error).into())),
            Some(Ok(checkpoint)) => checkpoint,
        };
        if checkpoint.size < self.log.size() {
            let what = format!("the checkpoint over {} records stands out of order", checkpoint.size);
            return Ok(Err(finding(CHECKPOINTS, checkpoint.size, Kind::CheckpointForged, what).into()));
        }
        self.report.checkpoints += 1;
        self.vouched.push(Vouched { checkpoint, source: CHECKPOINTS.to_owned() });
        self.vouched.sort_by_key(|vouched| std::cmp::Reverse(vouched.checkpoint.size));
        Ok(Ok(Some(())))
    }

    /// Compares the log with the checkpoints that are due at its present size.
    fn meet(&mut self, place: Place) -> Checked {
        let size = self.log.size();
        while let Some(next) = self.vouched.pop_if(|next| next.checkpoint.size <= size) {
            if next.checkpoint.size == size && next.checkpoint.root == self.log.root() {
                self.report.covered = size;
                if next.source == CHECKPOINTS {
                    match self.next_of_stream() {
                        Ok(found) => _ = found?,
                        Err(error) => {
                            let what = format!("cannot be read: {error}");
                            return Err(finding(CHECKPOINTS, size, Kind::CheckpointMissing, what).into());
                        }
                    }
                }
                continue;
            }
            let (from, source) = (self.report.covered, &next.source);
            let what = format!(
                "records {from} to {} are not those that the checkpoint over {size} records in `{source}` \
                 vouches for: the log was rewritten somewhere from record {from} on",
                size.saturating_sub(1)
            );
            return Err(at(place, from, Kind::Rewritten, what).into());
        }
        Ok(())
    }

    fn lines(&mut self, lines: &mut Lines, progress: &mut dyn FnMut(u64)) -> io::Result<Checked> {
        loop {
            let n = self.log.size();
            match lines.next()? {
                Read::Line(place) => {
                    self.report.files = place.file;
                    if let Err(finding) = self.line(place, lines.line()) {
                        return Ok(Err(explain(finding, lines, n)?));
                    }
                    if self.log.size().is_multiple_of(PROGRESS_EVERY) {
                        progress(self.log.size());
                    }
                }
                Read::End(place) => return Ok(self.end(place, 0)),
                Read::Unfinished(place) => {
                    let length = u64::try_from(lines.line().len()).unwrap_or(u64::MAX);
                    return Ok(self.end(place, length));
                }
                Read::Bad { place, what } => {
                    let kind = match what {
                        BadBytes::Zeroed => Kind::Zeroed,
                        BadBytes::Malformed(_) | BadBytes::Cut => Kind::Altered,
                        BadBytes::MissingFile(_) => Kind::FileMissing,
                    };
                    return Ok(Err(at(place, n, kind, what.to_string()).into()));
                }
            }
        }
    }

    fn line(&mut self, place: Place, bytes: &[u8]) -> Checked {
        let n = self.log.size();
        let line = parse_line(bytes)
            .map_err(|error| at(place, n, Kind::Altered, format!("the line was altered: {error}")))?;
        let hash = record_hash(line.json);
        if line.n != n {
            let kind = if line.n > n { Kind::Removed } else { Kind::Inserted };
            let what = match kind {
                Kind::Removed if line.n == n + 1 => format!("the record was removed: {} follows", line.n),
                Kind::Removed => format!("records {n} to {} were removed", line.n - 1),
                _ => format!("record {} was inserted here once more", line.n),
            };
            return Err(at(place, n, kind, what).into());
        }
        if line.hash != self.log.after(&hash) {
            return Err(Self::altered(place, &line).into());
        }
        let envelope = Envelope::parse(line.json)
            .map_err(|error| at(place, n, Kind::Altered, format!("not a record: {error}")))?;
        self.recording(&envelope, &hash, place).map_err(|what| {
            let mut finding = at(place, n, Kind::BrokenRecording, what);
            finding.rec = Some(envelope.rec.clone());
            finding.seq = Some(envelope.seq);
            finding
        })?;
        self.log.push(&hash);
        self.report.records = self.log.size();
        self.meet(place)
    }

    fn altered(place: Place, line: &Line<'_>) -> Finding {
        let what = "the record was altered: it does not follow from those before it";
        let mut finding = at(place, line.n, Kind::Altered, what);
        if let Ok(envelope) = Envelope::parse(line.json) {
            finding.rec = Some(envelope.rec);
            finding.seq = Some(envelope.seq);
        }
        finding
    }

    /// Takes a record into its recording; the error says what is wrong with the recording.
    fn recording(&mut self, envelope: &Envelope, hash: &Hash, place: Place) -> Result<(), String> {
        let node = self.key.node().as_str();
        if envelope.v != 1 || envelope.node != node {
            return Err("the record is of another node or version".to_owned());
        }
        if envelope.rec == node {
            return self.control(envelope, hash, place);
        }
        if envelope.connection.as_ref() != Some(&envelope.rec) {
            return Err("the record is filed under another recording than its connection's".to_owned());
        }
        if envelope.kind == "opened" {
            if self.ended.contains(&envelope.rec) || self.open.contains_key(&envelope.rec) {
                return Err("the recording is opened a second time".to_owned());
            }
            self.report.recordings += 1;
            if self.awaited.remove(&envelope.rec).is_none() {
                self.unannounced.insert(envelope.rec.clone());
            }
            self.open.insert(envelope.rec.clone(), RecordingChain::start(&envelope.rec));
        }
        let Some(chain) = self.open.get_mut(&envelope.rec) else {
            return Err("the recording is not open here".to_owned());
        };
        if envelope.seq != chain.next() {
            return Err(format!("the recording's record {} is missing", chain.next()));
        }
        if envelope.kind == "ended" {
            if envelope.chain.as_deref() != Some(hex(chain.head()).as_str()) {
                return Err("the recording's end does not match its records".to_owned());
            }
            self.open.remove(&envelope.rec);
            self.ended.insert(envelope.rec.clone());
        } else {
            chain.push(hash);
        }
        Ok(())
    }

    fn control(&mut self, envelope: &Envelope, hash: &Hash, place: Place) -> Result<(), String> {
        if envelope.seq != self.control.next() {
            return Err(format!("the control record {} is missing", self.control.next()));
        }
        self.control.push(hash);
        if envelope.action.as_deref() == Some("connection_opened")
            && let Some(connection) = &envelope.connection
            && !self.unannounced.remove(connection)
            && !self.ended.contains(connection)
            && !self.open.contains_key(connection)
        {
            self.awaited.insert(connection.clone(), (place, self.log.size()));
        }
        Ok(())
    }

    /// Nothing follows: what is vouched for must have been met, and every connection recorded.
    fn end(&mut self, place: Place, torn: u64) -> Checked {
        let size = self.log.size();
        if let Some(next) = self.vouched.iter().max_by_key(|vouched| vouched.checkpoint.size) {
            let what = format!(
                "the log was cut off: `{}` vouches for {} records, {size} are left",
                next.source, next.checkpoint.size
            );
            return Err(at(place, size, Kind::Truncated, what).into());
        }
        self.report.torn = torn;
        match self.awaited.iter().min_by_key(|(_, (_, n))| *n) {
            Some((connection, (place, n))) => {
                let what = format!("connection {connection} was opened, but there is no recording of it");
                let mut finding = at(*place, *n, Kind::MissingRecording, what);
                finding.rec = Some(connection.clone());
                Err(finding.into())
            }
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Report {
        self.report.unannounced = u64::try_from(self.unannounced.len()).unwrap_or(u64::MAX);
        self.report.unfinished = self.open.into_keys().collect();
        self.report.unfinished.sort();
        self.report
    }
}

/// Looks one line ahead, to tell a removed record from one that stands in another's place.
fn explain(mut found: Box<Finding>, lines: &mut Lines, n: u64) -> io::Result<Box<Finding>> {
    if found.kind == Kind::Removed
        && let Read::Line(_) = lines.next()?
        && parse_line(lines.line()).is_ok_and(|line| line.n == n)
    {
        found.kind = Kind::Reordered;
        found.what = format!("records were reordered: record {n} stands after a later one");
    }
    Ok(found)
}
