//! Takes a terminal's byte stream apart: characters, control characters, control sequences
//! (ECMA-48, and what xterm makes of it). Bytes may come in any pieces. Nothing is interpreted here.

use serde::{Deserialize, Serialize};

/// Longest sequence that is kept, in bytes; a longer one is passed over.
const LONGEST: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A character to show; bytes that are not UTF-8 become U+FFFD.
    Print(char),
    /// C0 or DEL.
    Control(u8),
    /// `ESC`, intermediates, final.
    Escape {
        intermediates: &'a [u8],
        last: u8,
    },
    Csi(Csi<'a>),
    /// An operating system command, without its introducer and terminator.
    Osc(&'a [u8]),
    /// DCS, SOS, PM or APC: what it says is kept from everybody here.
    OtherString,
}

/// A control sequence, `ESC [` and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Csi<'a> {
    /// All between introducer and final: private mark, parameters, intermediates.
    pub body: &'a [u8],
    pub last: u8,
}

impl Csi<'_> {
    /// `?`, `>`, `=` or `<` in front of the parameters.
    pub fn private(&self) -> Option<u8> {
        self.body.first().copied().filter(|byte| matches!(byte, b'<'..=b'?'))
    }

    pub fn intermediates(&self) -> &[u8] {
        let from = self.body.iter().position(|byte| matches!(byte, 0x20..=0x2f)).unwrap_or(self.body.len());
        self.body.get(from..).unwrap_or_default()
    }

    /// The parameters in order; one that is left out is 0, a sub-parameter stands for itself.
    pub fn parameters(&self) -> impl Iterator<Item = u32> {
        let from = usize::from(self.private().is_some());
        let to = self.body.len() - self.intermediates().len();
        let numbers = self.body.get(from..to).unwrap_or_default();
        numbers.split(|byte| matches!(byte, b';' | b':')).map(|digits| {
            let digit = |digit: &u8| u32::from(digit.saturating_sub(b'0'));
            digits.iter().fold(0, |number: u32, byte| number.saturating_mul(10).saturating_add(digit(byte)))
        })
    }

    /// The parameter in place `index`; one that is 0 or left out counts as `default`.
    pub fn parameter(&self, index: usize, default: u32) -> u32 {
        self.parameters().nth(index).filter(|number| *number != 0).unwrap_or(default)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Ground,
    Escape,
    Csi,
    /// Whether it is an OSC, the only string whose content anybody sees.
    String {
        osc: bool,
    },
    /// In a string, after `ESC`: a `\` ends it.
    StringEscape {
        osc: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parser {
    state: State,
    kept: Vec<u8>,
    /// Whether the sequence outgrew what is kept.
    too_long: bool,
    /// The beginning of a character.
    utf8: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Ground, kept: Vec::new(), too_long: false, utf8: Vec::new() }
    }
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Token<'_>)) {
        for byte in bytes {
            self.byte(*byte, &mut each);
        }
    }

    fn byte(&mut self, byte: u8, each: &mut impl FnMut(Token<'_>)) {
        match (self.state, byte) {
            (State::StringEscape { osc }, b'\\') | (State::String { osc }, 0x07) => {
                self.end_string(osc, each);
            }
            // Only `ESC \` ends a string; another `ESC` breaks it off and begins something else.
            (State::StringEscape { .. }, _) => {
                self.begin(State::Escape);
                self.byte(byte, each);
            }
            (State::String { osc }, 0x1b) => self.state = State::StringEscape { osc },
            (_, 0x18 | 0x1a) => self.begin(State::Ground),
            (State::String { .. }, _) | (State::Csi, 0x20..=0x3f) => self.keep(byte),
            (_, 0x1b) => {
                self.flush_character(each);
                self.begin(State::Escape);
            }
            (State::Ground, _) => self.ground(byte, each),
            // Control characters act within a sequence as if they stood before it.
            (_, 0..=0x1f | 0x7f) => each(Token::Control(byte)),
            (State::Escape, _) => self.escape(byte, each),
            (State::Csi, 0x40..=0x7e) => {
                if !self.too_long {
                    each(Token::Csi(Csi { body: &self.kept, last: byte }));
                }
                self.begin(State::Ground);
            }
            (State::Csi, _) => {
                self.begin(State::Ground);
                self.ground(byte, each);
            }
        }
    }

    fn escape(&mut self, byte: u8, each: &mut impl FnMut(Token<'_>)) {
        match byte {
            0x20..=0x2f => self.keep(byte),
            b'[' if self.kept.is_empty() => self.begin(State::Csi),
            b']' if self.kept.is_empty() => self.begin(State::String { osc: true }),
            b'P' | b'X' | b'^' | b'_' if self.kept.is_empty() => self.begin(State::String { osc: false }),
            0x30..=0x7e => {
                if !self.too_long {
                    each(Token::Escape { intermediates: &self.kept, last: byte });
                }
                self.begin(State::Ground);
            }
            _ => {
                self.begin(State::Ground);
                self.ground(byte, each);
            }
        }
    }

    fn ground(&mut self, byte: u8, each: &mut impl FnMut(Token<'_>)) {
        if byte < 0x80 {
            self.flush_character(each);
            each(if matches!(byte, 0x20..=0x7e) {
                Token::Print(char::from(byte))
            } else {
                Token::Control(byte)
            });
            return;
        }
        self.utf8.push(byte);
        match std::str::from_utf8(&self.utf8) {
            Ok(text) => {
                let character = text.chars().next();
                self.utf8.clear();
                if let Some(character) = character {
                    self.character(character, each);
                }
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                // What broke the character off may begin another.
                let again = self.utf8.len() > 1;
                self.utf8.clear();
                each(Token::Print(char::REPLACEMENT_CHARACTER));
                if again {
                    self.ground(byte, each);
                }
            }
        }
    }

    /// A C1 control is the same as `ESC` and a character from the column before.
    fn character(&mut self, character: char, each: &mut impl FnMut(Token<'_>)) {
        match u8::try_from(u32::from(character)) {
            Ok(c1 @ 0x80..=0x9f) => {
                self.begin(State::Escape);
                self.escape(c1 - 0x40, each);
            }
            _ => each(Token::Print(character)),
        }
    }

    fn flush_character(&mut self, each: &mut impl FnMut(Token<'_>)) {
        if !self.utf8.is_empty() {
            self.utf8.clear();
            each(Token::Print(char::REPLACEMENT_CHARACTER));
        }
    }

    fn end_string(&mut self, osc: bool, each: &mut impl FnMut(Token<'_>)) {
        if osc && !self.too_long {
            each(Token::Osc(&self.kept));
        } else {
            each(Token::OtherString);
        }
        self.begin(State::Ground);
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.kept.clear();
        self.too_long = false;
    }

    fn keep(&mut self, byte: u8) {
        if self.kept.len() < LONGEST {
            self.kept.push(byte);
        } else {
            self.too_long = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut parser, mut tokens) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece, |token| {
                tokens.push(match token {
                    Token::Print(character) => character.to_string(),
                    Token::Control(byte) => format!("^{byte:02x}"),
                    Token::Escape { intermediates, last } => {
                        format!("esc {}{}", intermediates.escape_ascii(), char::from(last))
                    }
                    Token::Csi(csi) => format!("csi {}{}", csi.body.escape_ascii(), char::from(csi.last)),
                    Token::Osc(text) => format!("osc {}", text.escape_ascii()),
                    Token::OtherString => "string".to_owned(),
                });
            });
        }
        tokens
    }

    const SCREEN: &[u8] =
        b"a\x1b[1;31mr\xc3\xa9d\x1b[?25l\r\n\x1b(0q\x1b]0;title\x07\x1b]2;t\x1b\\\x1bPq#0\x1b\\z";

    #[test]
    fn characters_and_sequences_are_told_apart() {
        let read = tokens([SCREEN]);
        let expected = [
            "a",
            "csi 1;31m",
            "r",
            "é",
            "d",
            "csi ?25l",
            "^0d",
            "^0a",
            "esc (0",
            "q",
            "osc 0;title",
            "osc 2;t",
            "string",
            "z",
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        for at in 0..SCREEN.len() {
            let (before, after) = SCREEN.split_at(at);
            assert_eq!(tokens([before, after]), tokens([SCREEN]), "cut at {at}");
        }
    }

    #[test]
    fn c1_controls_are_controls_in_whatever_form() {
        assert_eq!(
            tokens(["\u{9b}5n\u{9d}52;c;x\u{7}\u{90}$q\u{7}x".as_bytes()]),
            ["csi 5n", "osc 52;c;x", "string", "x"]
        );
    }

    #[test]
    fn what_is_broken_off_hides_nothing_of_what_follows() {
        assert_eq!(
            tokens([b"\x1b[12\x18a\x1b[3\x1b[4mb\x1b]0;x\x1b[5mc".as_slice()]),
            ["a", "csi 4m", "b", "csi 5m", "c"]
        );
        assert_eq!(
            tokens([b"\xe6\xbc\x1b[m\xe6a\xff\xe6\xe6\xbc\xa2".as_slice()]),
            ["\u{fffd}", "csi m", "\u{fffd}", "a", "\u{fffd}", "\u{fffd}", "漢"]
        );
    }

    #[test]
    fn a_sequence_without_end_takes_no_memory() {
        let mut parser = Parser::default();
        for introducer in [b"\x1b[".as_slice(), b"\x1b]", b"\x1bP"] {
            parser.feed(introducer, |_| {});
            parser.feed(&vec![b'1'; 1 << 20], |token| panic!("{token:?}"));
            parser.feed(b"\x07\x18", |token| {
                assert!(!matches!(token, Token::Osc(_) | Token::Csi(_)), "{token:?}");
            });
        }
        assert!(parser.kept.capacity() <= 2 * LONGEST);
    }

    #[test]
    fn parameters_are_read_as_xterm_reads_them() {
        let csi = Csi { body: b"?1049;;7:99999999999 $", last: b'h' };
        assert_eq!(csi.private(), Some(b'?'));
        assert_eq!(csi.parameters().collect::<Vec<_>>(), [1049, 0, 7, u32::MAX]);
        assert_eq!((csi.parameter(1, 1), csi.parameter(9, 5)), (1, 5));
        assert_eq!(csi.intermediates(), b" $");
    }

    proptest! {
        #[test]
        fn any_bytes_read_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b']'), Just(0xc2), Just(0x9b)], 0..60),
            at in 0..60_usize,
        ) {
            let (before, after) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(tokens([before, after]), tokens([bytes.as_slice()]));
        }
    }
}
