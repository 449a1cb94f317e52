//! What the janitor has found at a source.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, parsed};
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::store::StoreError;

/// The first time that it was found stays.
pub(super) fn keep(db: &Connection, leftover: &Leftover) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO leftovers (place, handle, kind, session, target, found_at, last_error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (place, handle) DO UPDATE SET kind = ?3, target = ?5, last_error = ?7",
    )?
    .execute(params![
        leftover.place,
        leftover.handle,
        leftover.kind.as_str(),
        leftover.session.as_str(),
        leftover.target.as_str(),
        leftover.found_at.as_micros(),
        leftover.last_error,
    ])?;
    Ok(Change::Made(()))
}

pub(super) fn end(db: &Connection, place: &str, handle: &str) -> Result<Change<()>, Failure> {
    let mut delete = db.prepare_cached("DELETE FROM leftovers WHERE place = ?1 AND handle = ?2")?;
    if delete.execute([place, handle])? == 0 {
        return Err(StoreError::NotFound { what: format!("`{handle}` that was left at {place}") }.into());
    }
    Ok(Change::Made(()))
}

pub(super) fn all(db: &Connection) -> Result<Vec<Leftover>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM leftovers ORDER BY found_at, rowid")?;
    let rows = query.query_map([], leftover)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn leftover(row: &Row<'_>) -> rusqlite::Result<Leftover> {
    Ok(Leftover {
        kind: kind(row)?,
        place: row.get("place")?,
        handle: row.get("handle")?,
        session: parsed(row, "session")?,
        target: parsed(row, "target")?,
        found_at: instant(row, "found_at")?,
        last_error: row.get("last_error")?,
    })
}

fn kind(row: &Row<'_>) -> rusqlite::Result<LeftoverKind> {
    let text = row.get_ref("kind")?.as_str()?;
    LeftoverKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(FromSqlError::InvalidType))
    })
}
