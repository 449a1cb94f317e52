//! Where the writer's bytes go: the real directory, or in tests one that fails on demand.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::blocks::{fill_with_zeros, make, private};
use super::next_file::NextFile;

pub(super) const CHECKPOINTS: &str = "checkpoints.log";
pub(super) const NEWEST_CHECKPOINT: &str = "checkpoint";
const NEW_CHECKPOINT: &str = "checkpoint.new";
/// How far the current file is written with zeros ahead of its records ([`super::blocks`]), unless it comes written from
/// [`NextFile`].
const WRITTEN_AHEAD: u64 = 1 << 20;

/// How far ahead of its end `checkpoints.log` is allocated, so that a last checkpoint can be
/// written when the disk is full.
const CHECKPOINTS_AHEAD: u64 = 64 << 10;

pub(super) fn file_name(number: u32) -> String {
    format!("journal-{number:08}.log")
}

/// Why a file was not allocated.
#[derive(Debug)]
pub(super) struct NotAllocated {
    pub(super) error: io::Error,
    /// Nothing is left of it, so that the current file is still the last.
    pub(super) is_gone: bool,
}

impl From<io::Error> for NotAllocated {
    fn from(error: io::Error) -> Self {
        Self { error, is_gone: true }
    }
}

/// Durable storage as the writer sees it. After `write` or `sync` failed, what is on the disk is
/// not known, and nothing more may be written.
pub(super) trait Medium: std::fmt::Debug + Send {
    /// Creates journal file `number` with `size` bytes allocated, all zero, and makes it the current
    /// one. When this fails, the current file stays.
    fn allocate(&mut self, number: u32, size: u64) -> Result<(), NotAllocated>;
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    /// Appends to the checkpoints and replaces the newest one; durable on return.
    fn checkpoint(&mut self, note: &str) -> io::Result<()>;
    /// No file follows the current one: nothing is made beforehand any more, and what was is gone on return.
    fn ends_here(&mut self);
}

/// The journal's directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Kept open to sync the names in it.
    handle: File,
    current: Option<File>,
    /// The current file's length.
    size: u64,
    /// The current file's blocks have been written and synced to here, as far as it is known.
    written: u64,
    next: NextFile,
    checkpoints: File,
    checkpoints_end: u64,
    checkpoints_allocated: u64,
}

impl Directory {
    /// Takes up where the files end; `number` is the current journal file, if there is one.
    pub(super) fn open(path: &Path, number: Option<u32>) -> io::Result<Self> {
        let handle = File::open(path)?;
        let current = number.map(|number| path.join(file_name(number)));
        let current = current.map(|path| OpenOptions::new().read(true).write(true).open(path)).transpose()?;
        let checkpoints = private().create(true).truncate(false).open(path.join(CHECKPOINTS))?;
        let end = checkpoints.metadata()?.len();
        let size = current.as_ref().map_or(Ok(0), |file| Ok::<_, io::Error>(file.metadata()?.len()))?;
        handle.sync_all()?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            current,
            size,
            written: 0,
            next: NextFile::new(path),
            checkpoints,
            checkpoints_end: end,
            checkpoints_allocated: end,
        })
    }

    fn current(&self) -> io::Result<&File> {
        self.current.as_ref().ok_or_else(|| io::Error::other("no journal file is open"))
    }
}

impl Medium for Directory {
    fn allocate(&mut self, number: u32, size: u64) -> Result<(), NotAllocated> {
        let path = self.path.join(file_name(number));
        let made = self.next.take(&path, size).map_or_else(|| make(&path, size), Ok);
        let durable = made.and_then(|made| {
            self.handle.sync_all()?;
            Ok(made)
        });
        match durable {
            Ok((file, written)) => {
                (self.current, self.size, self.written) = (Some(file), size, written);
                Ok(())
            }
            Err(error) => {
                // Left behind it would be harmless but for a write to the current file that a power failure tears: that
                // is the end of the log only where no other file follows.
                let is_gone = match fs::remove_file(&path) {
                    Err(error) => error.kind() == io::ErrorKind::NotFound,
                    Ok(()) => self.handle.sync_all().is_ok(),
                };
                Err(NotAllocated { error, is_gone })
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.written {
            // Not beyond what is allocated.
            let to = end.saturating_add(WRITTEN_AHEAD).min(self.size).max(end);
            fill_with_zeros(self.current()?, self.written.max(offset), to)?;
            self.written = to;
        }
        self.current()?.write_all_at(bytes, offset)?;
        self.next.goes_on(self.size, end);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current()?.sync_data()
    }

    fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        let text = format!("{note}\n");
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let end = self.checkpoints_end.saturating_add(length);
        let mut full = None;
        if end > self.checkpoints_allocated {
            // Should this fail, the note is still tried: it may fit in what was allocated before.
            match fallocate(
                &self.checkpoints,
                FallocateFlags::KEEP_SIZE,
                self.checkpoints_end,
                CHECKPOINTS_AHEAD,
            ) {
                Ok(()) => {
                    self.checkpoints_allocated = self.checkpoints_end.saturating_add(CHECKPOINTS_AHEAD);
                }
                Err(rustix::io::Errno::OPNOTSUPP) => self.checkpoints_allocated = u64::MAX,
                Err(error) => full = Some(error),
            }
        }
        self.checkpoints.write_all_at(text.as_bytes(), self.checkpoints_end)?;
        self.checkpoints.sync_data()?;
        self.checkpoints_end = end;
        if let Some(error) = full {
            return Err(error.into());
        }
        let new = self.path.join(NEW_CHECKPOINT);
        let mut file = private().create(true).truncate(true).open(&new)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(NEWEST_CHECKPOINT))?;
        self.handle.sync_all()
    }

    fn ends_here(&mut self) {
        self.next.end();
    }
}
