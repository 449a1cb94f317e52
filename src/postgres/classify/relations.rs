//! Which relations a statement names: what stands where a relation can stand.

use std::collections::BTreeSet;

/// PostgreSQL's `NAMEDATALEN` less one.
const LONGEST_NAME: usize = 63;
/// More are not kept: such a statement is not known.
const MOST: usize = 1_000;
/// A name has a database, a schema and itself; a longer one is none.
const MOST_PARTS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Relations {
    names: BTreeSet<String>,
    /// A relation may come next.
    expected: Option<Expected>,
    /// The name that is being read.
    name: Option<Name>,
    pub(super) too_many: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A parenthesis behind the name makes it a function's.
    OrFunction,
    /// It begins a list of columns.
    Surely,
}

#[derive(Debug)]
struct Name {
    parts: Vec<String>,
    /// After a dot: the next part comes.
    open: bool,
    kind: Expected,
}

impl Relations {
    pub(super) fn expect(&mut self, expected: Option<Expected>) {
        self.end_name(false);
        self.expected = expected;
    }

    pub(super) fn is_expected(&self) -> bool {
        self.expected.is_some()
    }

    /// A word or a name; `folded` as the server reads it. Whether it is part of a relation's name.
    pub(super) fn part(&mut self, folded: &str) -> bool {
        // As the server cuts it.
        let folded = folded.get(..folded.floor_char_boundary(LONGEST_NAME)).unwrap_or(folded);
        if let Some(name) = self.name.as_mut().filter(|name| name.open) {
            if name.parts.len() < MOST_PARTS {
                name.parts.push(folded.to_owned());
            } else {
                self.too_many = true;
            }
            name.open = false;
            return true;
        }
        self.end_name(false);
        let Some(kind) = self.expected.take() else { return false };
        self.name = Some(Name { parts: vec![folded.to_owned()], open: false, kind });
        true
    }

    pub(super) fn dot(&mut self) {
        if let Some(name) = &mut self.name {
            name.open = true;
        }
    }

    /// Whether the next word can only be the next part of a name.
    pub(super) fn is_within_name(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.open)
    }

    /// Anything that is no part of a name, and whether it is an opening parenthesis.
    pub(super) fn end_name(&mut self, opens: bool) {
        let Some(Name { parts, kind, .. }) = self.name.take() else { return };
        if opens && kind == Expected::OrFunction {
            return;
        }
        if self.names.len() >= MOST {
            self.too_many = true;
            return;
        }
        for from in 0..parts.len() {
            self.names.insert(parts.get(from..).unwrap_or_default().join("."));
        }
    }

    /// Counts a word wherever it stands.
    pub(super) fn mention(&mut self, folded: &str) {
        if !self.is_within_name() {
            self.expect(Some(Expected::Surely));
        }
        self.part(folded);
    }

    pub(super) fn into_names(mut self) -> BTreeSet<String> {
        self.end_name(false);
        self.names
    }
}
