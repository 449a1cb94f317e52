//! Search in the log alone: everything is read once. Slower than an index, and it takes nothing on trust.

use std::collections::HashMap;
use std::path::Path;

use super::extract::{Extractor, Piece};
use super::matching::{Hits, Origin, Wanted};
use super::{Found, Query, SearchError};
use crate::audit::base;
use crate::audit::chain::{Log, record_hash};
use crate::audit::files::{Lines, Read};
use crate::audit::line::{Envelope, Line, parse_line};
use crate::audit::record::Context;
use crate::audit::replay::{Content, Entry};
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// A recording that has not ended yet.
struct Open {
    context: Context,
    extractor: Extractor,
    /// Its last record that matters to texts.
    last: (u64, u64, Timestamp),
}

/// Finds the newest hits in the log in `directory`, which whoever asks may read, from its oldest file that is there. Memory is bounded by the hits and
/// by the recordings that are open at the same time.
pub fn scan(directory: &Path, query: Query) -> Result<Found, SearchError> {
    let wanted = Wanted::new(query)?;
    let mut hits = Hits::new(&wanted);
    let mut open: HashMap<String, Open> = HashMap::new();
    let unreadable = |source| SearchError::Read { path: directory.to_owned(), source };
    let mut lines = Lines::open_at_oldest(directory).map_err(unreadable)?;
    let begins_later = lines.place().file > 1;
    let mut first: Option<Timestamp> = None;
    let mut before = Before::default();
    loop {
        let read = lines.next().map_err(unreadable)?;
        match read {
            Read::Line(_) => {}
            Read::End(_) | Read::Unfinished(_) => break,
            Read::Bad { what, .. } => return Err(damaged(&what)),
        }
        let line = parse_line(lines.line()).map_err(|error| damaged(&error))?;
        before.check(directory, &line)?;
        if let Some(recording) = recording_of(line.json) {
            let at = take(&mut open, recording, line.n, line.json, &mut hits)?;
            first.get_or_insert(at);
        }
    }
    for Open { context, mut extractor, last: (n, seq, at) } in open.into_values() {
        let origin = Origin { n, seq, at, context: &context };
        extractor.rest(&mut |piece| hits.look_at(&piece, origin));
    }
    let next = if hits.overflowed { hits.floor() } else { None };
    let from = wanted.query.from;
    let may_be_older = first.is_none_or(|first| from.is_none_or(|from| from < first));
    let moved = next.is_none() && begins_later && may_be_older;
    Ok(Found { hits: hits.above(None), next, withheld: false, moved })
}

/// What the next line must follow from.
#[derive(Debug, Default)]
struct Before {
    next: Option<u64>,
    /// None where files before the first that is here were moved away: then the numbers alone can be looked at, and
    /// the answer says that it does not begin at the beginning.
    log: Option<Log>,
}

impl Before {
    fn check(&mut self, directory: &Path, line: &Line<'_>) -> Result<(), SearchError> {
        let hash = record_hash(line.json);
        if self.next.is_none() {
            let node = Envelope::parse(line.json).map_err(|error| damaged(&error))?.node;
            let node = node.parse::<NodeId>().map_err(|error| damaged(&error))?;
            let unreadable = |source| SearchError::Read { path: directory.to_owned(), source };
            let (before, first_file) = base::read(directory, &node).map_err(unreadable)?;
            let is_moved = first_file == 1 && line.n > 0;
            self.next = Some(if is_moved { line.n } else { before.log.size() });
            self.log = (!is_moved).then_some(before.log);
        }
        let follows = self.log.as_ref().is_none_or(|log| log.after(&hash) == line.hash);
        if self.next != Some(line.n) || !follows {
            let what = format!("record {} is not what was written: run `sallyport audit verify`", line.n);
            return Err(damaged(&what));
        }
        self.next = line.n.checked_add(1);
        if let Some(log) = &mut self.log {
            log.push(&hash);
        }
        Ok(())
    }
}

/// Takes a record in, and tells when it was made.
fn take(
    open: &mut HashMap<String, Open>,
    recording: &str,
    n: u64,
    json: &[u8],
    hits: &mut Hits<'_>,
) -> Result<Timestamp, SearchError> {
    let entry = Entry::parse(json).map_err(|error| damaged(&error))?;
    let last = (n, entry.seq, entry.at);
    if !open.contains_key(recording) {
        let context: Context = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
        open.insert(recording.to_owned(), Open { context, extractor: Extractor::default(), last });
    }
    let Some(one) = open.get_mut(recording) else { return Ok(entry.at) };
    if hits.wants(&one.context) {
        let origin = Origin { n, seq: entry.seq, at: entry.at, context: &one.context };
        if one.extractor.record(&entry.content, &mut |piece: Piece| hits.look_at(&piece, origin)) {
            one.last = last;
        }
    }
    if matches!(entry.content, Content::Ended(_)) {
        open.remove(recording);
    }
    Ok(entry.at)
}

/// The recording that a record belongs to, if it is one of a connection.
pub(super) fn recording_of(json: &[u8]) -> Option<&str> {
    let rest = json.strip_prefix(br#"{"v":1,"rec":""#).filter(|rest| rest.starts_with(b"con-"))?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

pub(super) fn damaged(what: &impl ToString) -> SearchError {
    SearchError::Damaged { what: what.to_string() }
}
