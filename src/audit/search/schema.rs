//! The index's file: an SQLite database that is made anew whenever it is not what it should be.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::IndexError;
use crate::audit::files::Place;
use crate::audit::line::parse_line;

use super::places::{LineReader, Standing};

/// Marks the file as ours (`SLYX`).
const APPLICATION_ID: i64 = 0x534c_5958;
/// Grows with every change of what is stored or of how texts are taken from records.
const VERSION: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
    -- How far the log has been read: the record that was last, and where the next would begin.
    CREATE TABLE position (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        file INTEGER NOT NULL, offset INTEGER NOT NULL, next_file INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE person (id INTEGER PRIMARY KEY, principal TEXT NOT NULL UNIQUE, name TEXT NOT NULL) STRICT;
    CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE recording (
        id INTEGER PRIMARY KEY, connection TEXT NOT NULL, session TEXT NOT NULL, person INTEGER NOT NULL,
        target INTEGER NOT NULL, opened INTEGER NOT NULL, ended INTEGER
    ) STRICT;
    -- Recordings without an end: the block that is under way, or the state behind the last one.
    CREATE TABLE live (
        connection TEXT PRIMARY KEY, recording INTEGER NOT NULL, block INTEGER, state BLOB
    ) STRICT, WITHOUT ROWID;
    -- A block of a recording: from one record of the log to another. Its key is its last record, so newest is last.
    CREATE TABLE block (
        last_n INTEGER PRIMARY KEY, first_n INTEGER NOT NULL, recording INTEGER NOT NULL,
        first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, kinds INTEGER NOT NULL, open INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE content (
        block INTEGER PRIMARY KEY, signature BLOB NOT NULL, places BLOB NOT NULL, state BLOB
    ) STRICT;
";

/// How far the log has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The last record that was read, and the log's chain behind it.
    pub(super) last: Place,
    pub(super) hash: Vec<u8>,
    pub(super) next: Place,
}

/// Opens the index of the log in `log`. One that is damaged, of another version, or of another log is thrown away.
pub(super) fn open(path: &Path, log: &Path) -> Result<(Connection, Option<Position>), IndexError> {
    match usable(path, log) {
        Ok(found) => Ok(found),
        Err(error) if is_useless(&error) => {
            tracing::warn!(path = %path.display(), %error, "the search index is made anew");
            discard(path)?;
            usable(path, log)
        }
        Err(error) => Err(error),
    }
}

/// Whether to throw the index away is a cure.
pub(super) fn is_useless(error: &IndexError) -> bool {
    match error {
        IndexError::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        IndexError::Stale
        // A table or a column that is not there, or holds something else.
        | IndexError::Sqlite(
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..),
        ) => true,
        _ => false,
    }
}

/// Removes the file and what SQLite has beside it.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    // WAL wants to write beside the file, but none is made where there is none.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn usable(path: &Path, log: &Path) -> Result<(Connection, Option<Position>), IndexError> {
    // Readable by us alone, as the log is; SQLite gives its other files the mode of this one.
    drop(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?);
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a power cut takes from the end is read again from the log.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
        (APPLICATION_ID, VERSION) => {}
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => create(&connection)?,
        _ => return Err(IndexError::Stale),
    }
    let position = position(&connection)?;
    if position.as_ref().is_some_and(|position| !is_of(position, log)) {
        return Err(IndexError::Stale);
    }
    Ok((connection, position))
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn position(connection: &Connection) -> rusqlite::Result<Option<Position>> {
    let sql = "SELECT file, offset, hash, next_file, next_offset FROM position";
    connection
        .query_row(sql, [], |row| {
            Ok(Position {
                last: Place { file: row.get(0)?, offset: unsigned(row.get(1)?) },
                hash: row.get(2)?,
                next: Place { file: row.get(3)?, offset: unsigned(row.get(4)?) },
            })
        })
        .optional()
}

/// Whether the log still holds the record that was read last, with everything before it: the chain says so.
fn is_of(position: &Position, log: &Path) -> bool {
    let mut reader = LineReader::new(log);
    let Ok(Standing::Line(line)) = reader.line(position.last) else { return false };
    parse_line(line).is_ok_and(|line| line.hash.as_slice() == position.hash)
}

/// Numbers as SQLite has them. None of the index's grows beyond.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
