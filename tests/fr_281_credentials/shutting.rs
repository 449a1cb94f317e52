//! That a session's role is shut once a connection is made: nobody works at the target before, and who comes in past the
//! gateway while it cannot be shut does not stay.

use std::time::Duration;

use serde_json::json;

use crate::support::postgres::StandingStill;
use crate::support::process::{Running, pause_for};
use crate::support::{Bastion, Postgres, wait_until};
use crate::{handle, lives};

/// Nobody whose encoding is another than the database's is let in while this is held, be their name and password right.
const CONVERSIONS: (&str, &str) = ("ledger", "LOCK TABLE pg_conversion IN ACCESS EXCLUSIVE MODE");
/// Whoever would change a role waits while this is held; who reads one does not.
const ROLES: (&str, &str) = ("postgres", "LOCK TABLE pg_authid IN SHARE MODE");

/// A lock that is held at the server until it is let go.
struct Held<'a> {
    postgres: &'a Postgres,
    holder: Running,
    lock: &'static str,
}

impl<'a> Held<'a> {
    fn take(postgres: &'a Postgres, (database, lock): (&str, &'static str)) -> Self {
        let mut psql = postgres.client("psql", database);
        let sql = format!("BEGIN; {lock}; SELECT pg_sleep(600) /* holds */");
        let holder = Running::start_quietly(psql.args(["-c", &sql]));
        let held = Self { postgres, holder, lock };
        wait_until("the lock is held", || held.counts("wait_event = 'PgSleep' AND ") == "1");
        held
    }

    fn counts(&self, also: &str) -> String {
        let of = format!(
            "pg_stat_activity WHERE {also} query LIKE '%{}%holds */' AND pid <> pg_backend_pid()",
            self.lock
        );
        count(self.postgres, &of)
    }

    fn let_go(self) {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{}%holds */' AND pid <> pg_backend_pid()",
            self.lock
        );
        self.postgres.query("postgres", &end).success();
        self.holder.finish().failure();
    }
}

fn count(postgres: &Postgres, of: &str) -> String {
    postgres.value("postgres", &format!("SELECT count(*) FROM {of}"))
}

fn is_open(postgres: &Postgres, role: &str) -> bool {
    count(postgres, &format!("pg_roles WHERE rolname = '{role}' AND rolcanlogin")) == "1"
}

/// A psql of alice's that has been greeted, and whose role is being shut, which waits for what does it at the server.
struct Greeted {
    psql: Running,
    shutting: StandingStill,
}

fn greeted(bastion: &Bastion, postgres: &Postgres, role: &str) -> Greeted {
    let conversions = Held::take(postgres, CONVERSIONS);
    let mark = bastion.scratch().join("greeted");
    let touch = format!("\\! touch {}", mark.display());
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", &touch, "-c", "SELECT 'worked'"]);
    let psql = Running::start_quietly(psql.env("PGCLIENTENCODING", "LATIN1"));
    wait_until("the credential is open", || is_open(postgres, role));
    let shutting = postgres.stand_still("usename = 'sallyport_admin'");
    conversions.let_go();
    wait_until("the client is greeted", || mark.exists());
    assert!(is_open(postgres, role));
    Greeted { psql, shutting }
}

/// The client is greeted while its credential is being shut, and no statement of its goes on before that is done.
#[test]
fn no_statement_goes_on_while_the_credential_is_open() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let role = handle(&bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session);
    let Greeted { psql, shutting } = greeted(&bastion, &postgres, &role);
    pause_for(Duration::from_millis(300));
    assert_eq!(count(&postgres, &format!("pg_stat_activity WHERE usename = '{role}' AND query <> ''")), "0");
    assert_eq!(bastion.statements().len(), 0);
    drop(shutting);
    psql.finish().success().says("worked");
    assert!(!is_open(&postgres, &role));
    assert_eq!(bastion.statements().len(), 1);
    bastion.verify().success();
}

#[test]
fn who_is_revoked_while_the_credential_is_being_shut_is_told_at_once() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let session = bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session;
    let Greeted { psql, shutting } = greeted(&bastion, &postgres, &handle(&session));
    let revoke = ["revoke", &session, "--why", "at once"];
    let revoking = Running::start_quietly(&mut bastion.command_as("bob", &revoke));
    psql.finish().failure().says("revoked by bob: at once");
    // Nor does the credential's end wait for what was to shut it.
    revoking.finish().success().says("destroyed");
    assert!(postgres.session_roles().is_empty());
    drop(shutting);
    assert_eq!(bastion.statements().len(), 0);
    assert_eq!(bastion.events("connection_ended")[0]["detail"]["end"], "revoked");
    bastion.verify().success();
}

#[test]
fn a_client_that_goes_away_while_its_credential_is_being_shut_leaves_nothing_open() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let session = bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session;
    let role = handle(&session);
    let Greeted { psql, shutting } = greeted(&bastion, &postgres, &role);
    psql.signal(rustix::process::Signal::KILL);
    psql.finish().failure();
    drop(shutting);
    wait_until("it is over", || bastion.events("connection_ended").len() == 1);
    assert!(!is_open(&postgres, &role));
    assert_eq!(bastion.events("connection_ended")[0]["detail"]["end"], "client_closed");
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    bastion.verify().success();
}

/// The target does not let the admin in while a credential is open: everybody in the session is cut, as they could give it a
/// password; and who has come in with one is ended as soon as the admin can.
#[test]
fn what_could_not_be_shut_is_shut_soon_and_whoever_came_in_past_us_is_ended() {
    whoever_came_in_past_us_is_ended(Shuts::TheJanitor);
}

#[test]
fn whoever_came_in_past_us_is_ended_also_where_somebody_else_shut_it() {
    whoever_came_in_past_us_is_ended(Shuts::SomebodyElse);
}

/// Who shuts a credential that was left open.
#[derive(Clone, Copy, PartialEq)]
enum Shuts {
    TheJanitor,
    SomebodyElse,
}

/// Somebody who has come in as the role, past the gateway.
fn past_us(postgres: &Postgres, role: &str) -> Running {
    let mut direct = postgres.client("psql", "ledger");
    let sleeps = "SELECT pg_sleep(600) /* past us */";
    direct.env("PGUSER", role).env("PGPASSWORD", "theirs").args(["-c", sleeps]);
    let direct = Running::start_quietly(&mut direct);
    let sleeping = "pg_stat_activity WHERE query LIKE '%past us */' AND pid <> pg_backend_pid()";
    wait_until("somebody has come in past us", || count(postgres, sleeping) == "1");
    direct
}

fn whoever_came_in_past_us_is_ended(shuts: Shuts) {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let role = handle(&bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session);
    let other = bastion.driver("alice", "ledger-dev");
    let conversions = Held::take(&postgres, CONVERSIONS);
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT 1"]);
    let client = Running::start_quietly(psql.env("PGCLIENTENCODING", "LATIN1"));
    wait_until("the credential is open", || is_open(&postgres, &role));
    assert!(other.simple("ALTER ROLE CURRENT_USER PASSWORD 'theirs'").is_ok());
    let direct = past_us(&postgres, &role);

    // By no change of the configuration: its signal would wake what waits there.
    postgres.query("postgres", "ALTER ROLE sallyport_admin NOLOGIN").success();
    let end =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'sallyport_admin'";
    postgres.query("postgres", end).success();
    conversions.let_go();
    client.finish().failure().says("cannot be shut");
    assert!(is_open(&postgres, &role), "nobody could shut it");
    wait_until("the other is cut", || other.client.is_closed());
    assert_eq!(bastion.statements().len(), 1, "nothing was carried since");
    assert!(bastion.metric("sallyport_credentials_left_open_total") >= 1.0);
    wait_until("both ends are recorded", || bastion.events("connection_ended").len() == 2);
    let ends = bastion.events("connection_ended");
    assert!(ends.iter().all(|ended| ended["detail"]["end"] == "no_longer_permitted"), "{ends:?}");

    // Told at once, and looked for in vain once.
    assert_eq!(bastion.events("credential_shut")[0]["outcome"], "failed");
    bastion.advance(5);
    assert!(is_open(&postgres, &role));
    let told = bastion.events("credential_shut").len();
    if shuts == Shuts::SomebodyElse {
        postgres.query("postgres", &format!("ALTER ROLE {role} NOLOGIN")).success();
    }
    postgres.query("postgres", "ALTER ROLE sallyport_admin LOGIN").success();
    bastion.advance(5);
    assert!(!is_open(&postgres, &role));
    direct.finish().failure();
    let shut = bastion.events("credential_shut");
    assert_eq!((shut.len(), &shut[told]["outcome"]), (told + 1, &json!("done")), "{shut:?}");
    let detail = &shut[told]["detail"];
    assert_eq!((&detail["why"], &detail["backends_terminated"]), (&json!("found_open"), &json!(1)));
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    bastion.verify().success();
}

/// Their role's row in their hands, and deaf to being cancelled: a statement of the session, and what it has prepared.
#[test]
fn who_changes_their_own_role_holds_up_nobodys_revocation() {
    let postgres = Postgres::start_with(&["max_prepared_transactions=5"]);
    let bastion = Bastion::start(&postgres);
    let deaf = "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'theirs'; DO $$BEGIN LOOP BEGIN PERFORM pg_sleep(600); \
        EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$";
    let session = bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session;
    let other = bastion.driver("alice", "ledger-dev");
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", deaf]);
    let client = Running::start_quietly(&mut psql);
    let sleeping = "pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it sleeps", || count(&postgres, sleeping) == "1");
    bastion.psql("alice", "ledger-dev", "SELECT 1").failure();
    for _ in 0..2 {
        assert!(other.simple("SELECT 'served'").is_ok(), "who cannot connect ends nobody else's");
        bastion.advance(5);
    }
    bastion.run_as("bob", &["revoke", &session, "--why", "over"]).success().says("destroyed");
    client.finish().failure();
    assert_eq!((count(&postgres, sleeping).as_str(), postgres.session_roles()), ("0", vec![]));

    let session = bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session;
    let prepare =
        "SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'theirs'; PREPARE TRANSACTION 'holds'";
    bastion.psql("alice", "ledger-dev", prepare).success();
    assert_eq!(count(&postgres, "pg_prepared_xacts"), "1");
    bastion.run_as("bob", &["revoke", &session, "--why", "over"]).success().says("destroyed");
    assert_eq!((count(&postgres, "pg_prepared_xacts").as_str(), postgres.session_roles()), ("0", vec![]));
    bastion.verify().success();
}

/// They have the role's row while it is open: it cannot be shut before they are ended, and who came in past us with what they
/// have made of the time is ended with them.
#[test]
fn who_holds_the_role_while_it_is_open_is_cut_and_it_is_shut_soon() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let role = handle(&bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session);
    let other = bastion.driver("alice", "ledger-dev");
    let conversions = Held::take(&postgres, CONVERSIONS);
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT 1"]);
    let client = Running::start_quietly(psql.env("PGCLIENTENCODING", "LATIN1"));
    wait_until("the credential is open", || is_open(&postgres, &role));
    assert!(other.simple("ALTER ROLE CURRENT_USER PASSWORD 'theirs'").is_ok());
    assert!(other.simple("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'theirs'").is_ok());
    let direct = past_us(&postgres, &role);
    conversions.let_go();
    client.finish().failure().says("cannot be shut");
    wait_until("the other is cut", || other.client.is_closed());
    bastion.advance(5);
    assert!(!is_open(&postgres, &role));
    direct.finish().failure();
    let shut = &bastion.events("credential_shut")[1];
    assert_eq!((&shut["outcome"], &shut["detail"]["why"]), (&json!("done"), &json!("found_open")));
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    bastion.verify().success();
}

/// The line to the target's admin breaks once the role was opened, and nobody knows that. Who came in past us meanwhile is
/// ended, also where the session's next connection is quicker than the janitor.
#[test]
fn whoever_came_in_while_nobody_knew_that_it_was_open_is_ended_by_the_next_connection() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let role = handle(&bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]).session);
    let other = bastion.driver("alice", "ledger-dev");
    assert!(other.simple("ALTER ROLE CURRENT_USER PASSWORD 'theirs'").is_ok());
    // What the gateway asks for waits, and is ended from outside: whether it was done is unknown to who asked.
    let roles = Held::take(&postgres, ROLES);
    let end = "DO $$BEGIN LOOP PERFORM pg_terminate_backend(pid) FROM pg_locks \
        WHERE relation = 'pg_authid'::regclass AND NOT granted; EXIT WHEN FOUND OR clock_timestamp() > now() + '20 s'; PERFORM pg_sleep(0.01); END LOOP; END$$";
    let mut ending = postgres.client("psql", "postgres");
    let ending = Running::start_quietly(ending.args(["-c", end]));
    let looks = "pg_stat_activity WHERE query LIKE 'DO $$BEGIN LOOP PERFORM pg_terminate%'";
    wait_until("it looks for what waits", || count(&postgres, looks) == "1");
    let client =
        Running::start_quietly(&mut bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT 1"]));
    ending.finish().success();
    client.finish().failure();
    wait_until("the other is cut", || other.client.is_closed());
    roles.let_go();
    postgres.query("postgres", &format!("ALTER ROLE {role} LOGIN PASSWORD 'theirs'")).success();
    let direct = past_us(&postgres, &role);
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    direct.finish().failure();
    let shut = bastion.events("credential_shut");
    assert_eq!(shut.len(), 1, "{shut:?}");
    let detail = &shut[0]["detail"];
    assert_eq!((&detail["why"], &detail["backends_terminated"]), (&json!("found_open"), &json!(1)));
    bastion.verify().success();
}

/// With it the client would say how long the role is open.
#[test]
fn nobody_holds_up_their_own_login() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let asking = [
        "-c post_auth_delay=1",
        "--Post-Auth-Delay=1",
        "-cPOST\\_auth_delay=0",
        "-c post_auth\\-delay=1",
        "-W 1",
        "-c work_mem=1MB -eW1",
        "-\\W1",
    ];
    for options in asking {
        let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT 1"]);
        let refused = Running::start_quietly(psql.env("PGOPTIONS", options)).finish().failure();
        refused.says("post_auth_delay is not passed on");
    }
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SHOW work_mem"]);
    Running::start_quietly(psql.env("PGOPTIONS", "-c work_mem=99MB")).finish().success().says("99MB");
    let codes: Vec<_> =
        bastion.events("connection_refused").iter().map(|one| one["detail"]["code"].clone()).collect();
    assert_eq!(codes, vec![json!("slows_login"); asking.len()]);
    assert_eq!(lives(&bastion).len(), 1);
}
