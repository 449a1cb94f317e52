//! One PostgreSQL role per session: member of the access's role, `VALID UNTIL` the session's end,
//! a limit of connections, and a random password that the server only ever sees as a SCRAM verifier.
//!
//! The role may log in only while the gateway connects, with a password of that moment. Whoever is
//! connected as the role could give it another password, and would still not get in past the
//! gateway: a role cannot give itself `LOGIN`.
//!
//! At the end, in this order: it may no longer log in; its server processes are terminated; what it has prepared and
//! not committed (`PREPARE TRANSACTION`) is rolled back, as its locks would hold up the rest for ever; what
//! it owns goes to the access's role; what it was granted is revoked; it is dropped.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::kept_admins::KeptAdmins;
use super::postgres_admin::Admin;
use super::{
    Credential, CredentialSource, Destroyed, Destruction, Found, How, Opened, Replication, Sent, SourceError,
    SourceRequest, bounded,
};
use crate::config::PostgresTarget;
use crate::crypto;
use crate::crypto::scram;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::failpoint;

/// How long one server process gets to end before it is asked again, in milliseconds.
const TERMINATE_MILLIS: i64 = 2_000;
/// How often a server process is asked to end before the destruction counts as failed.
const TERMINATE_TRIES: u32 = 3;

/// Has the server not wait for its disk, in this transaction, where a connection waits for the server. Should the server
/// crash, it may forget that the role was made or opened, which nobody has used then: the connection is gone as well. That
/// it was shut is waited for: whoever is connected as the role may have given it a password meanwhile.
const UNWAITED: &str = "SET LOCAL synchronous_commit = off; ";

/// Has the server wait for its disk where it is told not to, be it by its own configuration.
const WAITED: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'local', true) \
    WHERE pg_catalog.current_setting('synchronous_commit') = 'off'; ";

/// Whoever changes their own role in a transaction holds its row until that ends: so long it is waited for. Nobody does
/// who means well, and the role may be open meanwhile. Shorter than what a statement may take, so that it is known that
/// nothing was done.
const BRIEFLY: &str = "SET LOCAL lock_timeout = '200ms'; ";

/// What others may be at work on as well: the table of roles where one is made, and the access's role where it is granted.
const PATIENTLY: &str = "SET LOCAL lock_timeout = '2500ms'; ";

/// How long a connection that was kept may take to tell what is there.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// So often a role's row that is held is asked for.
const QUIET_TRIES: u32 = 3;

/// What every handle begins with; the session's id follows.
const PREFIX: &str = "sp_";

#[derive(Debug, Clone)]
pub struct PostgresRole {
    /// Tells roles of this installation from those of another that works on the same server.
    mark: String,
    admins: KeptAdmins,
}

impl PostgresRole {
    /// `installation`: the same for all nodes that share a store, and for nobody else.
    pub fn new(installation: &str) -> Self {
        let mark = format!("sallyport {installation}: dropped when its session ends");
        Self { mark, admins: KeptAdmins::default() }
    }
}

#[async_trait]
impl CredentialSource for PostgresRole {
    /// `sp_<session>`: at most 63 bytes, and recognisable as ours.
    fn handle(&self, session: &SessionId, _access_role: &str) -> String {
        format!("{PREFIX}{}", session.as_str().replace('-', "_"))
    }

    async fn open(
        &self,
        request: &SourceRequest<'_>,
        _is_issued: bool,
        _ended: &CancellationToken,
    ) -> Result<Opened, SourceError> {
        let found = async {
            let (admin, there) = self.admin_for(request).await?;
            if request.replication == Replication::Now {
                can_let_replicate(&admin).await?;
            }
            Ok((admin, there))
        };
        let (admin, there) = bounded(found).await?;
        // To its end: what is given up halfway may be done at the server all the same.
        bounded(self.make(request, admin, there)).await.map_err(|error| match error {
            SourceError::TimedOut => SourceError::MaybeOpened(Box::new(error)),
            other => other,
        })
    }

    async fn shut(&self, request: &SourceRequest<'_>, opened: Opened) -> Result<(), SourceError> {
        bounded(async {
            let by_opener = match opened.admin {
                Some(admin) => shut(&admin, request.handle).await.map(|()| Some(admin)),
                None => Ok(None),
            };
            match by_opener {
                Ok(Some(admin)) => self.admins.put(request.target, admin),
                // Somebody in the session was changing the role: who knows what they have made of the time.
                Err(SourceError::Statement { doing, handle, source }) if is_held(&source) => {
                    return Err(SourceError::Statement { doing, handle, source });
                }
                // The connection that opened it may have broken since.
                _ => shut(&Admin::connect(request.target, None).await?, request.handle).await?,
            }
            failpoint::reached("role_shut");
            Ok(())
        })
        .await
    }

    async fn quiet(&self, request: &SourceRequest<'_>) -> Result<u64, SourceError> {
        bounded(async {
            let admin = Admin::connect(request.target, None).await?;
            match role_number(&admin, request.handle).await? {
                Some(oid) => quiet(&admin, oid, request).await,
                None => Ok(0),
            }
        })
        .await
    }

    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError> {
        let terminated = bounded(destroy(request)).await?;
        Ok(Destruction::Done(Destroyed { terminated, ..How::Dropped.into() }))
    }

    async fn list(&self, target: &PostgresTarget) -> Result<Vec<Found>, SourceError> {
        bounded(list(target, &self.mark)).await
    }
}

async fn shut(admin: &Admin, handle: &str) -> Result<(), SourceError> {
    let shut = format!("{BRIEFLY}{WAITED}ALTER ROLE {} NOLOGIN", identifier(handle));
    admin.batch_execute(&shut).await.map_err(|source| failed("shut", handle, source))
}

impl PostgresRole {
    async fn make(
        &self,
        request: &SourceRequest<'_>,
        admin: Admin,
        there: Option<There>,
    ) -> Result<Opened, SourceError> {
        let replicates = request.replication == Replication::Now;
        let password = Secret::new(BASE64URL_NOPAD.encode(&crypto::random::<32>()));
        let verifier = scram::Verifier::derive(password.expose(), crypto::random(), scram::ONCE);
        let role = identifier(request.handle);
        let access = identifier(request.access_role);
        // What may be given to a role by an admin that is no superuser, each time anew.
        let key = format!(
            "LOGIN CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {}",
            request.target.connection_limit,
            literal(&verifier.to_postgres()),
            literal(&request.ends_at.to_string()),
        );
        // Looked for first: a statement that fails shows up, verifier and all, in the server's log.
        let (doing, statements) = if let Some(there) = there {
            // By itself: where it fails, no verifier is in the server's log. Before 16 only a superuser may say so much as
            // that a role has not what it has not.
            if request.replication == Replication::No && there.replicates {
                let taken = admin.batch_execute(&format!("ALTER ROLE {role} NOREPLICATION")).await;
                taken.map_err(|source| failed("take REPLICATION from", request.handle, source))?;
            }
            let replication = if replicates { "REPLICATION" } else { "" };
            (
                "renew the role",
                // Nobody sees that it is open before it is committed.
                format!(
                    "{BRIEFLY}{UNWAITED}ALTER ROLE {role} {replication} {key}; {PATIENTLY}GRANT {access} TO {role}"
                ),
            )
        } else {
            let replication = if replicates { "REPLICATION" } else { "NOREPLICATION" };
            let powers = format!("NOSUPERUSER NOCREATEDB NOCREATEROLE {replication} NOBYPASSRLS INHERIT");
            let made = format!(
                "{PATIENTLY}{UNWAITED}CREATE ROLE {role} {powers} {key}; GRANT {access} TO {role}; \
                 COMMENT ON ROLE {role} IS {}",
                literal(&self.mark)
            );
            ("create the role", made)
        };
        failpoint::reached("role_making");
        // The simple protocol runs the statements of one message as one transaction.
        let done = admin.batch_execute(&statements).await;
        done.map_err(|source| {
            // It was told to stop, maybe once it had done it (PostgreSQL documentation, appendix A, class 57); a statement
            // that was cancelled was not done.
            let is_known = source.code().is_some_and(|state| !state.code().starts_with("57P"));
            let error = failed(doing, request.handle, source);
            if is_known { error } else { SourceError::MaybeOpened(Box::new(error)) }
        })?;
        failpoint::reached("role_made");
        let (user, valid_until) = (request.handle.to_owned(), Some(request.ends_at));
        let credential = Credential { user, password, sent: Sent::Proved, valid_until };
        Ok(Opened { credential, admin: Some(admin) })
    }

    /// An admin connection, and what [`look`] found.
    async fn admin_for(&self, request: &SourceRequest<'_>) -> Result<(Admin, Option<There>), SourceError> {
        if let Some(admin) = self.admins.take(request.target) {
            match tokio::time::timeout(LOOK_WITHIN, look(&admin, request)).await {
                // It has broken.
                Err(_) | Ok(Err(SourceError::Statement { .. })) => {}
                Ok(looked) => return Ok((admin, looked?)),
            }
        }
        let admin = Admin::connect_briefly(request.target).await?;
        let there = look(&admin, request).await?;
        Ok((admin, there))
    }
}

async fn destroy(request: &SourceRequest<'_>) -> Result<u64, SourceError> {
    let admin = Admin::connect(request.target, None).await?;
    let handle = request.handle;
    let role = identifier(handle);
    let Some(oid) = role_number(&admin, handle).await? else { return Ok(0) };
    let terminated = quiet(&admin, oid, request).await?;
    failpoint::reached("role_quiet");
    roll_back_prepared(request, &admin).await?;
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
        failpoint::reached("role_disowned");
    }
    admin
        .batch_execute(&format!("DROP ROLE IF EXISTS {role}"))
        .await
        .map_err(|source| failed("drop", handle, source))?;
    failpoint::reached("role_dropped");
    Ok(terminated)
}

/// Transactions that the role has prepared and left there. Only who prepared one may end it.
async fn roll_back_prepared(request: &SourceRequest<'_>, admin: &Admin) -> Result<(), SourceError> {
    let handle = request.handle;
    let what = |source| failed("roll back what was prepared by", handle, source);
    let prepared = admin
        .query(
            "SELECT gid, database::text FROM pg_catalog.pg_prepared_xacts WHERE owner = $1::text::name",
            &[&handle],
        )
        .await
        .map_err(what)?;
    let role = identifier(handle);
    for row in prepared {
        let (gid, database): (String, String) =
            (row.try_get(0).map_err(what)?, row.try_get(1).map_err(what)?);
        let there = Admin::connect(request.target, Some(&database)).await?;
        there.batch_execute(&format!("GRANT {role} TO CURRENT_USER; SET ROLE {role}")).await.map_err(what)?;
        // Not in a transaction, so in a message of its own.
        there.batch_execute(&format!("ROLLBACK PREPARED {}", literal_of_theirs(&gid))).await.map_err(what)?;
        failpoint::reached("role_rolled_back");
    }
    Ok(())
}

async fn list(target: &PostgresTarget, mark: &str) -> Result<Vec<Found>, SourceError> {
    let what = |source| failed("look for roles like", PREFIX, source);
    let admin = Admin::connect(target, None).await?;
    let rows = admin
        .query(
            "SELECT r.rolname::text, r.rolcanlogin, pg_catalog.shobj_description(r.oid, 'pg_authid') = $1, \
               ARRAY(SELECT a.rolname::text FROM pg_catalog.pg_auth_members m \
                 JOIN pg_catalog.pg_roles a ON a.oid = m.roleid WHERE m.member = r.oid) \
             FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname::text, $2) ORDER BY 1",
            &[&mark, &PREFIX],
        )
        .await
        .map_err(what)?;
    let mut found = Vec::new();
    for row in rows {
        let handle: String = row.try_get(0).map_err(what)?;
        let Some(session) = session_of(&handle) else { continue };
        let ours: Option<bool> = row.try_get(2).map_err(what)?;
        let member_of: Vec<String> = row.try_get(3).map_err(what)?;
        let open = row.try_get(1).map_err(what)?;
        found.push(Found { handle, session, ours: ours == Some(true), open, member_of });
    }
    Ok(found)
}

/// The session that a role is named after.
fn session_of(handle: &str) -> Option<SessionId> {
    handle.strip_prefix(PREFIX)?.replace('_', "-").parse().ok()
}

/// The session's role as it is.
struct There {
    replicates: bool,
}

/// What has to be known before the session's role is made, in one round trip: how it is if it is there already.
///
/// Refuses an access's role that is not there, or that lets somebody log in, be it through a role that it is a member
/// of. Who is in a session can become such a role, give it a password, and come back past the gateway.
async fn look(admin: &Admin, request: &SourceRequest<'_>) -> Result<Option<There>, SourceError> {
    let what = |source| failed("look into the powers of", request.access_role, source);
    let rows = admin
        .query_typed(
            "WITH RECURSIVE reached (oid) AS ( \
               SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1 \
               UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reached r ON m.member = r.oid) \
             SELECT r.rolname::text, r.rolcanlogin, (SELECT rolreplication FROM pg_catalog.pg_roles WHERE rolname = $2) \
             FROM reached JOIN pg_catalog.pg_roles r USING (oid) ORDER BY r.rolcanlogin DESC, 1",
            &[(&request.access_role, Type::NAME), (&request.handle, Type::NAME)],
        )
        .await
        .map_err(what)?;
    let role = request.access_role.to_owned();
    let Some(first) = rows.first() else { return Err(SourceError::NoAccessRole { role }) };
    if first.try_get(1).map_err(what)? {
        return Err(SourceError::AccessRoleOpens { role, opens: first.try_get(0).map_err(what)? });
    }
    let replicates: Option<bool> = first.try_get(2).map_err(what)?;
    Ok(replicates.map(|replicates| There { replicates }))
}

/// Refuses where the admin cannot give a role the right to replicate: looked for first, as in [`PostgresRole::make`].
async fn can_let_replicate(admin: &Admin) -> Result<(), SourceError> {
    let what = |source| failed("look into the powers of", "the admin", source);
    let row = admin
        .query_one(
            "SELECT rolname::text, rolsuper, rolreplication, \
               pg_catalog.current_setting('server_version_num')::int >= 160000 \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(what)?;
    let is = |column: usize| row.try_get::<_, bool>(column).map_err(what);
    let (is_superuser, replicates, is_delegated) = (is(1)?, is(2)?, is(3)?);
    if is_superuser || (replicates && is_delegated) {
        return Ok(());
    }
    let lacks =
        if is_delegated { "REPLICATION itself" } else { "SUPERUSER, which PostgreSQL asks for before 16" };
    Err(SourceError::NoReplication { admin: row.try_get(0).map_err(what)?, lacks })
}

async fn role_number(admin: &Admin, handle: &str) -> Result<Option<u32>, SourceError> {
    let row = admin
        .query_opt("SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1", &[&handle])
        .await
        .map_err(|source| failed("look for", handle, source))?;
    let oid = row.map(|row| row.try_get(0)).transpose();
    oid.map_err(|source| failed("look for", handle, source))
}

/// Lets nobody in as the role any more, and ends what is there: before that too, as it may hold the role's row.
async fn quiet(admin: &Admin, role: u32, request: &SourceRequest<'_>) -> Result<u64, SourceError> {
    let handle = request.handle;
    // Nobody but who came in meanwhile has a right to have it in their hands.
    let shut = format!(
        "SET LOCAL lock_timeout = '1s'; {WAITED}ALTER ROLE {} NOLOGIN PASSWORD NULL",
        identifier(handle)
    );
    let mut terminated = BTreeSet::new();
    for tries_left in (0..QUIET_TRIES).rev() {
        terminated.extend(terminate_once(admin, role, handle).await?);
        match admin.batch_execute(&shut).await {
            Ok(()) => break,
            // By who came in meanwhile, or by a transaction that was prepared.
            Err(source) if tries_left > 0 && is_held(&source) => roll_back_prepared(request, admin).await?,
            Err(source) => return Err(failed("lock", handle, source)),
        }
    }
    terminated.extend(terminate(admin, role, handle).await?);
    Ok(u64::try_from(terminated.len()).unwrap_or(u64::MAX))
}

/// Whether somebody else had a role's row in their hands.
fn is_held(error: &tokio_postgres::Error) -> bool {
    // Not waited for any longer, or changed by them meanwhile, for which the server has no code of its own.
    [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::INTERNAL_ERROR]
        .into_iter()
        .any(|code| error.code() == Some(code))
}

/// Ends the role's server processes and waits until none is left.
async fn terminate(admin: &Admin, role: u32, handle: &str) -> Result<BTreeSet<i32>, SourceError> {
    let mut terminated = BTreeSet::new();
    for _ in 0..TERMINATE_TRIES {
        terminated.extend(terminate_once(admin, role, handle).await?);
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

/// Gives the numbers of those that there were.
async fn terminate_once(admin: &Admin, role: u32, handle: &str) -> Result<Vec<i32>, SourceError> {
    let what = |source| failed("terminate server processes of", handle, source);
    let ended = admin
        .query(
            "SELECT pid, pg_catalog.pg_terminate_backend(pid, $2) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1",
            &[&role, &TERMINATE_MILLIS],
        )
        .await
        .map_err(what)?;
    ended.iter().map(|row| row.try_get(0).map_err(what)).collect()
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

/// Quotes what somebody else chose (PostgreSQL documentation, section 4.1.2.2: with `E`, a backslash escapes whatever
/// the server's settings).
fn literal_of_theirs(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_its_session_and_fits_an_identifier() {
        let session = SessionId::from_random([7; 10]);
        let handle = PostgresRole::new("test").handle(&session, "ledger_owner");
        assert!(handle.starts_with("sp_ses_"));
        assert!(handle.len() <= 63);
        assert_eq!(session_of(&handle), Some(session));
        for other in ["sp_ses_short", "sp_req_0123456789abcdef", "spare", "sp_"] {
            assert_eq!(session_of(other), None, "{other}");
        }
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP ROLE x; --"#), r#""a""; DROP ROLE x; --""#);
        assert_eq!(literal("o'clock"), "'o''clock'");
        assert_eq!(literal_of_theirs(r"\'; DROP ROLE x; --"), r"E'\\''; DROP ROLE x; --'");
    }
}
