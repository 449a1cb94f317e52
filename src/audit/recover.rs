//! Opening a journal after whatever happened: reads all of it, checks the chain on the way, and
//! tells a write that a crash tore from damage.
//!
//! A torn write stands at the very end of the last file's data, is no longer than the largest
//! batch, and was never acknowledged: no checkpoint covers it. It is kept beside the journal
//! (`torn-….bin`), its place is zeroed, and a `recovered` record tells of it. Anything else is
//! damage, and the journal is not opened.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::base;
use super::blocks::fill_with_zeros;
use super::checkpoints::{self, Checkpoints};
use super::files::{self, Lines, Place, Read};
use super::journal::{JournalError, Recovery};
use super::medium::{CHECKPOINTS, file_name};
use super::note::{Checkpoint, VerifyKey};
use super::record::Recovered;
use super::writer::{LARGEST_TEAR, Position};
use crate::crypto::{hex, sha256};
use crate::domain::time::Timestamp;

/// Why a journal is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file it is in.
    pub file: String,
    /// Index of the first record that is not as it was written.
    pub n: u64,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in `{}` at record {}: {}", self.file, self.n, self.what)
    }
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Found {
    position: Position,
    torn: Option<Torn>,
    outbox: Option<i64>,
    latest: Option<Timestamp>,
    /// Length of the whole notes in `checkpoints.log`.
    checkpoints: u64,
}

impl Found {
    /// How many bytes a crash tore.
    #[cfg(test)]
    pub(super) fn torn(&self) -> usize {
        self.torn.as_ref().map_or(0, |torn| torn.bytes.len())
    }
}

/// A write that did not finish.
#[derive(Debug)]
struct Torn {
    place: Place,
    bytes: Vec<u8>,
}

/// Reads the whole journal.
pub(super) fn scan(directory: &Path, key: &VerifyKey) -> Result<Found, JournalError> {
    let node = key.node();
    let unreadable = |source| JournalError::Read { path: directory.to_owned(), source };
    let (covered, checkpoints) = covered(directory, key)?;
    // What the base says is believed only once a checkpoint's root came of it.
    let (mut scan, _) = base::read(directory, node).map_err(unreadable)?;
    let begins_at = scan.log.size();
    if begins_at > 0 && covered.is_none_or(|covered| covered.size < begins_at) {
        let what = "no checkpoint covers what came before the files that are here".to_owned();
        return Err(JournalError::Damaged(Damage { file: "base".to_owned(), n: begins_at, what }));
    }
    if let Some(bad) = covered.filter(|c| c.size == begins_at && c.root != scan.log.root()) {
        let what = format!("the checkpoint over {} records does not match it", bad.size);
        return Err(JournalError::Damaged(Damage { file: "base".to_owned(), n: begins_at, what }));
    }
    let mut lines = Lines::open(directory);
    let (place, problem) = loop {
        match lines.next().map_err(unreadable)? {
            Read::Line(place) => {
                if let Err(what) = scan.take(lines.line(), node) {
                    break (place, Some(what));
                }
                if let Some(bad) = covered.filter(|c| c.size == scan.log.size() && c.root != scan.log.root())
                {
                    let what = format!("the checkpoint over {} records does not match them", bad.size);
                    return Err(damage(place, scan.log.size().saturating_sub(1), what));
                }
            }
            Read::End(place) => break (place, None),
            Read::Unfinished(place) => break (place, Some("an unfinished record".to_owned())),
            Read::Bad { place, what } => break (place, Some(what.to_string())),
        }
    };
    let n = scan.log.size();
    let torn = match &problem {
        None => None,
        Some(what) => Some(torn(directory, place).map_err(unreadable)?.ok_or_else(|| {
            damage(place, n, format!("{what}, and this is not the end of what a crash could have torn"))
        })?),
    };
    if let Some(checkpoint) = covered.filter(|checkpoint| checkpoint.size > n) {
        let detail = problem.map(|what| format!(" ({what})")).unwrap_or_default();
        let size = checkpoint.size;
        let what = format!("the newest checkpoint covers {size} records, only {n} are whole{detail}");
        return Err(damage(place, n, what));
    }
    let exists = files::newest(directory).map_err(unreadable)?;
    let allocated = match exists {
        Some(number) => length(directory, number).map_err(unreadable)?,
        None => 0,
    };
    let position = Position {
        log: scan.log,
        bytes: scan.bytes,
        control: scan.control,
        recordings: scan.recordings,
        file: exists.unwrap_or(0),
        offset: if exists.is_some() { place.offset } else { 0 },
        allocated,
    };
    Ok(Found { position, torn, outbox: scan.outbox, latest: scan.latest, checkpoints })
}

fn length(directory: &Path, number: u32) -> io::Result<u64> {
    Ok(std::fs::metadata(directory.join(file_name(number)))?.len())
}

fn damage(place: Place, n: u64, what: String) -> JournalError {
    JournalError::Damaged(Damage { file: file_name(place.file), n, what })
}

/// The checkpoint that covers most, and how many bytes of `checkpoints.log` are whole.
fn covered(directory: &Path, key: &VerifyKey) -> Result<(Option<Checkpoint>, u64), JournalError> {
    let unreadable = |source| JournalError::Read { path: directory.to_owned(), source };
    let bad = |file: &str, what: String| JournalError::Damaged(Damage { file: file.to_owned(), n: 0, what });
    let mut best: Option<Checkpoint> = None;
    let mut log = Checkpoints::open(directory).map_err(unreadable)?;
    while let Some(checkpoint) = log.next(key).map_err(unreadable)? {
        let checkpoint = checkpoint.map_err(|error| bad(CHECKPOINTS, error.to_string()))?;
        best = Some(best.filter(|best| best.size >= checkpoint.size).unwrap_or(checkpoint));
    }
    if let Some(note) = checkpoints::newest(directory).map_err(unreadable)? {
        let checkpoint = key.open(&note).map_err(|error| bad("checkpoint", error.to_string()))?;
        best = Some(best.filter(|best| best.size > checkpoint.size).unwrap_or(checkpoint));
    }
    let any = files::newest(directory).map_err(unreadable)?.is_some();
    if best.is_none() && any {
        return Err(bad("checkpoint", "there is no checkpoint, so the log may be cut".to_owned()));
    }
    Ok((best, log.whole))
}

/// The bytes from `place` to the data's end, if they can be a torn write.
fn torn(directory: &Path, place: Place) -> io::Result<Option<Torn>> {
    if files::newest(directory)? != Some(place.file) {
        return Ok(None);
    }
    let mut file = File::open(directory.join(file_name(place.file)))?;
    file.seek(SeekFrom::Start(place.offset))?;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let mut zeros: u64 = 0;
    loop {
        let read = file.read(&mut piece)?;
        let piece = piece.get(..read).unwrap_or_default();
        if piece.is_empty() {
            return Ok(Some(Torn { place, bytes }));
        }
        let data = piece.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if data > 0 {
            let held = u64::try_from(bytes.len() + data).unwrap_or(u64::MAX);
            if held.saturating_add(zeros) > LARGEST_TEAR {
                return Ok(None);
            }
            bytes.resize(bytes.len() + usize::try_from(zeros).unwrap_or(0), 0);
            bytes.extend_from_slice(piece.get(..data).unwrap_or_default());
            zeros = 0;
        }
        zeros = zeros.saturating_add(u64::try_from(read - data).unwrap_or(u64::MAX));
    }
}

/// Clears a torn write away and says what the writer has to record about it.
pub(super) fn repair(directory: &Path, found: Found) -> Result<(Position, Recovery), JournalError> {
    let unusable = |source| JournalError::Directory { path: directory.to_owned(), source };
    cut_checkpoints(directory, found.checkpoints).map_err(unusable)?;
    let mut recordings: Vec<_> = found.position.recordings.keys().cloned().collect();
    recordings.sort();
    let mut repaired = Recovered { discarded: 0, discarded_sha256: None, recordings };
    if let Some(torn) = &found.torn {
        discard(directory, torn, found.position.log.size()).map_err(unusable)?;
        repaired.discarded = u64::try_from(torn.bytes.len()).unwrap_or(u64::MAX);
        repaired.discarded_sha256 = Some(hex(&sha256(&[&torn.bytes])));
    }
    let needed = found.torn.is_some() || !repaired.recordings.is_empty();
    let recovery = Recovery {
        records: found.position.log.size(),
        repaired: needed.then_some(repaired),
        outbox: found.outbox,
        latest: found.latest,
    };
    Ok((found.position, recovery))
}

/// Keeps the torn bytes beside the journal, then zeroes their place.
fn discard(directory: &Path, torn: &Torn, n: u64) -> io::Result<()> {
    let name = format!("torn-{n}-{}.bin", hex(sha256(&[&torn.bytes]).get(..4).unwrap_or_default()));
    let mut options = OpenOptions::new();
    let mut kept = options.create(true).truncate(true).write(true).mode(0o600).open(directory.join(name))?;
    kept.write_all(&torn.bytes)?;
    kept.sync_all()?;
    File::open(directory)?.sync_all()?;
    let file = OpenOptions::new().write(true).open(directory.join(file_name(torn.place.file)))?;
    let length = u64::try_from(torn.bytes.len()).unwrap_or(u64::MAX);
    fill_with_zeros(&file, torn.place.offset, torn.place.offset.saturating_add(length))
}

/// Cuts a note that a crash tore from the end of `checkpoints.log`.
fn cut_checkpoints(directory: &Path, whole: u64) -> io::Result<()> {
    match OpenOptions::new().write(true).open(directory.join(CHECKPOINTS)) {
        Ok(file) => {
            file.set_len(whole)?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
