//! Users and their login tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Change;
use super::failure::Failure;
use super::row::{instant, instant_optional, json, parsed, to_json, to_json_optional};
use crate::domain::account::{Account, AccountChange, AccountSummary, Token};
use crate::domain::id::{PrincipalId, TokenId};
use crate::domain::name::{DomainName, UserName};
use crate::domain::principal::Principal;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Detail of the events of a step that ends tokens: how many.
const TOKENS_ENDED: &str = "tokens_ended";

pub(super) fn add(db: &Connection, account: &Account) -> Result<Change<()>, Failure> {
    let principal = &account.principal;
    db.prepare_cached(
        "INSERT INTO users (id, name, domain, groups, password_hash, scram_salt, disabled, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        principal.id.as_str(),
        principal.name.as_str(),
        principal.domain.as_str(),
        to_json(&principal.groups)?,
        account.password_hash,
        account.scram_salt,
        account.disabled,
        account.created_at.as_micros(),
    ])
    .map_err(|error| Failure::from(error).or_exists(|| format!("the user `{}`", principal.name)))?;
    Ok(Change::Made(()))
}

pub(super) fn change(
    db: &Connection,
    id: &PrincipalId,
    change: &AccountChange,
    at: Timestamp,
) -> Result<Change<Account>, Failure> {
    let changed = db
        .prepare_cached(
            "UPDATE users SET domain = coalesce(?2, domain), groups = coalesce(?3, groups),
                password_hash = coalesce(?4, password_hash), disabled = coalesce(?5, disabled),
                ssh_certificates_void_before = coalesce(?6, ssh_certificates_void_before)
             WHERE id = ?1 RETURNING *",
        )?
        .query_row(
            params![
                id.as_str(),
                change.domain.as_ref().map(DomainName::as_str),
                to_json_optional(change.groups.as_ref())?,
                change.password_hash,
                change.disabled,
                change.ends_tokens().then(|| at.as_micros()),
            ],
            account,
        )
        .optional()?;
    let Some(changed) = changed else {
        return Err(StoreError::NotFound { what: format!("the user {id}") }.into());
    };
    let ended = if change.ends_tokens() { end_tokens(db, id, at)? } else { 0 };
    Ok(Change::Noted(changed, TOKENS_ENDED, ended.into()))
}

pub(super) fn by_name(db: &Connection, name: &UserName) -> Result<Option<Account>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM users WHERE name = ?1")?;
    Ok(query.query_row([name.as_str()], account).optional()?)
}

pub(super) fn by_id(db: &Connection, id: &PrincipalId) -> Result<Option<Account>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM users WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], account).optional()?)
}

pub(super) fn all(db: &Connection) -> Result<Vec<AccountSummary>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM users ORDER BY name")?;
    let rows = query.query_map([], |row| {
        let account = account(row)?;
        Ok(AccountSummary {
            principal: account.principal,
            disabled: account.disabled,
            created_at: account.created_at,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        principal: Principal {
            id: parsed(row, "id")?,
            name: parsed(row, "name")?,
            domain: parsed(row, "domain")?,
            groups: json(row, "groups")?,
        },
        password_hash: row.get("password_hash")?,
        scram_salt: row.get("scram_salt")?,
        disabled: row.get("disabled")?,
        created_at: instant(row, "created_at")?,
        ssh_certificates_void_before: instant_optional(row, "ssh_certificates_void_before")?,
    })
}

pub(super) fn add_token(db: &Connection, token: &Token, password_hash: &str) -> Result<Change<()>, Failure> {
    let user: Option<bool> = db
        .prepare_cached("SELECT NOT disabled AND password_hash = ?2 FROM users WHERE id = ?1")?
        .query_row(params![token.principal.as_str(), password_hash], |row| row.get(0))
        .optional()?;
    let what = || format!("the user {}", token.principal);
    match user {
        Some(true) => {}
        Some(false) => return Err(StoreError::Conflict { what: what() }.into()),
        None => return Err(StoreError::NotFound { what: what() }.into()),
    }
    db.prepare_cached(
        "INSERT INTO tokens (id, principal, hash, stored_key, server_key, created_at, expires_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        token.id.as_str(),
        token.principal.as_str(),
        token.hash,
        token.stored_key,
        token.server_key,
        token.created_at.as_micros(),
        token.expires_at.as_micros(),
        token.revoked_at.map(Timestamp::as_micros),
    ])
    .map_err(|error| Failure::from(error).or_exists(|| format!("the token {}", token.id)))?;
    Ok(Change::Made(()))
}

pub(super) fn valid_tokens(
    db: &Connection,
    principal: &PrincipalId,
    now: Timestamp,
) -> Result<Vec<Token>, Failure> {
    let mut query = db.prepare_cached(
        "SELECT * FROM tokens WHERE principal = ?1 AND revoked_at IS NULL AND expires_at > ?2
         ORDER BY created_at DESC, rowid DESC",
    )?;
    let rows = query.query_map(params![principal.as_str(), now.as_micros()], token)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn token_by_id(db: &Connection, id: &TokenId) -> Result<Option<Token>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM tokens WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], token).optional()?)
}

pub(super) fn token_by_hash(db: &Connection, hash: &[u8; 32]) -> Result<Option<Token>, Failure> {
    let mut query = db.prepare_cached("SELECT * FROM tokens WHERE hash = ?1")?;
    Ok(query.query_row([hash], token).optional()?)
}

pub(super) fn revoke_token(db: &Connection, id: &TokenId, at: Timestamp) -> Result<Change<()>, Failure> {
    let changed = db
        .prepare_cached("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?
        .execute(params![id.as_str(), at.as_micros()])?;
    if changed == 1 {
        return Ok(Change::Made(()));
    }
    let mut query = db.prepare_cached("SELECT 1 FROM tokens WHERE id = ?1")?;
    if query.exists([id.as_str()])? {
        return Ok(Change::None(()));
    }
    Err(StoreError::NotFound { what: format!("the token {id}") }.into())
}

pub(super) fn revoke_tokens_of(
    db: &Connection,
    principal: &PrincipalId,
    at: Timestamp,
) -> Result<Change<u64>, Failure> {
    let voided = db
        .prepare_cached("UPDATE users SET ssh_certificates_void_before = ?2 WHERE id = ?1")?
        .execute(params![principal.as_str(), at.as_micros()])?;
    if voided == 0 {
        return Err(StoreError::NotFound { what: format!("the user {principal}") }.into());
    }
    Ok(match end_tokens(db, principal, at)? {
        0 => Change::None(0),
        ended => Change::Noted(ended, TOKENS_ENDED, ended.into()),
    })
}

/// Revokes what is valid and says how many that were.
fn end_tokens(db: &Connection, principal: &PrincipalId, at: Timestamp) -> Result<u64, Failure> {
    let ended = db
        .prepare_cached(
            "UPDATE tokens SET revoked_at = ?2
             WHERE principal = ?1 AND revoked_at IS NULL AND expires_at > ?2",
        )?
        .execute(params![principal.as_str(), at.as_micros()])?;
    Ok(u64::try_from(ended).unwrap_or(u64::MAX))
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: parsed(row, "id")?,
        principal: parsed(row, "principal")?,
        hash: row.get("hash")?,
        stored_key: row.get("stored_key")?,
        server_key: row.get("server_key")?,
        created_at: instant(row, "created_at")?,
        expires_at: instant(row, "expires_at")?,
        revoked_at: instant_optional(row, "revoked_at")?,
    })
}
