//! One node's log in the archive: files as in a node's audit directory, compressed once they are full or old enough.
//!
//! `position` says how far the log is kept, with what it takes to go on from there. Lines beyond it were not
//! acknowledged to the stream and come again: they are cut off when the archive is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::audit::chain::{KeptLog, Log};
use crate::audit::checkpoints::{self, Checkpoints};
use crate::audit::files::{Lines, Read, packed_name};
use crate::audit::line::parse_line;
use crate::audit::medium::{CHECKPOINTS, NEWEST_CHECKPOINT, file_name};
use crate::crypto::Hash;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

const POSITION: &str = "position";
/// zstd's level: a compromise, as log files are written once and kept for years.
const LEVEL: i32 = 7;

/// When a file is closed and compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    pub bytes: u64,
    pub age: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    v: u32,
    file: u32,
    offset: u64,
    /// When the file was begun; its age counts from there.
    begun: Option<Timestamp>,
    checkpoints: u64,
    /// How many records the newest checkpoint covers; none before there is one.
    covered: Option<u64>,
    log: KeptLog,
    /// When something of the node arrived last.
    #[serde(default)]
    arrived: Option<Timestamp>,
}

/// A file that is whole and compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub number: u32,
    pub path: PathBuf,
    /// Beside it: the newest checkpoint over what is in it and before. Not there where there was none.
    pub checkpoint: PathBuf,
}

#[derive(Debug)]
pub struct NodeArchive {
    directory: PathBuf,
    number: u32,
    file: File,
    /// Where the next line belongs.
    offset: u64,
    begun: Option<Timestamp>,
    /// Lines that are not written yet.
    buffer: Vec<u8>,
    checkpoints: File,
    checkpoints_end: u64,
    covered: Option<u64>,
    /// The newest note, if it is not written yet.
    note: Option<String>,
    log: Log,
    changed: bool,
    /// When something arrived last, from whichever run.
    arrived: Option<Timestamp>,
    /// The line behind the one that was looked for last, and what reads it.
    looked: Option<(u64, Lines)>,
}

impl NodeArchive {
    /// Opens a node's part of the archive, or begins it.
    pub fn open(archive: &Path, node: &NodeId) -> io::Result<Self> {
        let directory = archive.join(node.as_str());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let kept = match fs::read(directory.join(POSITION)) {
            Ok(text) => Some(serde_json::from_slice::<Position>(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let unusable = || io::Error::other(format!("`{}` is damaged", directory.join(POSITION).display()));
        let log = match &kept {
            None => Log::start(node),
            Some(kept) => Log::from_kept(&kept.log).filter(|_| kept.v == 1).ok_or_else(unusable)?,
        };
        let number = kept.as_ref().map_or(1, |kept| kept.file);
        let offset = kept.as_ref().map_or(0, |kept| kept.offset);
        let file = private().open(directory.join(file_name(number)))?;
        let signed = private().open(directory.join(CHECKPOINTS))?;
        let checkpoints_end = kept.as_ref().map_or(0, |kept| kept.checkpoints);
        for (file, end) in [(&file, offset), (&signed, checkpoints_end)] {
            if file.metadata()?.len() < end {
                return Err(unusable());
            }
            file.set_len(end)?;
        }
        let (begun, covered, arrived) =
            kept.map_or((None, None, None), |kept| (kept.begun, kept.covered, kept.arrived));
        Ok(Self {
            directory,
            number,
            file,
            offset,
            begun,
            buffer: Vec::new(),
            checkpoints: signed,
            checkpoints_end,
            covered,
            note: None,
            log,
            changed: false,
            arrived,
            looked: None,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When something of the node arrived last, as far as was kept.
    pub(super) fn arrived(&self) -> Option<Timestamp> {
        self.arrived
    }

    /// Something of the node arrived.
    pub(super) fn heard(&mut self, at: Timestamp) {
        if self.arrived < Some(at) {
            self.arrived = Some(at);
            self.changed = true;
        }
    }

    /// The log as it is in the archive.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Appends a line, with its line feed, of the record with the hash `record`. Kept once [`Self::keep`] returned.
    pub(super) fn append(&mut self, line: &[u8], record: &Hash, now: Timestamp) {
        self.begun.get_or_insert(now);
        self.buffer.extend_from_slice(line);
        self.log.push(record);
        self.changed = true;
    }

    /// Adds the checkpoint over `size` records, unless it is here already, or a newer one is.
    pub(super) fn checkpoint(&mut self, size: u64, note: &str) -> io::Result<()> {
        if self.covered.is_some_and(|covered| covered >= size) {
            return Ok(());
        }
        self.covered = Some(size);
        self.checkpoints.seek(SeekFrom::Start(self.checkpoints_end))?;
        let text = format!("{note}\n");
        self.checkpoints.write_all(text.as_bytes())?;
        self.checkpoints_end = self.checkpoints_end.saturating_add(length(text.as_bytes()));
        self.note = Some(note.to_owned());
        self.changed = true;
        Ok(())
    }

    /// Makes durable what was added.
    pub fn keep(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        self.file.write_all(&self.buffer)?;
        self.offset = self.offset.saturating_add(length(&self.buffer));
        self.buffer.clear();
        self.file.sync_all()?;
        self.checkpoints.sync_all()?;
        if let Some(note) = self.note.take() {
            replace(&self.directory, NEWEST_CHECKPOINT, note.as_bytes())?;
        }
        self.keep_position()?;
        self.changed = false;
        Ok(())
    }

    fn keep_position(&self) -> io::Result<()> {
        let position = Position {
            v: 1,
            file: self.number,
            offset: self.offset,
            begun: self.begun,
            checkpoints: self.checkpoints_end,
            covered: self.covered,
            log: self.log.kept(),
            arrived: self.arrived,
        };
        replace(&self.directory, POSITION, &serde_json::to_vec(&position)?)
    }

    /// Closes the file and begins the next, when it is due; then compresses what is closed.
    pub fn seal(&mut self, sealing: &Sealing, now: Timestamp) -> io::Result<()> {
        let is_old = self.begun.is_some_and(|begun| now.since(begun) >= sealing.age);
        if self.offset == 0 || (self.offset < sealing.bytes && !is_old) {
            return Ok(());
        }
        self.keep()?;
        let full = self.number;
        // Who has the closed files alone must not be told that the log goes on beyond them.
        if let Some(note) = checkpoints::newest(&self.directory)? {
            replace(&self.directory, &checkpoint_name(full), note.as_bytes())?;
        }
        self.number = full.saturating_add(1);
        (self.offset, self.begun) = (0, None);
        self.file = private().open(self.directory.join(file_name(self.number)))?;
        self.file.set_len(0)?;
        self.keep_position()?;
        pack(&self.directory, full)
    }

    /// Compresses what a crash left closed and not compressed.
    pub fn pack_leftovers(&self) -> io::Result<()> {
        for number in (1..self.number).rev() {
            if !self.directory.join(file_name(number)).exists() {
                break;
            }
            pack(&self.directory, number)?;
        }
        Ok(())
    }

    /// All closed files from `first` on.
    pub fn sealed_from(&self, first: u32) -> Vec<Sealed> {
        let beside = |name: String| self.directory.join(name);
        let sealed = |number| {
            let (path, checkpoint) = (beside(packed_name(number)), beside(checkpoint_name(number)));
            Sealed { number, path, checkpoint }
        };
        (first..self.number).map(sealed).collect()
    }

    /// The root of the checkpoint over `size` records that is kept, if there is one. Reads all that are.
    pub(super) fn root(&mut self, size: u64) -> io::Result<Option<Hash>> {
        self.keep()?;
        let mut notes = Checkpoints::open(&self.directory)?;
        while let Some(checkpoint) = notes.next_unchecked()? {
            if checkpoint.size == size {
                return Ok(Some(checkpoint.root));
            }
        }
        Ok(None)
    }

    /// Line `n`, with its line feed; none when it is not here. Reads files from the newest on, and on from the line before.
    pub(super) fn line(&mut self, n: u64) -> io::Result<Option<Vec<u8>>> {
        self.keep()?;
        if let Some((_, mut lines)) = self.looked.take_if(|(next, _)| *next == n)
            && let Read::Line(_) = lines.next()?
            && parse_line(lines.line()).is_ok_and(|line| line.n == n)
        {
            return Ok(Some(self.found(n, lines)));
        }
        for number in (1..=self.number).rev() {
            let start = crate::audit::files::Place { file: number, offset: 0 };
            let mut lines = Lines::follow_from(&self.directory, start);
            while let Read::Line(place) = lines.next()? {
                let Ok(line) = parse_line(lines.line()) else { return Ok(None) };
                if line.n == n {
                    return Ok(Some(self.found(n, lines)));
                }
                if line.n > n || place.file != number {
                    break;
                }
            }
        }
        Ok(None)
    }

    fn found(&mut self, n: u64, lines: Lines) -> Vec<u8> {
        let line = [lines.line(), b"\n"].concat();
        self.looked = Some((n.saturating_add(1), lines));
        line
    }
}

/// What the checkpoint beside a closed file is called.
fn checkpoint_name(number: u32) -> String {
    format!("closed-{number:08}.checkpoint")
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Replaces a file; durable on return.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = private().truncate(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Compresses a closed file; the plain one goes once the other is durable.
fn pack(directory: &Path, number: u32) -> io::Result<()> {
    let (plain, packed) = (directory.join(file_name(number)), directory.join(packed_name(number)));
    let new = directory.join(format!("{}.new", packed_name(number)));
    let mut file = private().truncate(true).open(&new)?;
    let mut encoder = zstd::Encoder::new(&mut file, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut File::open(&plain)?, &mut encoder)?;
    encoder.finish()?;
    file.sync_all()?;
    fs::rename(&new, &packed)?;
    File::open(directory)?.sync_all()?;
    fs::remove_file(&plain)
}
