//! A statement's text in tokens, as PostgreSQL's own lexer cuts it (PostgreSQL documentation, section 4.1; `scan.l`).
//!
//! It looks at bytes, never panics and takes time linear in the text's length. Blanks and comments are passed over. What does
//! not end (a string, a name, a body, a comment) is [`Kind::Unclear`] and reaches to the text's end: the server refuses such a
//! text. In client encodings whose characters have bytes of ASCII in them (SJIS, BIG5, GBK …) the server cuts differently.

use std::ops::Range;

/// How the server reads strings without a prefix (its setting `standard_conforming_strings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// A backslash is a character as any other.
    Standard,
    /// It escapes the next one.
    Escaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in double quotes.
    Name,
    /// `U&"…"`
    UnicodeName,
    /// A string of any kind, with its continuations on further lines.
    String,
    /// What stands between dollar quotes.
    Body,
    Number,
    /// `$1`
    Parameter,
    /// A run of characters that operators are made of.
    Operator,
    /// One byte of anything else: a parenthesis, a comma, a colon …
    Mark(u8),
    /// What does not end.
    Unclear,
}

/// Where something stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// All of it, quotes included.
    pub range: Range<usize>,
    /// Without prefix and quotes. Of a string that is continued, from its first quote to its last.
    pub content: Range<usize>,
}

#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    strings: Strings,
}

const OPERATOR: &[u8] = b"~!@#^&|`?+-*/%<>=";

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8], strings: Strings) -> Self {
        Self { text, at: 0, strings }
    }

    /// The bytes of a range that a token has.
    pub fn slice(&self, range: &Range<usize>) -> &'a [u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// The first place from `at` on whose byte is not of these.
    fn pass(&self, at: usize, of: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().position(|byte| !of(*byte)).unwrap_or(rest.len())
    }

    fn starts(&self, at: usize, with: &[u8]) -> bool {
        self.text.get(at..).is_some_and(|rest| rest.starts_with(with))
    }

    /// Behind blanks and comments; an error where a comment begins that does not end.
    fn pass_blanks(&self, mut at: usize) -> Result<usize, usize> {
        loop {
            at = self.pass(at, is_blank);
            if self.starts(at, b"--") {
                at = self.pass(at, |byte| !is_line_end(byte));
            } else if self.starts(at, b"/*") {
                at = self.pass_comment(at).ok_or(at)?;
            } else {
                return Ok(at);
            }
        }
    }

    /// Behind a comment with comments within it.
    fn pass_comment(&self, start: usize) -> Option<usize> {
        let (mut at, mut depth) = (start + 2, 1_usize);
        while depth > 0 {
            let rest = self.text.get(at..)?;
            at += memchr::memchr2(b'*', b'/', rest)?;
            if self.starts(at, b"*/") {
                (at, depth) = (at + 2, depth - 1);
            } else if self.starts(at, b"/*") {
                (at, depth) = (at + 2, depth + 1);
            } else {
                at += 1;
            }
        }
        Some(at)
    }

    fn token(&mut self, kind: Kind, range: Range<usize>, content: Range<usize>) -> Token {
        self.at = range.end;
        Token { kind, range, content }
    }

    fn plain(&mut self, kind: Kind, start: usize, end: usize) -> Token {
        self.token(kind, start..end, start..end)
    }

    /// From `start`, where an opening quote is at `quote`.
    fn quoted(&mut self, kind: Kind, start: usize, quote: usize, escapes: bool) -> Token {
        let is_string = kind == Kind::String;
        let mut end = self.closing(quote, escapes);
        if is_string {
            while let Some(again) = end.and_then(|end| self.continuation(end)) {
                end = self.closing(again, escapes);
            }
        }
        match end {
            Some(end) => self.token(kind, start..end, quote + 1..end - 1),
            None => self.unclear(start),
        }
    }

    fn unclear(&mut self, start: usize) -> Token {
        self.plain(Kind::Unclear, start, self.text.len())
    }

    /// Behind the quote that closes the one at `open`; doubled it stands for itself.
    fn closing(&self, open: usize, escapes: bool) -> Option<usize> {
        let quote = self.byte(open)?;
        let mut at = open + 1;
        loop {
            let rest = self.text.get(at..)?;
            at += if escapes { memchr::memchr2(quote, b'\\', rest)? } else { memchr::memchr(quote, rest)? };
            if self.byte(at) == Some(b'\\') && escapes {
                at += 2;
            } else if self.byte(at + 1) == Some(quote) {
                at += 2;
            } else {
                return Some(at + 1);
            }
        }
    }

    /// Where a string that closed before `at` goes on: after blanks with a line's end among them, and comments of one line.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut line_ended = false;
        loop {
            let next = self.pass(at, is_blank);
            line_ended |= self.text.get(at..next)?.iter().any(|byte| is_line_end(*byte));
            at = next;
            if self.starts(at, b"--") {
                at = self.pass(at, |byte| !is_line_end(byte));
            } else {
                return (line_ended && self.byte(at) == Some(b'\'')).then_some(at);
            }
        }
    }

    /// A word, or what a letter before a quote makes of it.
    fn word(&mut self, start: usize, first: u8) -> Token {
        let next = self.byte(start + 1);
        match (first.to_ascii_lowercase(), next) {
            (b'e', Some(b'\'')) => self.quoted(Kind::String, start, start + 1, true),
            (b'b' | b'x', Some(b'\'')) => self.quoted(Kind::String, start, start + 1, false),
            (b'n', Some(b'\'')) => {
                self.quoted(Kind::String, start, start + 1, self.strings == Strings::Escaped)
            }
            (b'u', Some(b'&')) if self.byte(start + 2) == Some(b'\'') => {
                self.quoted(Kind::String, start, start + 2, false)
            }
            (b'u', Some(b'&')) if self.byte(start + 2) == Some(b'"') => {
                self.quoted(Kind::UnicodeName, start, start + 2, false)
            }
            _ => {
                let end = self.pass(start, continues_word);
                self.plain(Kind::Word, start, end)
            }
        }
    }

    /// A parameter, a body between dollar quotes, or a dollar sign.
    fn dollar(&mut self, start: usize) -> Token {
        if self.byte(start + 1).is_some_and(|byte| byte.is_ascii_digit()) {
            let end = self.pass(start + 1, |byte| byte.is_ascii_digit());
            return self.plain(Kind::Parameter, start, end);
        }
        let tagged = self.byte(start + 1).is_some_and(starts_word);
        let tag_end = if tagged {
            self.pass(start + 1, |byte| continues_word(byte) && byte != b'$')
        } else {
            start + 1
        };
        if self.byte(tag_end) != Some(b'$') {
            return self.plain(Kind::Mark(b'$'), start, start + 1);
        }
        let from = tag_end + 1;
        let tag = self.slice(&(start..from));
        match memchr::memmem::find(self.text.get(from..).unwrap_or_default(), tag) {
            Some(length) => {
                let to = from + length;
                self.token(Kind::Body, start..to + tag.len(), from..to)
            }
            None => self.unclear(start),
        }
    }

    fn number(&mut self, start: usize) -> Token {
        let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        let mut end = self.pass(start, is_digit);
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            end = self.pass(end + 1, is_digit);
        }
        if matches!(self.byte(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            if self.byte(end + 1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                end = self.pass(end + 1 + sign, is_digit);
            }
        }
        self.plain(Kind::Number, start, end)
    }

    /// A run that no comment begins in.
    fn operator(&mut self, start: usize) -> Token {
        let mut end = start + 1;
        while self.byte(end).is_some_and(|byte| OPERATOR.contains(&byte))
            && !self.starts(end, b"--")
            && !self.starts(end, b"/*")
        {
            end += 1;
        }
        self.plain(Kind::Operator, start, end)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = match self.pass_blanks(self.at) {
            Ok(start) => start,
            Err(comment) => return Some(self.unclear(comment)),
        };
        let first = self.byte(start)?;
        let next_is_digit = self.byte(start + 1).is_some_and(|byte| byte.is_ascii_digit());
        Some(match first {
            b'\'' => self.quoted(Kind::String, start, start, self.strings == Strings::Escaped),
            b'"' => self.quoted(Kind::Name, start, start, false),
            b'$' => self.dollar(start),
            byte if starts_word(byte) => self.word(start, byte),
            byte if byte.is_ascii_digit() || (byte == b'.' && next_is_digit) => self.number(start),
            byte if OPERATOR.contains(&byte) => self.operator(start),
            byte => self.plain(Kind::Mark(byte), start, start + 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each token's kind and content, as text.
    fn read(text: &str, strings: Strings) -> Vec<(Kind, &str)> {
        let lexer = Lexer::new(text.as_bytes(), strings);
        lexer.map(|token| (token.kind, &text[token.content])).collect()
    }

    fn standard(text: &str) -> Vec<(Kind, &str)> {
        read(text, Strings::Standard)
    }

    #[test]
    fn words_numbers_operators_and_marks() {
        assert_eq!(
            standard("SELECT a$1,_x.\"A\"\"b\" FROM é WHERE n>=1.5e-3"),
            [
                (Kind::Word, "SELECT"),
                (Kind::Word, "a$1"),
                (Kind::Mark(b','), ","),
                (Kind::Word, "_x"),
                (Kind::Mark(b'.'), "."),
                (Kind::Name, "A\"\"b"),
                (Kind::Word, "FROM"),
                (Kind::Word, "é"),
                (Kind::Word, "WHERE"),
                (Kind::Word, "n"),
                (Kind::Operator, ">="),
                (Kind::Number, "1.5e-3"),
            ]
        );
        // Older servers take a word right behind a number.
        assert_eq!(standard("1FROM"), [(Kind::Number, "1"), (Kind::Word, "FROM")]);
        assert_eq!(standard(".5"), [(Kind::Number, ".5")]);
    }

    #[test]
    fn strings_of_every_kind() {
        assert_eq!(standard("'it''s'"), [(Kind::String, "it''s")]);
        assert_eq!(standard(r"'\' x"), [(Kind::String, r"\"), (Kind::Word, "x")]);
        assert_eq!(read(r"'\' x'", Strings::Escaped), [(Kind::String, r"\' x")]);
        assert_eq!(standard(r"E'\' x'"), [(Kind::String, r"\' x")]);
        assert_eq!(standard(r"E'\\' x"), [(Kind::String, r"\\"), (Kind::Word, "x")]);
        assert_eq!(standard(r"n'\' b'01' X'f'").len(), 3);
        assert_eq!(
            standard(r#"U&'\0041' u&"\0041""#),
            [(Kind::String, r"\0041"), (Kind::UnicodeName, r"\0041")]
        );
        assert_eq!(standard("e 'x'").len(), 2, "only right before the quote it is a prefix");
    }

    #[test]
    fn a_string_goes_on_after_a_line_in_the_way_it_began() {
        assert_eq!(
            standard("'a' -- c\n -- d\n 'b' x"),
            [(Kind::String, "a' -- c\n -- d\n 'b"), (Kind::Word, "x")]
        );
        assert_eq!(standard("E'a'\n'\\' x'").len(), 1);
        assert_eq!(standard("'a' 'b'").len(), 2, "on one line it is an error of the statement's");
        assert_eq!(standard("'a' /* \n */ 'b'").len(), 2);
    }

    #[test]
    fn bodies_end_at_their_own_tag() {
        assert_eq!(standard("$$a $x$ b$$ c"), [(Kind::Body, "a $x$ b"), (Kind::Word, "c")]);
        assert_eq!(standard("$x$ $$ ' $x$"), [(Kind::Body, " $$ ' ")]);
        assert_eq!(standard("a$$b$$").len(), 1, "a dollar sign may be within a word");
        assert_eq!(standard("$1 $x"), [(Kind::Parameter, "$1"), (Kind::Mark(b'$'), "$"), (Kind::Word, "x")]);
        assert_eq!(standard("$1$ x $1$").len(), 5, "a tag does not begin with a digit");
    }

    #[test]
    fn comments_are_passed_over_and_nest() {
        assert_eq!(standard("a -- b\nc"), [(Kind::Word, "a"), (Kind::Word, "c")]);
        assert_eq!(standard("a /* /* ' */ -- */ b"), [(Kind::Word, "a"), (Kind::Word, "b")]);
        assert_eq!(standard("1 +-- x\n2").len(), 3, "a comment ends an operator");
        assert_eq!(standard("1 */* x */2").len(), 3);
    }

    #[test]
    fn what_does_not_end_reaches_to_the_end() {
        for text in ["'a", "\"a", "$$a", "$t$ a $u$", "/* a", "/* /* */", "E'a\\'", "U&\"a", "E'\\"] {
            let tokens = standard(text);
            assert_eq!(tokens, [(Kind::Unclear, text)], "{text}");
        }
    }

    proptest! {
        #[test]
        fn tokens_lie_in_order_within_the_text(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"'\"\\$-/*\nEeUux&a1.;"[..])], 0..80),
            escaped: bool,
        ) {
            let strings = if escaped { Strings::Escaped } else { Strings::Standard };
            let mut at = 0;
            for token in Lexer::new(&text, strings) {
                prop_assert!(token.range.start >= at && token.range.end > token.range.start);
                prop_assert!(token.content.start >= token.range.start && token.content.end <= token.range.end);
                prop_assert!(token.content.start <= token.content.end);
                at = token.range.end;
            }
            prop_assert!(at <= text.len());
        }
    }
}
