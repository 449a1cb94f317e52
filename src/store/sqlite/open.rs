//! Opening the store's file: its mode, its integrity, and the migrations that bring it up to date.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::failure::{explain, is_damage};

/// Marks the file as ours (`SLYP`), so that no other program's database is taken for a store.
const APPLICATION_ID: i64 = 0x534c_5950;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const OWNER_ONLY: u32 = 0o600;

/// In order; a migration is never edited once released.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_start", include_str!("migrations/0001_start.sql")),
    ("0002_ssh", include_str!("migrations/0002_ssh.sql")),
    ("0003_aws", include_str!("migrations/0003_aws.sql")),
    ("0004_leftovers", include_str!("migrations/0004_leftovers.sql")),
    ("0005_alerts", include_str!("migrations/0005_alerts.sql")),
    ("0006_running", include_str!("migrations/0006_running.sql")),
];

/// Why the store's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the directory of `{}` does not exist: create it, or configure another data directory", path.display())]
    NoDirectory { path: PathBuf },
    #[error("`{}` is not a regular file: move it away, or configure another data directory", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` cannot be written to: give this process's user the right to read and write it", path.display())]
    ReadOnly { path: PathBuf },
    #[error("`{}` cannot be created or opened: check its directory's owner and mode", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is damaged: keep a copy, and restore the last backup", path.display())]
    Damaged { path: PathBuf },
    #[error("`{}` is another program's database: configure another data directory", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "`{}` was written by a newer version (its schema is {found}, this program knows {known}): \
         run that version or a later one", path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("migration {name} of `{}` failed and was undone: run the former version, and report this", path.display())]
    Migration {
        path: PathBuf,
        name: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{detail}")]
    Sqlite {
        detail: String,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the store's threads cannot be started: check the limits on processes")]
    Thread {
        #[source]
        source: io::Error,
    },
}

/// Opens the connection that writes, creating or migrating the file.
pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    prepare_file(path)?;
    let mut connection = Connection::open(path).map_err(|error| sqlite_error(error, path))?;
    configure(&connection).map_err(|error| sqlite_error(error, path))?;
    check_integrity(&connection, path)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens a second connection that cannot write.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let connection = Connection::open(path)?;
        configure(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| sqlite_error(error, path))
}

/// A store that lives as long as its connection, for tests.
pub(super) fn in_memory() -> Result<Connection, OpenError> {
    let path = Path::new(":memory:");
    let mut connection = Connection::open_in_memory().map_err(|error| sqlite_error(error, path))?;
    configure(&connection).map_err(|error| sqlite_error(error, path))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn prepare_file(path: &Path) -> Result<(), OpenError> {
    let at = || path.to_owned();
    if !path.parent().is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir()) {
        return Err(OpenError::NoDirectory { path: at() });
    }
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(OpenError::NotAFile { path: at() }),
        // Asked of the mode and not only of the kernel, which lets the superuser write anything.
        Ok(metadata) if metadata.permissions().readonly() => return Err(OpenError::ReadOnly { path: at() }),
        _ => {}
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).mode(OWNER_ONLY).open(path);
    let file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly { path: at() }
        }
        _ => OpenError::File { path: at(), source },
    })?;
    // SQLite gives its `-wal` and `-shm` files the mode of the main one.
    file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))
        .map_err(|source| OpenError::File { path: at(), source })
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A grant or a revocation that was answered must survive a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn check_integrity(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict: Result<String, _> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(_) => Err(OpenError::Damaged { path: path.to_owned() }),
        Err(error) => Err(sqlite_error(error, path)),
    }
}

/// The schema that this program knows.
pub(super) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the schema up to date, each migration in a transaction of its own.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let known = known();
    let found = schema_version(connection, path)?;
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for (number, (name, sql)) in (1_i64..).zip(MIGRATIONS) {
        if number <= found {
            continue;
        }
        apply(connection, number, sql).map_err(|source| OpenError::Migration {
            path: path.to_owned(),
            name,
            source,
        })?;
    }
    Ok(())
}

/// The number of the last migration that was applied; creates the table that says so.
fn schema_version(connection: &mut Connection, path: &Path) -> Result<i64, OpenError> {
    let read = |connection: &mut Connection| -> rusqlite::Result<Option<i64>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let application: i64 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application != APPLICATION_ID {
            if application != 0 || tables != 0 {
                return Ok(None);
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.execute_batch("CREATE TABLE schema_version (version INTEGER PRIMARY KEY) STRICT")?;
        }
        let version =
            transaction
                .query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))?;
        transaction.commit()?;
        Ok(Some(version))
    };
    let version = read(connection).map_err(|error| sqlite_error(error, path))?;
    version.ok_or_else(|| OpenError::Foreign { path: path.to_owned() })
}

pub(super) fn apply(connection: &mut Connection, number: i64, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(sql)?;
    transaction.execute("INSERT INTO schema_version (version) VALUES (?1)", [number])?;
    transaction.commit()
}

fn sqlite_error(source: rusqlite::Error, path: &Path) -> OpenError {
    if is_damage(&source) {
        return OpenError::Damaged { path: path.to_owned() };
    }
    OpenError::Sqlite { detail: explain(&source, path), source }
}
