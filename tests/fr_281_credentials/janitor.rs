//! What the janitor finds at a database: roles that no session has, and roles that were left open.

use sallyport::failpoint;
use serde_json::json;

use crate::support::{Bastion, Options, Postgres, wait_until};
use crate::{handle, lives};

/// How often the janitor looks, and a little more, in seconds.
pub(crate) const EVERY: u64 = 301;

/// Who makes the roles, at the target. From PostgreSQL 16 on nobody else's may be changed.
const ADMIN: &str = "sallyport_admin";

/// A role such as a session has, that nobody knows of.
fn orphan(postgres: &Postgres, handle: &str, mark: &str) {
    let make = format!(
        "SET SESSION AUTHORIZATION {ADMIN}; CREATE ROLE {handle} LOGIN PASSWORD 'left behind'; \
         GRANT ledger_owner TO {handle}; COMMENT ON ROLE {handle} IS '{mark}'; RESET SESSION AUTHORIZATION; \
         SET ROLE {handle}; CREATE TABLE left_behind (id int)"
    );
    postgres.query("ledger", "GRANT CREATE ON SCHEMA public TO ledger_owner").success();
    postgres.query("ledger", &make).success();
}

/// As [`orphan`], with something in `archive` alone.
fn orphan_stuck(postgres: &Postgres, handle: &str) {
    let mark = mark(postgres);
    let make = format!(
        "SET SESSION AUTHORIZATION {ADMIN}; CREATE ROLE {handle}; COMMENT ON ROLE {handle} IS '{mark}'"
    );
    postgres.query("archive", &make).success();
    postgres.query("archive", &format!("CREATE SCHEMA stuck AUTHORIZATION {handle}")).success();
}

/// What the installation writes on its roles.
fn mark(postgres: &Postgres) -> String {
    postgres.value(
        "postgres",
        "SELECT DISTINCT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname LIKE 'sp\\_%'",
    )
}

#[test]
fn what_no_session_has_is_found_recorded_and_destroyed() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("dba");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let mark = mark(&postgres);
    let lost = "sp_ses_0123456789abcdef";
    orphan(&postgres, lost, &mark);
    bastion.advance(EVERY);
    assert_eq!(postgres.session_roles(), [handle(&granted.session)], "what a session has stays");
    let owner = "SELECT relowner::regrole FROM pg_class WHERE relname = 'left_behind'";
    assert_eq!(postgres.value("ledger", owner), "ledger_owner", "what it owned is not lost");
    let story = ["credential_orphaned", "credential_destroyed"].map(str::to_owned);
    assert_eq!(lives(&bastion)[lost], story);
    assert_eq!(bastion.events("credential_orphaned")[0]["session"], json!("ses-0123456789abcdef"));

    // A crash of the server at the source, just then: found at the next start.
    bastion.stop();
    postgres.query("ledger", "DROP TABLE left_behind").success();
    orphan(&postgres, lost, &mark);
    bastion.boot();
    wait_until("the start has looked", || postgres.session_roles() == [handle(&granted.session)]);
    bastion.verify().success();
}

#[test]
fn what_cannot_be_destroyed_is_said_once_and_tried_until_it_is_gone() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let lost = "sp_ses_0123456789abcdef";
    orphan(&postgres, lost, &mark(&postgres));
    // In a database where the admin cannot go.
    postgres.query("archive", "ALTER DATABASE archive CONNECTION LIMIT 0").success();
    postgres
        .query("archive", &format!("CREATE TABLE stuck (id int); ALTER TABLE stuck OWNER TO {lost}"))
        .success();
    for _ in 0..3 {
        bastion.advance(EVERY);
    }
    assert!(postgres.session_roles().contains(&lost.to_owned()));
    let can_log_in = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{lost}'");
    assert_eq!(postgres.value("postgres", &can_log_in), "f", "it opens nothing while it is there");
    let story = ["credential_orphaned", "credential_destruction_failed"].map(str::to_owned);
    assert_eq!(lives(&bastion)[lost], story, "once, not at every try");
    assert!((bastion.metric("sallyport_credentials_orphaned") - 1.0).abs() < 0.1);

    // A second one, which somebody drops by hand.
    orphan_stuck(&postgres, "sp_ses_fedcba9876543210");
    bastion.advance(EVERY);
    assert!((bastion.metric("sallyport_credentials_orphaned") - 2.0).abs() < 0.1);
    postgres.query("archive", "DROP OWNED BY sp_ses_fedcba9876543210").success();
    postgres.query("archive", "DROP ROLE sp_ses_fedcba9876543210").success();
    bastion.advance(EVERY);
    assert!((bastion.metric("sallyport_credentials_orphaned") - 1.0).abs() < 0.1);

    postgres.query("archive", "ALTER DATABASE archive CONNECTION LIMIT -1").success();
    bastion.advance(EVERY);
    assert!(!postgres.session_roles().contains(&lost.to_owned()));
    assert_eq!(lives(&bastion)[lost].last().unwrap(), "credential_destroyed");
    assert!(bastion.metric("sallyport_credentials_orphaned").abs() < 0.1);
}

#[test]
fn what_somebody_left_open_is_shut() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let role = handle(&granted.session);
    postgres.query("postgres", &format!("ALTER ROLE {role} LOGIN")).success();
    bastion.advance(EVERY);
    let can_log_in = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'");
    assert_eq!(postgres.value("postgres", &can_log_in), "f");
    let shut = bastion.events("credential_shut");
    assert_eq!((shut.len(), &shut[0]["detail"]["why"]), (1, &json!("found_open")));
    assert_eq!((&shut[0]["target"], &shut[0]["environment"]), (&json!("ledger-prod"), &json!("prod")));
    bastion.psql("alice", "ledger-prod", "SELECT 'goes on'").success().says("goes on");
}

#[test]
fn what_is_open_and_cannot_be_shut_is_said_once_and_tried_until_it_is_shut() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let role = handle(&granted.session);
    // What only a superuser may change.
    postgres.query("postgres", &format!("ALTER ROLE {role} LOGIN SUPERUSER")).success();
    bastion.advance(EVERY);
    for _ in 0..3 {
        bastion.advance(60);
    }
    let shut = bastion.events("credential_shut");
    assert_eq!((shut.len(), &shut[0]["outcome"]), (1, &json!("failed")), "{shut:?}");
    assert!(shut[0]["detail"]["error"].as_str().unwrap().contains("alter"), "{shut:?}");
    assert!((bastion.metric("sallyport_credentials_orphaned") - 1.0).abs() < 0.1);
    postgres.query("postgres", &format!("ALTER ROLE {role} NOSUPERUSER")).success();
    bastion.advance(60);
    let shut = bastion.events("credential_shut");
    assert_eq!((shut.len(), &shut[1]["outcome"]), (2, &json!("done")), "{shut:?}");
    assert!(bastion.metric("sallyport_credentials_orphaned").abs() < 0.1);
    bastion.verify().success();
}

/// The process dies at one place after the other, while the janitor is at work.
#[test]
fn wherever_the_janitor_dies_the_record_tells_once_what_became_of_what_it_found() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_with(&postgres, Options::default());
    let granted = bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    let role = handle(&granted.session);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    let mark = mark(&postgres);
    let mut shut = 0;
    for (round, place) in failpoint::FOUND.into_iter().enumerate() {
        bastion.stop();
        bastion.set_environment(&[(failpoint::VARIABLE, place)]);
        bastion.boot();
        // What a start looks for by itself comes first.
        bastion.psql("alice", "ledger-dev", "SELECT 1").success();
        bastion.advance(1);
        let lost = format!("sp_ses_{round}123456789abcdef");
        let is_orphan = place.starts_with("orphan");
        if is_orphan {
            orphan(&postgres, &lost, &mark);
        } else {
            shut += 1;
            postgres.query("postgres", &format!("ALTER ROLE {role} LOGIN")).success();
        }
        bastion.pass(EVERY);
        wait_until(&format!("it dies at {place}"), || !bastion.server().is_running());
        bastion.kill();
        bastion.set_environment(&[]);
        bastion.boot();
        wait_until(&format!("what is left is ended after {place}"), || {
            let open = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sp\\_%' AND rolcanlogin";
            postgres.session_roles() == [role.clone()] && postgres.value("postgres", open) == "0"
        });
        wait_until(&format!("all is recorded after {place}"), || {
            bastion.advance(5);
            let ends = lives(&bastion).get(&lost).is_none_or(|life| life.len() > 1);
            ends && bastion.events("credential_shut").len() == shut
        });
        if is_orphan {
            let story = ["credential_orphaned", "credential_destroyed"].map(str::to_owned);
            assert_eq!(lives(&bastion)[&lost], story, "{place}");
            postgres.query("ledger", "DROP TABLE left_behind").success();
        }
    }
    assert!(bastion.metric("sallyport_credentials_orphaned").abs() < 0.1);
    bastion.advance(EVERY);
    assert_eq!(bastion.events("credential_shut").len(), shut);
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    bastion.stop();
    bastion.verify().success();
}
