//! Client connections and their ends.

use rusqlite::{Connection as Database, OptionalExtension, Row, params};

use super::failure::Failure;
use super::row::{actor, instant, json_optional, parsed, to_json, to_json_optional};
use super::{Change, limit_of};
use crate::domain::connection::{Connection, Ended};
use crate::domain::id::{ConnectionId, NodeId, PrincipalId, SessionId};
use crate::store::{Filter, StoreError};

pub(super) fn open(db: &Database, connection: &Connection) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO connections (id, session, principal, principal_name, target, node, client, opened_at, ended)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        connection.id.as_str(),
        connection.session.as_str(),
        connection.principal.id.as_str(),
        connection.principal.name.as_str(),
        connection.target.as_str(),
        connection.node.as_str(),
        connection.client.to_string(),
        connection.opened_at.as_micros(),
        to_json_optional(connection.ended.as_ref())?,
    ])
    .map_err(|error| {
        Failure::from(error)
            .or_exists(|| format!("the connection {}", connection.id))
            .or_not_found(|| format!("the session {}", connection.session))
    })?;
    Ok(Change::Made(()))
}

pub(super) fn close(db: &Database, id: &ConnectionId, ended: &Ended) -> Result<Change<()>, Failure> {
    let changed = db
        .prepare_cached("UPDATE connections SET ended = ?2 WHERE id = ?1 AND ended IS NULL")?
        .execute(params![id.as_str(), to_json(ended)?])?;
    if changed == 1 {
        return Ok(Change::Made(()));
    }
    match by_id(db, id)? {
        Some(_) => Ok(Change::None(())),
        None => Err(StoreError::NotFound { what: format!("the connection {id}") }.into()),
    }
}

pub(super) fn by_id(db: &Database, id: &ConnectionId) -> Result<Option<Connection>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM connections WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], connection).optional()?)
}

pub(super) fn list(db: &Database, filter: &Filter) -> Result<Vec<Connection>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM connections WHERE (?1 IS NULL OR principal = ?1) AND (?2 IS NULL OR session = ?2)
            AND (NOT ?3 OR ended IS NULL)
         ORDER BY opened_at DESC, rowid DESC LIMIT ?4",
    )?;
    let rows = query.query_map(
        params![
            filter.principal.as_ref().map(PrincipalId::as_str),
            filter.session.as_ref().map(SessionId::as_str),
            filter.open_only,
            limit_of(filter),
        ],
        connection,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn open_of(db: &Database, node: &NodeId) -> Result<Vec<Connection>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM connections WHERE node = ?1 AND ended IS NULL ORDER BY opened_at DESC, rowid DESC",
    )?;
    let rows = query.query_map([node.as_str()], connection)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn connection(row: &Row<'_>) -> rusqlite::Result<Connection> {
    Ok(Connection {
        id: parsed(row, "id")?,
        session: parsed(row, "session")?,
        principal: actor(row, "principal", "principal_name")?,
        target: parsed(row, "target")?,
        node: parsed(row, "node")?,
        client: parsed(row, "client")?,
        opened_at: instant(row, "opened_at")?,
        ended: json_optional(row, "ended")?,
    })
}
