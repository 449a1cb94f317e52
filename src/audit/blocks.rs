//! Journal files whose blocks are there before a record needs them: allocated, so that a full disk shows before anything
//! is promised, and written with zeros.
//!
//! What lies only allocated is made readable by the file system's own journal, after the data's sync; and there is ext4
//! saying that a sync is done while it turns read-only and has not done that. What has been written before is
//! overwritten in its place, which a sync brings to the disk without the file system's journal, and faster.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes a file, durable but for its name; gives how far it is written.
pub(super) fn make(path: &Path, size: u64) -> io::Result<(File, u64)> {
    let file = private().create(true).truncate(true).open(path)?;
    let written = reserve(&file, size)?;
    file.sync_all()?;
    Ok((file, written))
}

/// Allocates, so that a full disk shows now and not at a write. Gives how much of it had to be written for that.
fn reserve(file: &File, size: u64) -> io::Result<u64> {
    match allocate(file, size) {
        Err(rustix::io::Errno::OPNOTSUPP) => fill_with_zeros(file, 0, size).map(|()| size),
        result => Ok(result.map(|()| 0)?),
    }
}

/// Allocates without writing, where the file system can.
pub(super) fn allocate(file: &File, size: u64) -> rustix::io::Result<()> {
    fallocate(file, FallocateFlags::empty(), 0, size)
}

pub(super) fn fill_with_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut offset = from;
    while offset < to {
        let left = usize::try_from(to - offset).unwrap_or(usize::MAX).min(ZEROS.len());
        let piece = ZEROS.get(..left).unwrap_or(&ZEROS);
        file.write_all_at(piece, offset)?;
        offset = offset.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
    }
    file.sync_data()
}
