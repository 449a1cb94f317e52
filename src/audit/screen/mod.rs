//! What a terminal showed, as lines of text.
//!
//! A line is given out when the terminal goes on to the next one, as it stood then: what was erased,
//! overwritten or redrawn by an editor of command lines is as the viewer last saw it. Of a program
//! that draws all over the screen only that it did, or ([`Screen::whole`]) every line that it drew.
//!
//! A screen can be stored and taken up again, but for what a full-screen program has drawn.

mod grid;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::audit::vt::{Csi, Parser, Token};
use grid::Grid;

/// Longest line, in characters; a longer one is cut in two.
const LONGEST: usize = 4 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    Line(String),
    /// A line that is too long to be held, up to where it was cut. It goes on.
    Begun(String),
    /// A program took the whole screen, and what it drew is left out.
    FullScreen,
}

/// A line of a terminal, which may take several rows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Screen {
    parser: Parser,
    drawing: Drawing,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Drawing {
    width: usize,
    #[serde(with = "characters")]
    line: Vec<char>,
    cursor: usize,
    /// Where the cursor's row begins in the line.
    row: usize,
    full_screen: bool,
    /// Where what full-screen programs draw is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grid: Option<Grid>,
    #[serde(skip)]
    shown: VecDeque<Shown>,
}

impl Screen {
    pub(super) fn new(width: u32) -> Self {
        let drawing = Drawing {
            width: columns(width),
            line: Vec::new(),
            cursor: 0,
            row: 0,
            full_screen: false,
            grid: None,
            shown: VecDeque::new(),
        };
        Self { parser: Parser::default(), drawing }
    }

    /// Also gives the lines that full-screen programs draw, as they stand after each piece that is fed.
    pub(super) fn whole(width: u32, height: u32) -> Self {
        let mut screen = Self::new(width);
        screen.drawing.grid = Some(Grid::new(width, height));
        screen
    }

    pub(super) fn resize(&mut self, width: u32, height: u32) {
        self.drawing.width = columns(width);
        self.drawing.row = self.drawing.cursor / self.drawing.width * self.drawing.width;
        if let Some(grid) = &mut self.drawing.grid {
            grid.resize(width, height);
        }
    }

    /// Forgets what a full-screen program has drawn, as storing does.
    pub(super) fn forget_drawn(&mut self) {
        if let Some(grid) = &mut self.drawing.grid {
            grid.forget();
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> impl Iterator<Item = Shown> {
        if let Some(grid) = &mut self.drawing.grid {
            grid.expect(bytes.len());
        }
        self.parser.feed(bytes, |token| self.drawing.token(token));
        if let Some(grid) = &mut self.drawing.grid {
            self.drawing.shown.extend(grid.take());
        }
        self.drawing.shown.drain(..)
    }

    /// What stands on the line that the terminal is still at.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Shown> {
        self.drawing.next_line();
        self.drawing.shown.drain(..)
    }
}

/// A width of 0 is one that the client does not know.
fn columns(width: u32) -> usize {
    if width == 0 { LONGEST } else { usize::try_from(width).unwrap_or(LONGEST).min(LONGEST) }
}

impl Drawing {
    fn token(&mut self, token: Token<'_>) {
        match token {
            Token::Csi(csi) if csi.private() == Some(b'?') => self.mode(csi),
            _ if self.full_screen => {
                if let Some(grid) = &mut self.grid {
                    grid.token(token);
                }
            }
            Token::Print(character) => self.print(character),
            Token::Control(b'\r') => self.cursor = self.row,
            Token::Control(b'\n' | 0x0b | 0x0c)
            | Token::Escape { intermediates: [], last: b'D' | b'E' | b'M' | b'c' } => self.next_line(),
            Token::Control(0x08) => self.cursor = self.cursor.saturating_sub(1).max(self.row),
            Token::Control(b'\t') => {
                let column = self.cursor - self.row;
                self.move_to((column / 8 + 1) * 8);
            }
            Token::Csi(csi) if csi.private().is_none() => self.control(csi),
            _ => {}
        }
    }

    fn mode(&mut self, csi: Csi<'_>) {
        let alternate = csi.parameters().any(|mode| matches!(mode, 47 | 1047 | 1049));
        match csi.last {
            b'h' if alternate && !self.full_screen => {
                self.next_line();
                self.shown.push_back(Shown::FullScreen);
                self.full_screen = true;
                if let Some(grid) = &mut self.grid {
                    grid.clear();
                }
            }
            b'l' if alternate => {
                self.full_screen = false;
                if let Some(grid) = &mut self.grid {
                    self.shown.extend(grid.leave());
                }
            }
            _ => {}
        }
    }

    fn control(&mut self, csi: Csi<'_>) {
        let count = usize::try_from(csi.parameter(0, 1)).unwrap_or(LONGEST).min(LONGEST);
        let column = self.cursor - self.row;
        match csi.last {
            b'C' | b'a' => self.move_to(column + count),
            b'D' => self.move_to(column.saturating_sub(count)),
            b'G' | b'`' => self.move_to(count - 1),
            b'A' if self.row >= count * self.width => {
                self.row -= count * self.width;
                self.cursor -= count * self.width;
            }
            b'B' if self.row + count * self.width <= self.line.len() => {
                self.row += count * self.width;
                self.cursor = (self.cursor + count * self.width).min(LONGEST);
                self.row = self.row.min(self.cursor);
            }
            b'K' => self.erase_row(csi.parameter(0, 0)),
            b'J' if csi.parameter(0, 0) == 0 => self.line.truncate(self.cursor),
            b'P' => {
                let from = self.cursor.min(self.line.len());
                self.line.drain(from..(from + count).min(self.line.len()));
            }
            b'@' => {
                let from = self.cursor.min(self.line.len());
                self.line.splice(from..from, std::iter::repeat_n(' ', count));
                self.line.truncate(LONGEST);
            }
            b'X' => self.blank(self.cursor, self.cursor + count),
            b'A' | b'B' | b'E' | b'F' | b'H' | b'J' | b'd' | b'f' => self.next_line(),
            _ => {}
        }
    }

    fn print(&mut self, character: char) {
        if self.cursor >= LONGEST {
            let begun = self.line.drain(..).collect();
            self.shown.push_back(Shown::Begun(begun));
            (self.cursor, self.row) = (0, 0);
        }
        if self.cursor - self.row >= self.width {
            self.row += self.width;
        }
        if self.line.len() <= self.cursor {
            self.line.resize(self.cursor + 1, ' ');
        }
        if let Some(place) = self.line.get_mut(self.cursor) {
            *place = character;
        }
        self.cursor += 1;
    }

    fn move_to(&mut self, column: usize) {
        self.cursor = (self.row + column.min(self.width - 1)).min(LONGEST);
    }

    fn erase_row(&mut self, what: u32) {
        let end = self.row + self.width;
        match what {
            0 if self.line.len() <= end => self.line.truncate(self.cursor),
            0 => self.blank(self.cursor, end),
            1 => self.blank(self.row, self.cursor + 1),
            _ => self.blank(self.row, end),
        }
    }

    fn blank(&mut self, from: usize, to: usize) {
        self.line.iter_mut().take(to).skip(from).for_each(|character| *character = ' ');
    }

    fn next_line(&mut self) {
        let line: String = self.line.drain(..).collect();
        let line = line.trim_end();
        if !line.is_empty() {
            self.shown.push_back(Shown::Line(line.to_owned()));
        }
        (self.cursor, self.row) = (0, 0);
    }
}

/// Characters as one text.
mod characters {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(line: &[char], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&line.iter().collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<char>, D::Error> {
        String::deserialize(deserializer).map(|line| line.chars().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(width: u32, bytes: &[u8]) -> Vec<String> {
        drawn(Screen::new(width), bytes)
    }

    fn drawn(mut screen: Screen, bytes: &[u8]) -> Vec<String> {
        let mut shown: Vec<Shown> = screen.feed(bytes).collect();
        shown.extend(screen.rest());
        let text = |shown| match shown {
            Shown::Line(line) | Shown::Begun(line) => line,
            Shown::FullScreen => "(full screen)".to_owned(),
        };
        shown.into_iter().map(text).collect()
    }

    #[test]
    fn a_shell_reads_as_its_lines() {
        let session = b"\x1b[?2004h\x1b]0;alice@web\x07\x1b[01;32malice@web\x1b[0m:~$ sl\x08\x1b[Kx\x08\x08ls\r\n\x1b[?2004l\rtotal 0\r\n\r\n$ ";
        assert_eq!(lines(80, session), ["alice@web:~$ ls", "total 0", "$"]);
    }

    #[test]
    fn a_command_line_that_was_edited_is_as_it_was_run() {
        for (drawn, seen) in [
            (b"$ rm x\rabc".as_slice(), "abcm x"),
            (b"$ echo b\x08a\x1b[1Cc\x1b[2D-", "$ echo a-c"),
            (b"$ abcd\x1b[4D\x1b[2Pz", "$ zd"),
            (b"$ bc\x1b[2D\x1b[@a", "$ abc"),
            (b"10%\r55%\r100%", "100%"),
            (b"abc\x1b[2Kd", "   d"),
            (b"a\tb\x1b[3Gx", "a x     b"),
        ] {
            assert_eq!(lines(80, drawn), [seen], "{}", drawn.escape_ascii());
        }
    }

    #[test]
    fn a_line_over_several_rows_is_one_line() {
        assert_eq!(lines(4, b"$ abcdefg\r\n$ "), ["$ abcdefg", "$"]);
        // As readline forces the wrap, goes back a row and erases what is behind.
        assert_eq!(lines(4, b"$ ab \rcd\x1b[A\r$ xy\x1b[J\r\n"), ["$ xy"]);
        assert_eq!(lines(4, b"$ abcd\x1b[A\r> \x1b[B\x08!"), ["> abc!"]);
    }

    #[test]
    fn a_full_screen_program_is_left_out() {
        let session = b"$ vi\r\n\x1b[?1049h\x1b[2J\x1b[1;1Htext\x1b[?1049l\r$ \r\n";
        assert_eq!(lines(80, session), ["$ vi", "(full screen)", "$"]);
    }

    #[test]
    fn what_a_full_screen_program_draws_is_seen_where_it_is_wanted() {
        let session = b"\x1b[?1049h\x1b[2J\x1b[2;5Hhello\x1b[1;1Hworld\x1b[2;7H\x1b[31mLL\x1b[?1049l$ ";
        let seen = drawn(Screen::whole(80, 24), session);
        assert_eq!(seen, ["(full screen)", "world", "    heLLo", "$"]);
        // As a pager scrolls: the line that leaves was seen, and so is the one that comes.
        let session = b"\x1b[?1049h\x1b[1;1Hone\x1b[2;1Htwo\r\nthree\x1b[H\x1bMzero";
        assert_eq!(drawn(Screen::whole(80, 2), session), ["(full screen)", "one", "two", "three", "zero"]);
    }

    #[test]
    fn drawing_without_end_gives_out_no_more_than_its_share() {
        for (drawn, each) in
            [(b"x\n".as_slice(), 2), (b"\x1b[@", 3), (b"\x1b[2KX\x1b[499b", 9), (b"\rxy\x1bM", 5)]
        {
            let mut screen = Screen::whole(500, 300);
            screen.feed(b"\x1b[?1049h").count();
            screen.feed(&vec![b'f'; 500 * 300]).count();
            screen.feed(b"\x1b[300;1H").count();
            let bytes = drawn.repeat((128 << 10) / each);
            let given: usize = screen
                .feed(&bytes)
                .map(|shown| if let Shown::Line(line) = shown { line.len() } else { 0 })
                .sum();
            assert!(given < 20 * bytes.len() + 300_000, "{}: {given}", drawn.escape_ascii());
        }
    }

    #[test]
    fn a_line_that_is_too_long_says_that_it_goes_on() {
        let mut screen = Screen::new(80);
        let shown: Vec<Shown> = screen.feed(&[b'a'; LONGEST + 1]).collect();
        assert_eq!(shown, [Shown::Begun("a".repeat(LONGEST))]);
    }

    proptest! {
        #[test]
        fn a_screen_that_was_stored_goes_on_as_if_it_had_not_been(width in 1..9_u32, at in 0..300_usize, bytes in proptest::collection::vec(
            prop_oneof![Just(b'\x1b'), Just(b'['), any::<u8>(), b'0'..=b'9', b'@'..=b'Z', Just(b'?'), Just(b'h')], 0..300)) {
            let (before, after) = bytes.split_at(at.min(bytes.len()));
            let mut screen = Screen::whole(width, 5);
            screen.feed(before).count();
            screen.forget_drawn();
            let stored = serde_json::to_string(&screen).unwrap();
            prop_assert_eq!(drawn(serde_json::from_str(&stored).unwrap(), after), drawn(screen, after));
        }

        #[test]
        fn no_bytes_break_it(width in 0..9_u32, bytes in proptest::collection::vec(
            prop_oneof![Just(b'\x1b'), Just(b'['), any::<u8>(), b'0'..=b'9', b'@'..=b'Z'], 0..300)) {
            for line in lines(width, &bytes).into_iter().chain(drawn(Screen::whole(width, 4), &bytes)) {
                prop_assert!(line.chars().count() <= LONGEST);
            }
        }
    }
}
