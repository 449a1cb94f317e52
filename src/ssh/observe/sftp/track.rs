//! Requests and their answers, handles and their files.

use std::collections::HashMap;

use bytes::Bytes;

use super::Limits;
use super::content::Window;
use super::files::{File, Operation};
use super::packet::{Answer, EOF, INIT, Request, VERSION};
use crate::ssh::observe::file::{Attributes, FileEvent, FileOp, OpenFlags, Outcome};
use crate::ssh::observe::lost::Lost;

/// `SSH_FX_OK`.
const OK: u32 = 0;
const PROTOCOL: u32 = 3;

#[derive(Debug)]
pub(super) struct Tracker {
    limits: Limits,
    last_n: u64,
    pending: HashMap<u32, Pending>,
    /// The file that a handle stands for; `None` is a directory.
    handles: HashMap<Box<[u8]>, Option<u64>>,
    /// By the `n` of their open. A file stays until its close and all its reads are answered.
    files: HashMap<u64, File>,
    /// Bytes of paths in `pending` and `files`.
    paths: usize,
    window: Window,
    /// The files that the content now passing belongs to.
    writing: Option<u64>,
    reading: Option<u64>,
    client_begun: bool,
    server_begun: bool,
}

/// A request that is unanswered.
#[derive(Debug)]
enum Pending {
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
enum Early {
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
                Pending::Open(self.ask(FileOp::Open(flags), path, None, attributes, events), flags)
            }
            Request::List { path } => Pending::List(self.ask(FileOp::List, path, None, none, events)),
            Request::Change { op, path, to, attributes } => {
                Pending::Change(self.ask(op, path, to, attributes, events))
            }
            Request::SetOpen { handle, attributes } => {
                let path = self.path(handle);
                Pending::Change(self.ask(FileOp::Fsetstat, &path, None, attributes, events))
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
    ) -> Box<Operation> {
        self.last_n += 1;
        let operation = Operation::new(self.last_n, op, path, to);
        self.paths += operation.weight();
        events.push(operation.asked(attributes));
        Box::new(operation)
    }

    fn copy_data(&mut self, from: &[u8], to: &[u8], events: &mut Vec<FileEvent>) -> Pending {
        if let Some(file) = self.file(to).and_then(|file| self.files.get_mut(&file)) {
            file.written.break_off(&mut self.window);
        }
        let (from, to) = (self.path(from), self.path(to));
        Pending::Change(self.ask(FileOp::CopyData, &from, Some(&to), Attributes::default(), events))
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

    /// A packet of the server. Of data, the head: its content comes as [`Self::read`].
    pub(super) fn answer(&mut self, kind: u8, body: &[u8], events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        if !self.server_begun && kind != VERSION {
            return Err(Lost::NotBegun);
        }
        match Answer::read(kind, body)? {
            Answer::Version(PROTOCOL) => {
                self.server_begun = true;
                Ok(())
            }
            Answer::Version(version) => Err(Lost::Version { version }),
            Answer::Status { id, code: OK, .. } => self.done(id, events),
            Answer::Status { id, code, message } => self.failed(id, code, message, events),
            Answer::Handle { id, handle } => self.given(id, handle, events),
            Answer::Data { id } => self.begin_content(id),
            Answer::Told { id } => match self.take(id)? {
                Pending::Quiet => Ok(()),
                // What an extension answers that is not known.
                Pending::Change(operation) if matches!(operation.op, FileOp::Extended(_)) => {
                    self.end(*operation, Outcome::Done, events);
                    Ok(())
                }
                other => Err(self.mismatched(id, other)),
            },
        }
    }

    fn take(&mut self, id: u32) -> Result<Pending, Lost> {
        self.pending.remove(&id).ok_or(Lost::Unasked { id })
    }

    /// What was taken is no answer to this request, which is still to be told as unanswered.
    fn mismatched(&mut self, id: u32, pending: Pending) -> Lost {
        self.pending.insert(id, pending);
        Lost::Answer { id }
    }

    fn done(&mut self, id: u32, events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        match self.take(id)? {
            Pending::Quiet => {}
            Pending::Change(operation) => self.end(*operation, Outcome::Done, events),
            Pending::Close { file } => self.close(file, Outcome::Done, events),
            Pending::Write { file: n, length } => {
                if let Some(file) = self.files.get_mut(&n) {
                    file.written.count(length.into());
                    file.unanswered = file.unanswered.saturating_sub(1);
                }
                self.end_if_over(n, events);
            }
            Pending::Early { handle, of } => return self.done_early(&handle, &of, events),
            other => return Err(self.mismatched(id, other)),
        }
        Ok(())
    }

    fn done_early(&mut self, handle: &[u8], of: &Early, events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        let Some(given) = self.handles.get(handle).copied() else { return Err(Lost::UnknownHandle) };
        let file = given.and_then(|n| self.files.get_mut(&n));
        match (of, file) {
            (Early::Write { length }, Some(file)) => {
                file.written.count((*length).into());
                file.written.break_off(&mut self.window);
            }
            (Early::Close, _) => {
                self.handles.remove(handle);
                if let Some(n) = given {
                    self.close(n, Outcome::Done, events);
                }
            }
            (Early::Read | Early::Write { .. }, _) => return Err(Lost::UnknownHandle),
        }
        Ok(())
    }

    fn failed(
        &mut self,
        id: u32,
        code: u32,
        message: &[u8],
        events: &mut Vec<FileEvent>,
    ) -> Result<(), Lost> {
        let outcome = Outcome::failed(code, message);
        match self.take(id)? {
            Pending::Quiet | Pending::Early { .. } => {}
            Pending::Change(operation) | Pending::List(operation) | Pending::Open(operation, _) => {
                self.end(*operation, outcome, events);
            }
            Pending::Close { file } => self.close(file, outcome, events),
            Pending::Read { file: n, .. } => {
                if let Some(file) = self.files.get_mut(&n) {
                    file.unanswered = file.unanswered.saturating_sub(1);
                    if code != EOF {
                        file.failure.get_or_insert(outcome);
                    }
                }
                self.end_if_over(n, events);
            }
            Pending::Write { file: n, .. } => {
                if let Some(file) = self.files.get_mut(&n) {
                    file.unanswered = file.unanswered.saturating_sub(1);
                    file.failure.get_or_insert(outcome);
                    file.written.break_off(&mut self.window);
                }
                self.end_if_over(n, events);
            }
        }
        Ok(())
    }

    /// A handle for what was opened. One that still stands for something stands for this from now
    /// on: the server knows what it closed.
    fn given(&mut self, id: u32, handle: &[u8], events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        let file = match self.take(id)? {
            Pending::List(operation) => {
                self.end(*operation, Outcome::Done, events);
                None
            }
            Pending::Open(operation, flags) => {
                let n = operation.n;
                self.files.insert(n, File::new(operation, flags));
                Some(n)
            }
            other => return Err(self.mismatched(id, other)),
        };
        self.handles.insert(handle.into(), file);
        if self.handles.len().max(self.files.len()) > self.limits.handles {
            return Err(Lost::TooMany { of: "open handles" });
        }
        Ok(())
    }

    fn begin_content(&mut self, id: u32) -> Result<(), Lost> {
        match self.take(id)? {
            Pending::Read { file: n, at } => {
                self.reading = Some(n);
                if let Some(file) = self.files.get_mut(&n) {
                    file.read.begin(Some(at), &mut self.window);
                }
            }
            Pending::Early { handle, of: Early::Read } => {
                let given = self.handles.get(&handle).copied().flatten();
                let n = given.ok_or(Lost::UnknownHandle)?;
                self.reading = Some(n);
                if let Some(file) = self.files.get_mut(&n) {
                    file.unanswered += 1;
                    file.read.break_off(&mut self.window);
                }
            }
            other => return Err(self.mismatched(id, other)),
        }
        Ok(())
    }

    /// Content of the read that was answered last.
    pub(super) fn read(&mut self, bytes: &[u8], last: bool, events: &mut Vec<FileEvent>) {
        let Some(n) = self.reading else { return };
        if let Some(file) = self.files.get_mut(&n) {
            file.read.take(bytes, &mut self.window);
            file.read.count(bytes.len() as u64);
            if last {
                file.read.end(&mut self.window);
                file.unanswered = file.unanswered.saturating_sub(1);
            }
        }
        if last {
            self.reading = None;
            self.end_if_over(n, events);
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

    fn end(&mut self, operation: Operation, outcome: Outcome, events: &mut Vec<FileEvent>) {
        self.paths = self.paths.saturating_sub(operation.weight());
        events.push(operation.answered(outcome, None, None));
    }

    fn close(&mut self, n: u64, outcome: Outcome, events: &mut Vec<FileEvent>) {
        if let Some(file) = self.files.get_mut(&n) {
            file.closed = Some(outcome);
        }
        self.end_if_over(n, events);
    }

    fn end_if_over(&mut self, n: u64, events: &mut Vec<FileEvent>) {
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
