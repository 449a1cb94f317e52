//! Which of the log's files can be passed over by who knows when what they look for was written.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::base::first_file;
use super::files::{Lines, Place, Read, newest};
use super::line::{Envelope, parse_line};
use crate::domain::time::Timestamp;

/// A record's instant is that of what it tells of, which is somewhat before it is written.
const SLACK: Duration = Duration::from_mins(2);

/// The file in which reading begins for who looks for what was written at `instant` or later: the last one whose first
/// record is well before it. What cannot be read there is for the reading to find.
pub(super) fn file_before(directory: &Path, instant: Timestamp) -> io::Result<u32> {
    let first = first_file(directory);
    let Some(newest) = newest(directory)? else { return Ok(first) };
    // The first file may be all that there is of what is looked for.
    let (mut before, mut after) = (first, newest.saturating_add(1));
    // A file that says where the log begins may say anything.
    while after.saturating_sub(before) > 1 {
        let middle = before.midpoint(after);
        match begins_at(directory, middle) {
            Some(at) if instant.since(at) >= SLACK => before = middle,
            _ => after = middle,
        }
    }
    Ok(before)
}

/// When the first record of a file is of; `None` where that cannot be read, whatever the reason.
fn begins_at(directory: &Path, file: u32) -> Option<Timestamp> {
    let mut lines = Lines::follow_from(directory, Place { file, offset: 0 });
    let Ok(Read::Line(_)) = lines.next() else { return None };
    Envelope::parse(parse_line(lines.line()).ok()?.json).ok().map(|envelope| envelope.at)
}
