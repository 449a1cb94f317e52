//! A block: consecutive records of one recording, with what is needed to read their texts again.

use std::path::Path;

use rusqlite::{Connection, params};

use super::IndexError;
use super::extract::{Extractor, Piece};
use super::matching::kind_bit;
use super::places::{LineReader, Places, Standing, places};
use super::schema::{signed, unsigned};
use super::signature::Runs;
use super::text::fold;
use crate::audit::files::Place;
use crate::audit::line::parse_line;
use crate::audit::replay::{Content, Entry};
use crate::domain::time::Timestamp;

/// How much a block holds: bytes of text, bytes of the log, records.
const TEXT: usize = 32 << 10;
const SOURCE: u64 = 4 << 20;
const RECORDS: usize = 8 << 10;

/// A block that is being filled.
#[derive(Debug)]
pub(super) struct Block {
    first_n: u64,
    last_n: u64,
    first_at: Timestamp,
    last_at: Timestamp,
    kinds: i64,
    /// The extractor's before the block's first record.
    state: Option<Vec<u8>>,
    places: Places,
    runs: Runs,
    text: usize,
    source: u64,
    /// The key under which it is stored already.
    stored: Option<u64>,
}

/// A line of the log that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) n: u64,
    /// When it was recorded.
    pub(super) time: Timestamp,
    pub(super) place: Place,
    pub(super) length: u64,
}

impl Block {
    pub(super) fn new(n: u64, at: Timestamp, state: Option<Vec<u8>>) -> Self {
        Self {
            first_n: n,
            last_n: n,
            first_at: at,
            last_at: at,
            kinds: 0,
            state,
            places: Places::default(),
            runs: Runs::default(),
            text: 0,
            source: 0,
            stored: None,
        }
    }

    /// Takes a record's texts; whether the record belongs to the block.
    pub(super) fn take(&mut self, content: &Content, at: At, extractor: &mut Extractor) -> bool {
        let (runs, kinds, text) = (&mut self.runs, &mut self.kinds, &mut self.text);
        let counts = extractor.record(content, &mut |piece| add(&piece, runs, kinds, text));
        if counts {
            self.places.push(at.place);
            self.source = self.source.saturating_add(at.length);
            self.last_n = at.n;
            self.last_at = self.last_at.max(at.time);
            self.first_at = self.first_at.min(at.time);
        }
        counts
    }

    pub(super) fn is_full(&self) -> bool {
        self.text >= TEXT || self.source >= SOURCE || self.places.count() >= RECORDS
    }

    /// Writes the block down. One that is not `closed` is stored with the texts that are under way, and again when it
    /// has grown.
    pub(super) fn store(
        &mut self,
        connection: &Connection,
        recording: i64,
        extractor: &Extractor,
        closed: bool,
    ) -> rusqlite::Result<()> {
        if let Some(before) = self.stored.replace(self.last_n) {
            for sql in ["DELETE FROM block WHERE last_n = ?1", "DELETE FROM content WHERE block = ?1"] {
                connection.prepare_cached(sql)?.execute([signed(before)])?;
            }
        }
        let mut kinds = self.kinds;
        let signature = if closed {
            self.runs.sign(self.source)
        } else {
            let (mut runs, mut text) = (self.runs.clone(), 0);
            extractor.clone().rest(&mut |piece| add(&piece, &mut runs, &mut kinds, &mut text));
            runs.sign(self.source)
        };
        let (first_at, last_at) = (self.first_at.as_micros(), self.last_at.as_micros());
        let (key, first_n) = (signed(self.last_n), signed(self.first_n));
        connection
            .prepare_cached("INSERT INTO block VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![key, first_n, recording, first_at, last_at, kinds, !closed])?;
        connection.prepare_cached("INSERT INTO content VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            key,
            signature,
            self.places.as_bytes(),
            self.state
        ])?;
        Ok(())
    }

    /// The key of the block as it is stored.
    pub(super) fn key(&self) -> i64 {
        signed(self.last_n)
    }

    /// Reads a block that was stored before it was full, with the extractor as it was then.
    pub(super) fn load(
        connection: &Connection,
        key: i64,
        log: &Path,
    ) -> Result<(Self, Extractor), IndexError> {
        let sql = "SELECT first_n, first_at, last_at, places, state FROM block JOIN content ON block = last_n WHERE last_n = ?1";
        let (first_n, first_at, last_at, kept, state) = connection.query_row(sql, [key], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get::<_, Vec<u8>>(3)?,
                row.get::<_, Option<Vec<u8>>>(4)?,
            ))
        })?;
        let mut extractor = Extractor::restored(state.as_deref()).map_err(|_| IndexError::Stale)?;
        let mut block = Self::new(unsigned(first_n), Timestamp::from_micros(first_at), state);
        block.last_at = Timestamp::from_micros(last_at);
        let mut reader = LineReader::new(log);
        for place in places(&kept) {
            let Standing::Line(line) = reader.line(place)? else { return Err(IndexError::Stale) };
            let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
            let line = parse_line(line).map_err(|_| IndexError::Stale)?;
            let entry = Entry::parse(line.json).map_err(|_| IndexError::Stale)?;
            let at = At { n: line.n, time: entry.at, place, length };
            block.take(&entry.content, at, &mut extractor);
        }
        if block.key() != key {
            return Err(IndexError::Stale);
        }
        block.stored = Some(block.last_n);
        Ok((block, extractor))
    }
}

fn add(piece: &Piece, runs: &mut Runs, kinds: &mut i64, text: &mut usize) {
    runs.add(&fold(&piece.text));
    *kinds |= kind_bit(piece.kind);
    *text += piece.text.len();
}
