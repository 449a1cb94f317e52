//! Requests, their approvals, and the steps between their states.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failure::Failure;
use super::row::{actor, instant, json, parsed, to_json};
use super::{Change, limit_of, sessions};
use crate::domain::id::{PrincipalId, RequestId, SessionId};
use crate::domain::request::{AskHash, Request, RequestState};
use crate::domain::session::Session;
use crate::store::{Filter, StoreError};

const SELECT: &str = "SELECT requests.*,
    (SELECT json_group_array(json(body) ORDER BY number) FROM approvals WHERE request = requests.id)
        AS approvals
    FROM requests";

pub(super) fn create(
    db: &Connection,
    request: &Request,
    session: Option<&Session>,
) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO requests (id, requester, requester_name, requester_domain, ask, ask_hash,
            created_at, lapses_at, state, verdict, session, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        request.id.as_str(),
        request.requester.id.as_str(),
        request.requester.name.as_str(),
        request.requester_domain.as_str(),
        to_json(&request.ask)?,
        request.ask_hash.0,
        request.created_at.as_micros(),
        request.lapses_at.as_micros(),
        request.state.as_str(),
        to_json(&request.state)?,
        session_id(&request.state),
        version(request.version),
    ])
    .map_err(|error| Failure::from(error).or_exists(|| format!("the request {}", request.id)))?;
    add_approvals(db, request)?;
    if let Some(session) = session {
        sessions::insert(db, session)?;
    }
    Ok(Change::Made(()))
}

/// Moves the request on, if it still stands where the caller saw it.
pub(super) fn step(
    db: &Connection,
    from_version: u64,
    request: &Request,
    session: Option<&Session>,
) -> Result<Change<()>, Failure> {
    let conflict = || StoreError::Conflict { what: format!("the request {}", request.id) };
    let Some(stored) = by_id(db, &request.id)? else {
        return Err(StoreError::NotFound { what: format!("the request {}", request.id) }.into());
    };
    if stored.version != from_version {
        return Err(conflict().into());
    }
    if stored == *request && session.is_none() {
        // The same person approved once more: nothing changes, so nothing is recorded.
        return Ok(Change::None(()));
    }
    let changed = db
        .prepare_cached(
            "UPDATE requests SET ask = ?3, ask_hash = ?4, lapses_at = ?5, state = ?6, verdict = ?7,
                session = ?8, version = ?9
             WHERE id = ?1 AND version = ?2",
        )?
        .execute(params![
            request.id.as_str(),
            version(from_version),
            to_json(&request.ask)?,
            request.ask_hash.0,
            request.lapses_at.as_micros(),
            request.state.as_str(),
            to_json(&request.state)?,
            session_id(&request.state),
            version(request.version),
        ])?;
    if changed != 1 {
        return Err(conflict().into());
    }
    add_approvals(db, request)?;
    if let Some(session) = session {
        sessions::insert(db, session)?;
    }
    Ok(Change::Made(()))
}

/// Adds the approvals that are not stored yet; those that are stay as they are.
fn add_approvals(db: &Connection, request: &Request) -> Result<(), Failure> {
    let mut insert = db.prepare_cached(
        "INSERT INTO approvals (request, requester, approver, ask_hash, body) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (request, approver, ask_hash) DO NOTHING",
    )?;
    for approval in &request.approvals {
        insert.execute(params![
            request.id.as_str(),
            request.requester.id.as_str(),
            approval.by.id.as_str(),
            approval.ask.0,
            to_json(approval)?,
        ])?;
    }
    Ok(())
}

pub(super) fn by_id(db: &Connection, id: &RequestId) -> Result<Option<Request>, Failure> {
    let mut query = db.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    Ok(query.query_row([id.as_str()], request).optional()?)
}

pub(super) fn list(db: &Connection, filter: &Filter) -> Result<Vec<Request>, Failure> {
    let mut query = db.prepare_cached(&format!(
        "{SELECT} WHERE (?1 IS NULL OR requester = ?1) AND (?2 IS NULL OR session = ?2)
            AND (NOT ?3 OR state = 'pending')
         ORDER BY created_at DESC, rowid DESC LIMIT ?4"
    ))?;
    let rows = query.query_map(
        params![
            filter.principal.as_ref().map(PrincipalId::as_str),
            filter.session.as_ref().map(SessionId::as_str),
            filter.open_only,
            limit_of(filter),
        ],
        request,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    let stored: i64 = row.get("version")?;
    Ok(Request {
        id: parsed(row, "id")?,
        requester: actor(row, "requester", "requester_name")?,
        requester_domain: parsed(row, "requester_domain")?,
        ask: json(row, "ask")?,
        ask_hash: AskHash(row.get("ask_hash")?),
        created_at: instant(row, "created_at")?,
        lapses_at: instant(row, "lapses_at")?,
        approvals: json(row, "approvals")?,
        state: json(row, "verdict")?,
        version: u64::try_from(stored).unwrap_or(0),
    })
}

fn session_id(state: &RequestState) -> Option<&str> {
    match state {
        RequestState::Approved { session, .. } => Some(SessionId::as_str(session)),
        _ => None,
    }
}

fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
