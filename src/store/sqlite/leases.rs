//! Leases of short-lived credentials.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, parsed};
use crate::domain::id::{LeaseId, SessionId};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::store::StoreError;

pub(super) fn create(db: &Connection, lease: &LeaseRecord) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO leases (id, session, target, access, handle, address, access_role, ends_at, state,
            changed_at, last_error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        lease.id.as_str(),
        lease.session.as_str(),
        lease.target.as_str(),
        lease.access.as_str(),
        lease.handle,
        lease.address,
        lease.access_role,
        lease.ends_at.as_micros(),
        lease.state.as_str(),
        lease.changed_at.as_micros(),
        lease.last_error,
    ])
    .map_err(|error| {
        Failure::from(error)
            .or_exists(|| format!("a credential lease of the session {}", lease.session))
            .or_not_found(|| format!("the session {}", lease.session))
    })?;
    Ok(Change::Made(()))
}

pub(super) fn step(db: &Connection, from: LeaseState, lease: &LeaseRecord) -> Result<Change<()>, Failure> {
    let changed = db
        .prepare_cached(
            "UPDATE leases SET handle = ?3, ends_at = ?4, state = ?5, changed_at = ?6, last_error = ?7
             WHERE id = ?1 AND state = ?2",
        )?
        .execute(params![
            lease.id.as_str(),
            from.as_str(),
            lease.handle,
            lease.ends_at.as_micros(),
            lease.state.as_str(),
            lease.changed_at.as_micros(),
            lease.last_error,
        ])?;
    if changed == 1 {
        return Ok(Change::Made(()));
    }
    let what = format!("the credential lease {}", lease.id);
    match by_id(db, &lease.id)? {
        Some(_) => Err(StoreError::Conflict { what }.into()),
        None => Err(StoreError::NotFound { what }.into()),
    }
}

pub(super) fn by_id(db: &Connection, id: &LeaseId) -> Result<Option<LeaseRecord>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM leases WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], lease).optional()?)
}

pub(super) fn open_of(db: &Connection, session: &SessionId) -> Result<Option<LeaseRecord>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM leases WHERE session = ?1 AND state <> 'released'")?;
    Ok(query.query_row([session.as_str()], lease).optional()?)
}

pub(super) fn open(db: &Connection) -> Result<Vec<LeaseRecord>, Failure> {
    let mut query =
        db.prepare_cached("SELECT * FROM leases WHERE state <> 'released' ORDER BY changed_at, rowid")?;
    let rows = query.query_map([], lease)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn lease(row: &Row<'_>) -> rusqlite::Result<LeaseRecord> {
    Ok(LeaseRecord {
        id: parsed(row, "id")?,
        session: parsed(row, "session")?,
        target: parsed(row, "target")?,
        access: parsed(row, "access")?,
        handle: row.get("handle")?,
        address: row.get("address")?,
        access_role: row.get("access_role")?,
        ends_at: instant(row, "ends_at")?,
        state: state(row)?,
        changed_at: instant(row, "changed_at")?,
        last_error: row.get("last_error")?,
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<LeaseState> {
    let text = row.get_ref("state")?.as_str()?;
    [LeaseState::Intended, LeaseState::Issued, LeaseState::Releasing, LeaseState::Released]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(FromSqlError::InvalidType))
        })
}
