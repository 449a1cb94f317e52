//! The server's side: what its answers end.

use super::files::File;
use super::packet::{Answer, EOF, OK, VERSION};
use super::track::{Early, Pending, Tracker};
use crate::ssh::observe::file::{FileEvent, FileOp, Outcome};
use crate::ssh::observe::lost::Lost;

const PROTOCOL: u32 = 3;

impl Tracker {
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
}
