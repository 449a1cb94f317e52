//! Proves, from the files and the public key alone, that the log is what was written: nothing
//! altered, removed, inserted, reordered or cut off. Names the first record that is not.
//!
//! 1. Every line follows from the one before it (index and chain).
//! 2. Every recording is whole: `seq` without holes, from `opened` to `ended`, and its own chain.
//! 3. Every checkpoint's signature holds, and its root is the log's at that size. The newest says
//!    how long the log is at least.
//! 4. A checkpoint that somebody else kept (a pin) matches too: the defence against one who holds
//!    the signing key.
//!    So does the last one that a witness cosigned.
//! 5. Every connection that the control recording saw opened has a recording.
//!
//! Memory is bounded by the recordings that are open, or not yet spoken of by a control record: not by the log's length.

mod report;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::base;
use super::chain::{Log, RecordingChain, record_hash};
use super::checkpoints::{self, Checkpoints};
use super::files::{BadBytes, Lines, Place, Read};
use super::line::{Envelope, Line, parse_line};
use super::medium::{CHECKPOINTS, NEWEST_CHECKPOINT, file_name};
use super::note::{BadCheckpoint, Checkpoint, VerifyKey};
use super::scan::Scan;
use super::witness::cosigned_file;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::crypto::{Hash, hex};

pub use report::{Finding, Kept, Kind, Report};

/// Progress is told every so many records.
const PROGRESS_EVERY: u64 = 4096;

/// What to verify.
#[derive(Debug)]
pub struct Options<'a> {
    pub directory: &'a Path,
    pub key: &'a VerifyKey,
    /// Files with a checkpoint that was copied elsewhere earlier.
    pub pins: &'a [PathBuf],
    /// Witnesses that must have cosigned: what they saw is beside the log.
    pub witnesses: &'a [WitnessVerifyKey],
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
    #[error(
        "the pinned checkpoint `{}` covers {size} records, and the log begins at record {begins_at} here: it cannot be \
         compared with what is not here, verify the archive", path.display()
    )]
    PinBefore { path: PathBuf, size: u64, begins_at: u64 },
}

/// Checks the log in `options.directory`. `progress` is called now and then with the number of
/// records checked so far.
pub fn verify(options: &Options<'_>, progress: &mut dyn FnMut(u64)) -> Result<Report, VerifyError> {
    loop {
        let first = base::first_file(options.directory);
        let report = verify_from(options, progress)?;
        // Where the gateway removed files under the reader's eyes, they are no finding.
        if report.is_whole() || base::first_file(options.directory) == first {
            return Ok(report);
        }
    }
}

fn verify_from(options: &Options<'_>, progress: &mut dyn FnMut(u64)) -> Result<Report, VerifyError> {
    let unreadable = |source| VerifyError::Read { path: options.directory.to_owned(), source };
    let mut verifier = match base::read(options.directory, options.key.node()) {
        Ok((scan, first)) => Verifier::new(options.key, scan, first),
        // What cannot be read is not for that reason altered.
        Err(error) if error.kind() != io::ErrorKind::Other => return Err(unreadable(error)),
        Err(error) => {
            let bad = finding("base", 0, Kind::Altered, error.to_string());
            return Ok(Report { first_bad: Some(bad), ..Report::default() });
        }
    };
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
    keeper: Keeper,
}

/// Who kept a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// It is with the log: whoever has the log's key can have written it.
    Log,
    /// A pin, or a witness.
    Others,
}

/// The sizes that were vouched for so far: the last, and the one before it.
#[derive(Debug, Default)]
struct Reach {
    last: u64,
    before: u64,
}

impl Reach {
    fn to(&mut self, size: u64) {
        if size > self.last {
            self.before = std::mem::replace(&mut self.last, size);
        }
    }

    fn below(&self, size: u64) -> u64 {
        if self.last < size { self.last } else { self.before }
    }
}

struct Verifier<'a> {
    key: &'a VerifyKey,
    /// Number of the first journal file that is here.
    first_file: u32,
    log: Log,
    control: RecordingChain,
    open: HashMap<String, RecordingChain>,
    /// Of those that no control record spoke of so far.
    ended: HashSet<String>,
    /// Connections that control records saw opened, without a recording so far, and where that was.
    awaited: HashMap<String, (Place, u64)>,
    /// Recordings that no control record spoke of so far.
    unannounced: HashSet<String>,
    /// Notes of `checkpoints.log`, still to be read.
    stream: Option<Checkpoints>,
    /// The newest checkpoint and pins, by size, the smallest last; and the stream's next.
    vouched: Vec<Vouched>,
    /// Whether the log itself says that files were removed, up to where it begins here.
    is_trim_told: bool,
    /// How far the log is what any checkpoint vouches for.
    by_any: Reach,
    /// How far it is what those vouch for that others kept.
    by_others: Reach,
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
    /// From where the files that are here begin.
    fn new(key: &'a VerifyKey, scan: Scan, first_file: u32) -> Self {
        let open = scan.recordings.into_iter().map(|(rec, open)| (rec.to_string(), open.chain)).collect();
        let begins_at = scan.log.size();
        Self {
            key,
            first_file,
            log: scan.log,
            control: scan.control,
            open,
            ended: HashSet::new(),
            awaited: HashMap::new(),
            unannounced: scan.unannounced.iter().map(ToString::to_string).collect(),
            stream: None,
            vouched: Vec::new(),
            is_trim_told: begins_at == 0,
            by_any: Reach::default(),
            by_others: Reach::default(),
            report: Report { begins_at, ..Report::default() },
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
            notes.push((path.display().to_string(), note, Keeper::Others));
        }
        for witness in options.witnesses {
            let name = cosigned_file(witness);
            let path = options.directory.join(&name);
            let note = match File::open(&path) {
                Ok(file) => checkpoints::read_note(file).map_err(unreadable)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(source) => return Err(unreadable(source)),
            };
            if witness.cosigned_at(&note).is_none() {
                let what = format!("`{}` has cosigned no checkpoint that is here", witness.name());
                return Ok(Err(finding(&name, 0, Kind::NotWitnessed, what).into()));
            }
            notes.push((name, note, Keeper::Others));
        }
        let Some(newest) = newest else {
            let what = "there is no checkpoint: nothing vouches for the log";
            return Ok(Err(finding(NEWEST_CHECKPOINT, 0, Kind::CheckpointMissing, what).into()));
        };
        // A copy of an archive's objects has its checkpoints one by one.
        let objects = checkpoints::objects(options.directory).map_err(unreadable)?;
        let is_copy = !options.directory.join(NEWEST_CHECKPOINT).exists();
        if is_copy {
            self.report.checkpoints = u64::try_from(objects.len()).unwrap_or(u64::MAX);
            notes.extend(objects.into_iter().map(|(name, note)| (name, note, Keeper::Log)));
        } else {
            notes.push((NEWEST_CHECKPOINT.to_owned(), newest, Keeper::Log));
        }
        for (source, note, keeper) in notes {
            match self.key.open(&note) {
                // What somebody asked to be compared is not passed over. A witness has seen all that is removed.
                Ok(checkpoint) if checkpoint.size < self.report.begins_at && keeper == Keeper::Others => {
                    let (size, begins_at) = (checkpoint.size, self.report.begins_at);
                    if options.pins.iter().any(|path| path.display().to_string() == source) {
                        return Err(VerifyError::PinBefore { path: source.into(), size, begins_at });
                    }
                    let what =
                        format!("it covers {size} records, and the log begins at record {begins_at} here");
                    return Ok(Err(finding(&source, size, Kind::NotWitnessed, what).into()));
                }
                // Nothing here can be compared with it any more.
                Ok(checkpoint) if checkpoint.size < self.report.begins_at => {}
                Ok(checkpoint) => self.vouched.push(Vouched { checkpoint, source, keeper }),
                Err(error) => return Ok(Err(bad_checkpoint(&source, 0, &error).into())),
            }
        }
        let next = self.next_of_stream().map_err(unreadable)?;
        if let Ok(None) = next
            && !is_copy
        {
            let what = "there is no checkpoint in it: nothing vouches for the log";
            return Ok(Err(finding(CHECKPOINTS, 0, Kind::CheckpointMissing, what).into()));
        }
        Ok(next.map(|_| ()).and_then(|()| self.meet(Place { file: 1, offset: 0 })))
    }

    /// Reads the stream's next checkpoint into its place among the others.
    fn next_of_stream(&mut self) -> io::Result<Checked<Option<()>>> {
        let Some(stream) = self.stream.as_mut() else { return Ok(Ok(None)) };
        let checkpoint = loop {
            match stream.next(self.key)? {
                None => {
                    self.stream = None;
                    return Ok(Ok(None));
                }
                Some(Err(error)) => {
                    return Ok(Err(bad_checkpoint(CHECKPOINTS, self.log.size(), &error).into()));
                }
                Some(Ok(checkpoint)) if checkpoint.size < self.report.begins_at => {
                    self.report.checkpoints += 1;
                }
                Some(Ok(checkpoint)) => break checkpoint,
            }
        };
        if checkpoint.size < self.log.size() {
            let what = format!("the checkpoint over {} records stands out of order", checkpoint.size);
            return Ok(Err(finding(CHECKPOINTS, checkpoint.size, Kind::CheckpointForged, what).into()));
        }
        self.report.checkpoints += 1;
        self.vouched.push(Vouched { checkpoint, source: CHECKPOINTS.to_owned(), keeper: Keeper::Log });
        self.vouched.sort_by_key(|vouched| std::cmp::Reverse(vouched.checkpoint.size));
        Ok(Ok(Some(())))
    }

    /// Compares the log with the checkpoints that are due at its present size.
    fn meet(&mut self, place: Place) -> Checked {
        let size = self.log.size();
        while let Some(next) = self.vouched.pop_if(|next| next.checkpoint.size <= size) {
            if next.checkpoint.size == size && next.checkpoint.root == self.log.root() {
                self.report.covered = size;
                self.by_any.to(size);
                if next.keeper == Keeper::Others {
                    self.by_others.to(size);
                    self.report.kept_elsewhere.push(Kept { source: next.source.clone(), records: size });
                }
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
            // Where others know another log, two were signed with its key: what is beside the log proves nothing.
            let reach = if next.keeper == Keeper::Others { &self.by_others } else { &self.by_any };
            let (from, source) = (reach.below(next.checkpoint.size), &next.source);
            let what = format!(
                "records {from} to {} are not those that the checkpoint over {} records in `{source}` \
                 vouches for: the log was rewritten somewhere from record {from} on",
                next.checkpoint.size.saturating_sub(1),
                next.checkpoint.size
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
                    self.report.files = place.file.saturating_sub(self.first_file).saturating_add(1);
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
                        BadBytes::Malformed(_) | BadBytes::Cut | BadBytes::Packed(_) => Kind::Altered,
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
            finding.rec = Some(envelope.rec.to_string());
            finding.seq = Some(envelope.seq);
            finding
        })?;
        self.log.push_with(&hash, line.hash);
        self.report.records = self.log.size();
        self.meet(place)
    }

    fn altered(place: Place, line: &Line<'_>) -> Finding {
        let what = "the record was altered: it does not follow from those before it";
        let mut finding = at(place, line.n, Kind::Altered, what);
        if let Ok(envelope) = Envelope::parse(line.json) {
            finding.rec = Some(envelope.rec.to_string());
            finding.seq = Some(envelope.seq);
        }
        finding
    }

    /// Takes a record into its recording; the error says what is wrong with the recording.
    fn recording(&mut self, envelope: &Envelope<'_>, hash: &Hash, place: Place) -> Result<(), String> {
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
            if self.ended.contains(&*envelope.rec) || self.open.contains_key(&*envelope.rec) {
                return Err("the recording is opened a second time".to_owned());
            }
            self.report.recordings += 1;
            if self.awaited.remove(&*envelope.rec).is_none() {
                self.unannounced.insert(envelope.rec.to_string());
            }
            self.open.insert(envelope.rec.to_string(), RecordingChain::start(&envelope.rec));
        }
        let Some(chain) = self.open.get_mut(&*envelope.rec) else {
            return Err("the recording is not open here".to_owned());
        };
        if envelope.seq != chain.next() {
            return Err(format!("the recording's record {} is missing", chain.next()));
        }
        if envelope.kind == "ended" {
            if envelope.chain.as_deref() != Some(hex(chain.head()).as_str()) {
                return Err("the recording's end does not match its records".to_owned());
            }
            self.open.remove(&*envelope.rec);
            if self.unannounced.contains(&*envelope.rec) {
                self.ended.insert(envelope.rec.to_string());
            }
        } else {
            chain.push(hash);
        }
        Ok(())
    }

    fn control(&mut self, envelope: &Envelope<'_>, hash: &Hash, place: Place) -> Result<(), String> {
        if envelope.seq != self.control.next() {
            return Err(format!("the control record {} is missing", self.control.next()));
        }
        self.control.push(hash);
        if envelope.action.as_deref() == Some("journal_trimmed")
            && envelope.records() == Some(self.report.begins_at)
        {
            self.is_trim_told = true;
        }
        if envelope.action.as_deref() == Some("connection_opened")
            && let Some(connection) = &envelope.connection
            && !self.announce(connection)
        {
            self.awaited.insert(connection.to_string(), (place, self.log.size()));
        }
        Ok(())
    }

    /// A control record tells of a recording: whether it is one that was seen already.
    fn announce(&mut self, connection: &str) -> bool {
        let had_ended = self.ended.remove(connection);
        self.unannounced.remove(connection) || had_ended || self.open.contains_key(connection)
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
        if !self.is_trim_told {
            let what = format!("the log begins at record {}, and does not say why", self.report.begins_at);
            return Err(finding("base", 0, Kind::FileMissing, what).into());
        }
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
