//! Reads the log record by record, checking its chain, and tells of each whose it is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ExportError, Whose};
use crate::audit::base;
use crate::audit::chain::{Log, record_hash};
use crate::audit::files::{Lines, Place, Read};
use crate::audit::line::parse_line;
use crate::crypto::Hash;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// A record of the log, in its place.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Its index in the node's log.
    pub(super) n: u64,
    /// The log's chain value after it.
    pub(super) chain: Hash,
    pub(super) hash: Hash,
    pub(super) place: Place,
    /// Exactly as stored.
    pub(super) json: &'a [u8],
}

impl<'a> Found<'a> {
    pub(super) fn head(&self) -> Result<Head<'a>, ExportError> {
        serde_json::from_slice(self.json).map_err(|error| self.unreadable(&error))
    }

    /// The record as one of its kinds.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ExportError> {
        serde_json::from_slice(self.json).map_err(|error| self.unreadable(&error))
    }

    /// What a record of another version looks like to this one.
    pub(super) fn unreadable(&self, error: &dyn std::fmt::Display) -> ExportError {
        ExportError::Damaged { n: self.n, what: format!("this version does not know it: {error}") }
    }
}

/// What every record says of itself, as far as one is chosen by it.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) rec: Cow<'a, str>,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) principal: Option<Person<'a>>,
    #[serde(borrow, default)]
    pub(super) session: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) request: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) connection: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) target: Option<Cow<'a, str>>,
}

impl Head<'_> {
    pub(super) fn whose(&self) -> Whose<'_> {
        let principal = self.principal.as_ref().map(|who| who.id.as_ref());
        Whose { principal, target: self.target.as_deref() }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Person<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
}

/// The log's records, in order: those that are here, if the oldest were removed.
#[derive(Debug)]
pub(super) struct Scan {
    lines: Lines,
    directory: PathBuf,
    /// Begins with the first record, which says whose log it is.
    log: Option<Log>,
    size: u64,
}

impl Scan {
    /// Of the records before index `size`, or of all.
    pub(super) fn open(directory: &Path, size: Option<u64>) -> Self {
        let lines = Lines::open(directory);
        Self { lines, directory: directory.to_owned(), log: None, size: size.unwrap_or(u64::MAX) }
    }

    /// The index of the record that comes next.
    pub(super) fn at(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::size)
    }

    pub(super) fn next(&mut self) -> Result<Option<Found<'_>>, ExportError> {
        let unreadable = |source| ExportError::Read { path: self.directory.clone(), source };
        let n = self.at();
        if n >= self.size {
            return Ok(None);
        }
        let damaged = |n: u64, what: String| ExportError::Damaged { n, what };
        let place = match self.lines.next().map_err(unreadable)? {
            Read::Line(place) => place,
            Read::End(_) | Read::Unfinished(_) => return Ok(None),
            Read::Bad { what, .. } => return Err(damaged(n, what.to_string())),
        };
        let line = parse_line(self.lines.line()).map_err(|error| damaged(n, error.to_string()))?;
        if self.log.is_none() {
            let node = node(line.json).ok_or_else(|| damaged(n, "it names no node".to_owned()))?;
            let (before, _) = base::read(&self.directory, &node).map_err(unreadable)?;
            self.log = Some(before.log);
        }
        let Some(log) = &mut self.log else { return Ok(None) };
        let n = log.size();
        if line.n != n {
            return Err(damaged(n, format!("record {} stands in its place", line.n)));
        }
        if n >= self.size {
            return Ok(None);
        }
        let hash = record_hash(line.json);
        if log.after(&hash) != line.hash {
            return Err(damaged(n, "it was altered".to_owned()));
        }
        log.push(&hash);
        Ok(Some(Found { n, chain: line.hash, hash, place, json: line.json }))
    }
}

fn node(json: &[u8]) -> Option<NodeId> {
    #[derive(Deserialize)]
    struct Of {
        node: NodeId,
    }
    serde_json::from_slice::<Of>(json).ok().map(|of| of.node)
}
