//! The blocklist.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{
    actor, instant, instant_optional, json, json_optional, parsed, parsed_optional, to_json, to_json_optional,
};
use crate::domain::block::{Block, Lift};
use crate::domain::id::{BlockId, PrincipalId};
use crate::domain::name::TargetName;
use crate::domain::time::Timestamp;
use crate::store::{Filter, StoreError};

pub(super) fn add(db: &Connection, block: &Block) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO blocks (id, principal, principal_name, target, why, by, at, until, lifted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        block.id.as_str(),
        block.principal.id.as_str(),
        block.principal.name.as_str(),
        block.target.as_ref().map(TargetName::as_str),
        block.why,
        to_json(&block.by)?,
        block.at.as_micros(),
        block.until.map(Timestamp::as_micros),
        to_json_optional(block.lifted.as_ref())?,
    ])
    .map_err(|error| Failure::from(error).or_exists(|| format!("the block {}", block.id)))?;
    Ok(Change::Made(()))
}

/// The first lift stays; a second one changes and records nothing.
pub(super) fn lift(db: &Connection, id: &BlockId, lift: &Lift) -> Result<Change<Block>, Failure> {
    let changed = db
        .prepare_cached("UPDATE blocks SET lifted = ?2 WHERE id = ?1 AND lifted IS NULL")?
        .execute(params![id.as_str(), to_json(lift)?])?;
    let Some(block) = by_id(db, id)? else {
        return Err(StoreError::NotFound { what: format!("the block {id}") }.into());
    };
    Ok(if changed == 1 { Change::Made(block) } else { Change::None(block) })
}

pub(super) fn by_id(db: &Connection, id: &BlockId) -> Result<Option<Block>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM blocks WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], block).optional()?)
}

/// Without a limit in the filter there is none: a block that is missed lets somebody in.
pub(super) fn list(db: &Connection, filter: &Filter) -> Result<Vec<Block>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM blocks WHERE (?1 IS NULL OR principal = ?1) AND (NOT ?2 OR lifted IS NULL)
         ORDER BY at DESC, rowid DESC LIMIT ?3",
    )?;
    let rows = query.query_map(
        params![
            filter.principal.as_ref().map(PrincipalId::as_str),
            filter.open_only,
            filter.limit.map_or(-1, i64::from),
        ],
        block,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn block(row: &Row<'_>) -> rusqlite::Result<Block> {
    Ok(Block {
        id: parsed(row, "id")?,
        principal: actor(row, "principal", "principal_name")?,
        target: parsed_optional(row, "target")?,
        why: row.get("why")?,
        by: json(row, "by")?,
        at: instant(row, "at")?,
        until: instant_optional(row, "until")?,
        lifted: json_optional(row, "lifted")?,
    })
}
