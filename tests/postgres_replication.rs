//! Replication through the gateway: only by an access that says so, recorded, and cut when its session is revoked.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::bastion::{ADMIN_DIR, target};
use support::process::{Running, wait_until};
use support::{Bastion, Finished, Options, Postgres};

const REPLICATED: &str = "replicated-dev";
const RULED: &str = "ruled-dev";
/// Roles of sessions that may replicate.
const REPLICATING: &str = "SELECT count(*) FROM pg_roles WHERE rolreplication AND rolname LIKE 'sp\\_%'";

/// Two targets whose access `dba` may replicate, one of them with a rule for statements, beside the usual ones.
fn start(is_superuser: bool) -> (Postgres, Bastion) {
    let postgres = Postgres::start();
    let anybody = "hostssl all all 127.0.0.1/32 scram-sha-256";
    postgres.admit(&format!("{anybody}\nhostssl replication all 127.0.0.1/32 scram-sha-256"));
    if is_superuser {
        postgres.query("postgres", "ALTER ROLE sallyport_admin SUPERUSER").success();
    }
    let entry = |name: &str| {
        let dba = "dba = { role = \"ledger_owner\", replication = true }";
        target(name, "dev", "bank-core", &postgres, Path::new(ADMIN_DIR))
            .replace("dba = \"ledger_owner\"", dba)
    };
    let ruled = entry(RULED).replace("accesses =", "labels = { statements = \"read-only\" }\naccesses =");
    let targets = entry(REPLICATED) + &ruled;
    let bastion =
        Bastion::start_for(&postgres, Options { targets, ..Options::default() }, &["alice", "erin"]);
    (postgres, bastion)
}

/// A client of replication's, through the gateway.
fn client(bastion: &Bastion, program: &str, target: &str, arguments: &[&str]) -> Command {
    let mut command = bastion.client(support::postgres::server_program(program), "alice", target);
    command.args(arguments);
    command
}

fn psql(bastion: &Bastion, target: &str, command: &str) -> Finished {
    let conninfo = format!("{} replication=database", bastion.conninfo("alice", target));
    let mut psql = client(bastion, "psql", target, &["-XAt", "-c", command]);
    psql.args(["-d", &conninfo]).output().unwrap().into()
}

/// A `pg_receivewal` that has begun to receive.
fn receiving(bastion: &Bastion, postgres: &Postgres, into: &Path) -> Running {
    fs::create_dir(into).unwrap();
    let mut command = client(bastion, "pg_receivewal", REPLICATED, &["--no-loop", "-D"]);
    command.arg(into).stdout(Stdio::null()).stderr(fs::File::create(into.with_extension("log")).unwrap());
    let running = Running::start(&mut command);
    wait_until("WAL is streamed", || {
        postgres.value("postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
            == "1"
    });
    running
}

#[test]
fn tools_replicate_by_an_access_that_says_so_and_are_recorded() {
    let (postgres, bastion) = start(true);
    bastion.grant("alice", REPLICATED, "dba", 3600, &[]);
    let told = psql(&bastion, REPLICATED, "IDENTIFY_SYSTEM").success();
    let system = postgres.value("postgres", "SELECT system_identifier FROM pg_control_system()");
    assert!(told.stdout.starts_with(&system), "{}", told.stdout);
    assert_eq!(psql(&bastion, REPLICATED, "SELECT count(*) FROM accounts").success().stdout.trim(), "100");

    let copy = bastion.scratch().join("copy");
    let mut backup = client(&bastion, "pg_basebackup", REPLICATED, &["-X", "stream", "-c", "fast", "-D"]);
    Finished::from(backup.arg(&copy).output().unwrap()).success();
    let original = fs::read_to_string(postgres.data().join("PG_VERSION")).unwrap();
    assert_eq!(fs::read_to_string(copy.join("PG_VERSION")).unwrap(), original);

    let records = bastion.statements();
    let sql: Vec<&str> = records.iter().filter_map(|record| record["sql"].as_str()).collect();
    // Who connects for something else, once these are gone, has not what was given for them.
    wait_until("the right is gone", || {
        bastion.psql("alice", REPLICATED, "SELECT 1").success();
        postgres.value("postgres", REPLICATING) == "0"
    });
    for begins in ["IDENTIFY_SYSTEM", "BASE_BACKUP", "START_REPLICATION"] {
        assert!(sql.iter().any(|sql| sql.starts_with(begins)), "{begins}: {sql:?}");
    }
    bastion.verify().success();
}

#[test]
fn a_revocation_cuts_the_stream_whose_bytes_are_recorded() {
    let (postgres, bastion) = start(true);
    let session = bastion.grant("alice", REPLICATED, "dba", 3600, &[]).session;
    let running = receiving(&bastion, &postgres, &bastion.scratch().join("wal"));
    bastion.run_as("erin", &["revoke", &session, "--why", "incident 42"]).success();
    assert!(!running.finish().status.success());
    assert_eq!(postgres.value("postgres", "SELECT count(*) FROM pg_stat_replication"), "0");
    assert!(postgres.session_roles().is_empty());

    let records = bastion.statements();
    let stream = records
        .iter()
        .find(|record| record["sql"].as_str().is_some_and(|sql| sql.starts_with("START_REPLICATION")))
        .unwrap();
    let recording = bastion.recording(stream["rec"].as_str().unwrap());
    let copied = recording.iter().any(|record| {
        record["kind"].as_str().is_some_and(|kind| kind.starts_with("copy"))
            && record["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    assert!(copied, "{recording:#?}");
    bastion.verify().success();
}

#[test]
fn a_session_that_replicates_is_cut_when_its_access_no_longer_says_so_and_may_connect_without_the_right() {
    let (postgres, bastion) = start(true);
    bastion.grant("alice", REPLICATED, "dba", 3600, &[]);
    let running = receiving(&bastion, &postgres, &bastion.scratch().join("wal"));
    let mut psql = bastion.client("psql", "alice", REPLICATED);
    let mut psql = Running::start(psql.args(["-Xc", "SELECT pg_sleep(600)"]).stdout(Stdio::null()));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("psql runs", || postgres.value("postgres", sleeping) == "1");

    let config = bastion.config_file();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("replication = true"));
    fs::write(&config, text.replace("replication = true", "replication = false")).unwrap();
    bastion.signal(Signal::HUP);
    assert!(!running.finish().status.success());
    let ended = || {
        let events = bastion.events("connection_ended");
        events.iter().any(|event| event.to_string().contains("REPLICATION: an access with"))
    };
    wait_until("the end says why", ended);
    // Its other connections are of the same role, which may make slots and read them.
    wait_until("psql is cut", || !psql.is_running());
    assert_eq!(postgres.value("postgres", REPLICATING), "1");
    bastion.psql("alice", REPLICATED, "SELECT 1").success();
    assert_eq!(postgres.value("postgres", REPLICATING), "0");
    bastion.verify().success();
}

#[test]
fn what_the_rules_do_not_let_replicate_does_not() {
    let (postgres, bastion) = start(true);
    bastion.grant("alice", REPLICATED, "readonly", 3600, &[]);
    bastion.grant("alice", RULED, "dba", 3600, &[]);
    let told = psql(&bastion, REPLICATED, "IDENTIFY_SYSTEM");
    assert!(!told.status.success() && told.stderr.contains("REPLICATION: an access with"), "{}", told.stderr);
    // A rule for statements does not know what such a command does.
    let told = psql(&bastion, RULED, "IDENTIFY_SYSTEM");
    assert!(told.stderr.contains("refused by Sallyport"), "{}", told.stderr);
    assert_eq!(psql(&bastion, RULED, "SELECT 1").success().stdout.trim(), "1");
    // Only the session that opened a replication connection has a role with the right.
    assert_eq!(postgres.value("postgres", REPLICATING), "1");
}

#[test]
fn an_admin_that_cannot_give_the_right_is_named() {
    let (_postgres, bastion) = start(false);
    bastion.grant("alice", REPLICATED, "dba", 3600, &[]);
    let told = psql(&bastion, REPLICATED, "IDENTIFY_SYSTEM");
    assert!(
        told.stderr.contains("`sallyport_admin` may not give sessions' roles REPLICATION"),
        "{}",
        told.stderr
    );
    let config = bastion.config_file();
    let print = ["target", "bootstrap", "postgres", REPLICATED, "--config", config.to_str().unwrap()];
    let script = bastion.operator(&print).success().stdout;
    assert!(script.contains("ALTER ROLE \"sallyport_admin\" REPLICATION;"), "{script}");
}
