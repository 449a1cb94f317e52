//! Requests that are unanswered, handles and their files; the client's side.

use std::collections::HashMap;

use bytes::Bytes;

use super::Limits;
use super::content::Window;
use super::files::{File, Operation};
use super::packet::{INIT, Request};
use crate::ssh::observe::file::{Attributes, FileEvent, FileOp, OpenFlags, Outcome};
use crate::ssh::observe::lost::Lost;

#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) limits: Limits,
    last_n: u64,
    pub(super) pending: HashMap<u32, Pending>,
    /// The file that a handle stands for; `None` is a directory.
    pub(super) handles: HashMap<Box<[u8]>, Option<u64>>,
    /// By the `n` of their open. A file stays until its close and all its reads are answered.
    pub(super) files: HashMap<u64, File>,
    /// Bytes of paths in `pending` and `files`.
    paths: usize,
    pub(super) window: Window,
    /// The files that the content now passing belongs to.
    writing: Option<u64>,
    pub(super) reading: Option<u64>,
    client_begun: bool,
    pub(super) server_begun: bool,
}

/// A request that is unanswered.
#[derive(Debug)]
pub(super) enum Pending {
    /// Nothing depends on its answer.
    Quiet,
    /// A status ends it.
    Change(Box<Operation>),
    List(Box<Operation>),
    Open(Box<Operation>, OpenFlags),
    Read {
        file: u64,
        at: u64,
    },
    Write {
        file: u64,
        length: u32,
    },
    Close {
        file: u64,
    },
    /// With a handle that had not been given when it was asked for.
    Early {
        handle: Box<[u8]>,
        of: Early,
    },
}

#[derive(Debug)]
pub(super) enum Early {
    Read,
    Write { length: u32 },
    Close,
}

impl Tracker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            last_n: 0,
            pending: HashMap::new(),
            handles: HashMap::new(),
            files: HashMap::new(),
            paths: 0,
            window: Window(limits.early),
            writing: None,
            reading: None,
            client_begun: false,
            server_begun: false,
        }
    }

    /// A packet of the client. Of a write, the head: its content comes as [`Self::write`].
    pub(super) fn request(&mut self, kind: u8, body: &[u8], events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        if !self.client_begun && kind != INIT {
            return Err(Lost::NotBegun);
        }
        let (id, request) = Request::read(kind, body)?;
        if matches!(request, Request::Init) {
            self.client_begun = true;
            return Ok(());
        }
        if self.pending.contains_key(&id) {
            return Err(Lost::IdInUse { id });
        }
        let none = Attributes::default();
        let pending = match request {
            Request::Init | Request::Quiet => Pending::Quiet,
            Request::Open { path, flags, attributes } => {
                Pending::Open(self.ask(FileOp::Open(flags), path, None, attributes, events).into(), flags)
            }
            Request::List { path } => Pending::List(self.ask(FileOp::List, path, None, none, events).into()),
            Request::Change { op, path, to, attributes } => {
                Pending::Change(self.ask(op, path, to, attributes, events).into())
            }
            Request::SetOpen { handle, attributes } => {
                let path = self.path(handle);
                Pending::Change(self.ask(FileOp::Fsetstat, &path, None, attributes, events).into())
            }
            Request::CopyData { from, to } => self.copy_data(from, to, events),
            Request::Read { handle, offset } => self.begin_read(handle, offset),
            Request::Write { handle, offset, length } => self.begin_write(handle, offset, length),
            Request::Close { handle } => match self.handles.remove(handle) {
                Some(Some(file)) => Pending::Close { file },
                Some(None) => Pending::Quiet,
                None => early(handle, Early::Close),
            },
        };
        self.pending.insert(id, pending);
        if self.pending.len() > self.limits.requests {
            return Err(Lost::TooMany { of: "unanswered requests" });
        }
        if self.paths > self.limits.paths {
            return Err(Lost::TooMany { of: "bytes of paths" });
        }
        Ok(())
    }

    fn ask(
        &mut self,
        op: FileOp,
        path: &[u8],
        to: Option<&[u8]>,
        attributes: Attributes,
        events: &mut Vec<FileEvent>,
    ) -> Operation {
        self.last_n += 1;
        let operation = Operation::new(self.last_n, op, path, to);
        self.paths += operation.weight();
        events.push(operation.asked(attributes));
        operation
    }

    fn copy_data(&mut self, from: &[u8], to: &[u8], events: &mut Vec<FileEvent>) -> Pending {
        if let Some(file) = self.file(to).and_then(|file| self.files.get_mut(&file)) {
            file.written.break_off(&mut self.window);
        }
        let (from, to) = (self.path(from), self.path(to));
        let none = Attributes::default();
        Pending::Change(self.ask(FileOp::CopyData, &from, Some(&to), none, events).into())
    }

    fn begin_read(&mut self, handle: &[u8], offset: u64) -> Pending {
        let Some(n) = self.file(handle) else { return early(handle, Early::Read) };
        if let Some(file) = self.files.get_mut(&n) {
            file.unanswered += 1;
            file.read.ask(offset);
        }
        Pending::Read { file: n, at: offset }
    }

    fn begin_write(&mut self, handle: &[u8], offset: u64, length: u32) -> Pending {
        self.writing = self.file(handle);
        let Some(n) = self.writing else { return early(handle, Early::Write { length }) };
        if let Some(file) = self.files.get_mut(&n) {
            file.unanswered += 1;
            file.written.ask(offset);
            // A server that appends does so whatever the offset says.
            let at = if file.flags.appends() { None } else { Some(offset) };
            file.written.begin(at, &mut self.window);
        }
        Pending::Write { file: n, length }
    }

    /// Content of the write that was asked for last.
    pub(super) fn write(&mut self, bytes: &[u8], last: bool) {
        let Some(file) = self.writing.and_then(|n| self.files.get_mut(&n)) else { return };
        file.written.take(bytes, &mut self.window);
        if last {
            file.written.end(&mut self.window);
            self.writing = None;
        }
    }

    fn file(&self, handle: &[u8]) -> Option<u64> {
        self.handles.get(handle).copied().flatten()
    }

    /// Of the file that a handle stands for; empty when that is not known.
    fn path(&self, handle: &[u8]) -> Bytes {
        let file = self.file(handle).and_then(|n| self.files.get(&n));
        file.map(|file| file.operation.path.clone()).unwrap_or_default()
    }

    pub(super) fn end(&mut self, operation: Operation, outcome: Outcome, events: &mut Vec<FileEvent>) {
        self.paths = self.paths.saturating_sub(operation.weight());
        events.push(operation.answered(outcome, None, None));
    }

    pub(super) fn close(&mut self, n: u64, outcome: Outcome, events: &mut Vec<FileEvent>) {
        if let Some(file) = self.files.get_mut(&n) {
            file.closed = Some(outcome);
        }
        self.end_if_over(n, events);
    }

    pub(super) fn end_if_over(&mut self, n: u64, events: &mut Vec<FileEvent>) {
        let over = |file: &File| file.unanswered == 0 && file.closed.is_some();
        if self.files.get(&n).is_some_and(over)
            && let Some(mut file) = self.files.remove(&n)
        {
            let closed = file.closed.take().unwrap_or(Outcome::Unknown);
            let outcome = file.failure.take().unwrap_or(closed);
            self.end_file(file, outcome, events);
        }
    }

    fn end_file(&mut self, file: File, outcome: Outcome, events: &mut Vec<FileEvent>) {
        self.paths = self.paths.saturating_sub(file.operation.weight());
        events.push(file.answered(outcome, &mut self.window));
    }

    /// Whatever is not over ends with an unknown outcome.
    pub(super) fn finish(&mut self, events: &mut Vec<FileEvent>) {
        let mut ended = Vec::new();
        for pending in std::mem::take(&mut self.pending).into_values() {
            match pending {
                Pending::Change(operation) | Pending::List(operation) | Pending::Open(operation, _) => {
                    ended.push((operation.n, operation.answered(Outcome::Unknown, None, None)));
                }
                Pending::Quiet
                | Pending::Read { .. }
                | Pending::Write { .. }
                | Pending::Close { .. }
                | Pending::Early { .. } => {}
            }
        }
        for (n, mut file) in std::mem::take(&mut self.files) {
            let outcome = file.failure.take().unwrap_or(Outcome::Unknown);
            ended.push((n, file.answered(outcome, &mut self.window)));
        }
        ended.sort_unstable_by_key(|(n, _)| *n);
        events.extend(ended.into_iter().map(|(_, event)| event));
        self.handles.clear();
    }
}

fn early(handle: &[u8], of: Early) -> Pending {
    Pending::Early { handle: handle.into(), of }
}
