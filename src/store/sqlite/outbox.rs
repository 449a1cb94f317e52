//! Events on their way to the audit log, and the node's own row.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, json, to_json};
use crate::domain::event::Event;
use crate::domain::time::Timestamp;
use crate::store::Outgoing;

/// Adds events within the transaction of the change they tell of.
pub(super) fn append(db: &Connection, at: Timestamp, events: &[Event]) -> Result<(), Failure> {
    let mut insert = db.prepare_cached("INSERT INTO outbox (at, event) VALUES (?1, ?2)")?;
    for event in events {
        insert.execute(params![at.as_micros(), to_json(event)?])?;
    }
    Ok(())
}

pub(super) fn oldest(db: &Connection, after: i64, limit: u32) -> Result<Vec<Outgoing>, Failure> {
    let mut query =
        db.prepare_cached("SELECT id, at, event FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let rows = query.query_map(params![after, limit], outgoing)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn outgoing(row: &Row<'_>) -> rusqlite::Result<Outgoing> {
    Ok(Outgoing { id: row.get("id")?, at: instant(row, "at")?, event: json(row, "event")? })
}

pub(super) fn remove_up_to(db: &Connection, id: i64) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM outbox WHERE id <= ?1")?.execute([id])?;
    Ok(())
}

pub(super) fn raise(db: &Connection, above: i64) -> Result<Change<Option<i64>>, Failure> {
    // The highest id ever given out; no row before the first one.
    let given_out: Option<i64> = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let behind = given_out.unwrap_or(0);
    if behind >= above {
        return Ok(Change::None(None));
    }
    // None of the waiting ids is above `behind`, so the new ones are free.
    db.prepare_cached("UPDATE outbox SET id = id + ?1")?.execute([above])?;
    let highest = above.saturating_add(behind);
    let sql = match given_out {
        Some(_) => "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'outbox'",
        None => "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)",
    };
    db.prepare_cached(sql)?.execute([highest])?;
    Ok(Change::Noted(Some(behind), "store", behind.into()))
}

pub(super) fn high_water(db: &Connection, now: Timestamp) -> Result<Change<Timestamp>, Failure> {
    let latest = db
        .prepare_cached("UPDATE node SET high_water = max(high_water, ?1) WHERE id = 1 RETURNING high_water")?
        .query_row([now.as_micros()], |row| instant(row, "high_water"))?;
    Ok(Change::Made(latest))
}

/// Writes, to prove that writing works.
pub(super) fn probe(db: &Connection) -> Result<Change<()>, Failure> {
    db.prepare_cached("UPDATE node SET checks = checks + 1 WHERE id = 1")?.execute([])?;
    Ok(Change::Made(()))
}
