//! How a client names what it wants: target, access, database; and what it may set at its start.

use crate::support::{Bastion, Finished};

fn psql(bastion: &Bastion, settings: &[(&str, &str)], sql: &str) -> Finished {
    let mut psql = bastion.client("psql", "alice", "ledger-dev");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    psql.envs(settings.iter().copied());
    psql.output().unwrap().into()
}

#[test]
fn the_database_is_the_default_or_one_that_the_target_serves() {
    let (_postgres, bastion) = crate::dba();
    let which = "SELECT current_database()";
    let named = |database: &str| psql(&bastion, &[("PGDATABASE", database)], which);
    assert_eq!(named("ledger").success().stdout, "ledger\n");
    assert_eq!(named("archive").success().stdout, "archive\n");
    let mut unnamed = bastion.client("psql", "alice", "ledger-dev");
    let unnamed = unnamed.env_remove("PGDATABASE").args(["-XAtq", "-c", which]).output().unwrap();
    assert_eq!(Finished::from(unnamed).success().stdout, "ledger\n", "the first is the default");
    // They exist at the target, which does not matter.
    for database in ["postgres", "template1", "nowhere", "ledger ", "Ledger", "alice"] {
        let refused = named(database).failure();
        assert!(refused.stderr.contains(&format!("has no database `{database}`")), "{}", refused.stderr);
        assert!(refused.stderr.contains("ledger-dev serves: ledger, archive"), "{}", refused.stderr);
    }
    let refusals = bastion.events("connection_refused");
    assert_eq!(refusals.len(), 6);
    assert_eq!(refusals[0]["detail"]["code"], "unknown_database", "{}", refusals[0]);
    let mut wire = crate::support::wire::Wire::connect(&bastion);
    let pairs = [("user", "alice+ledger-dev"), ("database", "postgres")];
    let refused = wire.log_in(&pairs, &bastion.token("alice")).unwrap_err();
    assert_eq!(crate::support::wire::error(Some(refused)).0, "3D000");
}

#[test]
fn what_a_client_sets_at_its_start_holds() {
    let (_postgres, bastion) = crate::dba();
    let settings = [
        ("PGOPTIONS", "-c statement_timeout=4242 -c search_path=pg_catalog\\ ,public --work_mem=5MB"),
        ("PGAPPNAME", "month's end"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGTZ", "Asia/Kathmandu"),
        ("PGDATESTYLE", "German"),
    ];
    let sql = "SELECT current_setting('statement_timeout'), current_setting('work_mem'), \
               current_setting('application_name'), current_setting('client_encoding'), \
               current_setting('TimeZone'), current_setting('DateStyle')";
    let shown = psql(&bastion, &settings, sql).success();
    assert_eq!(shown.stdout, "4242ms|5MB|month's end|LATIN1|Asia/Kathmandu|German, DMY\n");
    let opened = bastion.records().into_iter().find(|record| record["kind"] == "opened").unwrap();
    assert_eq!(opened["application"], "month's end");
    assert_eq!(opened["database"], "ledger");
    // The target's own refusal of a setting reaches the client.
    let refused = psql(&bastion, &[("PGOPTIONS", "-c no_such_setting=1")], "SELECT 1").failure();
    assert!(refused.stderr.contains("unrecognized configuration parameter"), "{}", refused.stderr);
    let refused = psql(&bastion, &[("PGOPTIONS", "-c log_statement=none")], "SELECT 1").failure();
    assert!(refused.stderr.contains("permission denied to set parameter"), "{}", refused.stderr);
}

/// To this host, by this user. No certificate of the tests' names it, which only `verify-full` minds.
fn by_host(bastion: &Bastion, host: &str, user: &str, more: &[(&str, &str)]) -> Finished {
    let settings = [("PGHOST", host), ("PGUSER", user), ("PGSSLMODE", "require")];
    psql(bastion, &[&settings, more].concat(), "SELECT current_database()")
}

#[test]
fn the_host_that_a_client_connects_to_may_name_the_target() {
    let (_postgres, bastion) = crate::dba();
    for (host, user) in [
        ("ledger-dev.localhost", "alice"),
        ("Ledger-Dev.LocalHost", "alice"),
        ("ledger-dev.localhost", "alice+ledger-dev"),
        ("ledger-dev.localhost", "alice+ledger-dev+dba"),
        // Not below the gateway's own name: it says nothing.
        ("localhost", "alice+ledger-dev"),
        ("ledger-uat.elsewhere", "alice+ledger-dev"),
        ("ledger-uat.localhost.elsewhere", "alice+ledger-dev"),
    ] {
        assert_eq!(by_host(&bastion, host, user, &[]).success().stdout, "ledger\n", "{host} {user}");
    }
    // libpq names the user as the database where nobody named one.
    let mut unnamed = bastion.client("psql", "alice", "ledger-dev");
    unnamed.env_remove("PGDATABASE").env("PGUSER", "alice").env("PGSSLMODE", "require");
    unnamed.env("PGHOST", "ledger-dev.localhost").args(["-XAtq", "-c", "SELECT current_database()"]);
    assert_eq!(Finished::from(unnamed.output().unwrap()).success().stdout, "ledger\n");
    let opened: Vec<_> = bastion.records().into_iter().filter(|record| record["kind"] == "opened").collect();
    assert!(opened.iter().all(|record| record["target"] == "ledger-dev"), "{opened:?}");
    let before = opened.len();

    let two = by_host(&bastion, "ledger-uat.localhost", "alice+ledger-dev", &[]).failure();
    assert!(two.stderr.contains("says target `ledger-dev`"), "{}", two.stderr);
    assert!(two.stderr.contains("connected to says `ledger-uat`"), "{}", two.stderr);
    by_host(&bastion, "nowhere.localhost", "alice", &[]).failure().says("nowhere");
    by_host(&bastion, "ledger-uat.localhost", "alice", &[]).failure().says("ledger-uat");
    for host in ["localhost", "ledger-dev.elsewhere"] {
        by_host(&bastion, host, "alice", &[]).failure().says("does not say which target");
    }
    let silent = by_host(&bastion, "ledger-dev.localhost", "alice", &[("PGSSLSNI", "0")]);
    silent.failure().says("does not say which target");
    by_host(&bastion, "ledger-dev.localhost", "bob", &[]).failure().says("password authentication failed");
    assert_eq!(bastion.records().iter().filter(|record| record["kind"] == "opened").count(), before);
    let refused = bastion.events("connection_refused");
    let codes: Vec<_> = refused.iter().map(|event| event["detail"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == "malformed_login").count(), 4, "{codes:?}");
}

#[test]
fn the_access_is_named_where_two_sessions_fit() {
    let (_postgres, bastion) = crate::dba();
    let who = "SELECT pg_has_role('ledger_owner', 'MEMBER'), pg_has_role('ledger_readonly', 'MEMBER')";
    assert_eq!(psql(&bastion, &[], who).success().stdout, "t|f\n", "one session needs no name");
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    let ambiguous = psql(&bastion, &[], who).failure();
    assert!(
        ambiguous.stderr.contains("several sessions for `ledger-dev`: dba, readonly"),
        "{}",
        ambiguous.stderr
    );
    assert!(ambiguous.stderr.contains("USER+ledger-dev+ACCESS"), "{}", ambiguous.stderr);
    let dba = psql(&bastion, &[("PGUSER", "alice+ledger-dev+dba")], who).success();
    assert_eq!(dba.stdout, "t|f\n");
    let readonly = [("PGUSER", "alice+ledger-dev+readonly")];
    assert_eq!(psql(&bastion, &readonly, who).success().stdout, "f|t\n");
    psql(&bastion, &readonly, "DELETE FROM accounts").failure().says("permission denied");
    for user in
        ["alice+ledger-dev+root", "alice+ledger-prod", "alice+ledger-dev+dba+x", "alice", "alice+nowhere"]
    {
        psql(&bastion, &[("PGUSER", user)], "SELECT 1").failure();
    }
}
