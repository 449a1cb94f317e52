//! Follows the log and keeps the index of it.
//!
//! A transaction takes in a stretch of the log together with the place where it ends, so that a crash at any moment leaves
//! an index of some beginning of the log. Blocks that are not full are stored too, and taken up again by reading
//! their records anew: what is in memory can be dropped whenever it is stored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::block::{At, Block};
use super::extract::Extractor;
use super::scan::recording_of;
use super::schema::{self, Position, signed};
use super::{IndexError, SearchError};
use crate::audit::files::{Lines, Place, Read, oldest};
use crate::audit::line::parse_line;
use crate::audit::record::Context;
use crate::audit::replay::{Content, Entry};

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
        Ok(Self { connection, log: log.to_owned(), lines, position, open: HashMap::new() })
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
            let (hash, at) = (line.hash.to_vec(), At { n: line.n, place, length });
            if let Some(recording) = recording_of(line.json).map(str::to_owned) {
                let entry = Entry::parse(line.json).map_err(|error| damaged(&error))?;
                self.take(recording, &entry, at)?;
            }
            taken = taken.saturating_add(length);
            self.position = Some(Position { last: place, hash, next: self.lines.place() });
        }
        Ok(true)
    }

    fn take(&mut self, name: String, entry: &Entry, at: At) -> Result<(), Stopped> {
        let mut open = match self.open.remove(&name) {
            Some(open) => open,
            None => self.load(&name, entry)?,
        };
        // A full block is closed only now: the texts that were under way at its end belong to it till then.
        if let Some(mut full) = open.block.take_if(|block| block.is_full()) {
            full.store(&self.connection, open.recording, &open.extractor, true)?;
        }
        let is_new = open.block.is_none();
        let state_before = if is_new { open.extractor.stored() } else { None };
        let mut block = open.block.take().unwrap_or_else(|| Block::new(at.n, entry.at, state_before));
        let counts = block.take(entry, at, &mut open.extractor);
        let ended = matches!(entry.content, Content::Ended(_));
        if !counts && is_new {
            // Nothing of the block yet.
        } else if ended {
            block.store(&self.connection, open.recording, &open.extractor, true)?;
        } else {
            open.block = Some(block);
        }
        if ended {
            self.connection.prepare_cached("DELETE FROM live WHERE connection = ?1")?.execute([&name])?;
            self.connection
                .prepare_cached("UPDATE recording SET ended = ?2 WHERE id = ?1")?
                .execute([open.recording, entry.at.as_micros()])?;
        } else {
            open.touched = true;
            self.open.insert(name, open);
        }
        Ok(())
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

    /// A recording as it was stored, or a new one.
    fn load(&self, name: &str, entry: &Entry) -> Result<Open, Stopped> {
        let sql = "SELECT recording, block, state FROM live WHERE connection = ?1";
        let found = self
            .connection
            .prepare_cached(sql)?
            .query_row([name], |row| {
                Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<Vec<u8>>>(2)?))
            })
            .optional()?;
        let (recording, block, extractor) = match found {
            None => (self.add_recording(entry)?, None, Extractor::default()),
            Some((recording, None, state)) => {
                let extractor = Extractor::restored(state.as_deref()).map_err(|_| IndexError::Stale)?;
                (recording, None, extractor)
            }
            Some((recording, Some(key), _)) => {
                let (block, extractor) = Block::load(&self.connection, key, &self.log)?;
                (recording, Some(block), extractor)
            }
        };
        Ok(Open { recording, extractor, block, touched: false })
    }

    fn add_recording(&self, entry: &Entry) -> Result<i64, Stopped> {
        let context: Context = serde_json::from_slice(&entry.json).map_err(|error| damaged(&error))?;
        let Context { connection, session, principal, target, .. } = context;
        let person = "INSERT INTO person (principal, name) VALUES (?1, ?2)
            ON CONFLICT (principal) DO UPDATE SET name = excluded.name RETURNING id";
        let person: i64 = self
            .connection
            .prepare_cached(person)?
            .query_row([principal.id.as_str(), principal.name.as_str()], |row| row.get(0))?;
        let place =
            "INSERT INTO target (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id";
        let place: i64 =
            self.connection.prepare_cached(place)?.query_row([target.as_str()], |row| row.get(0))?;
        let sql =
            "INSERT INTO recording (connection, session, person, target, opened) VALUES (?1, ?2, ?3, ?4, ?5)";
        let opened = entry.at.as_micros();
        self.connection.prepare_cached(sql)?.execute(params![
            connection.as_str(),
            session.as_str(),
            person,
            place,
            opened
        ])?;
        Ok(self.connection.last_insert_rowid())
    }
}

fn damaged(what: &impl ToString) -> Stopped {
    Stopped::Log(super::scan::damaged(what))
}
