//! One line of a journal file: `{n} {hash} {json}`, the hash in 64 lower-case hexadecimal digits.
//!
//! The one parser that recovery, verification, replay and tailing share. It accepts exactly one
//! spelling of each line, so that two different files never mean the same log.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use memchr::memmem;

use crate::crypto::{HASH_LENGTH, Hash};
use crate::domain::time::Timestamp;

/// No record is longer, in bytes.
pub const LONGEST_RECORD: usize = 1 << 20;
/// No line is longer: index, hash, two spaces and the record, without the line feed.
pub const LONGEST_LINE: usize = LONGEST_RECORD + 128;
const HASH_DIGITS: usize = 2 * HASH_LENGTH;

/// A line's three parts, not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Index of the record in the node's log, from 0.
    pub n: u64,
    /// The log's chain value after this record.
    pub hash: Hash,
    /// The record, exactly as hashed.
    pub json: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedLine {
    #[error("the line has no index")]
    NoIndex,
    #[error("the line has no hash")]
    NoHash,
    #[error("the line has no record")]
    NoRecord,
    #[error("the line is longer than any record")]
    TooLong,
}

/// Takes a line apart; `line` is without its line feed. Never panics, whatever it is given.
pub fn parse_line(line: &[u8]) -> Result<Line<'_>, MalformedLine> {
    if line.len() > LONGEST_LINE {
        return Err(MalformedLine::TooLong);
    }
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let n = parts.next().and_then(index).ok_or(MalformedLine::NoIndex)?;
    let digits = parts.next().filter(|digits| digits.len() == HASH_DIGITS);
    let mut hash = Hash::default();
    let decoded = digits.and_then(|digits| HEXLOWER.decode_mut(digits, &mut hash).ok());
    decoded.ok_or(MalformedLine::NoHash)?;
    let json = parts.next().filter(|json| json.first() == Some(&b'{') && json.last() == Some(&b'}'));
    Ok(Line { n, hash, json: json.ok_or(MalformedLine::NoRecord)? })
}

/// A decimal number without sign or leading zeros.
fn index(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    if plain { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// How many bytes [`write_line`] appends for record `n` of `json` bytes.
pub(super) fn line_length(n: u64, json: usize) -> usize {
    let digits = n.checked_ilog10().unwrap_or(0) as usize + 1;
    digits + 1 + HASH_DIGITS + 1 + json + 1
}

/// Appends a whole line with its line feed.
pub fn write_line(buffer: &mut Vec<u8>, n: u64, hash: &Hash, json: &[u8]) {
    let mut digits = [0; HASH_DIGITS];
    HEXLOWER.encode_mut(hash, &mut digits);
    push_number(buffer, n);
    buffer.push(b' ');
    buffer.extend_from_slice(&digits);
    buffer.push(b' ');
    buffer.extend_from_slice(json);
    buffer.push(b'\n');
}

/// Appends a number in decimal digits.
pub(super) fn push_number(buffer: &mut Vec<u8>, n: u64) {
    let mut digits = [0; 20];
    let (mut rest, mut at) = (n, digits.len());
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (rest, at) = (rest / 10, at - 1);
        if rest == 0 {
            break;
        }
    }
    buffer.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// A text of a record: as it stands there, unless it has escapes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every record starts with, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Envelope<'a> {
    pub v: u32,
    /// The recording: a connection's id, or the node's for control records.
    #[serde(borrow)]
    pub rec: Text<'a>,
    pub seq: u64,
    pub at: Timestamp,
    /// Microseconds since the journal was opened.
    pub mono: u64,
    #[serde(borrow)]
    pub node: Text<'a>,
    #[serde(borrow)]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub connection: Option<Text<'a>>,
    /// In `event` records: what happened.
    #[serde(borrow, default)]
    pub action: Option<Text<'a>>,
    /// In `event` records that came from the store: the outbox id.
    #[serde(default)]
    pub outbox: Option<i64>,
    /// In `statement` and `statement_end`: the statement's number.
    #[serde(default)]
    pub n: Option<u64>,
    /// In `ended`: the recording's chain before this record.
    #[serde(borrow, default)]
    pub chain: Option<Text<'a>>,
    /// In `event` records: what else the action was about. (In `credential` records it is a text.)
    #[serde(default)]
    pub detail: Option<serde_json::Value>,
}

impl<'a> Envelope<'a> {
    /// The number of records that a control record speaks of.
    pub fn records(&self) -> Option<u64> {
        self.detail.as_ref()?.get("records")?.as_u64()
    }

    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// A record taken apart without reading all of it, as the log writes it: first what tells it from others of its recording,
/// then what is the same in all of these, and from its kind on what is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) at: Timestamp,
    pub(super) kind: &'a str,
    /// From the kind on, to the closing brace.
    pub(super) own: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` for what is not put together like that.
    pub(super) fn of(json: &'a [u8]) -> Option<Self> {
        // A quotation mark of a value is never without a backslash before it.
        let text = |from: &'static [u8], json: &'a [u8]| {
            let start = memmem::find(json, from)?;
            let rest = json.get(start + from.len()..)?;
            let end = memchr::memchr(b'"', rest)?;
            Some((start, std::str::from_utf8(rest.get(..end)?).ok()?))
        };
        let (_, at) = text(br#","at":""#, json)?;
        let (start, kind) = text(br#","kind":""#, json)?;
        Some(Self { at: at.parse().ok()?, kind, own: json.get(start + 1..)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_line_has_one_spelling() {
        assert!(parse_line(format!("7 {HASH} {{}}").as_bytes()).is_ok());
        for bad in [
            String::new(),
            format!("07 {HASH} {{}}"),
            format!("+7 {HASH} {{}}"),
            format!(" 7 {HASH} {{}}"),
            format!("7  {HASH} {{}}"),
            format!("7 {} {{}}", HASH.to_uppercase()),
            format!("7 {HASH}0 {{}}"),
            format!("7 {HASH} "),
            format!("7 {HASH} {{}}\r"),
            format!("99999999999999999999 {HASH} {{}}"),
        ] {
            assert!(parse_line(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_envelope_is_read_whatever_the_kind_says_in_detail() {
        let record = |rest: &str| {
            format!(r#"{{"v":1,"rec":"r","seq":0,"at":"2026-11-23T21:20:00Z","mono":0,"node":"n",{rest}}}"#)
        };
        for (rest, records) in [
            (r#""kind":"event","detail":{"records":7}"#, Some(7)),
            (r#""kind":"event","detail":{"what":"x"}"#, None),
            (r#""kind":"credential","detail":"a certificate""#, None),
            (r#""kind":"notice""#, None),
        ] {
            let record = record(rest);
            let envelope = Envelope::parse(record.as_bytes()).unwrap();
            assert_eq!(envelope.records(), records, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_line(&bytes);
            let _ = Envelope::parse(&bytes);
            let _ = Parts::of(&bytes);
        }

        #[test]
        fn what_is_written_is_read(n in any::<u64>(), hash in any::<[u8; 32]>(), text in "[ -~]{0,80}") {
            let json = format!("{{{text}}}");
            let mut line = Vec::new();
            write_line(&mut line, n, &hash, json.as_bytes());
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert_eq!(parse_line(&line), Ok(Line { n, hash, json: json.as_bytes() }));
        }
    }
}
