//! What was handed out of AWS roles.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, parsed};
use crate::domain::id::SessionId;
use crate::domain::role_session::{RoleSession, RoleState};
use crate::store::StoreError;

pub(super) fn create(db: &Connection, role: &RoleSession) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO role_sessions (session, target, access, role, region, endpoint, iam_endpoint, deny_as,
            identity, policy, expires_at, state, changed_at, last_error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        role.session.as_str(),
        role.target.as_str(),
        role.access.as_str(),
        role.role,
        role.region,
        role.endpoint,
        role.iam_endpoint,
        role.deny_as,
        role.identity,
        role.policy,
        role.expires_at.as_micros(),
        role.state.as_str(),
        role.changed_at.as_micros(),
        role.last_error,
    ])
    .map_err(|error| {
        Failure::from(error)
            .or_exists(|| format!("a role session of the session {}", role.session))
            .or_not_found(|| format!("the session {}", role.session))
    })?;
    Ok(Change::Made(()))
}

pub(super) fn step(db: &Connection, from: RoleState, role: &RoleSession) -> Result<Change<()>, Failure> {
    let changed = db
        .prepare_cached(
            "UPDATE role_sessions SET expires_at = ?3, state = ?4, changed_at = ?5, last_error = ?6
             WHERE session = ?1 AND state = ?2",
        )?
        .execute(params![
            role.session.as_str(),
            from.as_str(),
            role.expires_at.as_micros(),
            role.state.as_str(),
            role.changed_at.as_micros(),
            role.last_error,
        ])?;
    if changed == 1 {
        return Ok(Change::Made(()));
    }
    let what = format!("the role session of {}", role.session);
    match of_session(db, &role.session)? {
        Some(_) => Err(StoreError::Conflict { what }.into()),
        None => Err(StoreError::NotFound { what }.into()),
    }
}

pub(super) fn of_session(db: &Connection, session: &SessionId) -> Result<Option<RoleSession>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM role_sessions WHERE session = ?1")?;
    Ok(query.query_row([session.as_str()], role).optional()?)
}

pub(super) fn open(db: &Connection) -> Result<Vec<RoleSession>, Failure> {
    let mut query =
        db.prepare_cached("SELECT * FROM role_sessions WHERE state <> 'over' ORDER BY changed_at, rowid")?;
    let rows = query.query_map([], role)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn role(row: &Row<'_>) -> rusqlite::Result<RoleSession> {
    Ok(RoleSession {
        session: parsed(row, "session")?,
        target: parsed(row, "target")?,
        access: parsed(row, "access")?,
        role: row.get("role")?,
        region: row.get("region")?,
        endpoint: row.get("endpoint")?,
        iam_endpoint: row.get("iam_endpoint")?,
        deny_as: row.get("deny_as")?,
        identity: row.get("identity")?,
        policy: row.get("policy")?,
        expires_at: instant(row, "expires_at")?,
        state: state(row)?,
        changed_at: instant(row, "changed_at")?,
        last_error: row.get("last_error")?,
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<RoleState> {
    let text = row.get_ref("state")?.as_str()?;
    RoleState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(FromSqlError::InvalidType))
    })
}
