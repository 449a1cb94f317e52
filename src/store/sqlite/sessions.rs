//! Sessions. One is inserted only together with the step that approves its request.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failure::Failure;
use super::row::{actor, instant, json, json_optional, parsed, to_json, to_json_optional};
use super::{Change, limit_of};
use crate::domain::id::{PrincipalId, SessionId};
use crate::domain::session::{Revocation, Session};
use crate::domain::time::Timestamp;
use crate::store::{Filter, Revoked, StoreError};

pub(super) fn insert(db: &Connection, session: &Session) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO sessions (id, request, principal, principal_name, principal_domain, target, access,
            reason, ticket, break_glass, approvals, granted_at, ends_at, revoked_at, revocation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        session.id.as_str(),
        session.request.as_str(),
        session.principal.id.as_str(),
        session.principal.name.as_str(),
        session.principal_domain.as_str(),
        session.target.as_str(),
        session.access.as_str(),
        session.reason,
        session.ticket,
        session.break_glass,
        to_json(&session.approvals)?,
        session.granted_at.as_micros(),
        session.ends_at.as_micros(),
        session.revoked.as_ref().map(|revocation| revocation.at.as_micros()),
        to_json_optional(session.revoked.as_ref())?,
    ])
    .map_err(|error| {
        Failure::from(error).or_exists(|| format!("a session for the request {}", session.request))
    })?;
    Ok(())
}

pub(super) fn by_id(db: &Connection, id: &SessionId) -> Result<Option<Session>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM sessions WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], session).optional()?)
}

pub(super) fn list(db: &Connection, filter: &Filter) -> Result<Vec<Session>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM sessions WHERE (?1 IS NULL OR principal = ?1) AND (?2 IS NULL OR id = ?2)
            AND (NOT ?3 OR (revoked_at IS NULL AND concluded_at IS NULL))
         ORDER BY granted_at DESC, rowid DESC LIMIT ?4",
    )?;
    let rows = query.query_map(
        params![
            filter.principal.as_ref().map(PrincipalId::as_str),
            filter.session.as_ref().map(SessionId::as_str),
            filter.open_only,
            limit_of(filter),
        ],
        session,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn revoke(
    db: &Connection,
    id: &SessionId,
    revocation: &Revocation,
) -> Result<Change<Revoked>, Failure> {
    let changed = db
        .prepare_cached(
            "UPDATE sessions SET revoked_at = ?2, revocation = ?3 WHERE id = ?1 AND revoked_at IS NULL",
        )?
        .execute(params![id.as_str(), revocation.at.as_micros(), to_json(revocation)?])?;
    let Some(session) = by_id(db, id)? else {
        return Err(StoreError::NotFound { what: format!("the session {id}") }.into());
    };
    Ok(if changed == 1 {
        Change::Made(Revoked::Now(session))
    } else {
        Change::None(Revoked::Before(session))
    })
}

pub(super) fn conclude(db: &Connection, id: &SessionId, at: Timestamp) -> Result<Change<()>, Failure> {
    let changed = db
        .prepare_cached(
            "UPDATE sessions SET concluded_at = ?2
             WHERE id = ?1 AND concluded_at IS NULL AND revoked_at IS NULL AND ends_at <= ?2",
        )?
        .execute(params![id.as_str(), at.as_micros()])?;
    Ok(if changed == 1 { Change::Made(()) } else { Change::None(()) })
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: parsed(row, "id")?,
        request: parsed(row, "request")?,
        principal: actor(row, "principal", "principal_name")?,
        principal_domain: parsed(row, "principal_domain")?,
        target: parsed(row, "target")?,
        access: parsed(row, "access")?,
        reason: row.get("reason")?,
        ticket: row.get("ticket")?,
        break_glass: row.get("break_glass")?,
        approvals: json(row, "approvals")?,
        granted_at: instant(row, "granted_at")?,
        ends_at: instant(row, "ends_at")?,
        revoked: json_optional(row, "revocation")?,
    })
}
