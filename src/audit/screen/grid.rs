//! What a full-screen program draws: rows of characters, each given out when it has changed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Shown;
use crate::audit::vt::{Csi, Token};

/// No screen is taken for larger, in characters.
const MOST_COLUMNS: u32 = 500;
const MOST_ROWS: u32 = 300;
/// Of a size that the client does not know.
const USUAL: (u32, u32) = (80, 24);
/// How much is given out of what is overdrawn before anybody can have seen it: so many characters for each byte that
/// came, and so many besides.
const FOR_EACH_BYTE: usize = 16;
const BESIDES: usize = 64 << 10;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Grid {
    columns: usize,
    /// The rows that scroll are from `top` up to `bottom`.
    height: usize,
    top: usize,
    bottom: usize,
    row: usize,
    column: usize,
    /// Those that were drawn upon; what is not there is empty.
    #[serde(skip)]
    rows: Vec<Row>,
    #[serde(skip)]
    out: Out,
}

/// What is given out.
#[derive(Debug, Clone, Default)]
struct Out {
    lines: VecDeque<Shown>,
    /// So many more characters, until somebody may look.
    left: usize,
    /// Some row has changed.
    due: bool,
}

#[derive(Debug, Clone, Default)]
struct Row {
    characters: Vec<char>,
    changed: bool,
}

impl Row {
    fn show(&mut self, out: &mut Out) {
        if !self.changed || out.left == 0 {
            return;
        }
        self.changed = false;
        out.left = out.left.saturating_sub(self.characters.len());
        let text: String = self.characters.iter().collect();
        let text = text.trim_end();
        if !text.is_empty() {
            out.lines.push_back(Shown::Line(text.to_owned()));
        }
    }

    fn change(&mut self, out: &mut Out) {
        (self.changed, out.due) = (true, true);
    }

    fn put(&mut self, column: usize, character: char, out: &mut Out) {
        if self.characters.len() <= column {
            self.characters.resize(column + 1, ' ');
        }
        if let Some(place) = self.characters.get_mut(column)
            && *place != character
        {
            *place = character;
            self.change(out);
        }
    }

    /// What goes was seen.
    fn erase(&mut self, from: usize, to: usize, out: &mut Out) {
        let goes = |row: &Self| row.characters.iter().take(to).skip(from).any(|character| *character != ' ');
        if goes(self) {
            self.show(out);
            for character in self.characters.iter_mut().take(to).skip(from) {
                *character = ' ';
            }
        }
    }
}

impl Grid {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let (columns, height) = size(width, height);
        Self {
            columns,
            height,
            top: 0,
            bottom: height,
            row: 0,
            column: 0,
            rows: Vec::new(),
            out: Out::default(),
        }
    }

    pub(super) fn resize(&mut self, width: u32, height: u32) {
        (self.columns, self.height) = size(width, height);
        (self.top, self.bottom) = (0, self.height);
        self.rows.truncate(self.height);
        self.go(self.row, self.column);
    }

    pub(super) fn forget(&mut self) {
        self.rows.clear();
    }

    /// So many bytes are about to come.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.out.left = bytes.saturating_mul(FOR_EACH_BYTE).saturating_add(BESIDES);
    }

    /// Gives the lines that were shown, with the rows as they stand now: somebody may look.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Shown> {
        self.out.left = usize::MAX;
        self.show();
        self.out.lines.drain(..)
    }

    /// As [`Self::take`], where nobody had the time to look.
    pub(super) fn leave(&mut self) -> impl Iterator<Item = Shown> {
        self.show();
        self.out.lines.drain(..)
    }

    /// Gives out the rows that have changed.
    fn show(&mut self) {
        if std::mem::take(&mut self.out.due) {
            for row in &mut self.rows {
                row.show(&mut self.out);
                self.out.due |= row.changed;
            }
        }
    }

    /// An empty screen.
    pub(super) fn clear(&mut self) {
        self.show();
        self.rows.clear();
        (self.top, self.bottom, self.row, self.column) = (0, self.height, 0, 0);
    }

    pub(super) fn token(&mut self, token: Token<'_>) {
        match token {
            Token::Print(character) => self.print(character),
            Token::Control(b'\r') => self.column = 0,
            Token::Control(b'\n' | 0x0b | 0x0c) | Token::Escape { intermediates: [], last: b'D' } => {
                self.down();
            }
            Token::Control(0x08) => self.column = self.column.saturating_sub(1),
            Token::Control(b'\t') => self.go(self.row, (self.column / 8 + 1) * 8),
            Token::Escape { intermediates: [], last: b'E' } => {
                self.column = 0;
                self.down();
            }
            Token::Escape { intermediates: [], last: b'M' } => {
                if self.row == self.top {
                    self.scroll_down(self.top, 1);
                } else {
                    self.row = self.row.saturating_sub(1);
                }
            }
            Token::Escape { intermediates: [], last: b'c' } => self.clear(),
            Token::Csi(csi) if csi.private().is_none() && csi.intermediates().is_empty() => {
                self.control(csi);
            }
            _ => {}
        }
    }

    fn control(&mut self, csi: Csi<'_>) {
        let number = |index, default| usize::try_from(csi.parameter(index, default)).unwrap_or(usize::MAX);
        let count = number(0, 1).min(self.columns.max(self.height));
        let (row, column) = (self.row, self.column);
        match csi.last {
            b'A' => self.go(row.saturating_sub(count), column),
            b'B' | b'e' => self.go(row + count, column),
            b'C' | b'a' => self.go(row, column + count),
            b'D' => self.go(row, column.saturating_sub(count)),
            b'E' => self.go(row + count, 0),
            b'F' => self.go(row.saturating_sub(count), 0),
            b'G' | b'`' => self.go(row, count - 1),
            b'd' => self.go(count - 1, column),
            b'H' | b'f' => self.go(number(0, 1) - 1, number(1, 1) - 1),
            b'J' => self.erase_screen(csi.parameter(0, 0)),
            b'K' => {
                let (from, to) = span(csi.parameter(0, 0), column, self.columns);
                self.here(|row, out| row.erase(from, to, out));
            }
            b'X' => self.here(|row, out| row.erase(column, column + count, out)),
            b'P' => self.shift(|cells, at| drop(cells.drain(at..(at + count).min(cells.len())))),
            b'@' => {
                let blanks = std::iter::repeat_n(' ', count);
                self.shift(|cells, at| drop(cells.splice(at..at, blanks)));
            }
            b'L' => self.scroll_down(row, count),
            b'M' => self.scroll_up(row, count),
            b'S' => self.scroll_up(self.top, count),
            b'T' => self.scroll_down(self.top, count),
            b'r' => {
                let bottom = number(1, MOST_ROWS).min(self.height);
                let top = number(0, 1) - 1;
                (self.top, self.bottom) = if top < bottom { (top, bottom) } else { (0, self.height) };
                self.go(0, 0);
            }
            _ => {}
        }
    }

    fn print(&mut self, character: char) {
        if self.column >= self.columns {
            self.column = 0;
            self.down();
        }
        let column = self.column;
        self.here(|row, out| row.put(column, character, out));
        self.column += 1;
    }

    fn down(&mut self) {
        if self.row + 1 == self.bottom {
            self.scroll_up(self.top, 1);
        } else {
            self.go(self.row + 1, self.column);
        }
    }

    fn go(&mut self, row: usize, column: usize) {
        (self.row, self.column) = (row.min(self.height - 1), column.min(self.columns - 1));
    }

    /// Does something to the cursor's row.
    fn here(&mut self, act: impl FnOnce(&mut Row, &mut Out)) {
        if self.rows.len() <= self.row {
            self.rows.resize_with(self.row + 1, Row::default);
        }
        if let Some(row) = self.rows.get_mut(self.row) {
            act(row, &mut self.out);
        }
    }

    fn shift(&mut self, change: impl FnOnce(&mut Vec<char>, usize)) {
        let (columns, column) = (self.columns, self.column);
        self.here(|row, out| {
            row.show(out);
            let at = column.min(row.characters.len());
            change(&mut row.characters, at);
            row.characters.truncate(columns);
            row.change(out);
        });
    }

    fn erase_screen(&mut self, what: u32) {
        let (row, columns) = (self.row, self.columns);
        let (from, to) = span(what, self.column, columns);
        self.here(|row, out| row.erase(from, to, out));
        for (index, other) in self.rows.iter_mut().enumerate() {
            let goes = match what {
                0 => index > row,
                1 => index < row,
                _ => index != row,
            };
            if goes {
                other.erase(0, columns, &mut self.out);
            }
        }
    }

    /// Moves the rows from `top` up to the region's bottom; those that leave were seen.
    fn scroll_up(&mut self, top: usize, count: usize) {
        self.scroll(top, |region| {
            let count = count.min(region.len());
            region.rotate_left(count);
            for row in region.iter_mut().rev().take(count) {
                *row = Row::default();
            }
        });
    }

    fn scroll_down(&mut self, top: usize, count: usize) {
        self.scroll(top, |region| {
            let count = count.min(region.len());
            region.rotate_right(count);
            for row in region.iter_mut().take(count) {
                *row = Row::default();
            }
        });
    }

    fn scroll(&mut self, top: usize, rotate: impl FnOnce(&mut [Row])) {
        self.show();
        self.rows.resize_with(self.height, Row::default);
        if let Some(region) = self.rows.get_mut(top..self.bottom) {
            rotate(region);
        }
    }
}

fn size(width: u32, height: u32) -> (usize, usize) {
    let known = |size: u32, usual, most| {
        let size = if size == 0 { usual } else { size }.min(most);
        usize::try_from(size).unwrap_or(1)
    };
    (known(width, USUAL.0, MOST_COLUMNS), known(height, USUAL.1, MOST_ROWS))
}

/// The columns that are meant by "behind the cursor", "up to it", "all".
fn span(what: u32, column: usize, columns: usize) -> (usize, usize) {
    match what {
        0 => (column, columns),
        1 => (0, column + 1),
        _ => (0, columns),
    }
}
