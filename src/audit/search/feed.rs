//! Follows the log and keeps the index of it.
//!
//! A transaction takes in a stretch of the log together with the place where it ends, so that a crash at any moment leaves
//! an index of some beginning of the log. Blocks that are not full are stored too, and taken up again by reading
//! their records anew: what is in memory can be dropped whenever it is stored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memchr::memmem;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::block::{At, Block};
use super::extract::Extractor;
use super::scan::recording_of;
use super::schema::{self, Position, signed};
use super::{IndexError, SearchError};
use crate::audit::files::{Lines, Place, Read, oldest};
use crate::audit::line::{Parts, parse_line};
use crate::audit::record::Context;
use crate::audit::replay::{Content, Entry};
use crate::domain::time::Timestamp;

/// So many recordings are kept in memory from one stretch of the log to the next.
const KEPT: usize = 256;

/// What stops the feeding.
#[derive(Debug)]
pub(super) enum Stopped {
    Index(IndexError),
    Log(SearchError),
}

impl<E: Into<IndexError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Index(error.into())
    }
}

#[derive(Debug)]
pub(super) struct Feeder {
    connection: Connection,
    log: PathBuf,
    lines: Lines,
    position: Option<Position>,
    open: HashMap<String, Open>,
    reader: Reader,
}

/// A recording without an end.
#[derive(Debug)]
struct Open {
    recording: i64,
    extractor: Extractor,
    block: Option<Block>,
    touched: bool,
}

impl Feeder {
    pub(super) fn open(path: &Path, log: &Path) -> Result<Self, IndexError> {
        let (connection, position) = schema::open(path, log)?;
        let start = match &position {
            Some(position) => position.next,
            None => Place { file: oldest(log)?, offset: 0 },
        };
        let lines = Lines::follow_from(log, start);
        Ok(Self {
            connection,
            log: log.to_owned(),
            lines,
            position,
            open: HashMap::new(),
            reader: Reader::default(),
        })
    }

    /// Takes in about `most` bytes of the log, or what there is; whether there is more. After an error this is to be
    /// dropped: what was not committed is undone with it.
    pub(super) fn advance(&mut self, most: u64) -> Result<bool, Stopped> {
        let before = self.position.clone();
        // Not through `transaction`, which would borrow all of the feeder.
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let stretched = self.stretch(most);
        // What stands before a damaged line is as good as ever.
        let kept = match &stretched {
            Err(Stopped::Index(_)) => return stretched,
            _ if self.position == before => Ok(()),
            _ => self.settle(),
        };
        kept.and_then(|()| Ok(self.connection.execute_batch("COMMIT")?))?;
        stretched
    }

    fn stretch(&mut self, most: u64) -> Result<bool, Stopped> {
        let mut taken = 0_u64;
        while taken < most {
            let place = match self.lines.next()? {
                Read::Line(place) => place,
                Read::End(_) | Read::Unfinished(_) => return Ok(false),
                Read::Bad { what, .. } => {
                    return Err(Stopped::Log(SearchError::Damaged { what: what.to_string() }));
                }
            };
            let line = self.lines.line();
            let length = u64::try_from(line.len()).unwrap_or(u64::MAX).saturating_add(1);
            let line = parse_line(line).map_err(|error| damaged(&error))?;
            let hash = line.hash.to_vec();
            if let Some(recording) = recording_of(line.json)
                && let Some((time, content)) = self.reader.read(line.json).map_err(|error| damaged(&error))?
            {
                let at = At { n: line.n, time, place, length };
                let (name, mut open) = match self.open.remove_entry(recording) {
                    Some(known) => known,
                    None => {
                        (recording.to_owned(), load(&self.connection, &self.log, recording, line.json, time)?)
                    }
                };
                if open.take(&self.connection, &name, &content, at)? {
                    self.open.insert(name, open);
                }
            }
            taken = taken.saturating_add(length);
            self.position = Some(Position { last: place, hash, next: self.lines.place() });
        }
        Ok(true)
    }

    /// Stores what is under way, and how far the log has been read.
    fn settle(&mut self) -> Result<(), Stopped> {
        for (name, open) in self.open.iter_mut().filter(|(_, open)| open.touched) {
            let (key, state) = match &mut open.block {
                Some(block) => {
                    block.store(&self.connection, open.recording, &open.extractor, false)?;
                    (Some(block.key()), None)
                }
                None => (None, open.extractor.stored()),
            };
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO live VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![name, open.recording, key, state])?;
            open.touched = false;
        }
        if self.open.len() > KEPT {
            self.open.clear();
        }
        let Some(Position { last, hash, next }) = &self.position else { return Ok(()) };
        let sql = "INSERT OR REPLACE INTO position VALUES (1, ?1, ?2, ?3, ?4, ?5)";
        let (offset, next_offset) = (signed(last.offset), signed(next.offset));
        self.connection.prepare_cached(sql)?.execute(params![
            last.file,
            offset,
            next.file,
            next_offset,
            hash
        ])?;
        Ok(())
    }
}

impl Open {
    /// Takes a record; whether the recording goes on.
    fn take(
        &mut self,
        connection: &Connection,
        name: &str,
        content: &Content,
        at: At,
    ) -> Result<bool, Stopped> {
        // A full block is closed only now: the texts that were under way at its end belong to it till then.
        if let Some(mut full) = self.block.take_if(|block| block.is_full()) {
            full.store(connection, self.recording, &self.extractor, true)?;
        }
        let is_new = self.block.is_none();
        let state_before = if is_new { self.extractor.stored() } else { None };
        let mut block = self.block.take().unwrap_or_else(|| Block::new(at.n, at.time, state_before));
        let counts = block.take(content, at, &mut self.extractor);
        let ended = matches!(content, Content::Ended(_));
        if !counts && is_new {
            // Nothing of the block yet.
        } else if ended {
            block.store(connection, self.recording, &self.extractor, true)?;
        } else {
            self.block = Some(block);
        }
        if ended {
            connection.prepare_cached("DELETE FROM live WHERE connection = ?1")?.execute([name])?;
            connection
                .prepare_cached("UPDATE recording SET ended = ?2 WHERE id = ?1")?
                .execute(params![self.recording, at.time.as_micros()])?;
        }
        self.touched = true;
        Ok(!ended)
    }
}

/// A recording as it was stored, or a new one.
fn load(
    connection: &Connection,
    log: &Path,
    name: &str,
    json: &[u8],
    opened: Timestamp,
) -> Result<Open, Stopped> {
    let sql = "SELECT recording, block, state FROM live WHERE connection = ?1";
    let found = connection
        .prepare_cached(sql)?
        .query_row([name], |row| {
            Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<Vec<u8>>>(2)?))
        })
        .optional()?;
    let (recording, block, extractor) = match found {
        None => (add_recording(connection, json, opened)?, None, Extractor::default()),
        Some((recording, None, state)) => {
            let extractor = Extractor::restored(state.as_deref()).map_err(|_| IndexError::Stale)?;
            (recording, None, extractor)
        }
        Some((recording, Some(key), _)) => {
            let (block, extractor) = Block::load(connection, key, log)?;
            (recording, Some(block), extractor)
        }
    };
    Ok(Open { recording, extractor, block, touched: false })
}

fn add_recording(index: &Connection, json: &[u8], opened: Timestamp) -> Result<i64, Stopped> {
    let context: Context = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
    let Context { connection, session, principal, target, .. } = context;
    let person = "INSERT INTO person (principal, name) VALUES (?1, ?2)
            ON CONFLICT (principal) DO UPDATE SET name = excluded.name RETURNING id";
    let person: i64 = index
        .prepare_cached(person)?
        .query_row([principal.id.as_str(), principal.name.as_str()], |row| row.get(0))?;
    let place =
        "INSERT INTO target (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id";
    let place: i64 = index.prepare_cached(place)?.query_row([target.as_str()], |row| row.get(0))?;
    let sql =
        "INSERT INTO recording (connection, session, person, target, opened) VALUES (?1, ?2, ?3, ?4, ?5)";
    index.prepare_cached(sql)?.execute(params![
        connection.as_str(),
        session.as_str(),
        person,
        place,
        opened.as_micros()
    ])?;
    Ok(index.last_insert_rowid())
}

/// Reads records for the index, which needs little of them.
#[derive(Debug, Default)]
struct Reader {
    own: Vec<u8>,
}

impl Reader {
    /// When it was recorded and what it says, if there may be a text in that.
    fn read(&mut self, json: &[u8]) -> Result<Option<(Timestamp, Content)>, serde_json::Error> {
        let Some(Parts { at, kind, own }) = Parts::of(json) else {
            return Entry::parse(json).map(|entry| Some((entry.at, entry.content)));
        };
        match kind {
            "opened" | "ended" => return Ok(Some((at, Content::read(kind, json)?))),
            // Of a statement that went well nothing that can be searched, and these are half of what databases leave.
            "statement_end" if !has_text(own) => return Ok(None),
            _ => {}
        }
        self.own.clear();
        self.own.push(b'{');
        self.own.extend_from_slice(own);
        Ok(Some((at, Content::read(kind, &self.own)?)))
    }
}

fn has_text(statement_end: &[u8]) -> bool {
    [&br#","sqlstate":"#[..], br#","message":"#]
        .iter()
        .any(|field| memmem::find(statement_end, field).is_some())
}

fn damaged(what: &impl ToString) -> Stopped {
    Stopped::Log(super::scan::damaged(what))
}
