//! Search by the index: blocks whose signature may hold the text, newest first, read in the log.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{CachedStatement, Connection, Row, params, params_from_iter, types::Value};

use super::extract::Extractor;
use super::matching::{Hits, Origin, Wanted};
use super::places::{LineReader, Standing, places};
use super::schema::{signed, unsigned};
use super::signature::may_hold;
use super::{Found, IndexError, May};
use crate::audit::files::oldest;
use crate::audit::line::parse_line;
use crate::audit::record::Context;
use crate::audit::replay::Entry;

/// How much one search may look at, in bytes of records; a byte of a signature counts for a sixteenth. What is left is
/// looked at when the search goes on.
pub(super) const MOST: u64 = 256 << 20;
const SIGNATURE_BYTES: u64 = 16;

/// A block that the filters let through.
struct Candidate {
    last_n: i64,
    person: i64,
    target: i64,
    kinds: i64,
    open: bool,
}

/// Finds the newest hits of what whoever asks may read; looks at about `most` bytes.
pub(super) fn find(
    connection: &Connection,
    log: &Path,
    wanted: &Wanted,
    may: &mut May<'_>,
    most: u64,
) -> Result<Found, IndexError> {
    let (filter, values) = filter(wanted);
    let readable = readable(connection, wanted, may)?;
    let withheld = readable.values().any(|may| !may);
    let sql = format!(
        "SELECT b.last_n, r.person, r.target, b.kinds, b.open, b.first_n FROM block b CROSS JOIN recording r ON r.id = b.recording
         WHERE b.last_at >= ?1 AND b.first_at <= ?2 AND b.first_n < ?3 AND {filter} ORDER BY b.last_n DESC"
    );
    let mut statement = connection.prepare(&sql)?;
    let before = wanted.query.before.unwrap_or(u64::MAX);
    let bounds = [from(wanted).into(), to(wanted).into(), signed(before).into()];
    let mut rows = statement.query(params_from_iter(bounds.into_iter().chain(values)))?;
    let mut search = Search::new(connection, log, wanted)?;
    while let Some(row) = rows.next()? {
        let candidate = candidate(row)?;
        if search.hits.floor().is_some_and(|floor| floor > unsigned(candidate.last_n)) {
            search.hits.overflowed = true;
            break;
        }
        // What is newer than this was looked at before, but for blocks that reach across.
        let is_new = unsigned(candidate.last_n) < before;
        if is_new && search.spent >= most {
            let next = unsigned(candidate.last_n).saturating_add(1);
            let moved = search.moved;
            return Ok(Found { hits: search.hits.above(Some(next - 1)), next: Some(next), withheld, moved });
        }
        let is_readable = readable.get(&(candidate.person, candidate.target)).copied().unwrap_or(false);
        if is_readable && candidate.kinds & wanted.kinds != 0 {
            search.look_at(&candidate, is_new, may)?;
        }
    }
    let next = if search.hits.overflowed { search.hits.floor() } else { None };
    let moved = search.moved || (next.is_none() && search.begins_later(connection)?);
    Ok(Found { hits: search.hits.above(None), next, withheld, moved })
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate {
        last_n: row.get(0)?,
        person: row.get(1)?,
        target: row.get(2)?,
        kinds: row.get(3)?,
        open: row.get(4)?,
    })
}

fn from(wanted: &Wanted) -> i64 {
    wanted.query.from.map_or(i64::MIN, crate::domain::time::Timestamp::as_micros)
}

fn to(wanted: &Wanted) -> i64 {
    wanted.query.to.map_or(i64::MAX, crate::domain::time::Timestamp::as_micros)
}

/// The filter on recordings, with its values; they stand behind three others.
fn filter(wanted: &Wanted) -> (String, Vec<Value>) {
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition: &str, value: String| {
        values.push(value.into());
        conditions.push(condition.replace('?', &format!("?{}", values.len() + 3)));
    };
    let query = &wanted.query;
    if let Some(principal) = &query.principal {
        add("r.person IN (SELECT id FROM person WHERE name = ? OR principal = ?)", principal.clone());
    }
    if let Some(target) = &query.target {
        add("r.target = (SELECT id FROM target WHERE name = ?)", target.to_string());
    }
    if let Some(session) = &query.session {
        add("r.session = ?", session.to_string());
    }
    (conditions.join(" AND "), values)
}

/// Whose doings, and on which target, the filters let through, and whether they may be read.
fn readable(
    connection: &Connection,
    wanted: &Wanted,
    may: &mut May<'_>,
) -> Result<HashMap<(i64, i64), bool>, IndexError> {
    let (filter, values) = filter(wanted);
    let sql = format!(
        "SELECT DISTINCT r.person, r.target, p.principal, t.name
         FROM recording r JOIN person p ON p.id = r.person JOIN target t ON t.id = r.target
         WHERE coalesce(r.ended, ?1) >= ?1 AND r.opened <= ?2 AND ?3 >= 0 AND {filter}"
    );
    let mut statement = connection.prepare(&sql)?;
    let bounds = [from(wanted).into(), to(wanted).into(), Value::from(0)];
    let mut rows = statement.query(params_from_iter(bounds.into_iter().chain(values)))?;
    let mut readable = HashMap::new();
    while let Some(row) = rows.next()? {
        let (principal, target): (String, String) = (row.get(2)?, row.get(3)?);
        let principal = principal.parse().map_err(|_| IndexError::Stale)?;
        let target = target.parse().map_err(|_| IndexError::Stale)?;
        readable.insert((row.get(0)?, row.get(1)?), may(&principal, &target));
    }
    Ok(readable)
}

/// A search under way.
struct Search<'a> {
    wanted: &'a Wanted,
    hits: Hits<'a>,
    signatures: CachedStatement<'a>,
    contents: CachedStatement<'a>,
    reader: LineReader,
    spent: u64,
    /// The number of the log's oldest file.
    oldest: u32,
    /// A file of the log that was wanted is older.
    moved: bool,
}

impl<'a> Search<'a> {
    fn new(connection: &'a Connection, log: &Path, wanted: &'a Wanted) -> Result<Self, IndexError> {
        Ok(Self {
            wanted,
            hits: Hits::new(wanted),
            signatures: connection.prepare_cached("SELECT signature FROM content WHERE block = ?1")?,
            contents: connection.prepare_cached("SELECT places, state FROM content WHERE block = ?1")?,
            reader: LineReader::new(log),
            spent: 0,
            oldest: oldest(log)?,
            moved: false,
        })
    }

    fn look_at(&mut self, candidate: &Candidate, counts: bool, may: &mut May<'_>) -> Result<(), IndexError> {
        let (holds, length) = self.signatures.query_row([candidate.last_n], |row| {
            let signature = row.get_ref(0)?.as_blob()?;
            Ok((may_hold(signature, &self.wanted.runs), signature.len()))
        })?;
        let mut cost = u64::try_from(length).unwrap_or(0) / SIGNATURE_BYTES;
        if holds {
            cost = cost.saturating_add(self.read(candidate, may)?);
        }
        if counts {
            self.spent = self.spent.saturating_add(cost);
        }
        Ok(())
    }

    /// Whether what is looked for may be older than all that is there of the log.
    fn begins_later(&self, connection: &Connection) -> rusqlite::Result<bool> {
        if self.oldest <= 1 {
            return Ok(false);
        }
        let first: Option<i64> =
            connection.query_row("SELECT min(first_at) FROM block", [], |row| row.get(0))?;
        Ok(first.is_none_or(|first| from(self.wanted) < first))
    }

    /// Reads a block's records and looks for the text in them. Gives how many bytes they took.
    fn read(&mut self, candidate: &Candidate, may: &mut May<'_>) -> Result<u64, IndexError> {
        let (kept, state) = self.contents.query_row(params![candidate.last_n], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
        })?;
        let mut extractor = Extractor::restored(state.as_deref()).map_err(|_| IndexError::Stale)?;
        let mut context: Option<Context> = None;
        let (mut cost, mut last) = (0_u64, None);
        for place in places(&kept) {
            let line = match self.reader.line(place)? {
                Standing::Line(line) => line,
                Standing::NoFile if (1..self.oldest).contains(&place.file) => {
                    self.moved = true;
                    return Ok(cost);
                }
                Standing::Nothing | Standing::NoFile => return Err(IndexError::Stale),
            };
            cost = cost.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
            let line = parse_line(line).map_err(|_| IndexError::Stale)?;
            let entry = Entry::parse(line.json).map_err(|_| IndexError::Stale)?;
            let context = match &context {
                Some(context) if is_of(line.json, context) => context,
                // The log says whose it is, whatever the index believes.
                Some(_) => return Err(IndexError::Stale),
                None => {
                    let read: Context = serde_json::from_slice(line.json).map_err(|_| IndexError::Stale)?;
                    if !self.wanted.is_about(&read) || !may(&read.principal.id, &read.target) {
                        return Ok(cost);
                    }
                    &*context.insert(read)
                }
            };
            let origin = Origin { n: line.n, seq: entry.seq, at: entry.at, context };
            extractor.record(&entry.content, &mut |piece| self.hits.look_at(&piece, origin));
            last = Some((line.n, entry.seq, entry.at));
        }
        if let (true, Some((n, seq, at)), Some(context)) = (candidate.open, last, &context) {
            let origin = Origin { n, seq, at, context };
            extractor.rest(&mut |piece| self.hits.look_at(&piece, origin));
        }
        Ok(cost)
    }
}

/// Whether a record belongs to the recording.
fn is_of(json: &[u8], context: &Context) -> bool {
    super::scan::recording_of(json).is_some_and(|recording| recording == context.connection.as_str())
}
