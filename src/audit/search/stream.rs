//! Bytes that come in any pieces, as lines of text. What is not text among them separates words.

use serde::{Deserialize, Serialize};

use crate::audit::asciicast::whole_characters;

/// Longest line that is held, in bytes.
const LONGEST: usize = 4 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    #[serde(with = "base64")]
    line: Vec<u8>,
}

/// A line, and whether it goes on.
pub(super) type Line = (String, bool);

impl Stream {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let ends = pieces.peek().is_some();
            for part in piece.chunks(LONGEST) {
                self.line.extend_from_slice(part);
                if self.line.len() >= LONGEST {
                    let whole = whole_characters(&self.line);
                    let begun = self.line.split_off(whole);
                    lines.push((String::from_utf8_lossy(&self.line).into_owned(), true));
                    self.line = begun;
                }
            }
            if ends {
                lines.push((self.rest(), false));
            }
        }
        lines
    }

    /// What stands on the last line.
    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned()
    }
}

/// Bytes as text.
mod base64 {
    use data_encoding::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_byte_that_is_not_text_hides_nothing_of_its_line() {
        let lines = Stream::default().feed(b"M\xfcller \0 paid\nnext");
        assert_eq!(lines, [("M\u{fffd}ller \0 paid".to_owned(), false)]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_were_cut(text in "(\\PC|\n){0,40}", at in 0..120_usize) {
            let (before, after) = text.as_bytes().split_at(at.min(text.len()));
            let mut stream = Stream::default();
            let mut lines: Vec<String> = stream.feed(before).into_iter().map(|(line, _)| line).collect();
            let stored = serde_json::to_string(&stream).unwrap();
            stream = serde_json::from_str(&stored).unwrap();
            lines.extend(stream.feed(after).into_iter().map(|(line, _)| line));
            lines.push(stream.rest());
            prop_assert_eq!(lines.join("\n"), text);
        }

        #[test]
        fn a_long_line_goes_on(length in 0..20_000_usize) {
            let text = "é".repeat(length);
            let mut stream = Stream::default();
            let lines = stream.feed(text.as_bytes());
            prop_assert!(lines.iter().all(|(line, goes_on)| *goes_on && line.len() <= 2 * LONGEST));
            let rest = stream.rest();
            prop_assert_eq!(lines.into_iter().map(|(line, _)| line).collect::<String>() + &rest, text);
        }
    }
}
