//! The hashes of a log's Merkle tree as C2SP tlog-tiles (c2sp.org/tlog-tiles): with them and a checkpoint anybody proves
//! that a record is in the log, or that it only grew, with tools that are not ours.
//!
//! ```text
//! checkpoint                    the signed note
//! tile/0/x001/x234/067          256 leaves: record hashes
//! tile/1/004                    256 roots of full tiles of the level below
//! tile/0/x001/x234/068.p/17     the last tile of a level, with 17 hashes so far
//! ```
//!
//! There are no entry bundles: their entries are shorter than records may be. A record's leaf hash is computed from its
//! line (`docs/audit-log.md`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::base::first_file;
use super::chain::record_hash;
use super::checkpoints;
use super::files::{Lines, Read};
use super::line::parse_line;
use super::merkle::Tree;
use super::note::{BadCheckpoint, VerifyKey};
use crate::crypto::Hash;

/// Hashes of a full tile.
const WIDTH: usize = 256;

/// Why there are no tiles.
#[derive(Debug, thiserror::Error)]
pub enum NoTiles {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write tiles to `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no checkpoint in `{}`: nothing vouches for the log", path.display())]
    NoCheckpoint { path: PathBuf },
    #[error(transparent)]
    BadCheckpoint(#[from] BadCheckpoint),
    #[error("the log's oldest files are not here any more: make tiles from the archive")]
    Removed,
    #[error("the log is damaged at record {n}: run `sallyport audit verify`")]
    Damaged { n: u64 },
    #[error("the log is not what its checkpoint vouches for: run `sallyport audit verify`")]
    OtherRoot,
}

/// Writes the tiles of the log in `directory`, up to its newest checkpoint, and that checkpoint. Gives how many records it
/// covers. Memory is a tile for each level.
pub fn write(directory: &Path, key: &VerifyKey, to: &Path) -> Result<u64, NoTiles> {
    let unreadable = |source| NoTiles::Read { path: directory.to_owned(), source };
    if first_file(directory) > 1 {
        return Err(NoTiles::Removed);
    }
    let note = checkpoints::newest(directory).map_err(unreadable)?;
    let note = note.ok_or_else(|| NoTiles::NoCheckpoint { path: directory.to_owned() })?;
    let checkpoint = key.open(&note)?;
    let unwritable = |source| NoTiles::Write { path: to.to_owned(), source };
    let (mut tiles, mut tree) = (Tiles::new(to), Tree::default());
    let mut lines = Lines::open(directory);
    for n in 0..checkpoint.size {
        if !matches!(lines.next().map_err(unreadable)?, Read::Line(_)) {
            return Err(NoTiles::Damaged { n });
        }
        let line = parse_line(lines.line()).ok().filter(|line| line.n == n).ok_or(NoTiles::Damaged { n })?;
        let hash = record_hash(line.json);
        tree.push(&hash);
        tiles.push(0, &hash).map_err(unwritable)?;
    }
    if tree.root() != checkpoint.root {
        return Err(NoTiles::OtherRoot);
    }
    tiles.finish().map_err(unwritable)?;
    // Last: what it covers is there.
    fs::write(to.join("checkpoint"), note).map_err(unwritable)?;
    Ok(checkpoint.size)
}

/// The tiles that are not full yet, one for each level.
#[derive(Debug)]
struct Tiles {
    directory: PathBuf,
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    /// Full tiles so far.
    full: u64,
    hashes: Vec<Hash>,
}

impl Tiles {
    fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), levels: Vec::new() }
    }

    fn push(&mut self, level: usize, hash: &Hash) -> io::Result<()> {
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        let Some(Level { full, hashes }) = self.levels.get_mut(level) else { return Ok(()) };
        hashes.push(*hash);
        if hashes.len() < WIDTH {
            return Ok(());
        }
        let (number, hashes) = (*full, std::mem::take(hashes));
        *full = number.saturating_add(1);
        write_tile(&self.directory.join(path(level, number)), &hashes)?;
        let mut subtree = Tree::default();
        for hash in &hashes {
            subtree.push(hash);
        }
        self.push(level + 1, &subtree.root())
    }

    /// Writes what is not full.
    fn finish(&self) -> io::Result<()> {
        for (level, Level { full, hashes }) in self.levels.iter().enumerate() {
            if !hashes.is_empty() {
                let name = format!("{}.p/{}", path(level, *full), hashes.len());
                write_tile(&self.directory.join(name), hashes)?;
            }
        }
        Ok(())
    }
}

/// `tile/L/N`, N in groups of three digits, all but the last with an `x` before them.
fn path(level: usize, number: u64) -> String {
    let mut groups = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    format!("tile/{level}/{}", groups.join("/"))
}

fn write_tile(path: &Path, hashes: &[Hash]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, hashes.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: u64) -> Hash {
        record_hash(&index.to_be_bytes())
    }

    fn hashes(path: &Path) -> Vec<Hash> {
        fs::read(path).unwrap().chunks(32).map(|hash| hash.try_into().unwrap()).collect()
    }

    fn root_of(hashes: &[Hash]) -> Hash {
        let mut tree = Tree::default();
        for hash in hashes {
            tree.push(hash);
        }
        tree.root()
    }

    #[test]
    fn numbers_become_paths_as_published() {
        // The example of the specification.
        assert_eq!(path(0, 1_234_067), "tile/0/x001/x234/067");
        assert_eq!(path(3, 0), "tile/3/000");
        assert_eq!(path(1, 1000), "tile/1/x001/000");
    }

    #[test]
    fn tiles_hold_the_leaves_and_the_roots_of_what_is_below_them() {
        let home = tempfile::tempdir().unwrap();
        let size = 256 * 256 + 3 * 256 + 17;
        let mut tiles = Tiles::new(home.path());
        for index in 0..size {
            tiles.push(0, &leaf(index)).unwrap();
        }
        tiles.finish().unwrap();
        let leaves = hashes(&home.path().join("tile/0/002"));
        assert_eq!(leaves, (512..768).map(leaf).collect::<Vec<_>>());
        assert_eq!(hashes(&home.path().join("tile/0/259.p/17")).len(), 17);
        let first = hashes(&home.path().join("tile/1/000"));
        assert_eq!((first.len(), first[2]), (256, root_of(&leaves)));
        assert_eq!(hashes(&home.path().join("tile/1/001.p/3")).len(), 3);
        assert_eq!(hashes(&home.path().join("tile/2/000.p/1")), [root_of(&first)]);
        assert!(!home.path().join("tile/3").exists());
    }
}
