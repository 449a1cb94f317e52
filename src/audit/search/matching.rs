//! A query made ready, and the hits that it has so far.

use std::collections::BTreeMap;

use super::extract::{KINDS, Piece};
use super::signature::runs;
use super::text::Needle;
use super::{Hit, Query, SearchError};
use crate::audit::record::Context;
use crate::domain::time::Timestamp;

/// A query that makes sense.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) query: Query,
    needle: Needle,
    /// What a signature must hold; nothing for a text that is too short.
    pub(super) runs: Vec<u32>,
    /// The bits of the kinds that are wanted.
    pub(super) kinds: i64,
}

impl Wanted {
    pub(super) fn new(query: Query) -> Result<Self, SearchError> {
        let needle = Needle::new(&query.text);
        if needle.is_too_long() {
            return Err(SearchError::TooLong);
        }
        let kinds = match &query.kind {
            None => i64::MAX,
            Some(kind) if KINDS.contains(&kind.as_str()) => kind_bit(kind),
            Some(kind) => return Err(SearchError::UnknownKind { given: kind.clone() }),
        };
        let runs = runs(needle.folded()).collect();
        Ok(Self { query, needle, runs, kinds })
    }

    /// Whether everything but the text applies to a recording.
    pub(super) fn is_about(&self, context: &Context) -> bool {
        let Query { principal, target, session, .. } = &self.query;
        let who = &context.principal;
        principal.as_ref().is_none_or(|wanted| wanted == who.name.as_str() || wanted == who.id.as_str())
            && target.as_ref().is_none_or(|wanted| *wanted == context.target)
            && session.as_ref().is_none_or(|wanted| *wanted == context.session)
    }
}

/// The bit that stands for a kind of record.
pub(super) fn kind_bit(kind: &str) -> i64 {
    KINDS.iter().position(|known| *known == kind).map_or(0, |index| 1 << index)
}

/// The record that a text comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) n: u64,
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) context: &'a Context,
}

/// The newest hits so far, one for each record.
#[derive(Debug)]
pub(super) struct Hits<'a> {
    wanted: &'a Wanted,
    newest: BTreeMap<u64, Hit>,
    /// There were more than are wanted.
    pub(super) overflowed: bool,
}

impl<'a> Hits<'a> {
    pub(super) fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, newest: BTreeMap::new(), overflowed: false }
    }

    /// Whether a recording is one of those that are looked at.
    pub(super) fn wants(&self, context: &Context) -> bool {
        self.wanted.is_about(context)
    }

    /// The oldest hit, when there are as many as are wanted: older ones make no difference any more.
    pub(super) fn floor(&self) -> Option<u64> {
        if self.newest.len() < self.wanted.query.limit { None } else { self.newest.keys().next().copied() }
    }

    /// Looks for the text in a piece of a recording.
    pub(super) fn look_at(&mut self, piece: &Piece, origin: Origin<'_>) {
        let Query { from, to, before, limit, .. } = &self.wanted.query;
        let in_time = from.is_none_or(|from| origin.at >= from) && to.is_none_or(|to| origin.at <= to);
        let is_wanted = in_time
            && before.is_none_or(|before| origin.n < before)
            && kind_bit(piece.kind) & self.wanted.kinds != 0;
        if !is_wanted {
            return;
        }
        let Some(excerpt) = self.wanted.needle.excerpt(&piece.text, piece.old) else { return };
        if let Some(hit) = self.newest.get_mut(&origin.n) {
            hit.more += 1;
            return;
        }
        self.newest.insert(origin.n, hit(piece.kind, excerpt, origin));
        if self.newest.len() > *limit {
            self.newest.pop_first();
            self.overflowed = true;
        }
    }

    /// Newest first, without those at or below `floor`.
    pub(super) fn above(self, floor: Option<u64>) -> Vec<Hit> {
        self.newest.into_values().rev().filter(|hit| floor.is_none_or(|floor| hit.n > floor)).collect()
    }
}

fn hit(kind: &'static str, excerpt: String, origin: Origin<'_>) -> Hit {
    let Context { principal, session, connection, target, access, break_glass, .. } = origin.context;
    Hit {
        n: origin.n,
        connection: connection.clone(),
        session: session.clone(),
        principal: principal.clone(),
        target: target.clone(),
        access: access.clone(),
        break_glass: *break_glass,
        at: origin.at,
        seq: origin.seq,
        kind,
        excerpt,
        more: 0,
    }
}
