//! One PostgreSQL role per session: member of the access's role, `VALID UNTIL` the session's end,
//! a limit of connections, and a random password that the server only ever sees as a SCRAM verifier.
//!
//! At the end, in this order: it may no longer log in; its server processes are terminated; what
//! it owns goes to the access's role; what it was granted is revoked; it is dropped.

use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use tokio_postgres::error::SqlState;

use super::postgres_admin::Admin;
use super::{Credential, CredentialSource, SourceError, SourceRequest};
use crate::crypto;
use crate::crypto::scram;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;

/// How long one server process gets to end before it is asked again, in milliseconds.
const TERMINATE_MILLIS: i64 = 2_000;
/// How often a server process is asked to end before the destruction counts as failed.
const TERMINATE_TRIES: u32 = 3;

#[derive(Debug, Default, Clone, Copy)]
pub struct PostgresRole;

#[async_trait]
impl CredentialSource for PostgresRole {
    /// `sp_<session>`: at most 63 bytes, and recognisable as ours.
    fn handle(&self, session: &SessionId) -> String {
        format!("sp_{}", session.as_str().replace('-', "_"))
    }

    async fn create(&self, request: &SourceRequest<'_>) -> Result<Credential, SourceError> {
        let admin = Admin::connect(request.target, None).await?;
        let password = Secret::new(BASE64URL_NOPAD.encode(&crypto::random::<32>()));
        let verifier = scram::Verifier::derive(password.expose(), crypto::random(), scram::ITERATIONS);
        let attributes = format!(
            "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT \
             CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {}",
            request.target.connection_limit,
            literal(&verifier.to_postgres()),
            literal(&request.ends_at.to_string()),
        );
        let role = identifier(request.handle);
        let access = identifier(request.access_role);
        // The simple protocol runs the statements of one message as one transaction.
        let made = admin
            .batch_execute(&format!(
                "CREATE ROLE {role} {attributes}; GRANT {access} TO {role}; \
                 COMMENT ON ROLE {role} IS 'sallyport: dropped when its session ends'"
            ))
            .await;
        match made {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => admin
                .batch_execute(&format!("ALTER ROLE {role} {attributes}; GRANT {access} TO {role}"))
                .await
                .map_err(|source| failed("renew the role", request.handle, source))?,
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                return Err(SourceError::NoAccessRole { role: request.access_role.to_owned() });
            }
            Err(error) => return Err(failed("create the role", request.handle, error)),
        }
        Ok(Credential { user: request.handle.to_owned(), password })
    }

    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<u64, SourceError> {
        let admin = Admin::connect(request.target, None).await?;
        let handle = request.handle;
        let role = identifier(handle);
        let row = admin
            .query_opt("SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1", &[&handle])
            .await
            .map_err(|source| failed("look for", handle, source))?;
        let Some(row) = row else { return Ok(0) };
        let oid: u32 = row.try_get(0).map_err(|source| failed("look for", handle, source))?;
        admin
            .batch_execute(&format!("ALTER ROLE {role} NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL"))
            .await
            .map_err(|source| failed("lock", handle, source))?;
        let terminated = terminate(&admin, oid, handle).await?;
        for database in databases_with_traces(&admin, oid, handle).await? {
            let there = Admin::connect(request.target, Some(&database)).await?;
            let access = identifier(request.access_role);
            there
                .batch_execute(&format!(
                    // An admin that is no superuser must be a member to do either.
                    "GRANT {role} TO CURRENT_USER; REASSIGN OWNED BY {role} TO {access}; DROP OWNED BY {role}"
                ))
                .await
                .map_err(|source| failed("reassign what is owned by", handle, source))?;
        }
        admin
            .batch_execute(&format!("DROP ROLE IF EXISTS {role}"))
            .await
            .map_err(|source| failed("drop", handle, source))?;
        Ok(terminated)
    }
}

/// Ends the role's server processes and waits until none is left.
async fn terminate(admin: &Admin, role: u32, handle: &str) -> Result<u64, SourceError> {
    let mut terminated = 0;
    for _ in 0..TERMINATE_TRIES {
        let ended = admin
            .query(
                "SELECT pg_catalog.pg_terminate_backend(pid, $2) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1",
                &[&role, &TERMINATE_MILLIS],
            )
            .await
            .map_err(|source| failed("terminate server processes of", handle, source))?;
        terminated += u64::try_from(ended.len()).unwrap_or(u64::MAX);
        if remaining(admin, role, handle).await? == 0 {
            return Ok(terminated);
        }
        // A process that was just starting shows up late; NOLOGIN lets no further one in.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match remaining(admin, role, handle).await? {
        0 => Ok(terminated),
        count => Err(SourceError::BackendsRemain { handle: handle.to_owned(), count }),
    }
}

async fn remaining(admin: &Admin, role: u32, handle: &str) -> Result<u64, SourceError> {
    let row = admin
        .query_one("SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1", &[&role])
        .await
        .map_err(|source| failed("count server processes of", handle, source))?;
    let count: i64 = row.try_get(0).map_err(|source| failed("count server processes of", handle, source))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Databases where the role owns or was granted something: only there can that be undone.
async fn databases_with_traces(admin: &Admin, role: u32, handle: &str) -> Result<Vec<String>, SourceError> {
    let rows = admin
        .query(
            "SELECT DISTINCT d.datname::text FROM pg_catalog.pg_shdepend s \
             JOIN pg_catalog.pg_database d ON d.oid = CASE WHEN s.dbid = 0 THEN \
               (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) ELSE s.dbid END \
             WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = $1 AND d.datallowconn",
            &[&role],
        )
        .await
        .map_err(|source| failed("find what is owned by", handle, source))?;
    rows.iter()
        .map(|row| row.try_get(0).map_err(|source| failed("find what is owned by", handle, source)))
        .collect()
}

fn failed(doing: &'static str, handle: &str, source: tokio_postgres::Error) -> SourceError {
    SourceError::Statement { doing, handle: handle.to_owned(), source }
}

/// Quotes an identifier (PostgreSQL documentation, section 4.1.1).
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal; none of ours holds a backslash, so standard quoting serves.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_its_session_and_fits_an_identifier() {
        let session = SessionId::from_random([7; 10]);
        let handle = PostgresRole.handle(&session);
        assert!(handle.starts_with("sp_ses_"));
        assert!(handle.len() <= 63);
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP ROLE x; --"#), r#""a""; DROP ROLE x; --""#);
        assert_eq!(literal("o'clock"), "'o''clock'");
    }
}
