//! What went wrong inside `SQLite`, in words that name the file and say what to do.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::store::StoreError;

/// Why a step on the worker's thread failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The step itself said no.
    Store(StoreError),
    /// `SQLite` did.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Sql(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }
}

impl Failure {
    pub(super) fn into_store_error(self, path: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sql(error) => StoreError::Unavailable { detail: explain(&error, path) },
        }
    }

    /// Takes a violated uniqueness for "exists already"; other failures stay what they are.
    pub(super) fn or_exists(self, what: impl FnOnce() -> String) -> Self {
        match self {
            Self::Sql(rusqlite::Error::SqliteFailure(error, _))
                if matches!(
                    error.extended_code,
                    ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                ) =>
            {
                Self::Store(StoreError::Exists { what: what() })
            }
            other => other,
        }
    }

    /// Takes a reference to a row that is not there for "not found".
    pub(super) fn or_not_found(self, what: impl FnOnce() -> String) -> Self {
        match self {
            Self::Sql(rusqlite::Error::SqliteFailure(error, _))
                if error.extended_code == ffi::SQLITE_CONSTRAINT_FOREIGNKEY =>
            {
                Self::Store(StoreError::NotFound { what: what() })
            }
            other => other,
        }
    }
}

/// Whether the file's content, not its surroundings, is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What happened and what to do about it.
pub(super) fn explain(error: &rusqlite::Error, path: &Path) -> String {
    let file = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            format!("no space is left for `{file}`: free some, the store then goes on by itself")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!(
                "`{file}` cannot be written to: give this process's user the right to write it and its directory"
            )
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("`{file}` is damaged: stop the process, keep a copy, and restore the last backup")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("`{file}` is locked by another process: stop whatever else has it open")
        }
        Some(ErrorCode::CannotOpen) => {
            format!("`{file}` cannot be opened: check that its directory exists and may be written to")
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!("reading or writing `{file}` failed: check the disk ({error})")
        }
        Some(ErrorCode::ConstraintViolation) => {
            format!("`{file}` refused a change against its own rules ({error}): report this as a defect")
        }
        _ => format!("`{file}`: {error}"),
    }
}
