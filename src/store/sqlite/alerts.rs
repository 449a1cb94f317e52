//! Events that somebody must be told of, until they have been.

use rusqlite::{Connection, params};

use super::Change;
use super::failure::Failure;
use super::outbox::outgoing;
use super::row::to_json;
use crate::domain::event::Event;
use crate::domain::time::Timestamp;
use crate::store::Outgoing;

/// Adds those of `events` within the transaction of the change they tell of.
pub(super) fn append(db: &Connection, at: Timestamp, events: &[Event]) -> Result<(), Failure> {
    for event in events.iter().filter(|event| event.is_tier_one()) {
        db.prepare_cached("INSERT INTO alerts (at, event) VALUES (?1, ?2)")?
            .execute(params![at.as_micros(), to_json(event)?])?;
    }
    Ok(())
}

pub(super) fn oldest(db: &Connection, after: i64, limit: u32) -> Result<Vec<Outgoing>, Failure> {
    let mut query =
        db.prepare_cached("SELECT id, at, event FROM alerts WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let rows = query.query_map(params![after, limit], outgoing)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn count(db: &Connection) -> Result<u64, Failure> {
    let mut query = db.prepare_cached("SELECT count(*) FROM alerts")?;
    let count: i64 = query.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(super) fn remove(db: &Connection, id: i64) -> Result<Change<()>, Failure> {
    db.prepare_cached("DELETE FROM alerts WHERE id = ?1")?.execute([id])?;
    Ok(Change::Made(()))
}
