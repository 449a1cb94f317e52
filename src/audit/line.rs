//! One line of a journal file: `{n} {hash} {json}`, the hash in 64 lower-case hexadecimal digits.
//!
//! The one parser that recovery, verification, replay and tailing share. It accepts exactly one
//! spelling of each line, so that two different files never mean the same log.

use data_encoding::HEXLOWER;

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
    let decoded = digits.and_then(|digits| HEXLOWER.decode(digits).ok());
    let hash = decoded.and_then(|bytes| Hash::try_from(bytes).ok()).ok_or(MalformedLine::NoHash)?;
    let json = parts.next().filter(|json| json.first() == Some(&b'{') && json.last() == Some(&b'}'));
    Ok(Line { n, hash, json: json.ok_or(MalformedLine::NoRecord)? })
}

/// A decimal number without sign or leading zeros.
fn index(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    if plain { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// Appends a whole line with its line feed.
pub fn write_line(buffer: &mut Vec<u8>, n: u64, hash: &Hash, json: &[u8]) {
    buffer.extend_from_slice(n.to_string().as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(HEXLOWER.encode(hash).as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(json);
    buffer.push(b'\n');
}

/// What every record starts with, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Envelope {
    pub v: u32,
    /// The recording: a connection's id, or the node's for control records.
    pub rec: String,
    pub seq: u64,
    pub at: Timestamp,
    /// Microseconds since the journal was opened.
    pub mono: u64,
    pub node: String,
    pub kind: String,
    #[serde(default)]
    pub connection: Option<String>,
    /// In `event` records: what happened.
    #[serde(default)]
    pub action: Option<String>,
    /// In `event` records that came from the store: the outbox id.
    #[serde(default)]
    pub outbox: Option<i64>,
    /// In `statement` and `statement_end`: the statement's number.
    #[serde(default)]
    pub n: Option<u64>,
    /// In `ended`: the recording's chain before this record.
    #[serde(default)]
    pub chain: Option<String>,
}

impl Envelope {
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
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

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_line(&bytes);
            let _ = Envelope::parse(&bytes);
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
