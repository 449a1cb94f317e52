//! What came before its turn: lines whose predecessors are missing, and pieces of lines that miss others. It is bounded:
//! where there is no room, what the log needs last goes, and is to be read again once the log has come that far.

use std::collections::{BTreeMap, HashMap};

use crate::audit::line::LONGEST_LINE;
use crate::domain::time::Timestamp;

/// How much of lines may wait, and of pieces, in bytes each. A node ships less ahead of what is confirmed.
const MOST: usize = 128 << 20;
/// How many contents of one record wait for the one that follows from those before it.
const MOST_CANDIDATES: usize = 4;
/// Of so many lines pieces wait for the others at a time.
const MOST_PARTIAL: usize = 1024;
/// The pieces of a longer line are no line.
const MOST_PIECES: u32 = 4096;

#[derive(Debug)]
pub(super) struct Waiting {
    lines: BTreeMap<u64, Held>,
    line_bytes: usize,
    partial: HashMap<Cut, Partial>,
    piece_bytes: usize,
    most: usize,
    dropped: Option<Dropped>,
}

/// Contents of a record, and when the first of them arrived.
#[derive(Debug)]
struct Held {
    arrived: Timestamp,
    lines: Vec<Vec<u8>>,
}

/// A line that was cut in pieces: the key that they came under, its number, and how many they are. One may be cut
/// otherwise the next time it is sent.
type Cut = (String, u64, u32);

/// Pieces of a line, by their place in it.
#[derive(Debug, Default)]
struct Partial {
    pieces: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
}

/// What there was no room for.
#[derive(Debug, Clone, Copy)]
struct Dropped {
    /// The record that the log needs first.
    first: u64,
    /// How many records the log had. What it could not take then it can only take once it has gone on.
    size: u64,
    is_told: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It waits, or there was no room.
    Waits,
    /// It waits beside another for the same place.
    Second,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It was the last of this line.
    Whole(Vec<u8>),
    /// It waits for the others, or there was no room.
    Waits,
    /// No line is as long.
    NoLine,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            lines: BTreeMap::new(),
            line_bytes: 0,
            partial: HashMap::new(),
            piece_bytes: 0,
            most: MOST,
            dropped: None,
        }
    }

    #[cfg(test)]
    pub(super) fn set_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// The first record of which a line waits.
    pub(super) fn first(&self) -> Option<u64> {
        self.lines.keys().next().copied()
    }

    /// When the lines that wait arrived.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = Timestamp> {
        self.lines.values().map(|held| held.arrived)
    }

    /// Takes a line of record `n`, where the log has `size` records. The one that the log needs next has room always.
    pub(super) fn line(&mut self, n: u64, line: &[u8], arrived: Timestamp, size: u64) -> Line {
        let is_here = self.lines.get(&n).is_some_and(|held| held.lines.iter().any(|other| other == line));
        if is_here || (n > size && !self.make_room_for_line(n, line.len(), size)) {
            return Line::Waits;
        }
        let held = self.lines.entry(n).or_insert(Held { arrived, lines: Vec::new() });
        let others = held.lines.len();
        if others < MOST_CANDIDATES {
            held.lines.push(line.to_vec());
            self.line_bytes = self.line_bytes.saturating_add(line.len());
        } else {
            self.dropped(n, size);
        }
        if others > 0 { Line::Second } else { Line::Waits }
    }

    fn make_room_for_line(&mut self, n: u64, bytes: usize, size: u64) -> bool {
        while self.line_bytes.saturating_add(bytes) > self.most {
            let last = self.lines.last_entry().filter(|last| *last.key() > n);
            let Some((other, held)) = last.map(std::collections::btree_map::OccupiedEntry::remove_entry)
            else {
                self.dropped(n, size);
                return false;
            };
            self.line_bytes -= held.bytes();
            self.dropped(other, size);
        }
        true
    }

    /// The contents that wait for the place of record `n`.
    pub(super) fn candidates(&mut self, n: u64) -> Option<Vec<Vec<u8>>> {
        let held = self.lines.remove(&n)?;
        self.line_bytes -= held.bytes();
        Some(held.lines)
    }

    /// Takes the piece that is the `index`th of `of`, from one, of record `n`'s line, where the log has `size` records. They
    /// come in any order.
    pub(super) fn piece(
        &mut self,
        key: &str,
        (n, index, of): (u64, u32, u32),
        bytes: &[u8],
        size: u64,
    ) -> Piece {
        let cut = (key.to_owned(), n, of);
        let mut partial = self.take_partial(&cut).unwrap_or_default();
        if n < size {
            // It has come another way: what is in the pieces was compared when it was whole.
            return Piece::Waits;
        }
        partial.remove(index);
        let length = partial.bytes.saturating_add(bytes.len());
        if of > MOST_PIECES || !(1..=of).contains(&index) || length > LONGEST_LINE + 1 {
            return Piece::NoLine;
        }
        let is_last = partial.pieces.len() + 1 == usize::try_from(of).unwrap_or(usize::MAX);
        if is_last || self.make_room_for_piece(n, length, size) {
            partial.put(index, bytes);
        }
        if is_last {
            return Piece::Whole(partial.pieces.into_values().collect::<Vec<_>>().concat());
        }
        self.keep_partial(cut, partial);
        Piece::Waits
    }

    fn take_partial(&mut self, cut: &Cut) -> Option<Partial> {
        let partial = self.partial.remove(cut)?;
        self.piece_bytes -= partial.bytes;
        Some(partial)
    }

    fn keep_partial(&mut self, cut: Cut, partial: Partial) {
        if !partial.pieces.is_empty() {
            self.piece_bytes = self.piece_bytes.saturating_add(partial.bytes);
            self.partial.insert(cut, partial);
        }
    }

    fn make_room_for_piece(&mut self, n: u64, bytes: usize, size: u64) -> bool {
        let has_room = |waiting: &Self| {
            waiting.piece_bytes.saturating_add(bytes) <= waiting.most && waiting.partial.len() < MOST_PARTIAL
        };
        if has_room(self) {
            return true;
        }
        // What has come another way needs its pieces no more.
        self.partial.retain(|(_, other, _), _| *other >= size);
        self.piece_bytes = self.partial.values().map(|partial| partial.bytes).sum();
        while !has_room(self) {
            let last = self.partial.keys().max_by_key(|(_, other, _)| *other);
            let last = last.filter(|(_, other, _)| *other > n).cloned();
            self.dropped(last.as_ref().map_or(n, |(_, other, _)| *other), size);
            let Some(cut) = last else { return false };
            self.take_partial(&cut);
        }
        true
    }

    fn dropped(&mut self, n: u64, size: u64) {
        let dropped = self.dropped.get_or_insert(Dropped { first: n, size, is_told: false });
        dropped.first = dropped.first.min(n);
    }

    /// Whether there has been no room, and that was not asked yet; how many bytes of lines and of pieces wait.
    pub(super) fn is_newly_full(&mut self) -> Option<(usize, usize)> {
        let dropped = self.dropped.as_mut().filter(|dropped| !dropped.is_told)?;
        dropped.is_told = true;
        Some((self.line_bytes, self.piece_bytes))
    }

    /// Whether the log, which has `size` records, has come to what there was no room for: that has to be read again. It
    /// is said once.
    pub(super) fn wants_again(&mut self, size: u64) -> bool {
        self.dropped.take_if(|dropped| dropped.first <= size && dropped.size < size).is_some()
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.lines.iter().map(Vec::len).sum()
    }
}

impl Partial {
    fn remove(&mut self, index: u32) {
        if let Some(piece) = self.pieces.remove(&index) {
            self.bytes -= piece.len();
        }
    }

    fn put(&mut self, index: u32, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.pieces.insert(index, bytes.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

    fn waiting(most: usize) -> Waiting {
        let mut waiting = Waiting::new();
        waiting.set_most(most);
        waiting
    }

    #[test]
    fn where_there_is_no_room_the_line_that_is_needed_last_goes() {
        let mut waiting = waiting(30);
        for n in [7, 9, 8] {
            waiting.line(n, &[b'x'; 10], NOW, 5);
        }
        assert_eq!(waiting.is_newly_full(), None);
        waiting.line(6, &[b'x'; 10], NOW, 5);
        assert_eq!((waiting.is_newly_full(), waiting.is_newly_full()), (Some((30, 0)), None));
        waiting.line(10, &[b'x'; 10], NOW, 5);
        // The next one has room always.
        waiting.line(5, &[b'x'; 100], NOW, 5);
        for n in 5..9 {
            assert!(!waiting.wants_again(n));
            assert!(waiting.candidates(n).is_some(), "{n}");
        }
        assert_eq!((waiting.candidates(9), waiting.line_bytes), (None, 0));
        assert_eq!((waiting.wants_again(9), waiting.wants_again(9)), (true, false));
    }

    #[test]
    fn what_came_while_there_was_room_again_keeps_nothing_from_being_read_again() {
        let mut waiting = waiting(20);
        for n in [6, 7, 8] {
            waiting.line(n, &[b'x'; 10], NOW, 5);
        }
        for n in 5..8 {
            waiting.candidates(n);
            waiting.line(n + 1_000, b"later", NOW, n + 1);
        }
        assert!(waiting.first().is_some() && waiting.wants_again(8));
    }

    /// Reading again what has no room would go on for ever.
    #[test]
    fn nothing_is_read_again_before_the_log_has_gone_on() {
        let mut waiting = waiting(1_000);
        let orphans = |waiting: &mut Waiting| {
            for key in 0..200 {
                waiting.piece(&key.to_string(), (5, 1, 2), &[b'x'; 10], 5);
            }
        };
        orphans(&mut waiting);
        assert_eq!(waiting.piece_bytes, 1_000);
        assert!(waiting.is_newly_full().is_some() && !waiting.wants_again(5));
        orphans(&mut waiting);
        assert!(waiting.is_newly_full().is_none() && !waiting.wants_again(5));
        assert!(waiting.wants_again(6) && !waiting.wants_again(7));
    }

    #[test]
    fn pieces_that_are_needed_sooner_have_room_before_others() {
        let mut waiting = waiting(1_000);
        for key in 0..2_000_u64 {
            waiting.piece(&key.to_string(), (1_000 + key, 1, 2), b"x", 5);
        }
        assert_eq!((waiting.partial.len(), waiting.piece_bytes), (1_000, 1_000));
        let begin = [b'a'; 900];
        assert_eq!(waiting.piece("k", (6, 1, 3), &begin, 5), Piece::Waits);
        assert_eq!((waiting.partial.len(), waiting.piece_bytes), (101, 1_000));
        // Sent again.
        assert_eq!(waiting.piece("k", (6, 1, 3), &begin, 5), Piece::Waits);
        assert_eq!(waiting.piece("k", (6, 2, 3), b"b", 5), Piece::Waits);
        let whole = Piece::Whole([&begin[..], b"bc"].concat());
        assert_eq!(waiting.piece("k", (6, 3, 3), b"c", 5), whole);
        assert_eq!(waiting.dropped.unwrap().first, 1_099);
        assert!(waiting.wants_again(1_099));
    }

    #[test]
    fn what_is_no_line_is_not_kept() {
        let mut waiting = Waiting::new();
        assert_eq!(waiting.piece("k", (6, 1, MOST_PIECES + 1), b"x", 5), Piece::NoLine);
        let half = vec![b'x'; LONGEST_LINE / 2 + 1];
        assert_eq!(waiting.piece("k", (6, 1, 3), &half, 5), Piece::Waits);
        assert_eq!(waiting.piece("k", (6, 2, 3), &half, 5), Piece::NoLine);
        for index in [0, 4] {
            assert_eq!(waiting.piece("k", (6, index, 3), b"x", 5), Piece::NoLine);
        }
        assert_eq!((waiting.partial.len(), waiting.piece_bytes), (0, 0));
    }

    /// A request that was given up may arrive after what was sent in its place, and after what was sent next.
    #[test]
    fn pieces_come_in_any_order_and_again() {
        let mut waiting = Waiting::new();
        let order = [(6, 2), (7, 3), (6, 1), (6, 1), (7, 3), (7, 1), (6, 2), (6, 3), (6, 1), (7, 2)];
        let mut whole = Vec::new();
        for (n, index) in order {
            let size = if whole.is_empty() { 6 } else { 7 };
            match waiting.piece("k", (n, index, 3), format!("{n}.{index} ").as_bytes(), size) {
                Piece::Whole(line) => whole.push(String::from_utf8(line).unwrap()),
                Piece::Waits => {}
                Piece::NoLine => panic!("{n}.{index}"),
            }
        }
        assert_eq!(whole, ["6.1 6.2 6.3 ", "7.1 7.2 7.3 "]);
        // Cut otherwise the next time.
        assert_eq!(waiting.piece("k", (8, 1, 3), b"a", 8), Piece::Waits);
        assert_eq!(waiting.piece("k", (8, 1, 2), b"ab", 8), Piece::Waits);
        assert_eq!(waiting.piece("k", (8, 2, 2), b"c", 8), Piece::Whole(b"abc".to_vec()));
    }

    #[test]
    fn of_a_record_with_many_contents_the_rest_is_read_again() {
        let mut waiting = Waiting::new();
        for forged in 0..MOST_CANDIDATES {
            waiting.line(7, forged.to_string().as_bytes(), NOW, 5);
        }
        assert!(!waiting.wants_again(7));
        waiting.line(7, b"the true one", NOW, 5);
        assert!(!waiting.wants_again(6) && waiting.wants_again(7));
    }

    #[test]
    fn what_waits_already_takes_no_others_place() {
        let mut waiting = waiting(20);
        for n in [7, 8, 7] {
            waiting.line(n, &[b'x'; 10], NOW, 5);
        }
        assert_eq!((waiting.lines.len(), waiting.is_newly_full()), (2, None));
    }
}
