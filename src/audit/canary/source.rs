//! Reads back what was recorded after a place: from the journal's files, or from the stream.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::check::Check;
use super::{CanaryError, From};
use crate::audit::checkpoints;
use crate::audit::files::{Lines, Place, Read};
use crate::audit::line::LONGEST_LINE;
use crate::audit::note::BadCheckpoint;
use crate::audit::stream::kinesis::{NotRead, Reader};
use crate::audit::stream::parcel::{Heading, parse};
use crate::domain::id::NodeId;

/// Lines of the journal that are read at most: as many as are checked.
const MOST_LINES: usize = 1 << 18;
/// Pieces of long lines that wait for more, in bytes.
const MOST_PIECES: usize = 16 << 20;

/// Where to read on in each shard; none where it was read to its end.
pub(super) type Shards = BTreeMap<String, Option<String>>;

/// The ends of all shards at this moment; nothing where there is no stream.
pub(super) async fn ends(from: &From) -> Result<Shards, NotRead> {
    let From::Stream(reader) = from else { return Ok(Shards::new()) };
    let mut shards = Shards::new();
    for shard in reader.shards().await? {
        let end = reader.end(&shard).await?;
        shards.insert(shard, end);
    }
    Ok(shards)
}

#[derive(Debug)]
pub(super) enum Source {
    Journal { directory: PathBuf, place: Place },
    Stream { reader: Reader, shards: Shards, pieces: Pieces },
}

impl Source {
    /// What comes after `place` in the journal, or after the ends of `shards` in the stream.
    pub(super) fn new(from: From, shards: Shards, place: Place) -> Self {
        match from {
            From::Journal(directory) => Self::Journal { directory, place },
            From::Stream(reader) => Self::Stream { reader, shards, pieces: Pieces::default() },
        }
    }

    /// Gives `check` what there is, of a log of `node`.
    pub(super) async fn read(&mut self, check: &mut Check, node: &NodeId) -> Result<(), CanaryError> {
        match self {
            Self::Journal { directory, place } => {
                let (directory, place, mut given) = (directory.clone(), *place, check.clone());
                let read = tokio::task::spawn_blocking(move || {
                    from_files(&directory, place, &mut given)?;
                    Ok::<_, CanaryError>(given)
                });
                *check = read.await.map_err(io::Error::other)??;
                Ok(())
            }
            Self::Stream { reader, shards, pieces } => {
                if from_stream(reader, shards, pieces, (&mut *check, node)).await? {
                    begin_new_shards(reader, shards).await?;
                }
                Ok(())
            }
        }
    }
}

fn from_files(directory: &Path, place: Place, check: &mut Check) -> Result<(), CanaryError> {
    let mut lines = Lines::follow_from(directory, place);
    for _ in 0..MOST_LINES {
        match lines.next()? {
            Read::Line(_) => check.line(lines.line())?,
            Read::End(_) | Read::Unfinished(_) => break,
            Read::Bad { what, .. } => return Err(CanaryError::Journal(what.to_string())),
        }
    }
    let note = checkpoints::newest(directory)?;
    note.map_or(Ok(()), |note| check.note(&note))
}

/// One look into every shard; whether one was closed meanwhile.
async fn from_stream(
    reader: &Reader,
    shards: &mut Shards,
    pieces: &mut Pieces,
    (check, node): (&mut Check, &NodeId),
) -> Result<bool, CanaryError> {
    let mut closed = false;
    for place in shards.values_mut() {
        let Some(iterator) = place.as_deref() else { continue };
        let page = match reader.get(iterator).await {
            Err(NotRead::Throttled) => continue,
            page => page?,
        };
        for got in &page.records {
            // Bytes that no node writes are for the consumer to tell of.
            let Ok((of, heading, bytes)) = parse(&got.data) else { continue };
            if of == *node {
                pieces.take(&got.key, heading, bytes, check)?;
            }
        }
        closed |= page.next.is_none();
        *place = page.next;
    }
    Ok(closed)
}

/// A shard that was split or merged goes on in others.
async fn begin_new_shards(reader: &Reader, shards: &mut Shards) -> Result<(), NotRead> {
    for shard in reader.shards().await? {
        if let Entry::Vacant(place) = shards.entry(shard) {
            let beginning = reader.iterator(place.key(), None).await?;
            place.insert(beginning);
        }
    }
    Ok(())
}

/// Lines that come in pieces, by the recording that they are of.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    begun: HashMap<String, Begun>,
    bytes: usize,
}

#[derive(Debug)]
struct Begun {
    n: u64,
    /// The next piece's number.
    next: u32,
    line: Vec<u8>,
}

impl Pieces {
    /// Takes a parcel apart and gives `check` what is whole.
    fn take(
        &mut self,
        key: &str,
        heading: Heading,
        bytes: &[u8],
        check: &mut Check,
    ) -> Result<(), CanaryError> {
        match heading {
            Heading::Lines => bytes
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| check.line(line.strip_suffix(b"\n").unwrap_or(line))),
            Heading::Checkpoint => match std::str::from_utf8(bytes) {
                Ok(note) => check.note(note),
                Err(_) => Err(CanaryError::BadCheckpoint(BadCheckpoint::Malformed)),
            },
            Heading::Part { n, index, of } => match self.piece(key, (n, index, of), bytes) {
                Some(line) => check.line(line.strip_suffix(b"\n").unwrap_or(&line)),
                None => Ok(()),
            },
        }
    }

    /// The line, when this was its last piece. What does not fit is left out: the canary then does not come back.
    fn piece(&mut self, key: &str, (n, index, of): (u64, u32, u32), bytes: &[u8]) -> Option<Vec<u8>> {
        if index == 1 {
            self.forget(key);
            self.begun.insert(key.to_owned(), Begun { n, next: 1, line: Vec::new() });
        }
        let is_room = self.bytes.saturating_add(bytes.len()) <= MOST_PIECES;
        let begun = self.begun.get_mut(key).filter(|begun| begun.n == n && begun.next == index)?;
        if !is_room || begun.line.len().saturating_add(bytes.len()) > LONGEST_LINE + 1 {
            self.forget(key);
            return None;
        }
        begun.line.extend_from_slice(bytes);
        begun.next = index.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes.len());
        if index == of { self.forget(key) } else { None }
    }

    fn forget(&mut self, key: &str) -> Option<Vec<u8>> {
        let begun = self.begun.remove(key)?;
        self.bytes = self.bytes.saturating_sub(begun.line.len());
        Some(begun.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces_is_put_together_and_what_is_repeated_does_no_harm() {
        let mut pieces = Pieces::default();
        let mut take = |key: &str, place, bytes: &[u8]| pieces.piece(key, place, bytes);
        assert_eq!(take("a", (7, 2, 3), b"middle of another"), None);
        assert_eq!(take("a", (8, 1, 3), b"one "), None);
        assert_eq!(take("b", (9, 1, 2), b"un "), None);
        assert_eq!(take("a", (8, 2, 3), b"two "), None);
        assert_eq!(take("a", (8, 2, 3), b"two "), None);
        assert_eq!(take("b", (9, 2, 2), b"deux"), Some(b"un deux".to_vec()));
        assert_eq!(take("a", (8, 3, 3), b"three"), Some(b"one two three".to_vec()));
        assert_eq!(take("a", (8, 3, 3), b"three"), None);
        assert_eq!((pieces.bytes, pieces.begun.len()), (0, 0));
    }

    #[test]
    fn pieces_of_more_than_a_line_are_forgotten() {
        let mut pieces = Pieces::default();
        let half = vec![b'x'; LONGEST_LINE / 2 + 1];
        for index in 1..=4 {
            assert_eq!(pieces.piece("a", (1, index, 4), &half), None);
        }
        assert_eq!((pieces.bytes, pieces.begun.len()), (0, 0));
        for number in 0..64 {
            pieces.piece(&number.to_string(), (number, 1, 2), &half);
        }
        assert!(pieces.bytes <= MOST_PIECES);
    }
}
