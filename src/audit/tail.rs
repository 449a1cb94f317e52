//! The log's end, as it grows.

use std::path::{Path, PathBuf};

use super::chain::{self, record_hash};
use super::files::Lines;
use super::line::parse_line;
use super::replay::{ReplayError, next_line};
use crate::crypto::Hash;

/// Follows the log. The caller decides when to look again.
#[derive(Debug)]
pub struct Tail {
    directory: PathBuf,
    lines: Lines,
    /// Of the record before: its index, and the log's chain value after it.
    before: Option<(u64, Hash)>,
}

impl Tail {
    /// From the log's start.
    pub fn from_start(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), lines: Lines::follow(directory), before: None }
    }

    /// From what comes next. Reads the whole log once.
    pub fn from_end(directory: &Path) -> Result<Self, ReplayError> {
        let mut tail = Self::from_start(directory);
        while tail.poll()?.is_some() {}
        Ok(tail)
    }

    /// The next record exactly as stored; `None` when there is none yet. Each follows from the one before by the log's
    /// chain, or is not given out; whether a checkpoint vouches for them, [`super::verify`] tells.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, ReplayError> {
        let next = self.before.map_or(0, |(n, _)| n.saturating_add(1));
        let damaged = |n: u64, what: String| ReplayError::LogDamaged { n, what };
        let Some(line) = next_line(&mut self.lines, &self.directory)? else { return Ok(None) };
        let line =
            parse_line(line).map_err(|error| damaged(next, format!("its line was altered: {error}")))?;
        if let Some((_, head)) = self.before {
            if line.n != next {
                return Err(damaged(next, format!("record {} stands in its place", line.n)));
            }
            if line.hash != chain::after(&head, &record_hash(line.json)) {
                return Err(damaged(next, "it is not the one that follows the record before it".to_owned()));
            }
        }
        self.before = Some((line.n, line.hash));
        Ok(Some(line.json.to_vec()))
    }
}
