//! What somebody typed at a terminal, in lines, with their corrections made.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::audit::vt::{Parser, Token};

/// Longest line that is held, in characters.
const LONGEST: usize = 4 << 10;

/// The keys since Enter. Where keys that move the cursor were used, the line reads as if they had not been:
/// the terminal shows what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Typed {
    parser: Parser,
    line: String,
}

/// A line, and whether it goes on.
pub(super) type Line = (String, bool);

impl Typed {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> impl Iterator<Item = Line> {
        let (mut lines, mut length) = (VecDeque::new(), self.line.chars().count());
        let line = &mut self.line;
        self.parser.feed(bytes, |token| {
            match token {
                Token::Print(character) => line.push(character),
                Token::Control(b'\t') => line.push(' '),
                Token::Control(0x08 | 0x7f) => drop(line.pop()),
                // Ctrl-U and Ctrl-W.
                Token::Control(0x15) => line.clear(),
                Token::Control(0x17) => line.truncate(without_last_word(line)),
                // Enter, Ctrl-C, Ctrl-D.
                Token::Control(b'\r' | b'\n' | 0x03 | 0x04) => lines.push_back((std::mem::take(line), false)),
                _ => return,
            }
            length = match token {
                Token::Print(_) => length + 1,
                _ => line.chars().count(),
            };
            if length >= LONGEST {
                length = 0;
                lines.push_back((std::mem::take(line), true));
            }
        });
        lines.into_iter()
    }

    /// What was typed since Enter.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.line)
    }
}

fn without_last_word(line: &str) -> usize {
    line.trim_end().rfind(' ').map_or(0, |space| space + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_reads_with_its_corrections() {
        let mut typed = Typed::default();
        let lines: Vec<Line> = typed
            .feed(b"sl\x7f\x7fls /ect\x08\x08\x08etc\rno\x15yes wrong\x17right\r\x1b[Aagain\x03\xc3\xa9\x7fe")
            .collect();
        let lines: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, ["ls /etc", "yes right", "again"]);
        assert_eq!(typed.rest(), "e");
    }

    #[test]
    fn a_line_that_is_too_long_goes_on() {
        let mut typed = Typed::default();
        let lines: Vec<Line> = typed.feed(&[b'a'; LONGEST + 3]).collect();
        assert_eq!(lines, [("a".repeat(LONGEST), true)]);
        assert_eq!(typed.rest(), "aaa");
    }
}
