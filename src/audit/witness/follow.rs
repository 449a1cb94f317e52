//! What a log shows a witness: a checkpoint, and the proof that it continues what the witness saw last.

use std::io;
use std::path::{Path, PathBuf};

use super::Asked;
use crate::audit::base;
use crate::audit::chain::record_hash;
use crate::audit::files::{Lines, Place, Read};
use crate::audit::line::parse_line;
use crate::audit::merkle::{Growth, Tree};
use crate::crypto::Hash;
use crate::domain::id::NodeId;

/// A log as one witness saw it last.
#[derive(Debug)]
pub(super) struct Follower {
    directory: PathBuf,
    tree: Tree,
    /// Where what it has not seen begins.
    place: Place,
    /// Both as they will be once it has seen what was asked last.
    asked: Option<(Tree, Place)>,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum NotShown {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the audit log is damaged at record {n}: run `sallyport audit verify`")]
    Damaged { n: u64 },
    #[error(
        "the witness saw {wanted} records: the log's files from before record {first} are in the archive only"
    )]
    Removed { first: u64, wanted: u64 },
    /// The witness has seen more than there is.
    #[error("the audit log has {found} records of the {wanted} that were seen: it was cut off")]
    Shorter { found: u64, wanted: u64 },
}

impl Follower {
    /// Of a witness that saw `size` records: reads them all, keeping none.
    pub(super) fn from(directory: &Path, node: &NodeId, size: u64) -> Result<Self, NotShown> {
        let base = base::read(directory, node);
        let (scan, _) = base.map_err(|source| NotShown::Read { path: directory.to_owned(), source })?;
        let (mut lines, mut tree) = (Lines::follow(directory), scan.log.tree().clone());
        if size < tree.size() {
            return Err(NotShown::Removed { first: tree.size(), wanted: size });
        }
        while tree.size() < size {
            tree.push(&next(directory, &mut lines, tree.size(), size)?);
        }
        Ok(Self { directory: directory.to_owned(), tree, place: lines.place(), asked: None })
    }

    /// How many records the witness saw.
    pub(super) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// What to ask for `note`, a checkpoint over `size` records. Reads those that the witness has not seen.
    pub(super) fn ask(&mut self, size: u64, note: &str) -> Result<Asked, NotShown> {
        let mut lines = Lines::follow_from(&self.directory, self.place);
        let mut growth = Growth::new(&self.tree, size);
        for n in self.tree.size()..size {
            growth.push(&next(&self.directory, &mut lines, n, size)?);
        }
        let shorter = NotShown::Shorter { found: size, wanted: self.tree.size() };
        let (proof, tree) = growth.finish().ok_or(shorter)?;
        self.asked = Some((tree, lines.place()));
        Ok(Asked { old: self.tree.size(), proof, note: note.to_owned() })
    }

    /// The witness has seen what was asked last.
    pub(super) fn seen(&mut self) {
        if let Some((tree, place)) = self.asked.take() {
            self.tree = tree;
            self.place = place;
        }
    }
}

/// The hash of record `n`, of the `wanted` that there should be.
fn next(directory: &Path, lines: &mut Lines, n: u64, wanted: u64) -> Result<Hash, NotShown> {
    match lines.next().map_err(|source| NotShown::Read { path: directory.to_owned(), source })? {
        Read::Line(_) => {}
        Read::End(_) | Read::Unfinished(_) => return Err(NotShown::Shorter { found: n, wanted }),
        Read::Bad { .. } => return Err(NotShown::Damaged { n }),
    }
    match parse_line(lines.line()) {
        Ok(line) if line.n == n => Ok(record_hash(line.json)),
        _ => Err(NotShown::Damaged { n }),
    }
}
