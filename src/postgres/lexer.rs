//! Where the tokens of a statement begin and end, by PostgreSQL's lexical rules (documentation, section 4.1, and `scan.l`).
//!
//! One lexer for everything that looks into statements: what is masked, what is counted as the same statement, what a
//! statement does. It allocates nothing, takes time linear in the text, and accepts every sequence of bytes: what does not
//! end as it should ends with the text, and says so. The tokens come in order and do not overlap; between them stands white
//! space alone.
//!
//! Texts are read as ASCII with whatever else in words and strings. In an encoding whose characters may have a byte below
//! 0x80 after the first (SJIS, BIG5, GBK, GB18030: for clients alone), a backslash may be part of one.

use memchr::memmem;

/// How the server reads strings without a prefix (its setting `standard_conforming_strings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strings {
    /// A backslash is a character as any other.
    #[default]
    Standard,
    /// It escapes the next one.
    Escaped,
}

impl Strings {
    /// What a setting that the server reports says of it, if it is the one that does.
    pub fn reported(name: &[u8], value: &[u8]) -> Option<Self> {
        let strings = if value == b"off" { Self::Escaped } else { Self::Standard };
        (name == b"standard_conforming_strings").then_some(strings)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in quotes, `U&"…"` too.
    QuotedName,
    /// `'…'`, with whichever prefix. What goes on in the next line is a token of its own, with the same prefix.
    String(Prefix),
    /// `$$…$$`, `$tag$…$tag$`
    DollarString,
    Number,
    /// `$1`
    Parameter,
    Operator,
    /// One of `( ) [ ] , ; .` or `:` `::` `:=` `..`
    Punctuation,
    /// `-- …` up to the line's end, or `/* … */`, which nest.
    Comment,
    /// A byte that begins nothing.
    Other,
}

/// What stands before a string's quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    None,
    /// `E'…'`: a backslash escapes, whatever the setting.
    Escape,
    /// `U&'…'`
    Unicode,
    /// `N'…'`
    National,
    /// `B'…'`
    Bits,
    /// `X'…'`
    Hexadecimal,
}

/// A token, by where it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// How many bytes of it come before its content: prefix and quote.
    open: usize,
    /// How many come after its content; `None` when it does not end.
    close: Option<usize>,
}

impl Token {
    pub fn text<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start..self.end).unwrap_or_default()
    }

    /// Where what is between the quotes begins and ends; of what has none, all of it.
    pub fn content(&self) -> (usize, usize) {
        (self.start + self.open, self.end - self.close.unwrap_or(0))
    }

    /// Whether it ends before the text does, as it should.
    pub fn is_ended(&self) -> bool {
        self.close.is_some()
    }

    /// Whether it is this word, given in lower case, without quotes.
    pub fn is_word(&self, sql: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.text(sql).eq_ignore_ascii_case(word.as_bytes())
    }

    pub fn is_punctuation(&self, sql: &[u8], punctuation: &str) -> bool {
        self.kind == Kind::Punctuation && self.text(sql) == punctuation.as_bytes()
    }
}

/// The tokens of a text.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    end: usize,
    strings: Strings,
    /// Up to here nothing but signs follows, each an operator of its own.
    signs: usize,
    /// The string before, which goes on in the way it began.
    before: Option<Before>,
}

#[derive(Debug, Clone, Copy)]
struct Before {
    prefix: Prefix,
    /// Whether a line has ended since.
    line_ended: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8], strings: Strings) -> Self {
        Self::within(sql, (0, sql.len()), strings)
    }

    /// Of a part of the text, as if nothing were before or behind it. Tokens tell where they stand in the whole.
    pub fn within(sql: &'a [u8], (start, end): (usize, usize), strings: Strings) -> Self {
        let end = end.min(sql.len());
        Self { sql, at: start.min(end), end, strings, signs: 0, before: None }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let text = self.sql.get(self.at..self.end)?;
        let blank = text.iter().position(|byte| !is_space(*byte))?;
        let start = self.at + blank;
        let (spaces, text) = text.split_at_checked(blank)?;
        let Shape { kind, length, open, close } = if start < self.signs {
            Shape::plain(Kind::Operator, 1)
        } else {
            match self.continued(spaces, text) {
                Some(prefix) => string(text, 0, prefix, self.has_escapes(prefix)),
                None => token(text, self.strings),
            }
        };
        self.at = start + length;
        match kind {
            Kind::Operator if start >= self.signs => {
                self.signs = self.at + signs(text.get(length..)?);
            }
            Kind::String(prefix) => self.before = Some(Before { prefix, line_ended: false }),
            Kind::Comment if text.starts_with(b"--") => {}
            _ => self.before = None,
        }
        Some(Token { kind, start, end: self.at, open, close })
    }
}

impl Lexer<'_> {
    /// The prefix of the string that goes on here: after blanks and comments of one line, with a line's end among them.
    fn continued(&mut self, spaces: &[u8], text: &[u8]) -> Option<Prefix> {
        let before = self.before.as_mut()?;
        before.line_ended |= spaces.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        (before.line_ended && text.first() == Some(&b'\'')).then_some(before.prefix)
    }

    fn has_escapes(&self, prefix: Prefix) -> bool {
        match prefix {
            Prefix::Escape => true,
            Prefix::None | Prefix::National => self.strings == Strings::Escaped,
            Prefix::Unicode | Prefix::Bits | Prefix::Hexadecimal => false,
        }
    }
}

/// A token at the front of a text.
struct Shape {
    kind: Kind,
    length: usize,
    open: usize,
    close: Option<usize>,
}

impl Shape {
    fn plain(kind: Kind, length: usize) -> Self {
        Self { kind, length, open: 0, close: Some(0) }
    }
}

fn token(text: &[u8], strings: Strings) -> Shape {
    let at = |index: usize| text.get(index).copied().unwrap_or(0);
    let by_setting = strings == Strings::Escaped;
    match (at(0), at(1), at(2)) {
        (b'\'', ..) => string(text, 0, Prefix::None, by_setting),
        (b'e' | b'E', b'\'', _) => string(text, 1, Prefix::Escape, true),
        (b'n' | b'N', b'\'', _) => string(text, 1, Prefix::National, by_setting),
        (b'b' | b'B', b'\'', _) => string(text, 1, Prefix::Bits, false),
        (b'x' | b'X', b'\'', _) => string(text, 1, Prefix::Hexadecimal, false),
        (b'u' | b'U', b'&', b'\'') => string(text, 2, Prefix::Unicode, false),
        (b'u' | b'U', b'&', b'"') => quoted_name(text, 2),
        (b'"', ..) => quoted_name(text, 0),
        (b'$', ..) => dollar(text),
        (b'-', b'-', _) => {
            let length = memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len());
            Shape::plain(Kind::Comment, length)
        }
        (b'/', b'*', _) => comment(text),
        (b'0'..=b'9', ..) | (b'.', b'0'..=b'9', _) => Shape::plain(Kind::Number, number(text)),
        (b':', b':' | b'=', _) | (b'.', b'.', _) => Shape::plain(Kind::Punctuation, 2),
        (b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.', ..) => Shape::plain(Kind::Punctuation, 1),
        (first, ..) if is_word(first) => Shape::plain(Kind::Word, count(text, is_word_part)),
        (first, ..) if is_operator(first) => Shape::plain(Kind::Operator, operator(text)),
        _ => Shape::plain(Kind::Other, 1),
    }
}

fn count(text: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is_part(*byte)).unwrap_or(text.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word_part(byte: u8) -> bool {
    is_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

/// A string whose quote stands at `quote`.
fn string(text: &[u8], quote: usize, prefix: Prefix, has_escapes: bool) -> Shape {
    let (kind, open) = (Kind::String(prefix), quote + 1);
    let mut at = open;
    while let Some(rest) = text.get(at..) {
        let found =
            if has_escapes { memchr::memchr2(b'\'', b'\\', rest) } else { memchr::memchr(b'\'', rest) };
        let Some(found) = found else { break };
        at += found;
        if text.get(at) == Some(&b'\\') || text.get(at + 1) == Some(&b'\'') {
            at += 2;
            continue;
        }
        return Shape { kind, length: at + 1, open, close: Some(1) };
    }
    Shape { kind, length: text.len(), open, close: None }
}

/// A name whose quote stands at `quote`; a quote in it is doubled.
fn quoted_name(text: &[u8], quote: usize) -> Shape {
    let (kind, open) = (Kind::QuotedName, quote + 1);
    let mut at = open;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
        at += found + 1;
        if text.get(at) != Some(&b'"') {
            return Shape { kind, length: at, open, close: Some(1) };
        }
        at += 1;
    }
    Shape { kind, length: text.len(), open, close: None }
}

/// A string between dollar quotes, a parameter, or a lone dollar.
fn dollar(text: &[u8]) -> Shape {
    let rest = text.get(1..).unwrap_or_default();
    let digits = count(rest, |byte| byte.is_ascii_digit());
    if digits > 0 {
        return Shape::plain(Kind::Parameter, 1 + digits);
    }
    let tag = count(rest, |byte| is_word_part(byte) && byte != b'$');
    if rest.get(tag) != Some(&b'$') {
        return Shape::plain(Kind::Other, 1);
    }
    let (kind, open) = (Kind::DollarString, tag + 2);
    let quote = text.get(..open).unwrap_or_default();
    match memmem::find(text.get(open..).unwrap_or_default(), quote) {
        Some(length) => Shape { kind, length: open + length + open, open, close: Some(open) },
        None => Shape { kind, length: text.len(), open, close: None },
    }
}

fn comment(text: &[u8]) -> Shape {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(pair) = text.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => {
                (depth, at) = (depth.saturating_sub(1), at + 2);
                if depth == 0 {
                    return Shape::plain(Kind::Comment, at);
                }
            }
            _ => at += 1,
        }
    }
    Shape { kind: Kind::Comment, length: text.len(), open: 0, close: None }
}

/// How long a number is: `1`, `1_000`, `0x1F`, `1.5`, `.5`, `1e-3`. In `1..2` it ends before the points.
fn number(text: &[u8]) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    if let (Some(b'0'), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) = (text.first(), text.get(1)) {
        let digits =
            count(text.get(2..).unwrap_or_default(), |byte| byte.is_ascii_hexdigit() || byte == b'_');
        if digits > 0 {
            return 2 + digits;
        }
    }
    let mut at = count(text, is_digit);
    if text.get(at) == Some(&b'.') && text.get(at + 1) != Some(&b'.') {
        at += 1 + count(text.get(at + 1..).unwrap_or_default(), is_digit);
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let digits = count(text.get(at + 1 + sign..).unwrap_or_default(), is_digit);
        if digits > 0 {
            at += 1 + sign + digits;
        }
    }
    at
}

/// How long an operator is: up to a comment; and one of several characters ends in `+` or `-` only when it has a
/// character in it that no operator of the SQL standard has.
fn operator(text: &[u8]) -> usize {
    let run = operators(text);
    if run.iter().any(|byte| b"~!@#%^&|`?".contains(byte)) {
        return run.len();
    }
    run.len().saturating_sub(trailing_signs(run)).max(1)
}

/// The characters of operators that a text begins with, before a comment.
fn operators(text: &[u8]) -> &[u8] {
    let run = text.get(..count(text, is_operator)).unwrap_or_default();
    let comment = run.windows(2).position(|pair| pair == b"--" || pair == b"/*").unwrap_or(run.len());
    run.get(..comment).unwrap_or_default()
}

fn trailing_signs(run: &[u8]) -> usize {
    run.iter().rev().take_while(|byte| matches!(byte, b'+' | b'-')).count()
}

/// How many signs follow an operator, when nothing but signs does: so that a long run of them is not read again from
/// each of them.
fn signs(rest: &[u8]) -> usize {
    let run = operators(rest);
    if trailing_signs(run) == run.len() { run.len() } else { 0 }
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
