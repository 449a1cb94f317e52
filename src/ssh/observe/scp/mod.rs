//! The copy protocol of `scp -O`, watched in both directions.
//!
//! 1. The receiver sends a zero byte: it is ready.
//! 2. The sender sends a line: a file, a directory that begins or ends, or times for the next one.
//!    The receiver answers each with a zero byte, or 1 or 2 and a text.
//! 3. After a file's line was accepted come its bytes and a status byte; the receiver answers.
//!
//! Some senders do not wait for answers. Such a sender is followed as if all it sent were accepted;
//! when a line is refused after it went on, what follows could be content or lines to the receiver:
//! that is [`Lost::WentOn`].

mod line;
mod sender;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::file::{FileEvent, Outcome};
use super::lost::Lost;
use super::opaque::Opaque;
use super::program::ScpRole;
use sender::{Awaited, Sender};

/// How many lines and files may be unanswered.
const MOST_AWAITED: usize = 64;

/// One scp channel's observer, from its first byte on.
#[derive(Debug)]
pub struct ScpObserver {
    role: ScpRole,
    sender: Sender,
    awaited: VecDeque<Awaited>,
    /// The text of an answer that is not whole yet: its code comes first.
    answer: Vec<u8>,
    opaque: Option<Opaque>,
}

impl ScpObserver {
    /// `role`: what the target does.
    pub fn new(role: ScpRole) -> Self {
        Self {
            role,
            sender: Sender::new(role),
            awaited: VecDeque::from([Awaited::Ready]),
            answer: Vec::new(),
            opaque: None,
        }
    }

    /// Whether the bytes are no longer understood.
    pub fn is_lost(&self) -> bool {
        self.opaque.is_some()
    }

    /// What is about to be forwarded to the target: the events are to be durable before.
    pub fn client(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        if let Some(opaque) = &mut self.opaque {
            opaque.client.push(bytes);
            return;
        }
        let read = match self.role {
            ScpRole::Sink => self.sent(bytes, events),
            ScpRole::Source => self.answered(bytes, events),
        };
        if let Err((why, rest)) = read {
            self.lose(why, events).client.push(rest);
        }
    }

    /// What came from the target.
    pub fn server(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        if let Some(opaque) = &mut self.opaque {
            opaque.server.push(bytes);
            return;
        }
        let read = match self.role {
            ScpRole::Sink => self.answered(bytes, events),
            ScpRole::Source => self.sent(bytes, events),
        };
        if let Err((why, rest)) = read {
            self.lose(why, events).server.push(rest);
        }
    }

    /// The channel ends: what is unfinished ends with an unknown outcome.
    pub fn finish(mut self, events: &mut Vec<FileEvent>) {
        self.end_all(events);
        events.extend(self.opaque.map(Opaque::finish));
    }

    fn sent<'a>(&mut self, mut bytes: &'a [u8], events: &mut Vec<FileEvent>) -> Result<(), (Lost, &'a [u8])> {
        while !bytes.is_empty() {
            if self.awaited.len() >= MOST_AWAITED {
                return Err((Lost::TooMany { of: "lines without an answer" }, bytes));
            }
            let rest = bytes;
            let awaited = self.sender.step(&mut bytes, events).map_err(|why| (why, rest))?;
            self.awaited.extend(awaited);
        }
        Ok(())
    }

    fn answered<'a>(
        &mut self,
        mut bytes: &'a [u8],
        events: &mut Vec<FileEvent>,
    ) -> Result<(), (Lost, &'a [u8])> {
        while let [first, after @ ..] = bytes {
            let rest = bytes;
            if self.answer.is_empty() && *first == 0 {
                bytes = after;
                self.end(None, events).map_err(|why| (why, rest))?;
                continue;
            }
            if self.answer.is_empty() && !matches!(first, 1 | 2) {
                return Err((Lost::CopyAnswer, rest));
            }
            let before = self.answer.len();
            let Some(mut text) = take_line(&mut self.answer, &mut bytes).map_err(|why| (why, rest))? else {
                return Ok(());
            };
            let failed = text.split_first().map(|(code, text)| Outcome::failed(u32::from(*code), text));
            if let Err(why) = self.end(failed, events) {
                text.truncate(before);
                self.answer = text;
                return Err((why, rest));
            }
        }
        Ok(())
    }

    /// The oldest of what waits for an answer has it.
    fn end(&mut self, failed: Option<Outcome>, events: &mut Vec<FileEvent>) -> Result<(), Lost> {
        match (self.awaited.pop_front(), failed) {
            (Some(Awaited::Ready | Awaited::Line), _) | (Some(Awaited::File), None) => {}
            (Some(Awaited::File), Some(failed)) => self.sender.refuse_file(failed, events)?,
            (Some(Awaited::Directory(operation)), failed) => {
                let refused = failed.is_some();
                events.push(operation.answered(failed.unwrap_or(Outcome::Done)));
                if refused {
                    self.sender.refuse_directory(self.awaited.is_empty())?;
                }
            }
            (Some(Awaited::Content(file)), failed) => {
                events.push(file.answered(failed.unwrap_or(Outcome::Done)));
            }
            // Warnings come at any time; all else only as an answer.
            (None, Some(failed)) => self.sender.warn(failed),
            (None, None) => return Err(Lost::CopyAnswer),
        }
        Ok(())
    }

    fn end_all(&mut self, events: &mut Vec<FileEvent>) {
        for awaited in std::mem::take(&mut self.awaited) {
            match awaited {
                Awaited::Directory(operation) => events.push(operation.answered(Outcome::Unknown)),
                Awaited::Content(file) => events.push(file.answered(Outcome::Unknown)),
                Awaited::Ready | Awaited::Line | Awaited::File => {}
            }
        }
        self.sender.finish(events);
    }

    fn lose(&mut self, why: Lost, events: &mut Vec<FileEvent>) -> &mut Opaque {
        self.end_all(events);
        events.push(FileEvent::Lost { why });
        let mut opaque = Opaque::new();
        let (client, server) = match self.role {
            ScpRole::Sink => (self.sender.unfinished(), &self.answer[..]),
            ScpRole::Source => (&self.answer[..], self.sender.unfinished()),
        };
        opaque.client.push(client);
        opaque.server.push(server);
        self.opaque.insert(opaque)
    }
}

/// Takes bytes up to a line feed; gives the line without it when it is whole. A line that is too
/// long leaves everything where it was.
fn take_line(line: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Lost> {
    let end = bytes.iter().take(line::LONGEST).position(|byte| *byte == b'\n');
    let length = end.unwrap_or(bytes.len());
    if line.len() + length > line::LONGEST {
        return Err(Lost::TooMany { of: "bytes in a line" });
    }
    let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
    line.extend_from_slice(part);
    *bytes = rest.get(1..).unwrap_or_default();
    Ok(end.map(|_| std::mem::take(line)))
}
