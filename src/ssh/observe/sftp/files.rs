//! What is told of operations and of open files.

use bytes::Bytes;

use super::content::{Run, Window};
use crate::ssh::observe::file::{
    Answered, Asked, Attributes, Content, FileEvent, FileOp, OpenFlags, Outcome,
};

/// What is told twice: asked, answered.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) n: u64,
    pub(super) op: FileOp,
    pub(super) path: Bytes,
    to: Option<Bytes>,
}

impl Operation {
    pub(super) fn new(n: u64, op: FileOp, path: &[u8], to: Option<&[u8]>) -> Self {
        Self { n, op, path: Bytes::copy_from_slice(path), to: to.map(Bytes::copy_from_slice) }
    }

    /// How many bytes of paths it keeps.
    pub(super) fn weight(&self) -> usize {
        self.path.len() + self.to.as_ref().map_or(0, Bytes::len)
    }

    pub(super) fn asked(&self, attributes: Attributes) -> FileEvent {
        FileEvent::Asked(Asked {
            n: self.n,
            op: self.op.clone(),
            path: self.path.clone(),
            to: self.to.clone(),
            attributes,
        })
    }

    pub(super) fn answered(
        self,
        outcome: Outcome,
        read: Option<Content>,
        written: Option<Content>,
    ) -> FileEvent {
        let Self { n, op, path, to } = self;
        FileEvent::Answered(Answered { n, op, path, to, outcome, read, written })
    }
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) operation: Box<Operation>,
    pub(super) flags: OpenFlags,
    pub(super) read: Run,
    pub(super) written: Run,
    /// Reads and writes without an answer.
    pub(super) unanswered: usize,
    /// The first read or write that failed.
    pub(super) failure: Option<Outcome>,
    pub(super) closed: Option<Outcome>,
}

impl File {
    pub(super) fn new(operation: Box<Operation>, flags: OpenFlags) -> Self {
        Self {
            operation,
            flags,
            read: Run::default(),
            written: Run::default(),
            unanswered: 0,
            failure: None,
            closed: None,
        }
    }

    pub(super) fn answered(mut self, outcome: Outcome, window: &mut Window) -> FileEvent {
        if self.unanswered > 0 {
            // What was hashed may not have arrived.
            self.written.break_off(window);
        }
        let read = self.read.finish(self.flags.reads(), window);
        let written = self.written.finish(self.flags.writes(), window);
        self.operation.answered(outcome, read, written)
    }
}
