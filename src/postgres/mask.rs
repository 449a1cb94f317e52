//! Masks secrets in what is recorded of statements: the target gets every byte, the record `***` in their place.
//!
//! The rule, which `docs/audit-record.md` tells too:
//!
//! 1. A string after the word `password` (or `sslpassword`), be it in `ALTER ROLE … PASSWORD '…'` or in the options of a
//!    user mapping or a server.
//! 2. In any string, the value of `password=…` (a connection string) and what stands between `:` and `@` of an address
//!    (`postgres://user:…@host`).
//! 3. In a string that speaks of a role, user, mapping, server or subscription and then of its password (a statement that
//!    is put together and executed), all that follows the word; and, to the end of the statement, every string after it.
//! 4. A parameter (`$1`) where a string would be masked.
//! 5. Bodies between dollar quotes are statements themselves, but for those that begin as a connection string does.
//!
//! Lexical structure: PostgreSQL documentation, section 4.1. In a statement that does not end as it should, which the
//! server refuses, all from the first such word on is masked. What stands outside of strings is never masked, so that
//! nobody hides with these words which tables he reads.

use std::collections::BTreeSet;

use memchr::memmem;

use super::lexer::{Kind, Lexer, Strings, Token};

/// What stands in a secret's place.
const MASK: &[u8] = b"***";
const WORDS: [&[u8]; 2] = [b"password", b"sslpassword"];
/// How many bytes of secrets are kept of a statement, for what the server says of it.
const MOST_KEPT: usize = 1 << 10;
/// Bodies within bodies that are looked into.
const DEEPEST: u32 = 8;

/// What is secret in a statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Secrets {
    /// The text with its secrets masked, and how many there were; `None` when there is none in it.
    pub masked: Option<(Vec<u8>, u32)>,
    /// As they stand in the text; `None` where they are many or long, or where the server may spell them otherwise.
    pub values: Option<BTreeSet<Vec<u8>>>,
    /// Numbers of parameters, from 1.
    pub parameters: BTreeSet<u16>,
}

/// What is secret in a statement; `None` when there is nothing, which is told quickly.
pub fn secrets(sql: &[u8], strings: Strings) -> Option<Secrets> {
    if !holds_word(sql) && memmem::find(sql, b"://").is_none() {
        return None;
    }
    let mut masker = Masker::new(sql, strings, true);
    masker.statements(0, sql.len(), 0);
    let (values, parameters) = (masker.values.take(), std::mem::take(&mut masker.parameters));
    let secrets = Secrets { masked: masker.finish(), values, parameters };
    (secrets.masked.is_some() || !secrets.parameters.is_empty()).then_some(secrets)
}

/// The text with its secrets masked, and how many there were; `None` when there is none, which is told quickly.
pub fn masked(sql: &[u8], strings: Strings) -> Option<(Vec<u8>, u32)> {
    secrets(sql, strings)?.masked
}

/// A text of the server's with what was secret in the statement masked, as it quotes what it does not understand. One pass:
/// what was put in is not looked into again.
pub fn without(text: &str, secrets: &BTreeSet<Vec<u8>>) -> String {
    let mut longest_first: Vec<&[u8]> =
        secrets.iter().map(Vec::as_slice).filter(|one| !one.is_empty()).collect();
    longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = longest_first.iter().find_map(|secret| rest.strip_prefix(*secret)) {
            out.extend_from_slice(MASK);
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// As [`masked`], for a value that is no statement: the second rule alone. Of a value of which only the head is there (not
/// `is_whole`), what may be a secret that was cut is one.
pub fn masked_value(value: &[u8], is_whole: bool) -> Option<(Vec<u8>, u32)> {
    if !holds_word(value) && memmem::find(value, b"://").is_none() {
        return None;
    }
    let mut masker = Masker::new(value, Strings::Standard, is_whole);
    masker.connection_strings(0, value.len());
    masker.finish()
}

fn holds_word(text: &[u8]) -> bool {
    find_word(text).is_some()
}

/// Where `password` stands first, in any case and within any word.
fn find_word(text: &[u8]) -> Option<usize> {
    let word: &[u8] = b"password";
    memchr::memchr2_iter(b'p', b'P', text)
        .find(|at| text.get(*at..*at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)))
}

/// Whether it names, in any case, what has a password.
fn speaks_of_an_account(text: &[u8]) -> bool {
    let words: [&[u8]; 5] = [b"role", b"user", b"mapping", b"server", b"subscription"];
    words.iter().any(|word| text.windows(word.len()).any(|found| found.eq_ignore_ascii_case(word)))
}

struct Masker<'a> {
    sql: &'a [u8],
    strings: Strings,
    is_whole: bool,
    /// Up to here it is in `out`.
    from: usize,
    out: Vec<u8>,
    count: u32,
    values: Option<BTreeSet<Vec<u8>>>,
    /// How many bytes of values there are.
    kept: usize,
    parameters: BTreeSet<u16>,
}

impl<'a> Masker<'a> {
    fn new(sql: &'a [u8], strings: Strings, is_whole: bool) -> Self {
        let (values, parameters) = (Some(BTreeSet::new()), BTreeSet::new());
        let out = Vec::with_capacity(sql.len());
        Self { sql, strings, is_whole, from: 0, out, count: 0, values, kept: 0, parameters }
    }

    fn finish(mut self) -> Option<(Vec<u8>, u32)> {
        if self.count == 0 {
            return None;
        }
        self.out.extend_from_slice(self.sql.get(self.from..).unwrap_or_default());
        Some((self.out, self.count))
    }

    fn mask(&mut self, start: usize, end: usize) {
        // What is masked already contains this.
        if start < self.from || start >= end {
            return;
        }
        self.out.extend_from_slice(self.sql.get(self.from..start).unwrap_or_default());
        self.out.extend_from_slice(MASK);
        self.keep(start, end);
        (self.from, self.count) = (end, self.count.saturating_add(1));
    }

    /// Keeps what was masked, as far as there is not too much of it.
    fn keep(&mut self, start: usize, end: usize) {
        let value = self.sql.get(start..end).unwrap_or_default();
        self.kept = self.kept.saturating_add(value.len()).saturating_add(size_of::<Vec<u8>>());
        // A quote or a backslash within it stands for another text; what is not UTF-8 is shown otherwise.
        let is_plain = std::str::from_utf8(value).is_ok_and(|value| !value.contains(['\'', '\\']));
        if self.kept > MOST_KEPT || !is_plain {
            self.values = None;
        } else if let Some(values) = &mut self.values {
            values.insert(value.to_vec());
        }
    }

    fn slice(&self, start: usize, end: usize) -> &[u8] {
        self.sql.get(start..end).unwrap_or_default()
    }

    fn statements(&mut self, start: usize, end: usize, depth: u32) {
        let (mut is_due, mut is_tainted) = (false, false);
        for token in Lexer::within(self.sql, (start, end), self.strings) {
            let (from, to) = token.content();
            match token.kind {
                _ if !token.is_ended() => {
                    let from = if is_due || is_tainted { token.start } else { start };
                    return self.all_from_word_or(from, end, is_due || is_tainted);
                }
                Kind::Comment => {}
                Kind::Word | Kind::QuotedName => {
                    let word = self.slice(from, to);
                    is_due = WORDS.iter().any(|one| word.eq_ignore_ascii_case(one));
                }
                // It stays due: a string may be continued on the next line.
                Kind::String(_) | Kind::DollarString if is_due || is_tainted => self.mask(from, to),
                Kind::String(_) => is_tainted |= self.string(from, to),
                Kind::DollarString if self.is_connection_string(from, to) => {}
                Kind::DollarString if depth < DEEPEST => self.statements(from, to, depth + 1),
                Kind::DollarString => self.all_from_word(from, to),
                // Within a body they are a function's.
                Kind::Parameter if (is_due || is_tainted) && depth == 0 => {
                    is_due = false;
                    self.parameters.extend(number(token.text(self.sql)));
                }
                Kind::Punctuation if token.text(self.sql) == b";" => (is_due, is_tainted) = (false, false),
                _ => is_due &= is_joint(token, self.sql),
            }
        }
    }

    /// Whether a body begins as a connection string does, and has a secret as such.
    fn is_connection_string(&mut self, start: usize, end: usize) -> bool {
        let before = self.count;
        if begins_as_connection_string(self.slice(start, end)) {
            self.connection_strings(start, end);
        }
        self.count > before
    }

    /// The content of a string; gives whether what follows in the statement may be a secret.
    fn string(&mut self, start: usize, end: usize) -> bool {
        let before = self.count;
        self.connection_strings(start, end);
        if self.count > before {
            return false;
        }
        let Some(word) = find_word(self.slice(start, end)) else { return false };
        if !speaks_of_an_account(self.slice(start, start + word)) {
            return false;
        }
        self.mask(start + word + b"password".len(), end);
        true
    }

    /// All that follows the word, where there is one.
    fn all_from_word(&mut self, start: usize, end: usize) {
        self.all_from_word_or(start, end, false);
    }

    fn all_from_word_or(&mut self, start: usize, end: usize, is_secret: bool) {
        if is_secret {
            return self.mask(start, end);
        }
        let start = start.max(self.from);
        if let Some(word) = find_word(self.slice(start, end)) {
            self.mask(start + word + b"password".len(), end);
        } else if memmem::find(self.slice(start, end), b"://").is_some() {
            self.mask(start, end);
        }
    }

    /// Values of `password=` and of `://user:…@`.
    fn connection_strings(&mut self, start: usize, end: usize) {
        let mut at = start;
        // From where on it is not known whether the address that was found last goes on.
        let mut last = None;
        // Whether what lies behind `seen` is between double quotes, as in JSON.
        let (mut seen, mut is_quoted) = (start, false);
        // Each is looked for anew only once it has been passed: a text may be full of one and without the other.
        let (mut word, mut address) = (self.next_word(at, end), self.next_address(at, end));
        while at < end {
            if word.is_some_and(|word| word < at) {
                word = self.next_word(at, end);
            }
            if address.is_some_and(|address| address < at) {
                address = self.next_address(at, end);
            }
            let next = match (word, address) {
                (Some(word), address) if address.is_none_or(|address| word < address) => {
                    let is_one = |from: &usize| !self.slice(*from, word).iter().any(u8::is_ascii_whitespace);
                    last = last.filter(is_one).map(|_| word);
                    self.key(word + b"password".len(), end, last.is_some())
                }
                (_, Some(address)) => {
                    last = Some(address);
                    let quotes = memchr::memchr_iter(b'"', self.slice(seen, address)).count();
                    (seen, is_quoted) = (address, is_quoted ^ (quotes % 2 == 1));
                    self.address(address + 3, end, is_quoted)
                }
                (_, None) => return,
            };
            at = next.max(at + 1);
        }
    }

    fn next_word(&self, at: usize, end: usize) -> Option<usize> {
        find_word(self.slice(at, end)).map(|word| at + word)
    }

    fn next_address(&self, at: usize, end: usize) -> Option<usize> {
        memmem::find(self.slice(at, end), b"://").map(|address| at + address)
    }

    /// The value of `password`, whose word ends at `at`, if one is assigned (libpq, section 34.1.1.1; as a parameter of
    /// an address too). Gives where to go on.
    fn key(&mut self, at: usize, end: usize, is_of_address: bool) -> usize {
        let is_space = |byte: &u8| byte.is_ascii_whitespace();
        let mut value = at + self.slice(at, end).iter().take_while(|byte| is_space(byte)).count();
        if self.sql.get(value).filter(|_| value < end) != Some(&b'=') {
            return at;
        }
        value += 1;
        value += self.slice(value, end).iter().take_while(|byte| is_space(byte)).count();
        let text = self.slice(value, end);
        // Within a string of SQL a quote is doubled, or a backslash stands before it.
        let quote: &[u8] =
            [b"\\'".as_slice(), b"''", b"'"].into_iter().find(|quote| text.starts_with(quote)).unwrap_or(b"");
        let rest = text.get(quote.len()..).unwrap_or_default();
        let (quote, length) =
            (quote.len(), if quote.is_empty() { unquoted(rest, is_of_address) } else { quoted(rest, quote) });
        self.mask(value + quote, value + quote + length);
        value + quote + length
    }

    /// What stands between `:` and `@` of the address whose authority begins at `at`.
    fn address(&mut self, at: usize, end: usize, is_quoted: bool) -> usize {
        let text = self.slice(at, end);
        let length = authority_length(text, is_quoted);
        let authority = text.get(..length).unwrap_or_default();
        let secret = memchr::memrchr(b'@', authority)
            .and_then(|last| Some((memchr::memchr(b':', authority.get(..last)?)? + 1, last)));
        let is_cut = !self.is_whole && length == text.len();
        let cut = || memchr::memchr(b':', authority).filter(|_| is_cut).map(|at| (at + 1, length));
        let secret = secret.or_else(cut);
        if let Some((from, to)) = secret {
            self.mask(at + from, at + to);
        }
        at + length
    }
}

/// How long what stands between `://` and the next `/` is. Whatever else is there may belong to a password, but for a quote that
/// is followed by what follows strings, in SQL or, where it `is_quoted`, in JSON.
fn authority_length(text: &[u8], is_quoted: bool) -> usize {
    let ends = |at: usize, byte: u8| {
        let next = text.get(at + 1).copied().unwrap_or(b',');
        match byte {
            b'"' => is_quoted && b",}]:".contains(&next),
            b'\'' => b",)".contains(&next),
            _ => byte == b'/' || byte.is_ascii_whitespace(),
        }
    };
    (0..).zip(text).find(|(at, byte)| ends(*at, **byte)).map_or(text.len(), |(at, _)| at)
}

/// Of `$1`.
fn number(parameter: &[u8]) -> Option<u16> {
    std::str::from_utf8(parameter.get(1..)?).ok()?.parse().ok()
}

/// `=`, `:` and `>`, which may stand between a word and its value.
fn is_joint(token: Token, sql: &[u8]) -> bool {
    token.text(sql).iter().all(|byte| b"=:>".contains(byte))
}

/// Whether a text begins with a word and `=`, or with an address: no statement does.
fn begins_as_connection_string(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let word = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let rest = text.get(word..).unwrap_or_default();
    word > 0 && (rest.trim_ascii_start().starts_with(b"=") || rest.starts_with(b"://"))
}

/// How long a value is that is not quoted; a backslash takes the next byte. Of an address it is a parameter.
fn unquoted(text: &[u8], is_of_address: bool) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'&' if is_of_address => break,
            // One that is within the value is a character like others; one that ends a string in a string is followed
            // by what follows strings.
            b'\'' => {
                let quotes = text.iter().skip(at).take_while(|byte| **byte == b'\'').count();
                let ends = |next: &u8| next.is_ascii_whitespace() || b",);|".contains(next);
                if text.get(at + quotes).is_none_or(ends) {
                    break;
                }
                at += quotes;
            }
            byte if byte.is_ascii_whitespace() => break,
            _ => at += 1,
        }
    }
    at.min(text.len())
}

/// How long a quoted value is, up to what quotes it; a backslash takes the next byte.
fn quoted(text: &[u8], quote: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(quote) {
            return at;
        }
        at += if rest.first() == Some(&b'\\') { 2 } else { 1 };
    }
    text.len()
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
