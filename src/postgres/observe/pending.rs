//! Messages that the target has not answered yet, in their order.

use std::collections::VecDeque;

use bytes::Bytes;

use super::change::{Change, Portal, Statement};
use super::clause::{Clause, Clauses};
use super::{CopyOf, Ended, Event, Outcome, Refusal};
use crate::postgres::codec::backend::{CommandTag, Report};
use crate::postgres::codec::frontend::Subject;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Parse,
    Bind,
    Describe {
        subject: Subject,
        name: Bytes,
    },
    Execute,
    Close,
    Query,
    Function,
    /// Not `certain` when a COPY may have swallowed it: then it may be answered or not.
    Sync {
        certain: bool,
    },
}

#[derive(Debug)]
pub(super) struct Pending {
    pub id: u64,
    pub batch: u64,
    pub kind: Kind,
    pub undo: Option<Undo>,
    pub run: Option<Box<Run>>,
    /// Something else went to the target in its place.
    pub refusal: Option<Box<Refusal>>,
}

#[derive(Debug)]
pub(super) enum Undo {
    Statement(Change<Statement>),
    Portal(Change<Portal>),
}

/// A statement that has begun and not ended.
#[derive(Debug)]
pub(super) struct Run {
    ended: Ended,
    begun_us: u64,
    /// The versions of the statement and portal it uses: if one of them fails, so does it.
    pub versions: [u64; 2],
    pub failure: Option<Outcome>,
    clauses: Clauses,
}

impl Run {
    pub(super) fn new(n: u64, begun_us: u64, versions: [u64; 2], clauses: Clauses) -> Self {
        let ended = Ended {
            n,
            outcome: Outcome::Unresolved,
            tags: Vec::new(),
            commands: 0,
            rows: 0,
            affected: 0,
            bytes: 0,
            first_us: None,
            total_us: 0,
            transaction: None,
        };
        Self { ended, begun_us, versions, failure: None, clauses }
    }

    pub(super) fn n(&self) -> u64 {
        self.ended.n
    }

    /// Something came in answer to it.
    pub(super) fn answered(&mut self, now_us: u64) {
        self.ended.first_us.get_or_insert(now_us.saturating_sub(self.begun_us));
    }

    pub(super) fn rows(&mut self, rows: u64, bytes: u64, now_us: u64) {
        self.answered(now_us);
        self.ended.rows += rows;
        self.ended.bytes += bytes;
    }

    pub(super) fn copied(&mut self, bytes: u64, now_us: u64) {
        self.answered(now_us);
        self.ended.bytes += bytes;
    }

    /// What the command that is under way does, by the text.
    fn clause(&self) -> Option<&Clause> {
        let clauses = self.clauses.as_deref()?;
        clauses.iter().find(|(number, _)| *number == self.ended.commands).map(|(_, clause)| clause)
    }

    /// Of what the COPY is that the target began.
    pub(super) fn copy_of(&self) -> Option<CopyOf> {
        match self.clause() {
            Some(Clause::Copy(of)) => Some(of.clone()),
            _ => None,
        }
    }

    pub(super) fn completed(&mut self, tag: &CommandTag, now_us: u64, out: &mut Vec<Event>) {
        self.answered(now_us);
        if let Some(Clause::Sets(settings, done, sql)) = self.clause()
            && tag.0 == *done
        {
            out.push(Event::Set { n: self.ended.n, settings, sql: sql.clone() });
        }
        self.ended.commands += 1;
        self.ended.affected = self.ended.affected.saturating_add(tag.rows().unwrap_or(0));
        if self.ended.tags.len() < Ended::MOST_TAGS {
            self.ended.tags.push(super::detached(&tag.0));
        }
    }

    pub(super) fn end(mut self, outcome: Outcome, now_us: u64) -> Ended {
        if !matches!(outcome, Outcome::Skipped { .. } | Outcome::Unresolved) {
            self.answered(now_us);
        }
        self.ended.outcome = outcome;
        self.ended.total_us = now_us.saturating_sub(self.begun_us);
        self.ended
    }
}

pub(super) fn outcome_of(report: &Report) -> Outcome {
    let (sqlstate, message) = (report.sqlstate.clone(), report.message.clone());
    match sqlstate.as_ref() {
        b"57014" => Outcome::Cancelled { message },
        _ => Outcome::Failed { sqlstate, message },
    }
}

/// In order of their ids, which need not be without gaps.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Pending>);

impl Queue {
    pub(super) fn push(&mut self, item: Pending) {
        self.0.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        self.0.pop_front()
    }

    pub(super) fn put_back(&mut self, item: Pending) {
        self.0.push_front(item);
    }

    pub(super) fn head(&mut self) -> Option<&mut Pending> {
        self.0.front_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn has_run_until(&self, id: u64) -> bool {
        self.0.iter().take_while(|item| item.id <= id).any(|item| item.run.is_some())
    }

    pub(super) fn first_id(&self) -> Option<u64> {
        self.0.front().map(|item| item.id)
    }

    pub(super) fn by_id(&mut self, id: u64) -> Option<&mut Pending> {
        let index = self.0.binary_search_by_key(&id, |item| item.id).ok()?;
        self.0.get_mut(index)
    }

    /// Whether a `Sync` that will be answered is among them.
    pub(super) fn next_is_certain_sync(&self) -> Option<bool> {
        self.0.front().map(|item| item.kind == Kind::Sync { certain: true })
    }

    pub(super) fn next_is_sync(&self) -> bool {
        self.0.front().is_some_and(|item| matches!(item.kind, Kind::Sync { .. }))
    }

    /// The target reads COPY data after its first pending message: a `Sync` sent since may be
    /// swallowed. False when something else was sent since.
    pub(super) fn doubt_syncs(&mut self) -> bool {
        self.0.iter_mut().skip(1).all(|item| match &mut item.kind {
            Kind::Sync { certain } => {
                *certain = false;
                true
            }
            _ => false,
        })
    }

    /// One of several adjacent `Sync`s was answered, perhaps this one.
    pub(super) fn doubt_next_sync(&mut self) {
        for item in &mut self.0 {
            match &mut item.kind {
                Kind::Sync { certain: true } => {
                    item.kind = Kind::Sync { certain: false };
                    return;
                }
                Kind::Sync { certain: false } => {}
                _ => return,
            }
        }
    }

    pub(super) fn relink_statement(&mut self, version: u64, change: Change<Statement>) {
        for item in &mut self.0 {
            if let Some(Undo::Statement(later)) = &mut item.undo
                && later.before.as_ref().is_some_and(|before| before.version == version)
                && later.name == change.name
            {
                later.before = change.before;
                return;
            }
        }
    }

    pub(super) fn relink_portal(&mut self, version: u64, change: Change<Portal>) {
        for item in &mut self.0 {
            if let Some(Undo::Portal(later)) = &mut item.undo
                && later.before.as_ref().is_some_and(|before| before.version == version)
                && later.name == change.name
            {
                later.before = change.before;
                return;
            }
        }
    }

    pub(super) fn mark_statements_uncertain(&mut self, before: u64) {
        for item in &mut self.0 {
            if let Some(Undo::Statement(change)) = &mut item.undo {
                change.mark_uncertain(before);
            }
        }
    }

    pub(super) fn mark_portals_uncertain(&mut self, before: u64) {
        for item in &mut self.0 {
            if let Some(Undo::Portal(change)) = &mut item.undo {
                change.mark_uncertain(before);
            }
        }
    }
}
