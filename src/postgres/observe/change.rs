//! What names stand for, and how a change of it is undone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::clause::{Clauses, clauses};
use super::{MOST_KEPT, MOST_NAMES, Param};
use crate::postgres::codec::CodecError;
use crate::postgres::fingerprint::{Fingerprint, fingerprint};
use crate::postgres::lexer::Strings;

/// How many bytes are kept for one client, and may be.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    kept: Arc<AtomicUsize>,
    maximum: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Self::allowing(MOST_KEPT)
    }
}

/// A share of a [`Meter`], given back when what it was for is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    meter: Meter,
    bytes: usize,
}

impl Meter {
    pub(super) fn allowing(maximum: usize) -> Self {
        Self { kept: Arc::default(), maximum }
    }

    pub(super) fn charge(&self, bytes: usize) -> Result<Arc<Charge>, CodecError> {
        if self.kept.load(Ordering::Relaxed).saturating_add(bytes) > self.maximum {
            return Err(CodecError::TooMuchKept { what: "bytes of statements", maximum: self.maximum });
        }
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        Ok(Arc::new(Charge { meter: self.clone(), bytes }))
    }

    pub(super) fn bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a text says when it is read, once for all its executions.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub fingerprint: Option<Fingerprint>,
    pub clauses: Clauses,
}

impl Reading {
    pub(super) fn of(sql: &[u8], strings: Strings) -> Self {
        Self { fingerprint: fingerprint(sql, strings), clauses: clauses(sql, strings) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub sql: Bytes,
    pub reading: Reading,
    pub types: Arc<[u32]>,
    pub _charge: Arc<Charge>,
}

#[derive(Debug, Clone)]
pub(super) struct Portal {
    pub statement: Bytes,
    pub statement_version: u64,
    pub sql: Bytes,
    pub reading: Reading,
    pub params: Arc<[Param]>,
    /// Its first execution.
    pub first: Option<u64>,
    pub _charge: Arc<Charge>,
}

/// What a name stands for since a certain message; `value` is `None` after a `Close`.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub version: u64,
    pub batch: u64,
    pub certain: bool,
    pub value: Option<T>,
}

/// What a message changed.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub name: Bytes,
    pub version: u64,
    pub before: Option<Slot<T>>,
}

#[derive(Debug)]
pub(super) struct Slots<T>(HashMap<Bytes, Slot<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Slots<T> {
    pub(super) fn slot(&self, name: &Bytes) -> Option<&Slot<T>> {
        self.0.get(name)
    }

    pub(super) fn slot_mut(&mut self, name: &Bytes) -> Option<&mut Slot<T>> {
        self.0.get_mut(name)
    }

    /// Whether anything has a name.
    pub(super) fn has_named(&self) -> bool {
        self.0.iter().any(|(name, slot)| !name.is_empty() && (slot.value.is_some() || !slot.certain))
    }

    pub(super) fn version(&self, name: &Bytes) -> Option<(u64, u64)> {
        self.0.get(name).map(|slot| (slot.version, slot.batch))
    }

    pub(super) fn check_room(&self, what: &'static str) -> Result<(), CodecError> {
        if self.0.len() < MOST_NAMES {
            return Ok(());
        }
        Err(CodecError::TooMuchKept { what, maximum: MOST_NAMES })
    }

    pub(super) fn set(&mut self, name: Bytes, slot: Slot<T>) -> Change<T> {
        let version = slot.version;
        let before = self.0.insert(name.clone(), slot);
        Change { name, version, before }
    }

    /// Undoes a change; gives it back when a later one has replaced it meanwhile, whose "before"
    /// then is what this one's was.
    pub(super) fn undo(&mut self, change: Change<T>) -> Option<Change<T>> {
        if self.0.get(&change.name).is_none_or(|slot| slot.version != change.version) {
            return Some(change);
        }
        match change.before {
            Some(before) => self.0.insert(change.name, before),
            None => self.0.remove(&change.name),
        };
        None
    }

    /// A change is final: forgets a name that it removed.
    pub(super) fn settle(&mut self, change: &Change<T>) {
        let gone = |slot: &Slot<T>| slot.version == change.version && slot.value.is_none();
        if self.0.get(&change.name).is_some_and(gone) {
            self.0.remove(&change.name);
        }
    }

    /// Forgets what was set in `batch` or before.
    pub(super) fn drop_until(&mut self, batch: u64) {
        self.0.retain(|_, slot| slot.batch > batch);
    }

    /// For names that SQL can reach: not the empty one.
    pub(super) fn mark_uncertain(&mut self, before: u64) {
        for (name, slot) in &mut self.0 {
            if !name.is_empty() && slot.version < before {
                slot.certain = false;
            }
        }
    }

    pub(super) fn mark_unnamed_uncertain(&mut self) {
        if let Some(slot) = self.0.get_mut(&Bytes::new()) {
            slot.certain = false;
        }
    }
}

impl<T> Change<T> {
    pub(super) fn mark_uncertain(&mut self, version: u64) {
        if let Some(before) = &mut self.before
            && !self.name.is_empty()
            && before.version < version
        {
            before.certain = false;
        }
    }
}
