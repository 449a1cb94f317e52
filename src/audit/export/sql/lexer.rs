//! Whether a statement's text ends where it seems to end, for every reader.
//!
//! psql reads a file's text itself, to find where each statement ends and which backslash begins a command of
//! its own. Where a string ends depends on settings that a statement in the same file may change:
//! `standard_conforming_strings`, and `client_encoding`, as some encodings have characters of which the second byte
//! is a quote's. So a text
//!
//! - is let through only if it reads the same with and without standard strings, leaves nothing open, and holds
//!   nothing that psql would take for its own: no backslash outside of quotes, no `:variable`;
//! - is [written anew](Writer) in ASCII if it is not in ASCII: strings and names with escapes.
//!
//! See [the lexical structure](https://www.postgresql.org/docs/current/sql-syntax-lexical.html) and
//! [psql's variables](https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-INTERPOLATION).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Why a text is not let through.
pub(super) type Why = &'static str;

const OPEN: Why = "it leaves a quote, a comment or a parenthesis open";
const BACKSLASH: Why = "it has a backslash outside of quotes";
const AMBIGUOUS: Why = "where a string in it ends depends on settings";
const VARIABLE: Why = "it has what psql takes for a variable";
const NUMBER: Why = "it has a number that runs into a word";
const UNUSUAL: Why = "it has a string of an unusual form that is not in ASCII";

/// The text in ASCII, meaning the same to every reader.
pub(super) fn standing_alone(sql: &str) -> Result<Cow<'_, str>, Why> {
    if sql.is_ascii() {
        read(sql, |_, _| Ok(()))?;
        return Ok(Cow::Borrowed(sql));
    }
    let mut writer = Writer::default();
    read(sql, |kind, token| writer.token(kind, token))?;
    // What was written is held to the same rules.
    read(&writer.out, |_, _| Ok(()))?;
    if writer.out.is_ascii() { Ok(Cow::Owned(writer.out)) } else { Err(UNUSUAL) }
}

/// What a piece of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Comment,
    Word,
    /// A string in quotes, whose backslashes escape.
    Escaped,
    /// A string in quotes.
    Text,
    QuotedName,
    /// A string between dollars, with the length of what stands at each end.
    Dollar(usize),
    Other,
}

/// Gives each piece of a text to `each`, or tells why the text is not let through.
fn read(sql: &str, mut each: impl FnMut(Kind, &str) -> Result<(), Why>) -> Result<(), Why> {
    let mut reader = Reader { bytes: sql.as_bytes(), at: 0, depth: 0, escapes: false };
    while let Some(byte) = reader.peek(0) {
        let from = reader.at;
        let kind = reader.token(byte)?;
        each(kind, sql.get(from..reader.at).ok_or(UNUSUAL)?)?;
    }
    if reader.depth == 0 { Ok(()) } else { Err(OPEN) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Open parentheses.
    depth: u64,
    /// The last piece was an `E`.
    escapes: bool,
}

const fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

const fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at.checked_add(ahead)?).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Goes on while `is` says so; gives what was passed.
    fn pass(&mut self, is: impl Fn(u8) -> bool) -> &[u8] {
        let from = self.at;
        self.at += self.rest().iter().take_while(|byte| is(**byte)).count();
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    fn token(&mut self, byte: u8) -> Result<Kind, Why> {
        let escapes = std::mem::take(&mut self.escapes);
        match (byte, self.peek(1)) {
            (b'\'', _) => self.string(escapes),
            (b'"', _) => self.name(),
            (b'-', Some(b'-')) => {
                self.pass(|byte| byte != b'\n' && byte != b'\r');
                Ok(Kind::Comment)
            }
            (b'/', Some(b'*')) => self.comment(),
            (b'$', _) => self.dollar(),
            (b'\\', _) => Err(BACKSLASH),
            (b':', next) => self.colon(next),
            (b'(', _) => {
                self.depth += 1;
                Ok(self.other(1))
            }
            (b')', _) => {
                self.depth = self.depth.checked_sub(1).ok_or(OPEN)?;
                Ok(self.other(1))
            }
            (b'0'..=b'9', _) => self.number(),
            (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => {
                self.at += 1;
                Ok(Kind::Space)
            }
            _ if begins_word(byte) => {
                self.escapes = self.pass(continues_word).eq_ignore_ascii_case(b"e");
                Ok(Kind::Word)
            }
            _ => Ok(self.other(1)),
        }
    }

    const fn other(&mut self, bytes: usize) -> Kind {
        self.at += bytes;
        Kind::Other
    }

    /// A string that begins here. Unless it is known to take backslashes for escapes, it must end at the same
    /// place with and without.
    fn string(&mut self, escapes: bool) -> Result<Kind, Why> {
        self.at += 1;
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) | (Some(b'\\'), None) => return Err(OPEN),
                (Some(b'\''), Some(b'\'')) => self.at += 2,
                (Some(b'\''), _) => {
                    self.at += 1;
                    return Ok(if escapes { Kind::Escaped } else { Kind::Text });
                }
                (Some(b'\\'), Some(b'\'')) if !escapes => return Err(AMBIGUOUS),
                // Escaped or not, no quote is among these two.
                (Some(b'\\'), Some(_)) => self.at += 2,
                (Some(_), _) => self.at += 1,
            }
        }
    }

    /// A name between double quotes; doubled, they are part of it.
    fn name(&mut self) -> Result<Kind, Why> {
        self.quoted(b"\"")?;
        while self.peek(0) == Some(b'"') {
            self.quoted(b"\"")?;
        }
        Ok(Kind::QuotedName)
    }

    fn quoted(&mut self, end: &[u8]) -> Result<(), Why> {
        self.at += end.len();
        while !self.rest().starts_with(end) {
            if self.rest().is_empty() {
                return Err(OPEN);
            }
            self.at += 1;
        }
        self.at += end.len();
        Ok(())
    }

    /// Comments nest.
    fn comment(&mut self) -> Result<Kind, Why> {
        let mut depth = 0_u64;
        loop {
            match (self.peek(0), self.peek(1)) {
                (None, _) => return Err(OPEN),
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(Kind::Comment);
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// A parameter, or a string between dollars.
    fn dollar(&mut self) -> Result<Kind, Why> {
        if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
            self.pass(|byte| byte.is_ascii_digit());
            return if self.peek(0).is_some_and(continues_word) { Err(NUMBER) } else { Ok(Kind::Other) };
        }
        let tag =
            self.rest().iter().skip(1).take_while(|byte| continues_word(**byte) && **byte != b'$').count();
        let delimiter = self.rest().get(..tag + 2).unwrap_or_default().to_vec();
        if delimiter.last() != Some(&b'$') {
            return Ok(self.other(1));
        }
        self.quoted(&delimiter)?;
        Ok(Kind::Dollar(delimiter.len()))
    }

    fn colon(&mut self, next: Option<u8>) -> Result<Kind, Why> {
        match next {
            Some(b':' | b'=') => Ok(self.other(2)),
            // The bound of a slice.
            Some(b'0'..=b'9') => {
                self.at += 1;
                self.number()
            }
            Some(b'\'' | b'"' | b'{') => Err(VARIABLE),
            Some(byte) if begins_word(byte) => Err(VARIABLE),
            _ => Ok(self.other(1)),
        }
    }

    fn number(&mut self) -> Result<Kind, Why> {
        self.pass(|byte| byte.is_ascii_digit() || byte == b'.');
        if let [b'e' | b'E', exponent @ ..] = self.rest() {
            let signed = matches!(exponent.first(), Some(b'+' | b'-'));
            let digits = exponent.iter().skip(signed.into()).take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 {
                self.at += 1 + usize::from(signed) + digits;
            }
        }
        let runs_on = self.peek(0).is_some_and(|byte| continues_word(byte) || byte == b'\'');
        if runs_on { Err(NUMBER) } else { Ok(Kind::Other) }
    }
}

/// Writes a text anew, in ASCII.
#[derive(Debug, Default)]
struct Writer {
    out: String,
    /// A string, and perhaps white space with a line break behind it: the next string would go on with it.
    goes_on: bool,
}

impl Writer {
    fn token(&mut self, kind: Kind, token: &str) -> Result<(), Why> {
        let is_string = matches!(kind, Kind::Text | Kind::Escaped);
        if is_string && self.goes_on {
            return Err(UNUSUAL);
        }
        self.goes_on = is_string || (self.goes_on && matches!(kind, Kind::Space | Kind::Comment));
        if token.is_ascii() {
            self.keep_apart(token);
            self.out.push_str(token);
            return Ok(());
        }
        match kind {
            Kind::Comment => {
                self.out.extend(token.chars().map(|symbol| if symbol.is_ascii() { symbol } else { '?' }));
            }
            // Names are folded to lower case as far as they are ASCII.
            Kind::Word => self.name(&token.to_ascii_lowercase()),
            Kind::QuotedName | Kind::Text if self.ends_with_prefix() => return Err(UNUSUAL),
            Kind::QuotedName => self.name(inner(token, 1)),
            Kind::Text => self.string(&inner(token, 1).replace('\\', "\\\\")),
            Kind::Escaped => {
                self.out.push('\'');
                self.escaped(inner(token, 1));
                self.out.push('\'');
            }
            Kind::Dollar(length) => {
                self.string(&inner(token, length).replace('\\', "\\\\").replace('\'', "''"));
            }
            Kind::Space | Kind::Other => return Err(UNUSUAL),
        }
        Ok(())
    }

    /// Whether a string or name that begins here would be of another kind: `B'…'`, `U&"…"`.
    fn ends_with_prefix(&self) -> bool {
        self.out.ends_with('&') || self.out.ends_with(|symbol: char| "bBxXnN".contains(symbol))
    }

    /// What was written anew must not run into what comes behind it.
    fn keep_apart(&mut self, token: &str) {
        let runs_on = |end| self.out.ends_with(end) && token.starts_with(end);
        if runs_on('"') || runs_on('\'') {
            self.out.push(' ');
        }
    }

    /// Nor into the word before it.
    fn behind_word(&mut self) {
        if self.out.bytes().last().is_some_and(continues_word) {
            self.out.push(' ');
        }
    }

    /// A name, as it stands between double quotes.
    fn name(&mut self, name: &str) {
        self.keep_apart("\"");
        self.behind_word();
        self.out.push_str("U&\"");
        for symbol in name.chars() {
            match symbol {
                '\\' => self.out.push_str("\\\\"),
                _ if symbol.is_ascii() => self.out.push(symbol),
                _ => _ = write!(self.out, "\\+{:06X}", u32::from(symbol)),
            }
        }
        self.out.push('"');
    }

    /// A string, its backslashes and quotes doubled.
    fn string(&mut self, text: &str) {
        self.keep_apart("'");
        self.behind_word();
        self.out.push_str("E'");
        self.escaped(text);
        self.out.push('\'');
    }

    /// What stands between the quotes of an `E'…'`.
    fn escaped(&mut self, text: &str) {
        let mut symbols = text.chars().peekable();
        while let Some(symbol) = symbols.next() {
            match symbol {
                '\\' => match symbols.next() {
                    // A character that has no meaning as an escape stands for itself.
                    Some(escaped) if !escaped.is_ascii() => {
                        _ = write!(self.out, "\\U{:08X}", u32::from(escaped));
                    }
                    Some(escaped) => self.out.extend(['\\', escaped]),
                    None => self.out.push('\\'),
                },
                _ if symbol.is_ascii() => self.out.push(symbol),
                _ => _ = write!(self.out, "\\U{:08X}", u32::from(symbol)),
            }
        }
    }
}

/// A token without its ends.
fn inner(token: &str, end: usize) -> &str {
    token.len().checked_sub(end).and_then(|last| token.get(end..last)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_whole_is_let_through() {
        for sql in [
            "",
            "select 1; select 2",
            "select 'it''s', 'C:\\dir', 'a\\_b%'",
            "select E'it\\'s \\\\'",
            "select 1.5e10, .5, 1e-3, $1, a[1:2], b::text, f(x := 1)",
            "select \"a\"\"b\\\" -- it's\n, $$it's \\ $ $$, $tag$ $$ $tag$",
            "/* it's /* nested */ \\ :x */ select 1",
            "select a$b$c",
            "do $$ begin perform ':x \\!'; end $$",
            "select 1 --",
        ] {
            assert_eq!(standing_alone(sql), Ok(Cow::Borrowed(sql)), "{sql}");
        }
    }

    #[test]
    fn what_is_not_ascii_is_written_with_escapes() {
        for (sql, ascii) in [
            ("select 'é it''s \\'", Err(AMBIGUOUS)),
            ("select 'é it''s \\d'", Ok(r"select E'\U000000E9 it''s \\d'")),
            ("select'é'", Ok(r"select E'\U000000E9'")),
            ("select E'\\é\\'é\\\\é'", Ok(r"select E'\U000000E9\'\U000000E9\\\U000000E9'")),
            ("do $é$ it's \\ é $é$", Ok(r"do E' it''s \\ \U000000E9 '")),
            ("select $$é$$'x'", Ok(r"select E'\U000000E9' 'x'")),
            ("select Éé, \"Éa\"\"\\\"", Ok(r#"select U&"\+0000C9\+0000E9", U&"\+0000C9a""\\""#)),
            ("select é\"x\"", Ok(r#"select U&"\+0000E9" "x""#)),
            ("select\"é\"", Ok(r#"select U&"\+0000E9""#)),
            ("select 1 -- é '\n/* é */", Ok("select 1 -- ? '\n/* ? */")),
            ("select N'é'", Err(UNUSUAL)),
            ("select U&'é'", Err(UNUSUAL)),
            ("select U&\"é\"", Err(UNUSUAL)),
            ("select 'é'\n'b'", Err(UNUSUAL)),
            ("select E'a' -- é\n 'b'", Err(UNUSUAL)),
        ] {
            assert_eq!(standing_alone(sql).as_deref(), ascii.as_ref().map(|ascii: &&str| *ascii), "{sql}");
        }
    }

    #[test]
    fn what_could_break_out_is_not() {
        for (sql, why) in [
            ("select 'open", OPEN),
            ("select \"open", OPEN),
            ("select $$ open $", OPEN),
            ("select $a$ open $b$", OPEN),
            ("/* open /* */", OPEN),
            ("select (1", OPEN),
            ("select 1)", OPEN),
            ("select 'a\\", OPEN),
            ("select 1 \\! id", BACKSLASH),
            ("select 1 \\gexec", BACKSLASH),
            ("\\connect other", BACKSLASH),
            ("select '\\'; \\! id", AMBIGUOUS),
            ("select 'a'\n'\\' \\! id", AMBIGUOUS),
            ("select nE'\\' \\! id'", AMBIGUOUS),
            ("select éE'\\' \\! id'", AMBIGUOUS),
            ("select U&'\\' \\! id'", AMBIGUOUS),
            ("select :x", VARIABLE),
            ("select :'x', :\"y\", :{?z}", VARIABLE),
            ("select a::text:x", VARIABLE),
            ("select 1E'\\' \\! id'", NUMBER),
            ("select 1$a$ ' $a$", NUMBER),
            ("select $1$a$ ' $a$", NUMBER),
            ("select 0x1F", NUMBER),
            ("select a[1:2x]", NUMBER),
        ] {
            assert_eq!(standing_alone(sql), Err(why), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_what_passes_is_ascii(sql in "[-'\"$\\\\:(){}/*eEU&19a é\n;]{0,40}") {
            if let Ok(ascii) = standing_alone(&sql) {
                prop_assert!(ascii.is_ascii());
                prop_assert_eq!(standing_alone(&ascii), Ok(Cow::Borrowed(&*ascii)), "it is left as it is");
            }
        }

        #[test]
        fn what_stands_alone_does_so_between_others(sql in "[-'\"$\\\\:()/*e1 é\n;]{0,20}") {
            // A sound text leaves what follows as it is: only code that is let through itself passes behind it.
            if let Ok(ascii) = standing_alone(&sql) {
                let followed = format!("{ascii}\n;\nselect 1");
                prop_assert_eq!(standing_alone(&followed), Ok(Cow::Borrowed(&*followed)));
                let command = format!("{ascii}\n;\n\\! id");
                prop_assert_eq!(standing_alone(&command), Err(BACKSLASH));
            }
        }
    }
}
