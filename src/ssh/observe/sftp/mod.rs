//! SFTP version 3 as OpenSSH speaks it, watched in both directions.
//!
//! 1. [`split`] cuts each direction into packets; the content of files streams through, unkept.
//! 2. [`packet`] reads a packet inside its own length.
//! 3. [`track`] takes requests and [`answer`] joins them by id with their answers, and handles with
//!    the files they stand for.
//! 4. [`content`] hashes what is read and written of each file.
//!
//! Every operation that opens, lists or changes something is told when it is asked for and when it
//! was answered; a file's reads and writes are one operation with its open, answered when the file
//! is closed. What only looks (`stat`, `readlink`, `realpath`, `statvfs`, …) is not told: it floods.
//!
//! A server takes requests in the order they come, so a client may use a handle that it has not
//! been given yet, and guess what it will be. Such a use is joined when it is answered: it counts,
//! but has no hash. A handle that was never given and works all the same is [`Lost`].

mod answer;
mod content;
mod files;
mod packet;
mod reader;
mod split;
#[cfg(test)]
mod tests;
mod track;

use super::file::FileEvent;
use super::lost::Lost;
use super::opaque::Opaque;
use split::{Piece, Side, Splitter};
use track::Tracker;

/// What one channel may make us keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests without an answer.
    pub requests: usize,
    /// Handles that are open.
    pub handles: usize,
    /// Bytes of the paths of both.
    pub paths: usize,
    /// Bytes of content that came before its turn, of all files together.
    pub early: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 4096, handles: 4096, paths: 4 << 20, early: 1 << 20 }
    }
}

/// One SFTP channel's observer, from its first byte on.
#[derive(Debug)]
pub struct SftpObserver {
    client: Splitter,
    server: Splitter,
    tracker: Tracker,
    opaque: Option<Opaque>,
}

impl SftpObserver {
    pub fn new(limits: Limits) -> Self {
        Self {
            client: Splitter::new(Side::Client),
            server: Splitter::new(Side::Server),
            tracker: Tracker::new(limits),
            opaque: None,
        }
    }

    /// Whether the bytes are no longer understood.
    pub fn is_lost(&self) -> bool {
        self.opaque.is_some()
    }

    /// What is about to be forwarded to the server: the events are to be durable before.
    pub fn client(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        if let Some(opaque) = &mut self.opaque {
            opaque.client.push(bytes);
            return;
        }
        let Self { client, tracker, .. } = self;
        let read = read(client, bytes, |piece| match piece {
            Piece::Packet { kind, body } => tracker.request(kind, body, events),
            Piece::Content { bytes, last } => {
                tracker.write(bytes, last);
                Ok(())
            }
        });
        if let Err(failed) = read {
            let mut opaque = self.lose(failed.why, events);
            opaque.client.push(self.client.begun(failed.begun));
            opaque.client.push(failed.rest);
            opaque.server.push(self.server.unfinished());
            self.opaque = Some(opaque);
        }
    }

    /// What came from the server.
    pub fn server(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        if let Some(opaque) = &mut self.opaque {
            opaque.server.push(bytes);
            return;
        }
        let Self { server, tracker, .. } = self;
        let read = read(server, bytes, |piece| match piece {
            Piece::Packet { kind, body } => tracker.answer(kind, body, events),
            Piece::Content { bytes, last } => {
                tracker.read(bytes, last, events);
                Ok(())
            }
        });
        if let Err(failed) = read {
            let mut opaque = self.lose(failed.why, events);
            opaque.server.push(self.server.begun(failed.begun));
            opaque.server.push(failed.rest);
            opaque.client.push(self.client.unfinished());
            self.opaque = Some(opaque);
        }
    }

    /// The channel ends: what is unanswered and what is open ends with an unknown outcome.
    pub fn finish(self, events: &mut Vec<FileEvent>) {
        let Self { mut tracker, opaque, .. } = self;
        tracker.finish(events);
        events.extend(opaque.map(Opaque::finish));
    }

    fn lose(&mut self, why: Lost, events: &mut Vec<FileEvent>) -> Opaque {
        self.tracker.finish(events);
        events.push(FileEvent::Lost { why });
        Opaque::new()
    }
}

/// Where reading stopped: the packet that was not understood is the first `begun` bytes that were
/// gathered of it earlier, and `rest`.
struct Failed<'a> {
    why: Lost,
    begun: usize,
    rest: &'a [u8],
}

fn read<'i>(
    splitter: &mut Splitter,
    bytes: &'i [u8],
    mut each: impl FnMut(Piece<'_>) -> Result<(), Lost>,
) -> Result<(), Failed<'i>> {
    let mut left = bytes;
    loop {
        splitter.skip(&mut left);
        let (begun, rest) = (splitter.unfinished().len(), left);
        let read = match splitter.next(&mut left) {
            Ok(None) => return Ok(()),
            Ok(Some(piece)) => each(piece),
            Err(why) => Err(why),
        };
        read.map_err(|why| Failed { why, begun, rest })?;
    }
}
