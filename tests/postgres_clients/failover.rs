//! A target with several servers: connections go to the one that is no standby, whichever that is.

use std::path::Path;

use rustix::process::Signal;

use crate::support::bastion::{ADMIN_DIR, target};
use crate::support::process::Running;
use crate::support::{Bastion, Options, Postgres, wait_until};

const WHERE: &str = "SELECT pg_is_in_recovery(), current_setting('port')";

/// The target `ha-dev` at these servers.
fn at(servers: &[&Postgres]) -> String {
    let first = servers.first().unwrap();
    let usual = target("ha-dev", "dev", "bank-core", first, Path::new(ADMIN_DIR));
    let list =
        servers.iter().map(|server| format!("\"localhost:{}\"", server.port)).collect::<Vec<_>>().join(", ");
    let one = format!("address = \"localhost:{}\"\nconnect_to = \"127.0.0.1\"\n", first.port);
    assert!(usual.contains(&one), "{usual}");
    usual.replace(&one, &format!("address = [{list}]\n"))
}

#[test]
fn connections_follow_the_primary() {
    let mut primary = Postgres::start();
    let standby = primary.start_standby();
    let options = Options { targets: at(&[&primary]), ..Options::default() };
    let mut bastion = Bastion::start_for(&primary, options, &["alice", "erin"]);
    let session = bastion.grant("alice", "ha-dev", "dba", 3600, &[]).session;
    let at_primary = format!("f|{}\n", primary.port);
    assert_eq!(bastion.psql("alice", "ha-dev", WHERE).success().stdout, at_primary);

    // The session goes on where a server is added to the list, and the standby is passed over.
    bastion.set_targets(&at(&[&standby, &primary]));
    bastion.signal(Signal::HUP);
    wait_until("the configuration is read anew", || !bastion.events("configuration_reloaded").is_empty());
    assert_eq!(bastion.psql("alice", "ha-dev", WHERE).success().stdout, at_primary);
    let sleep = ["-v", "VERBOSITY=verbose", "-c", "SELECT pg_sleep(600)"];
    let running = Running::start_quietly(&mut bastion.psql_command("alice", "ha-dev", &sleep));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'";
    wait_until("the primary is at work", || primary.value("postgres", sleeping) == "1");
    running.signal(Signal::INT);
    running.finish().failure().says("57014");
    bastion.psql("alice", "ha-dev", "CREATE TABLE made_before AS SELECT 1 AS n").success();
    wait_until("the standby has followed", || {
        standby.value("ledger", "SELECT to_regclass('made_before') IS NOT NULL") == "t"
    });

    // With the primary gone there is nothing to write to, and the error says what was tried.
    primary.stop();
    let nowhere = bastion.psql("alice", "ha-dev", WHERE).failure();
    assert!(
        nowhere.stderr.contains(&format!("localhost:{} is a standby", standby.port)),
        "{}",
        nowhere.stderr
    );
    assert!(nowhere.stderr.contains(&format!("localhost:{}", primary.port)), "{}", nowhere.stderr);
    standby.query("postgres", "SELECT pg_promote()").success();
    let at_standby = format!("f|{}\n", standby.port);
    assert_eq!(bastion.psql("alice", "ha-dev", WHERE).success().stdout, at_standby);
    bastion.psql("alice", "ha-dev", "INSERT INTO made_before VALUES (2)").success();

    // What the session had is taken from the new primary.
    assert_eq!(standby.session_roles().len(), 1);
    bastion.run_as("erin", &["revoke", &session, "--why", "a test"]).success();
    assert_eq!(standby.session_roles(), [""; 0]);
    bastion.psql("alice", "ha-dev", WHERE).failure();
    bastion.verify().success();
}

#[test]
fn a_standby_alone_is_no_primary() {
    let mut primary = Postgres::start();
    let standby = primary.start_standby();
    let options = Options { targets: at(&[&primary, &standby]), ..Options::default() };
    let bastion = Bastion::start_for(&primary, options, &["alice", "erin"]);
    let session = bastion.grant("alice", "ha-dev", "dba", 3600, &[]).session;
    bastion.psql("alice", "ha-dev", WHERE).success();
    wait_until("the standby has followed", || standby.session_roles().len() == 1);
    primary.stop();
    // The role is on the standby, which cannot take it away: nobody says that it is gone.
    let revoked = bastion.run_as("erin", &["revoke", &session, "--why", "a test"]).failure();
    assert!(
        revoked.stdout.contains("is a standby") || revoked.stderr.contains("is a standby"),
        "{revoked:?}"
    );
    assert!(bastion.events("credential_destroyed").is_empty());
    standby.query("postgres", "SELECT pg_promote()").success();
    wait_until("the role is taken from the new primary", || {
        bastion.advance(60);
        standby.session_roles().is_empty()
    });
}
