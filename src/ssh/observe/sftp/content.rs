//! The content of one file in one direction, hashed as it streams by. Readers keep many requests in
//! flight and answers may overtake each other: what comes early is held, within bounds, until the
//! bytes before it have come.

use std::collections::BTreeMap;

use crate::crypto::hasher::Hasher;
use crate::crypto::sha256;
use crate::ssh::observe::file::Content;

/// How many pieces one file may hold back.
const MOST_HELD: usize = 64;

/// How many bytes all files of a channel may still hold back.
#[derive(Debug)]
pub(super) struct Window(pub(super) usize);

#[derive(Debug, Default)]
pub(super) struct Run {
    bytes: u64,
    state: State,
    piece: Piece,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Fresh,
    Sequential(Box<Sequential>),
    /// Not one byte after another: only counted.
    Broken,
}

#[derive(Debug)]
struct Sequential {
    start: u64,
    next: u64,
    hasher: Hasher,
    held: BTreeMap<u64, Vec<u8>>,
}

/// The piece that is passing.
#[derive(Debug, Default)]
enum Piece {
    #[default]
    Counted,
    Next,
    Early {
        at: u64,
        bytes: Vec<u8>,
    },
}

impl Run {
    /// A piece was asked for, or is about to be sent: the first one says where the run begins.
    pub(super) fn ask(&mut self, at: u64) {
        if matches!(self.state, State::Fresh) {
            let sequential = Sequential { start: at, next: at, hasher: Hasher::new(), held: BTreeMap::new() };
            self.state = State::Sequential(Box::new(sequential));
        }
    }

    /// A piece begins. Without a place it follows what was there: so do appending writes.
    pub(super) fn begin(&mut self, at: Option<u64>, window: &mut Window) {
        let next = match &self.state {
            State::Sequential(run) => run.next,
            State::Fresh | State::Broken => return,
        };
        match at.unwrap_or(next) {
            at if at == next => self.piece = Piece::Next,
            at if at > next => self.piece = Piece::Early { at, bytes: Vec::new() },
            _ => self.break_off(window),
        }
    }

    pub(super) fn take(&mut self, taken: &[u8], window: &mut Window) {
        let State::Sequential(run) = &mut self.state else { return };
        let fits = match &mut self.piece {
            Piece::Counted => true,
            Piece::Next => run.take(taken),
            Piece::Early { bytes, .. } if taken.len() <= window.0 && run.held.len() < MOST_HELD => {
                window.0 -= taken.len();
                bytes.extend_from_slice(taken);
                true
            }
            Piece::Early { .. } => false,
        };
        if !fits {
            self.break_off(window);
        }
    }

    /// The piece is complete.
    pub(super) fn end(&mut self, window: &mut Window) {
        let State::Sequential(run) = &mut self.state else { return };
        let fits = match std::mem::take(&mut self.piece) {
            Piece::Counted => true,
            Piece::Next => run.take_held(window),
            Piece::Early { bytes, .. } if bytes.is_empty() => true,
            Piece::Early { at, bytes } => match run.held.insert(at, bytes) {
                None => true,
                Some(twice) => {
                    window.0 += twice.len();
                    false
                }
            },
        };
        if !fits {
            self.break_off(window);
        }
    }

    /// Bytes that were acknowledged.
    pub(super) fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// What was hashed is not what is in the file.
    pub(super) fn break_off(&mut self, window: &mut Window) {
        if let State::Sequential(run) = &self.state {
            window.0 += run.held.values().map(Vec::len).sum::<usize>();
        }
        if let Piece::Early { bytes, .. } = &self.piece {
            window.0 += bytes.len();
        }
        self.state = State::Broken;
        self.piece = Piece::Counted;
    }

    /// `None` when nothing passed in a direction that was not `expected`.
    pub(super) fn finish(mut self, expected: bool, window: &mut Window) -> Option<Content> {
        let whole = match &self.state {
            State::Sequential(run) => run.held.is_empty() && matches!(self.piece, Piece::Counted),
            State::Fresh | State::Broken => true,
        };
        if !whole {
            self.break_off(window);
        }
        let bytes = self.bytes;
        let (sha256, from) = match self.state {
            State::Fresh if !expected => return None,
            State::Fresh => (Some(sha256(&[])), 0),
            State::Sequential(run) => (Some(run.hasher.finish()), run.start),
            State::Broken => (None, 0),
        };
        Some(Content { bytes, sha256, from })
    }
}

impl Sequential {
    fn take(&mut self, bytes: &[u8]) -> bool {
        let Some(next) = self.next.checked_add(bytes.len() as u64) else { return false };
        self.hasher.update(bytes);
        self.next = next;
        true
    }

    /// Takes what was held and now follows. False when it overlaps with what was taken.
    fn take_held(&mut self, window: &mut Window) -> bool {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.next {
                return true;
            }
            let (at, bytes) = entry.remove_entry();
            window.0 += bytes.len();
            if at < self.next || !self.take(&bytes) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: usize = 1000;

    fn passed(run: &mut Run, window: &mut Window, at: u64, bytes: &[u8]) {
        run.ask(at);
        run.begin(Some(at), window);
        for byte in bytes.chunks(7) {
            run.take(byte, window);
        }
        run.end(window);
        run.count(bytes.len() as u64);
    }

    fn content(pieces: &[(u64, &[u8])]) -> Content {
        let (mut run, mut window) = (Run::default(), Window(WINDOW));
        for (at, bytes) in pieces {
            passed(&mut run, &mut window, *at, bytes);
        }
        let content = run.finish(true, &mut window).unwrap();
        assert_eq!(window.0, WINDOW, "what was held is given back");
        content
    }

    #[test]
    fn what_comes_early_is_hashed_in_its_place() {
        let content = content(&[(0, b"ab"), (5, b"fg"), (4, b"e"), (2, b"cd"), (7, b"")]);
        assert_eq!(content, Content { bytes: 7, sha256: Some(sha256(&[b"abcdefg"])), from: 0 });
    }

    #[test]
    fn a_resumed_run_says_where_it_began() {
        let content = content(&[(100, b"ab"), (102, b"c")]);
        assert_eq!(content, Content { bytes: 3, sha256: Some(sha256(&[b"abc"])), from: 100 });
    }

    #[test]
    fn holes_overlaps_and_too_much_held_have_no_hash() {
        assert_eq!(content(&[(0, b"ab"), (3, b"d")]).sha256, None);
        assert_eq!(content(&[(0, b"ab"), (1, b"b")]).sha256, None);
        assert_eq!(content(&[(0, b"ab"), (4, b"e"), (4, b"e")]).sha256, None);
        assert_eq!(content(&[(0, b"ab"), (4, b"e"), (2, b"cde")]).sha256, None);
        assert_eq!(content(&[(0, b"ab"), (4, &[0; WINDOW + 1]), (2, b"cd")]).sha256, None);
        assert_eq!(content(&[(u64::MAX, b"ab")]).sha256, None);
    }

    proptest! {
        #[test]
        fn any_order_within_the_window_has_the_hash_of_the_whole(
            whole in prop::collection::vec(any::<u8>(), 1..300),
            size in 7_usize..60,
            seed in any::<prop::sample::Index>(),
        ) {
            let mut pieces: Vec<(u64, &[u8])> =
                whole.chunks(size).enumerate().map(|(i, chunk)| ((i * size) as u64, chunk)).collect();
            let by = seed.index(pieces.len());
            pieces[1..].rotate_left(by);
            prop_assert_eq!(content(&pieces).sha256, Some(sha256(&[&whole])));
        }
    }
}
