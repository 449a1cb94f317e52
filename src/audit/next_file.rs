//! The next journal file, made on a thread of its own while the current one fills: its blocks are written with zeros
//! beforehand ([`super::blocks`] says why), which the records of a busy node would wait for otherwise.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::blocks::{allocate, fill_with_zeros, private};

/// What it is called until it has a number.
pub(super) const NEXT_FILE: &str = "journal.next";
/// So much is written between two looks at how far the current file is filled: what a sync of that one may have to
/// wait for.
const STEP: u64 = 256 << 10;
/// The writer says how far it is so often.
const TOLD_EVERY: u64 = 1 << 20;

/// Making of the next file. Where that fails, there is none, and whoever needs it makes it himself.
#[derive(Debug)]
pub(super) struct NextFile {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What was last said of the current file.
    told: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Held while a step is made. Locked before `wanted`.
    made: Mutex<Option<Made>>,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug)]
struct Made {
    file: File,
    size: u64,
    /// It is written to here, and synced.
    written: u64,
}

#[derive(Debug, Default)]
struct Wanted {
    size: u64,
    /// How far it should be written; nothing at 0.
    to: u64,
    /// It could not be made, and is not tried again before the current file is full.
    given_up: bool,
    over: bool,
}

/// Removes what a crash left of one: it may be all the room that there is.
pub(super) fn remove_left(directory: &Path) {
    let path = directory.join(NEXT_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove the next journal file that was not finished");
        }
        _ => {}
    }
}

impl NextFile {
    pub(super) fn new(directory: &Path) -> Self {
        let path = directory.join(NEXT_FILE);
        let (made, wanted, changed) = (Mutex::new(None), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { path, made, wanted, changed });
        Self { shared, thread: None, told: 0, is_over: false }
    }

    /// The current file of `size` bytes is filled to `filled`. The next one is begun when a quarter is, and done when
    /// three are: a node that does little writes nothing twice at once.
    pub(super) fn goes_on(&mut self, size: u64, filled: u64) {
        let to = filled.saturating_sub(size / 4).saturating_mul(2).min(size);
        if self.is_over || to <= self.told || (to < size && to - self.told < TOLD_EVERY) {
            return;
        }
        self.told = to;
        {
            let mut wanted = self.shared.wanted();
            (wanted.size, wanted.to) = (size, to);
        }
        self.shared.changed.notify_one();
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("audit-next".to_owned());
            self.thread = thread.spawn(move || shared.make()).ok();
        }
    }

    /// Nothing is made any more, and nothing is left.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        let Some(thread) = self.thread.take() else { return };
        self.shared.wanted().over = true;
        self.shared.changed.notify_one();
        let _ = thread.join();
        if self.shared.made().take().is_some() {
            let _ = fs::remove_file(&self.shared.path);
        }
    }

    /// Names what there is `path`, if it is of `size` bytes; gives how far it is written. The name is not durable yet.
    pub(super) fn take(&mut self, path: &Path, size: u64) -> Option<(File, u64)> {
        {
            // Of the file after this one nothing is wanted so far; and so that only one step more is waited for.
            let mut wanted = self.shared.wanted();
            wanted.to = 0;
        }
        self.told = 0;
        let mut made = self.shared.made();
        // A step that failed since.
        self.shared.wanted().given_up = false;
        let Made { file, size: made, written } = made.take()?;
        let named = if made == size {
            fs::rename(&self.shared.path, path)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        };
        if let Err(error) = named {
            tracing::warn!(%error, "cannot use the next journal file that was made beforehand");
            let _ = fs::remove_file(&self.shared.path);
            return None;
        }
        Some((file, written))
    }
}

impl Drop for NextFile {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is wanted, until it is over.
    fn make(&self) {
        while self.is_wanted() {
            let mut made = self.made();
            if let Err(error) = self.step(&mut made) {
                tracing::warn!(%error, "cannot make the next journal file beforehand");
                if made.take().is_some() {
                    let _ = fs::remove_file(&self.path);
                }
                self.wanted().given_up = true;
            }
        }
    }

    /// Waits until something is; `false` once it is over.
    fn is_wanted(&self) -> bool {
        loop {
            let made = self.made();
            let wanted = self.wanted();
            let is_behind = wanted.to > made.as_ref().map_or(0, |made| made.written);
            if wanted.over || (is_behind && !wanted.given_up) {
                return !wanted.over;
            }
            drop(made);
            drop(self.changed.wait(wanted));
        }
    }

    fn step(&self, made: &mut Option<Made>) -> io::Result<()> {
        let (size, to) = {
            let wanted = self.wanted();
            (wanted.size, wanted.to)
        };
        let Some(Made { file, size, written }) = made else {
            if to > 0 {
                *made = Some(self.begin(size)?);
            }
            return Ok(());
        };
        let to = to.min(*size).min(written.saturating_add(STEP));
        if to > *written {
            fill_with_zeros(file, *written, to)?;
            *written = to;
        }
        Ok(())
    }

    fn begin(&self, size: u64) -> io::Result<Made> {
        let file = private().create_new(true).open(&self.path)?;
        // Where the file system cannot allocate, whoever needs the file writes it: to do that here at one go would keep
        // them waiting for all of it.
        let begun = has_room(&file, size).and_then(|()| Ok(allocate(&file, size)?));
        match begun.and_then(|()| file.sync_all()) {
            Ok(()) => Ok(Made { file, size, written: 0 }),
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                Err(error)
            }
        }
    }
}

/// Leaves as much free as it takes: to try what does not fit would fill the disk for a moment, for everybody.
fn has_room(file: &File, size: u64) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < size.saturating_mul(2) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const SIZE: u64 = 8 << 20;

    fn wait_until(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_mins(1), "it does not come to that");
            std::thread::yield_now();
        }
    }

    fn written(next: &NextFile) -> u64 {
        next.shared.made().as_ref().map_or(0, |made| made.written)
    }

    #[test]
    fn it_is_begun_with_a_quarter_of_the_current_one_and_done_with_three() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        let names = || fs::read_dir(directory.path()).unwrap().count();
        next.goes_on(SIZE, SIZE / 4);
        assert!(next.thread.is_none());
        assert_eq!(names(), 0);
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) == SIZE / 2);
        next.goes_on(SIZE, SIZE - SIZE / 4);
        wait_until(|| written(&next) == SIZE);
        let path = directory.path().join("journal-00000002.log");
        let (file, whole) = next.take(&path, SIZE).unwrap();
        assert_eq!((whole, file.metadata().unwrap().len(), names()), (SIZE, SIZE, 1));
        assert!(fs::read(path).unwrap().iter().all(|byte| *byte == 0));
        // Of the one after it there is nothing before it is wanted, and it is another file.
        next.goes_on(SIZE, SIZE / 4);
        assert!(next.take(&directory.path().join("none"), SIZE).is_none());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) == SIZE / 2);
        assert_eq!(names(), 2);
        drop(next);
        assert_eq!(names(), 1);
    }

    #[test]
    fn what_is_half_made_is_used_as_far_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) > 0);
        let path = directory.path().join("journal-00000002.log");
        let (file, part) = next.take(&path, SIZE).unwrap();
        assert!((STEP..=SIZE / 2).contains(&part));
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        assert!(fs::read(path).unwrap().iter().all(|byte| *byte == 0));
    }

    /// Else whoever needs the file would wait until all of it is written: the lock goes to the thread that just had it.
    #[test]
    fn no_more_than_one_step_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) == SIZE / 2);
        next.goes_on(SIZE, SIZE / 2 + TOLD_EVERY);
        let shared = Arc::clone(&next.shared);
        let step = shared.made();
        let path = directory.path().join("journal-00000002.log");
        std::thread::scope(|scope| {
            let taking = scope.spawn(|| next.take(&path, SIZE).unwrap());
            wait_until(|| shared.wanted().to == 0);
            drop(step);
            assert!(taking.join().unwrap().1 <= SIZE / 2 + STEP);
        });
    }

    #[test]
    fn nothing_is_made_after_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) > 0);
        next.end();
        next.goes_on(SIZE, SIZE);
        assert!(next.thread.is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(next.take(&directory.path().join("journal-00000002.log"), SIZE).is_none());
    }

    #[test]
    fn one_of_another_size_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) > 0);
        assert!(next.take(&directory.path().join("journal-00000002.log"), 2 * SIZE).is_none());
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) == SIZE / 2);
    }

    #[test]
    fn a_disk_is_not_filled_beforehand() {
        let file = tempfile::tempfile().unwrap();
        has_room(&file, 1 << 20).unwrap();
        assert_eq!(has_room(&file, 1 << 60).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn where_it_cannot_be_made_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = NextFile::new(directory.path());
        // Its place is taken.
        fs::create_dir(directory.path().join(NEXT_FILE)).unwrap();
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| next.shared.wanted().given_up);
        assert!(next.take(&directory.path().join("journal-00000002.log"), SIZE).is_none());
        fs::remove_dir(directory.path().join(NEXT_FILE)).unwrap();
        next.goes_on(SIZE, SIZE / 2);
        wait_until(|| written(&next) == SIZE / 2);
    }
}
