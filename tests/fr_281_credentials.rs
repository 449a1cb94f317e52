//! FR-281 at the source: whatever crashes, and whoever else works on the same server, no credential outlives its
//! session, and the record tells what became of each.

#![expect(clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

#[path = "fr_281_credentials/breaking.rs"]
mod breaking;
#[path = "fr_281_credentials/janitor.rs"]
mod janitor;
#[path = "fr_281_credentials/shutting.rs"]
mod shutting;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::StreamExt as _;
use sallyport::failpoint;
use serde_json::{Value, json};
use support::bastion::{ADMIN_DIR, PASSWORD, target};
use support::calls::text;
use support::postgres::ADMIN_PASSWORD;
use support::process::Running;
use support::secrets::assert_nowhere;
use support::{Bastion, Options, Postgres, wait_until};

fn handle(session: &str) -> String {
    format!("sp_{}", session.replace('-', "_"))
}

/// All that the server's shared catalogues say about who there is, who may what, and who owns what.
fn catalogue(postgres: &Postgres) -> String {
    let sql = "SELECT 'role', rolname::text, rolcanlogin::text, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles \
         UNION ALL SELECT 'member', roleid::regrole::text, member::regrole::text, '' FROM pg_auth_members \
         UNION ALL SELECT 'setting', setrole::regrole::text, setconfig::text, '' FROM pg_db_role_setting \
         UNION ALL SELECT 'dependency', refobjid::regrole::text, deptype::text, count(*)::text FROM pg_shdepend \
           WHERE refclassid = 'pg_authid'::regclass GROUP BY 1, 2, 3 ORDER BY 1, 2, 3, 4";
    postgres.value("ledger", sql)
}

/// What was recorded of credentials: the actions, in order, by handle.
fn lives(bastion: &Bastion) -> BTreeMap<String, Vec<String>> {
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in bastion.records() {
        let action = record["action"].as_str().unwrap_or_default().to_owned();
        if action.starts_with("credential_") {
            lives.entry(text(&record["detail"]["handle"])).or_default().push(action);
        }
    }
    lives
}

const SLEEPING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// A bastion that was killed while a statement of alice's ran, and started again; the target does not let its admin in.
fn killed_beside_a_statement(postgres: &Postgres) -> Bastion {
    let mut bastion = Bastion::start(postgres);
    bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT pg_sleep(600)"]);
    let client = Running::start_quietly(&mut psql);
    wait_until("the statement runs", || postgres.value("postgres", SLEEPING) == "1");
    bastion.kill();
    client.finish().failure();
    postgres.admit(&format!("hostssl all sallyport_admin 127.0.0.1/32 reject\n{EVERYBODY}"));
    bastion.boot();
    let tried = || bastion.log().contains("cannot look for what goes on at the target");
    wait_until("it was tried in vain", tried);
    assert_eq!(postgres.value("postgres", SLEEPING), "1");
    postgres.admit(EVERYBODY);
    bastion
}

const EVERYBODY: &str = "hostssl all all 127.0.0.1/32 scram-sha-256";

/// Once in vain, and then done.
fn assert_ended_once(bastion: &Bastion) {
    wait_until("it is recorded", || bastion.events("credential_shut").len() == 2);
    let shut = bastion.events("credential_shut");
    let outcomes: Vec<_> = shut.iter().map(|shut| text(&shut["outcome"])).collect();
    assert_eq!(outcomes, ["failed", "done"]);
    let shut = &shut[1]["detail"];
    assert_eq!((&shut["why"], &shut["backends_terminated"]), (&json!("left_running"), &json!(1)));
}

#[test]
fn what_a_crash_left_running_is_ended_once_the_target_lets_the_admin_in() {
    let postgres = Postgres::start();
    let bastion = killed_beside_a_statement(&postgres);
    bastion.advance(30);
    wait_until("nothing is left", || postgres.value("postgres", SLEEPING) == "0");
    assert_ended_once(&bastion);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    bastion.verify().success();
}

#[test]
fn what_a_crash_left_running_is_ended_before_the_session_goes_on() {
    let postgres = Postgres::start();
    let bastion = killed_beside_a_statement(&postgres);
    // Time stands still: it is not yet to be tried again.
    assert_eq!(bastion.psql("alice", "ledger-dev", SLEEPING).success().stdout, "0\n");
    assert_ended_once(&bastion);
    // And later it ends nothing that was begun since.
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-c", "SELECT pg_sleep(600)"]);
    let client = Running::start_quietly(&mut psql);
    wait_until("the statement runs", || postgres.value("postgres", SLEEPING) == "1");
    bastion.advance(60);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    assert_eq!(postgres.value("postgres", SLEEPING), "1");
    assert_ended_once(&bastion);
    drop(client);
    bastion.verify().success();
}

#[test]
fn an_access_whose_role_lets_somebody_log_in_is_refused() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let ask = || bastion.psql("alice", "ledger-prod", "SELECT 1");
    ask().success();
    postgres.query("ledger", "CREATE ROLE night_batch LOGIN; GRANT night_batch TO ledger_owner").success();
    let refused = ask().failure();
    assert!(
        refused.stderr.contains("`ledger_owner` gives the powers of `night_batch`"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("ALTER ROLE night_batch NOLOGIN"), "{}", refused.stderr);
    postgres.query("ledger", "ALTER ROLE night_batch NOLOGIN").success();
    ask().success();
    postgres.query("ledger", "ALTER ROLE ledger_owner LOGIN").success();
    ask().failure();
}

#[test]
fn no_secret_is_written_or_told_anywhere() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("dba");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'sp\\_%'";
    let verifier = postgres.value("postgres", verifier);
    let keys = verifier.split_once('$').map(|(_, keys)| keys.rsplit_once('$').unwrap().1.to_owned()).unwrap();
    let secrets = [ADMIN_PASSWORD, PASSWORD, &bastion.token("alice"), &keys];
    for secret in secrets {
        assert_nowhere(&bastion, secret);
    }
    bastion.run_as("erin", &["revoke", &granted.session, "--why", "over"]).success();
    for secret in secrets {
        assert_nowhere(&bastion, secret);
    }
    assert!(!postgres.log().contains(ADMIN_PASSWORD));
}

/// Every session there is, `at_once` of them at a time.
fn revoke_all(installations: &[Bastion], at_once: usize) {
    std::thread::scope(|scope| {
        for bastion in installations {
            let (_, mine) = bastion.api(Some("bob"), "GET", "/pam/sessions?limit=1000", None);
            let mine = mine["items"].as_array().cloned().unwrap_or_default();
            assert!(!mine.is_empty());
            for some in mine.chunks(mine.len().div_ceil(at_once / installations.len())) {
                let some = some.to_vec();
                scope.spawn(move || {
                    for session in some {
                        let body = json!({ "session": session["id"], "why": "all is done" });
                        let (status, answer) = bastion.post("bob", "/pam/revoke", body);
                        let state = &answer["credential"]["state"];
                        assert_eq!((status, state), (200, &json!("destroyed")), "{answer}");
                    }
                });
            }
        }
    });
}

/// As two nodes and more would be at work; each installation's janitor sees the other's roles.
#[test]
fn two_hundred_sessions_of_two_installations_leave_the_server_as_it_was() {
    const TARGETS: usize = 50;
    const ACCESSES: [&str; 2] = ["readonly", "dba"];
    /// So many are made at a time, and ended. Each target keeps an admin connection for some seconds beside them.
    const AT_ONCE: usize = 20;
    let postgres = Postgres::start_with(&["max_connections=450"]);
    let before = catalogue(&postgres);
    let name = |number| format!("many-{number}");
    let targets: Vec<String> =
        (0..TARGETS).map(|n| target(&name(n), "dev", "bank-core", &postgres, Path::new(ADMIN_DIR))).collect();
    let start = || {
        let options = Options { targets: targets.concat(), ..Default::default() };
        Bastion::start_for(&postgres, options, &["alice", "bob"])
    };
    let installations = [start(), start()];
    let mut sessions = BTreeSet::new();
    let mut drivers = Vec::new();
    // All accesses of both, so that they meet each other and the janitors.
    for number in 0..TARGETS {
        for (bastion, access) in
            installations.iter().flat_map(|bastion| ACCESSES.map(|access| (bastion, access)))
        {
            sessions.insert(bastion.grant("alice", &name(number), access, 600, &[]).session);
            let login = format!("{}+{access}", name(number));
            drivers.push(bastion.driver_config("alice", &login, &bastion.token("alice")));
        }
    }
    assert_eq!(sessions.len(), 200);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let of = runtime.handle();
    let connecting = futures_util::stream::iter(drivers).map(|(config, tls)| async move {
        let (client, connection) = config.connect(tls).await.unwrap();
        of.spawn(connection);
        client.batch_execute("CREATE TEMP TABLE made (id int)").await.unwrap();
        client
    });
    let clients: Vec<_> = runtime.block_on(connecting.buffer_unordered(AT_ONCE).collect());
    let roles: BTreeSet<String> = postgres.session_roles().into_iter().collect();
    assert_eq!(roles, sessions.iter().map(|session| handle(session)).collect::<BTreeSet<_>>());
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_ses\\_%'";
    assert_eq!(postgres.value("postgres", connected), "200");
    installations[0].advance(janitor::EVERY);
    assert_eq!(postgres.session_roles().len(), sessions.len(), "each leaves the other's alone");
    revoke_all(&installations, AT_ONCE);
    wait_until("all are cut", || clients.iter().all(tokio_postgres::Client::is_closed));
    assert_eq!(catalogue(&postgres), before);
    for bastion in &installations {
        assert_eq!(bastion.events("credential_orphaned"), Vec::<Value>::new());
        assert_eq!(bastion.events("credential_destroyed").len(), 100);
    }
}

/// Locks that a prepared transaction holds would keep what the session made from going to its new owner.
#[test]
fn what_a_session_prepared_and_left_is_rolled_back() {
    let postgres = Postgres::start_with(&["max_prepared_transactions=5"]);
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("dba");
    bastion
        .psql("alice", "ledger-prod", "SET ROLE NONE; CREATE SCHEMA work; CREATE TABLE work.kept (id int)")
        .success();
    let prepare =
        "SET ROLE NONE; BEGIN; ALTER TABLE work.kept ADD lost int; PREPARE TRANSACTION 'it''s \\ left'";
    bastion.psql("alice", "ledger-prod", prepare).success();
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pg_prepared_xacts"), "1");
    bastion.run_as("bob", &["revoke", &granted.session, "--why", "done"]).success().says("destroyed");
    assert!(postgres.session_roles().is_empty());
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pg_prepared_xacts"), "0");
    assert_eq!(
        postgres.value("ledger", "SELECT relowner::regrole FROM pg_class WHERE relname = 'kept'"),
        "ledger_owner"
    );
}

/// Names that need their quotes, an admin that is no superuser, and nothing prepared but by what is printed.
#[test]
fn what_bootstrap_prints_prepares_a_server_for_an_admin_that_is_no_superuser() {
    let postgres = Postgres::start();
    let text = target("fresh", "dev", "bank-core", &postgres, Path::new(ADMIN_DIR))
        .replace("sallyport_admin", "Fresh-Admin")
        .replace("ledger_readonly", "Lese-Rolle")
        .replace("ledger_owner", "Größe$1")
        .replace("[\"ledger\", \"archive\"]", "[\"Bücher-1\"]");
    postgres.query("postgres", "CREATE DATABASE \"Bücher-1\"").success();
    postgres.query("postgres", "REVOKE CONNECT ON DATABASE \"Bücher-1\" FROM PUBLIC").success();
    let bastion = Bastion::start_with(&postgres, Options { targets: text, ..Default::default() });
    let config = bastion.config_file();
    let print = ["target", "bootstrap", "postgres", "fresh", "--config", config.to_str().unwrap()];
    let script = bastion.operator(&print).success().stdout;
    let file = bastion.scratch().join("bootstrap.sql");
    std::fs::write(&file, &script).unwrap();
    for _ in 0..2 {
        let mut psql = postgres.client("psql", "postgres");
        support::Finished::from(psql.arg("-Xqf").arg(&file).output().unwrap()).success();
    }
    let password = format!("ALTER ROLE \"Fresh-Admin\" PASSWORD '{ADMIN_PASSWORD}'");
    postgres.query("postgres", &password).success();
    let powers = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'Fresh-Admin'";
    assert_eq!(postgres.value("postgres", powers), "f|f|t");
    postgres.query("Bücher-1", "CREATE SCHEMA work AUTHORIZATION \"Größe$1\"").success();

    let granted = bastion.grant("alice", "fresh", "dba", 600, &[]);
    let made =
        "CREATE TABLE work.kept (id int); SET ROLE NONE; CREATE TABLE work.left (id int); SELECT 'made'";
    bastion.psql_in("Bücher-1", "alice", "fresh", made).success().says("made");
    bastion.run_as("bob", &["revoke", &granted.session, "--why", "done"]).success().says("destroyed");
    assert!(postgres.session_roles().is_empty());
    let owners = "SELECT DISTINCT relowner::regrole FROM pg_class WHERE relname IN ('kept', 'left')";
    assert_eq!(postgres.value("Bücher-1", owners), "\"Größe$1\"");

    bastion
        .operator(&["target", "bootstrap", "postgres", "none", "--config", config.to_str().unwrap()])
        .failure();
}

/// The process dies at one place after the other, while a session is used and revoked.
#[test]
fn wherever_the_server_dies_no_credential_outlives_its_session() {
    let postgres = Postgres::start_with(&["max_prepared_transactions=5"]);
    let before = catalogue(&postgres);
    let mut bastion = Bastion::start_with(&postgres, Options::default());
    let places = failpoint::CREDENTIAL.map(str::to_owned);
    // And while a session's role is given its next secret.
    let again = ["role_making:1", "role_made:1", "credential_opened:1", "credential_issued:1", "role_shut:1"];
    for place in places.into_iter().chain(again.map(str::to_owned)) {
        dies_at(&place, &postgres, &mut bastion);
        assert_eq!(catalogue(&postgres), before, "{place}");
    }
    bastion.stop();
    bastion.verify().success();
    for (handle, life) in lives(&bastion) {
        assert_eq!(life.first().unwrap(), "credential_intended", "{handle}: {life:?}");
        assert_eq!(life.last().unwrap(), "credential_destroyed", "{handle}: {life:?}");
        let ends = life.iter().filter(|action| *action == "credential_destroyed").count();
        assert_eq!(ends, 1, "{handle}: {life:?}");
    }
}

fn dies_at(place: &str, postgres: &Postgres, bastion: &mut Bastion) {
    bastion.stop();
    bastion.set_environment(&[(failpoint::VARIABLE, place)]);
    bastion.boot();
    let granted = bastion.grant("alice", "ledger-dev", "dba", 900, &[]);
    // It may die at any of them, and at the revocation.
    let made = |n| format!("SET ROLE NONE; CREATE TABLE own_{n} (id int)");
    let prepared =
        "SET ROLE NONE; BEGIN; ALTER TABLE own_0 ADD lost int; PREPARE TRANSACTION 'left'".to_owned();
    for sql in [made(0), made(1), prepared] {
        let _died = bastion.psql_in("ledger", "alice", "ledger-dev", &sql);
    }
    let _died = bastion.run_as("bob", &["revoke", &granted.session, "--why", "over"]);
    wait_until(&format!("it dies at {place}"), || !bastion.server().is_running());
    bastion.kill();
    bastion.set_environment(&[]);
    bastion.boot();
    let role = handle(&granted.session);
    let open = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}' AND rolcanlogin");
    wait_until(&format!("nobody gets in after {place}"), || postgres.value("postgres", &open) == "0");
    let at_work = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
    wait_until(&format!("nobody is in after {place}"), || postgres.value("postgres", &at_work) == "0");
    bastion.advance(901);
    wait_until(&format!("the role is gone after {place}"), || postgres.session_roles().is_empty());
    postgres.query("ledger", "DROP TABLE IF EXISTS own_0, own_1").success();
}
