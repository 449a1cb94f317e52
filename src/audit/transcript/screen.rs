//! What a terminal showed, as lines of text.
//!
//! A line is given out when the terminal goes on to the next one, as it stood then: what was erased,
//! overwritten or redrawn by an editor of command lines is as the viewer last saw it. Of a program
//! that draws all over the screen only that it did.

use std::collections::VecDeque;

use crate::audit::vt::{Csi, Parser, Token};

/// Longest line, in characters; a longer one is cut in two.
const LONGEST: usize = 4 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    Line(String),
    /// A program took the whole screen, and what it drew is left out.
    FullScreen,
}

/// A line of a terminal, which may take several rows of it.
#[derive(Debug)]
pub(super) struct Screen {
    parser: Parser,
    drawing: Drawing,
}

#[derive(Debug)]
struct Drawing {
    width: usize,
    line: Vec<char>,
    cursor: usize,
    /// Where the cursor's row begins in the line.
    row: usize,
    full_screen: bool,
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
            shown: VecDeque::new(),
        };
        Self { parser: Parser::default(), drawing }
    }

    pub(super) fn resize(&mut self, width: u32) {
        self.drawing.width = columns(width);
        self.drawing.row = self.drawing.cursor / self.drawing.width * self.drawing.width;
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> impl Iterator<Item = Shown> {
        self.parser.feed(bytes, |token| self.drawing.token(token));
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
            _ if self.full_screen => {}
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
            }
            b'l' if alternate => self.full_screen = false,
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
            self.next_line();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(width: u32, bytes: &[u8]) -> Vec<String> {
        let mut screen = Screen::new(width);
        let mut shown: Vec<Shown> = screen.feed(bytes).collect();
        shown.extend(screen.rest());
        let text = |shown| match shown {
            Shown::Line(line) => line,
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

    proptest! {
        #[test]
        fn no_bytes_break_it(width in 0..9_u32, bytes in proptest::collection::vec(
            prop_oneof![Just(b'\x1b'), Just(b'['), any::<u8>(), b'0'..=b'9', b'@'..=b'Z'], 0..300)) {
            for line in lines(width, &bytes) {
                prop_assert!(line.chars().count() <= LONGEST);
            }
        }
    }
}
