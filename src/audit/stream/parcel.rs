//! What one record of the stream holds: a heading, then lines of one recording exactly as in the journal, or a
//! checkpoint, or a piece of a line that is longer than the stream takes.
//!
//! ```text
//! sallyport/1 nod-… lines          then whole lines
//! sallyport/1 nod-… checkpoint     then a signed note
//! sallyport/1 nod-… part 17 2/3    then the second of three pieces of line 17
//! ```

use super::LEAST_RECORD;
use crate::domain::id::NodeId;

const VERSION: &str = "sallyport/1";
/// No heading is longer.
pub(super) const LONGEST_HEADING: usize = 128;
const _: () = assert!(2 * LONGEST_HEADING < LEAST_RECORD, "a heading leaves room for what it heads");

/// What follows a heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    Lines,
    Checkpoint,
    /// Piece `index` (from 1) of the `of` pieces of line `n`.
    Part {
        n: u64,
        index: u32,
        of: u32,
    },
}

/// Why bytes are no parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAParcel {
    #[error("it has no heading")]
    NoHeading,
    #[error("its heading is of another version")]
    OtherVersion,
    #[error("its heading is malformed")]
    Malformed,
}

/// The heading, with its line feed.
pub fn heading(node: &NodeId, heading: Heading) -> String {
    let what = match heading {
        Heading::Lines => "lines".to_owned(),
        Heading::Checkpoint => "checkpoint".to_owned(),
        Heading::Part { n, index, of } => format!("part {n} {index}/{of}"),
    };
    format!("{VERSION} {node} {what}\n")
}

/// Appends the heading with its line feed.
pub(super) fn write_heading(data: &mut Vec<u8>, node: &NodeId, of: Heading) {
    data.extend_from_slice(heading(node, of).as_bytes());
}

/// Takes a parcel apart: whose it is, what it holds, and the bytes. Never panics, whatever it is given.
pub fn parse(data: &[u8]) -> Result<(NodeId, Heading, &[u8]), NotAParcel> {
    let end = data.iter().take(LONGEST_HEADING).position(|byte| *byte == b'\n');
    let (text, rest) = end.and_then(|end| data.split_at_checked(end)).ok_or(NotAParcel::NoHeading)?;
    let text = std::str::from_utf8(text).map_err(|_| NotAParcel::NoHeading)?;
    let mut words = text.split(' ');
    if words.next() != Some(VERSION) {
        return Err(NotAParcel::OtherVersion);
    }
    let node = words.next().and_then(|node| node.parse().ok()).ok_or(NotAParcel::Malformed)?;
    let found = match (words.next(), words.next(), words.next(), words.next()) {
        (Some("lines"), None, ..) => Some(Heading::Lines),
        (Some("checkpoint"), None, ..) => Some(Heading::Checkpoint),
        (Some("part"), Some(n), Some(place), None) => part(n, place),
        _ => None,
    };
    // A heading has one spelling.
    let is_ours = |of: &Heading| heading(&node, *of).trim_end() == text;
    let found = found.filter(is_ours).ok_or(NotAParcel::Malformed)?;
    Ok((node, found, rest.get(1..).unwrap_or_default()))
}

fn part(n: &str, place: &str) -> Option<Heading> {
    let (index, of) = place.split_once('/')?;
    let (n, index, of): (u64, u32, u32) = (n.parse().ok()?, index.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&index).then_some(Heading::Part { n, index, of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headings_are_read_as_they_were_written() {
        let node: NodeId = "nod-0123456789abcdef".parse().unwrap();
        let part = Heading::Part { n: u64::MAX, index: 7, of: u32::MAX };
        for heading in [Heading::Lines, Heading::Checkpoint, part] {
            let mut data = Vec::new();
            write_heading(&mut data, &node, heading);
            assert!(data.len() < LONGEST_HEADING);
            data.extend_from_slice(b"a\nb");
            assert_eq!(parse(&data), Ok((node.clone(), heading, &b"a\nb"[..])));
        }
    }

    #[test]
    fn what_is_no_parcel_is_told() {
        let bad = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(bad(""), NotAParcel::NoHeading);
        assert_eq!(bad("sallyport/1 nod-0123456789abcdef lines"), NotAParcel::NoHeading);
        assert_eq!(bad("sallyport/2 nod-0123456789abcdef lines\n"), NotAParcel::OtherVersion);
        for what in [
            "",
            "line",
            "lines 1",
            "part",
            "part 1",
            "part 1 0/2",
            "part 1 3/2",
            "part x 1/2",
            "part 01 1/2",
            "part 1 +1/2",
        ] {
            assert_eq!(bad(&format!("sallyport/1 nod-0123456789abcdef {what}\n")), NotAParcel::Malformed);
        }
        assert_eq!(bad("sallyport/1 con-0123456789abcdef lines\n"), NotAParcel::Malformed);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"sallyport/1 nod-0123456789abcdef part ", &bytes[..]].concat());
        }
    }
}
