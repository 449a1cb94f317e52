//! What revocation cuts, wherever in the protocol it stands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::json;

use crate::support::calls::{backends_at_work, psql_at_work};
use crate::support::process::Running;
use crate::support::wire::{self, Wire};
use crate::support::{Bastion, wait_until};

const REVOKED: &str = "your session was revoked by erin: incident 42";

/// Whether the server still holds a socket to the client's `port`; what the kernel alone keeps, to
/// deliver the rest, has no inode.
fn holds_socket_to(bastion: &Bastion, port: u16) -> bool {
    let (ours, theirs) = (format!(":{:04X}", bastion.postgres_port), format!(":{port:04X}"));
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", bastion.pid())).unwrap();
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&ours) && fields[2].ends_with(&theirs) && fields[9] != "0"
    })
}

#[test]
fn every_connection_is_cut_wherever_it_stands_and_the_role_is_gone_when_the_call_returns() {
    let (postgres, bastion) = crate::start(&["alice", "erin"]);
    let session = crate::dev_session(&bastion, "alice", "dba");
    let verbose = ["-v", "VERBOSITY=verbose"];

    let mut idle = bastion.psql_command("alice", "ledger-dev", &verbose);
    idle.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut idle = Running::start(&mut idle);
    let mut to_idle = idle.child().stdin.take().unwrap();
    let mut from_idle = BufReader::new(idle.child().stdout.take().unwrap());
    writeln!(to_idle, "SELECT 'ready';").unwrap();
    let mut line = String::new();
    from_idle.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-dev");

    let endless = "COPY (SELECT repeat('x', 1000), generate_series(1, 1000000000)) TO STDOUT";
    let mut copy_out =
        bastion.psql_command("alice", "ledger-dev", &[&verbose[..], &["-c", endless]].concat());
    let copy_out = Running::start(copy_out.stdout(Stdio::null()).stderr(Stdio::piped()));

    let (mut stalled, _) = Wire::session(&bastion, "alice", "ledger-dev");
    stalled.send(&wire::query("SELECT repeat('y', 1000), generate_series(1, 1000000000) /* stalled */"));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND query LIKE \
                   '%/* stalled */' AND pid <> pg_backend_pid()";
    wait_until("the result is stuck", || postgres.value("postgres", waiting) == "1");

    let (mut copy_in, _) = Wire::session(&bastion, "alice", "ledger-dev");
    copy_in.send(&wire::query("COPY accounts FROM STDIN"));
    copy_in.until(b'G');
    copy_in.send(&wire::message(b'd', b"1001\tnobody\t1\n"));

    let (mut in_transaction, _) = Wire::session(&bastion, "alice", "ledger-dev");
    in_transaction.send(&wire::query("BEGIN; UPDATE accounts SET balance = 0"));
    assert_eq!(in_transaction.until(b'Z'), *b"T");

    wait_until("all are up", || crate::live(&bastion).len() == 6);
    let up = crate::live(&bastion);
    assert!(holds_socket_to(&bastion, stalled.local_port()));

    let answer = crate::revoke(&bastion, "erin", &session, "incident 42");
    assert_eq!(crate::cut(&answer), up, "each is named, and over");
    let handle = format!("sp_{}", session.replace('-', "_"));
    assert_eq!(answer["credential"], json!({ "state": "destroyed", "handle": handle, "how": "dropped" }));
    assert_eq!(answer["before"], false);
    assert!(postgres.session_roles().is_empty(), "the role is gone when the call returns");
    assert_eq!(backends_at_work(&postgres), "0", "the statement does not run on");
    assert_eq!(crate::backends(&postgres), "0");
    assert!(!holds_socket_to(&bastion, stalled.local_port()), "closed, although it never reads");
    assert_eq!(crate::live(&bastion), [""; 0]);

    for wire in [&mut copy_in, &mut in_transaction] {
        let (sqlstate, message, _) = wire.last_words();
        assert_eq!((sqlstate.as_str(), message.as_str()), ("57P01", REVOKED));
    }
    let cut = running.finish().failure();
    assert!(cut.stderr.contains(&format!("FATAL:  57P01: {REVOKED}")), "{}", cut.stderr);
    // In the middle of a message there is no room for a word: it is told or just closed.
    let cut = copy_out.finish().failure();
    let told = cut.stderr.contains(REVOKED) || cut.stderr.contains("closed the connection unexpectedly");
    assert!(told || cut.stderr.contains("connection has been closed unexpectedly"), "{}", cut.stderr);
    writeln!(to_idle, "SELECT 'alive';").unwrap();
    drop(to_idle);
    let told = idle.finish().failure();
    assert!(told.stderr.contains(&format!("FATAL:  57P01: {REVOKED}")), "{}", told.stderr);
    line.clear();
    assert_eq!(from_idle.read_line(&mut line).unwrap(), 0, "{line}");

    let sums = "SELECT count(*), sum(balance) FROM accounts";
    assert_eq!(postgres.value("ledger", sums), "100|50500", "nothing unfinished stays");
    for connection in &up {
        let recording = bastion.recording(connection);
        let reason = &recording.last().unwrap()["reason"];
        assert_eq!(*reason, json!({ "end": "revoked", "by": "erin", "why": "incident 42" }));
    }
    bastion.verify().success();
}

#[test]
fn nobody_gets_in_afterwards_and_revoking_again_changes_nothing() {
    let (postgres, bastion) = crate::start(&["alice", "bob", "erin"]);
    let session = crate::dev_session(&bastion, "alice", "readonly");
    crate::is_let_in(&bastion, "alice", "ledger-dev");
    wait_until("it is over", || crate::live(&bastion).is_empty());
    let said = bastion.run_as("erin", &["revoke", &session, "--why", "incident 42"]).success();
    assert!(said.stdout.contains("no connection was open"), "{}", said.stdout);
    assert!(said.stdout.contains(": destroyed"), "{}", said.stdout);

    let (sqlstate, message, hint) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!(sqlstate, "57P01");
    assert_eq!(message, format!("session {session} was revoked by erin: incident 42"));
    assert!(hint.contains("Speak with the person named"), "{hint}");
    assert!(postgres.session_roles().is_empty(), "nothing is made for it any more");

    let again = crate::revoke(&bastion, "bob", &session, "to be sure");
    assert_eq!(again["before"], true);
    assert_eq!(again["cuts"], json!([]));
    assert_eq!(again["credential"], json!({ "state": "none" }));
    assert_eq!(again["session"]["revoked"]["why"], "incident 42", "the first revocation stands");
    let (_, message, _) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert!(message.ends_with("revoked by erin: incident 42"), "{message}");
    let done = bastion.events("session_revoked").into_iter().filter(|event| event["outcome"] == "done");
    assert_eq!(done.count(), 1, "recorded once");
    assert_eq!(bastion.session("alice", &session)["status"], "revoked");

    // A new session is another matter.
    crate::dev_session(&bastion, "alice", "readonly");
    crate::is_let_in(&bastion, "alice", "ledger-dev");
    bastion.verify().success();
}

#[test]
fn other_sessions_go_on() {
    let (postgres, bastion) = crate::start(&["alice", "olga", "erin"]);
    let session = crate::dev_session(&bastion, "alice", "readonly");
    crate::dev_session(&bastion, "olga", "readonly");
    let uat = bastion.grant("alice", "ledger-dev", "dba", 3600, &[]).session;
    let (mut cut, _) = Wire::session(&bastion, "alice", "ledger-dev+readonly");
    let (mut same_person, _) = Wire::session(&bastion, "alice", "ledger-dev+dba");
    let (mut same_target, _) = Wire::session(&bastion, "olga", "ledger-dev");

    let answer = crate::revoke(&bastion, "erin", &session, "incident 42");
    assert_eq!(crate::cut(&answer).len(), 1);
    assert_eq!(cut.last_words().0, "57P01");
    crate::is_served(&mut same_person);
    crate::is_served(&mut same_target);
    assert_eq!(postgres.session_roles().len(), 2);
    crate::revoke(&bastion, "alice", &uat, "done");
    assert_eq!(same_person.last_words().1, "your session was revoked by alice: done");
}
