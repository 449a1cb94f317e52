//! COPY in progress: data counted and hashed as it passes.

use super::{CopyOf, Direction, Event};
use crate::crypto::hasher::Hasher;

#[derive(Debug, Default)]
struct Stream {
    hasher: Hasher,
    chunks: u64,
    bytes: u64,
}

/// A statement that copies in, out, or (replication) both ways.
#[derive(Debug)]
pub(super) struct Copy {
    n: u64,
    of: Option<CopyOf>,
    to_target: Option<Stream>,
    to_client: Option<Stream>,
    both: bool,
    /// Directions that have ended: what came of the whole is told at its end.
    ended: Vec<Event>,
}

impl Copy {
    pub(super) fn begin(n: u64, of: Option<CopyOf>, directions: &[Direction], out: &mut Vec<Event>) -> Self {
        for direction in directions {
            out.push(Event::CopyBegun { n, direction: *direction });
        }
        let open = |direction| directions.contains(&direction).then(Stream::default);
        Self {
            n,
            of,
            to_target: open(Direction::In),
            to_client: open(Direction::Out),
            both: directions.len() == 2,
            ended: Vec::new(),
        }
    }

    /// Whether the client may send data.
    pub(super) fn reads_client(&self) -> bool {
        self.to_target.is_some()
    }

    pub(super) fn is_both(&self) -> bool {
        self.both
    }

    /// Counts data; false when none may come this way. `chunks` is 1 at one end of each message.
    pub(super) fn data(&mut self, direction: Direction, bytes: &[u8], chunks: u64) -> bool {
        let Some(stream) = self.stream(direction) else { return false };
        stream.hasher.update(bytes);
        stream.chunks += chunks;
        stream.bytes += bytes.len() as u64;
        true
    }

    /// The sender ended its data, `complete` or not.
    pub(super) fn close(&mut self, direction: Direction, complete: bool) -> bool {
        let Some(stream) = self.stream(direction).take() else { return false };
        self.ended.push(Event::CopyEnded {
            n: self.n,
            direction,
            of: self.of.clone(),
            rows: None,
            chunks: stream.chunks,
            bytes: stream.bytes,
            sha256: stream.hasher.finish(),
            complete,
        });
        true
    }

    /// The statement ended, with so many rows if it is done: what is still open was not complete.
    pub(super) fn end(mut self, count: Option<u64>, out: &mut Vec<Event>) {
        for direction in [Direction::In, Direction::Out] {
            self.close(direction, false);
        }
        for mut event in self.ended {
            if let Event::CopyEnded { rows, .. } = &mut event {
                *rows = count;
            }
            out.push(event);
        }
    }

    fn stream(&mut self, direction: Direction) -> &mut Option<Stream> {
        match direction {
            Direction::In => &mut self.to_target,
            Direction::Out => &mut self.to_client,
        }
    }
}
