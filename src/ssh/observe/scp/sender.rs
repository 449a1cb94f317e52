//! The sender's stream: lines, and the bytes of files.

use bytes::Bytes;

use super::line::Line;
use super::{Lost, take_line};
use crate::crypto::hasher::Hasher;
use crate::ssh::observe::file::{Answered, Asked, Attributes, Content, FileEvent, FileOp, Outcome, Times};
use crate::ssh::observe::program::ScpRole;

/// Of a path with all its directories.
const LONGEST_PATH: usize = 64 * 1024;
const MOST_DIRECTORIES: usize = 1024;

/// What waits for the receiver's answer.
#[derive(Debug)]
pub(super) enum Awaited {
    /// That the receiver is ready.
    Ready,
    /// To a line that only prepares or ends something.
    Line,
    /// To the line of the file that passes.
    File,
    Directory(Box<Operation>),
    /// To the whole of a file.
    Content(Box<File>),
}

#[derive(Debug)]
pub(super) struct Operation {
    n: u64,
    op: FileOp,
    path: Bytes,
}

#[derive(Debug)]
pub(super) struct File {
    operation: Operation,
    role: ScpRole,
    bytes: u64,
    hasher: Hasher,
    failure: Option<Outcome>,
}

#[derive(Debug)]
enum State {
    Line,
    /// So many bytes of the file are still to come, then a status.
    Content {
        left: u64,
    },
}

#[derive(Debug)]
pub(super) struct Sender {
    role: ScpRole,
    state: State,
    /// What is there of a line, or of the text of a status.
    line: Vec<u8>,
    file: Option<Box<File>>,
    times: Option<Times>,
    /// The directory that is being sent, and how long its path was before each part of it.
    directory: Vec<u8>,
    lengths: Vec<usize>,
    last_n: u64,
}

impl Sender {
    pub(super) fn new(role: ScpRole) -> Self {
        Self {
            role,
            state: State::Line,
            line: Vec::new(),
            file: None,
            times: None,
            directory: Vec::new(),
            lengths: Vec::new(),
            last_n: 0,
        }
    }

    /// What is there of a line that is not whole.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.line
    }

    /// Takes some of the bytes, at least one; tells what now waits for an answer.
    pub(super) fn step(
        &mut self,
        bytes: &mut &[u8],
        events: &mut Vec<FileEvent>,
    ) -> Result<Option<Awaited>, Lost> {
        match &mut self.state {
            State::Line => {
                if self.line.is_empty() && !bytes.first().copied().is_some_and(Line::may_begin) {
                    return Err(Lost::CopyLine);
                }
                let before = self.line.len();
                let Some(mut line) = take_line(&mut self.line, bytes)? else { return Ok(None) };
                let begun = Line::read(&line).and_then(|line| self.begin(line, events));
                if begun.is_err() {
                    // What came earlier of it is still to be counted.
                    line.truncate(before);
                    self.line = line;
                }
                begun
            }
            State::Content { left: 0 } => self.status(bytes),
            State::Content { left } => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let (content, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
                *left = left.saturating_sub(length as u64);
                *bytes = rest;
                if let Some(file) = &mut self.file {
                    file.hasher.update(content);
                    file.bytes = file.bytes.saturating_add(length as u64);
                }
                Ok(None)
            }
        }
    }

    fn begin(&mut self, line: Line<'_>, events: &mut Vec<FileEvent>) -> Result<Option<Awaited>, Lost> {
        match line {
            Line::File { mode, size, name } => {
                let attributes =
                    Attributes { size: Some(size), mode: Some(mode), owner: None, times: self.times.take() };
                let path = self.path(name)?;
                let operation = self.ask(FileOp::ScpFile, path, attributes, events);
                let hasher = Hasher::new();
                let file = File { operation, role: self.role, bytes: 0, hasher, failure: None };
                self.file = Some(Box::new(file));
                self.state = State::Content { left: size };
                Ok(Some(Awaited::File))
            }
            Line::Directory { mode, name } => {
                let attributes =
                    Attributes { mode: Some(mode), times: self.times.take(), ..Attributes::default() };
                let path = self.path(name)?;
                if self.lengths.len() >= MOST_DIRECTORIES {
                    return Err(Lost::TooMany { of: "nested directories" });
                }
                self.lengths.push(self.directory.len());
                self.directory.clone_from(&path);
                let operation = self.ask(FileOp::ScpDirectory, path, attributes, events);
                Ok(Some(Awaited::Directory(Box::new(operation))))
            }
            Line::End => {
                self.leave()?;
                Ok(Some(Awaited::Line))
            }
            Line::Times(times) => {
                self.times = Some(times);
                Ok(Some(Awaited::Line))
            }
            Line::Failed { code, message } => {
                let operation = self.ask(FileOp::ScpFile, Vec::new(), Attributes::default(), events);
                events.push(operation.answered(Outcome::failed(code.into(), message)));
                Ok(None)
            }
        }
    }

    /// Zero, or 1 or 2 and a text, after a file's bytes.
    fn status(&mut self, bytes: &mut &[u8]) -> Result<Option<Awaited>, Lost> {
        let failed = match (self.line.is_empty(), *bytes) {
            (true, [0, rest @ ..]) => {
                *bytes = rest;
                None
            }
            (true, [1 | 2, ..]) | (false, _) => {
                let Some(text) = take_line(&mut self.line, bytes)? else { return Ok(None) };
                text.split_first().map(|(code, message)| Outcome::failed(u32::from(*code), message))
            }
            (true, _) => return Err(Lost::CopyLine),
        };
        self.state = State::Line;
        Ok(self.file.take().map(|mut file| {
            file.failure = failed.or(file.failure);
            Awaited::Content(file)
        }))
    }

    fn ask(
        &mut self,
        op: FileOp,
        path: Vec<u8>,
        attributes: Attributes,
        events: &mut Vec<FileEvent>,
    ) -> Operation {
        self.last_n += 1;
        let operation = Operation { n: self.last_n, op, path: path.into() };
        let Operation { n, op, path } = &operation;
        let asked = Asked { n: *n, op: op.clone(), path: path.clone(), to: None, attributes };
        events.push(FileEvent::Asked(asked));
        operation
    }

    fn path(&self, name: &[u8]) -> Result<Vec<u8>, Lost> {
        if self.directory.len() + name.len() >= LONGEST_PATH {
            return Err(Lost::TooMany { of: "bytes of paths" });
        }
        if self.directory.is_empty() {
            return Ok(name.to_vec());
        }
        Ok([&self.directory, &b"/"[..], name].concat())
    }

    fn leave(&mut self) -> Result<(), Lost> {
        let length = self.lengths.pop().ok_or(Lost::CopyLine)?;
        self.directory.truncate(length);
        Ok(())
    }

    /// The receiver does not take the file that was announced.
    pub(super) fn refuse_file(&mut self, failed: Outcome, events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        if !self.line.is_empty() {
            return Err(Lost::WentOn);
        }
        let file = self.file.take_if(|file| file.bytes == 0).ok_or(Lost::WentOn)?;
        self.state = State::Line;
        events.push(file.operation.answered(failed));
        Ok(())
    }

    /// The receiver does not take the directory that was announced. `last`: nothing came after it.
    pub(super) fn refuse_directory(&mut self, last: bool) -> Result<(), Lost> {
        if !last || !self.line.is_empty() {
            return Err(Lost::WentOn);
        }
        self.leave()
    }

    /// The receiver says that something is wrong, while nothing waits for its answer.
    pub(super) fn warn(&mut self, failed: Outcome) {
        if let Some(file) = &mut self.file {
            file.failure.get_or_insert(failed);
        }
    }

    pub(super) fn finish(&mut self, events: &mut Vec<FileEvent>) {
        events.extend(self.file.take().map(|file| file.answered(Outcome::Unknown)));
    }
}

impl Operation {
    pub(super) fn answered(self, outcome: Outcome) -> FileEvent {
        let Self { n, op, path } = self;
        FileEvent::Answered(Answered { n, op, path, to: None, outcome, read: None, written: None })
    }
}

impl File {
    /// A failure that the sender told goes before what the receiver says.
    pub(super) fn answered(self, outcome: Outcome) -> FileEvent {
        let content = Some(Content { bytes: self.bytes, sha256: Some(self.hasher.finish()), from: 0 });
        let (read, written) = match self.role {
            ScpRole::Source => (content, None),
            ScpRole::Sink => (None, content),
        };
        let (outcome, to) = (self.failure.unwrap_or(outcome), None);
        let Operation { n, op, path } = self.operation;
        FileEvent::Answered(Answered { n, op, path, to, outcome, read, written })
    }
}
