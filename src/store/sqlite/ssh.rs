//! SSH keys and second factors of users.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, parsed};
use crate::domain::id::PrincipalId;
use crate::domain::secret::Secret;
use crate::domain::ssh_key::{SecondFactor, SshKey};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

pub(super) fn add_key(db: &Connection, key: &SshKey) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO ssh_keys (fingerprint, principal, line, comment, added_at, added_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        key.fingerprint,
        key.principal.as_str(),
        key.line,
        key.comment,
        key.added_at.as_micros(),
        key.added_by,
    ])
    .map_err(|error| {
        Failure::from(error)
            .or_exists(|| format!("the key {}", key.fingerprint))
            .or_not_found(|| format!("the user {}", key.principal))
    })?;
    Ok(Change::Made(()))
}

pub(super) fn remove_key(
    db: &Connection,
    fingerprint: &str,
    principal: &PrincipalId,
    at: Timestamp,
) -> Result<Change<bool>, Failure> {
    let removed = db
        .prepare_cached(
            "UPDATE ssh_keys SET removed_at = ?3
             WHERE fingerprint = ?1 AND principal = ?2 AND removed_at IS NULL",
        )?
        .execute(params![fingerprint, principal.as_str(), at.as_micros()])?;
    Ok(if removed == 1 { Change::Made(true) } else { Change::None(false) })
}

pub(super) fn key(db: &Connection, fingerprint: &str) -> Result<Option<SshKey>, Failure> {
    let mut query =
        db.prepare_cached("SELECT * FROM ssh_keys WHERE fingerprint = ?1 AND removed_at IS NULL")?;
    Ok(query.query_row([fingerprint], read_key).optional()?)
}

pub(super) fn keys_of(db: &Connection, principal: &PrincipalId) -> Result<Vec<SshKey>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM ssh_keys WHERE principal = ?1 AND removed_at IS NULL ORDER BY number DESC",
    )?;
    let rows = query.query_map([principal.as_str()], read_key)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<SshKey> {
    Ok(SshKey {
        fingerprint: row.get("fingerprint")?,
        principal: parsed(row, "principal")?,
        line: row.get("line")?,
        comment: row.get("comment")?,
        added_at: instant(row, "added_at")?,
        added_by: row.get("added_by")?,
    })
}

pub(super) fn set_second_factor(
    db: &Connection,
    principal: &PrincipalId,
    factor: &SecondFactor,
) -> Result<Change<()>, Failure> {
    db.prepare_cached(
        "INSERT INTO second_factors (principal, secret, last_step) VALUES (?1, ?2, ?3)
         ON CONFLICT (principal) DO UPDATE SET secret = excluded.secret, last_step = excluded.last_step",
    )?
    .execute(params![principal.as_str(), factor.secret.expose(), number(factor.last_step)])
    .map_err(|error| Failure::from(error).or_not_found(|| format!("the user {principal}")))?;
    Ok(Change::Made(()))
}

pub(super) fn remove_second_factor(
    db: &Connection,
    principal: &PrincipalId,
) -> Result<Change<bool>, Failure> {
    let removed = db
        .prepare_cached("DELETE FROM second_factors WHERE principal = ?1")?
        .execute([principal.as_str()])?;
    Ok(if removed == 1 { Change::Made(true) } else { Change::None(false) })
}

pub(super) fn second_factor(
    db: &Connection,
    principal: &PrincipalId,
) -> Result<Option<SecondFactor>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM second_factors WHERE principal = ?1")?;
    let read = |row: &Row<'_>| {
        Ok(SecondFactor {
            secret: Secret::new(row.get("secret")?),
            last_step: u64::try_from(row.get::<_, i64>("last_step")?).unwrap_or(0),
        })
    };
    Ok(query.query_row([principal.as_str()], read).optional()?)
}

/// The step is compared with what is stored now, so that of two who come with one code one is refused.
pub(super) fn use_second_factor(
    db: &Connection,
    principal: &PrincipalId,
    step: u64,
) -> Result<Change<bool>, Failure> {
    let used = db
        .prepare_cached("UPDATE second_factors SET last_step = ?2 WHERE principal = ?1 AND last_step < ?2")?
        .execute(params![principal.as_str(), number(step)])?;
    if used == 1 {
        return Ok(Change::Made(true));
    }
    let mut query = db.prepare_cached("SELECT 1 FROM second_factors WHERE principal = ?1")?;
    if query.exists([principal.as_str()])? {
        return Ok(Change::None(false));
    }
    Err(StoreError::NotFound { what: format!("a second factor of {principal}") }.into())
}

fn number(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
