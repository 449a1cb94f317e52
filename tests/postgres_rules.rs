//! Rules about statements: what a target's label closes, what is refused, and that the connection lives on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;

use serde_json::Value;
use support::bastion::{ADMIN_DIR, target};
use support::wire::{Wire, message, query};
use support::{Bastion, Finished, Options, Postgres};

const READ_ONLY: &str = "reports-dev";
const GUARDED: &str = "accounts-dev";

/// Two targets with labels, beside the usual ones, on one database.
fn start() -> (Postgres, Bastion) {
    let postgres = Postgres::start();
    let entry = |name: &str, label: &str| {
        let entry = target(name, "dev", "bank-core", &postgres, Path::new(ADMIN_DIR));
        entry.replace("accesses =", &format!("labels = {{ statements = \"{label}\" }}\naccesses ="))
    };
    let targets = entry(READ_ONLY, "read-only") + &entry(GUARDED, "guarded");
    let bastion =
        Bastion::start_for(&postgres, Options { targets, ..Options::default() }, &["alice", "erin"]);
    for target in [READ_ONLY, GUARDED, "ledger-dev"] {
        bastion.grant("alice", target, "dba", 3600, &[]);
    }
    (postgres, bastion)
}

/// What psql says of statements that it sends one by one, going on after errors.
fn psql(bastion: &Bastion, target: &str, statements: &[&str]) -> Finished {
    let mut psql = bastion.client("psql", "alice", target);
    psql.args(["-XAtq", "-v", "VERBOSITY=verbose"]);
    for sql in statements {
        psql.args(["-c", sql]);
    }
    psql.output().unwrap().into()
}

fn rows(postgres: &Postgres) -> String {
    postgres.value("ledger", "SELECT count(*) FROM accounts")
}

#[test]
fn a_refused_statement_is_an_error_of_its_own_and_the_connection_goes_on() {
    let (postgres, bastion) = start();
    let told = psql(&bastion, READ_ONLY, &["DELETE FROM accounts", "SELECT count(*) FROM accounts"]);
    assert_eq!(told.stdout.trim(), "100", "{}", told.stderr);
    assert!(
        told.stderr.contains("ERROR:  42501: refused by Sallyport: ")
            && told.stderr.contains("READ-ONLY: a statement that only reads: reports-dev is labelled"),
        "{}",
        told.stderr
    );
    assert!(!told.stderr.contains("syntax"), "{}", told.stderr);
    // Without a label it is the role's own right that decides.
    psql(&bastion, "ledger-dev", &["DELETE FROM accounts WHERE id = 1"]).success();
    assert_eq!(rows(&postgres), "99");

    let statements = bastion.statements();
    let refused = statements.iter().find(|record| record["sql"] == "DELETE FROM accounts").unwrap();
    let recording = refused["rec"].as_str().unwrap();
    let end = bastion
        .recording(recording)
        .into_iter()
        .find(|record| record["kind"] == "statement_end" && record["n"] == refused["n"]);
    let end = end.unwrap();
    assert_eq!((&end["outcome"], &end["sqlstate"]), (&Value::from("failed"), &Value::from("42501")), "{end}");
    assert!(end["message"].as_str().unwrap().contains("READ-ONLY"), "{end}");
    assert!(bastion.metric("sallyport_statements_refused_total") >= 1.0);
    bastion.verify().success();
}

#[test]
fn nothing_that_hides_in_another_statement_gets_past_a_rule() {
    let (postgres, bastion) = start();
    let hidden = [
        "WITH gone AS (DELETE FROM accounts RETURNING *) SELECT * FROM gone",
        "SELECT 1; DELETE FROM accounts",
        "/* /* */ SELECT 1; */ DELETE FROM accounts",
        "SELECT E'\\''; DELETE FROM accounts; --'",
        "SELECT '\\'; DELETE FROM accounts; --'",
        "SELECT $a$ $b$ $a$; DELETE FROM accounts; -- $a$",
        "DO $$ BEGIN DELETE FROM accounts; END $$",
        "COPY (DELETE FROM accounts RETURNING *) TO STDOUT",
        "EXPLAIN ANALYZE DELETE FROM accounts",
        "EXPLAIN (ANALYZE) DELETE FROM accounts",
        "PREPARE d AS DELETE FROM accounts",
        "EXECUTE d",
        "MERGE INTO accounts USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM accounts; END",
        "SELECT 1 INTO stolen FROM accounts",
        "CREATE TABLE stolen AS SELECT * FROM accounts",
        "TRUNCATE accounts",
        "DELETE\u{a0}FROM accounts",
        "SELECT E'a'\n'\\''; DELETE FROM accounts; --'",
        "WITH RECURSIVE x(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM x WHERE a < 2) SEARCH BREADTH FIRST BY a SET key \
         UPDATE accounts SET balance = 0",
        "SELECT 1 IS DISTINCT FROM 2 INTO stolen",
        "SELECT * FROM accounts WHERE owner = 'x",
    ];
    let signs = format!("SELECT 2*{}--'\n1; DELETE FROM accounts; --'", "+".repeat(62));
    let hidden = [&hidden[..], &[&signs]].concat();
    let told = psql(&bastion, READ_ONLY, &hidden);
    let refusals = told.stderr.matches("42501: refused by Sallyport").count();
    assert_eq!(refusals, hidden.len(), "{}", told.stderr);
    assert_eq!(rows(&postgres), "100");
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pg_class WHERE relname = 'stolen'"), "0");
    // What only looks like it is let through.
    let harmless = [
        "SELECT ';DELETE FROM accounts', E'\\'', $$DELETE FROM accounts$$",
        "SELECT count(*) FROM accounts -- ; DELETE FROM accounts",
        "SELECT id FROM accounts WHERE id = 1 FOR UPDATE",
        "EXPLAIN SELECT * FROM accounts",
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM accounts; FETCH 1 FROM c; COMMIT",
        "COPY (SELECT 1) TO STDOUT",
        "SET search_path TO public; SHOW search_path",
        "SELECT 'é ü'",
        "BEGIN; SAVEPOINT a; ROLLBACK TO SAVEPOINT a; COMMIT",
        "\\d+ accounts",
        "\\df",
        "",
    ];
    psql(&bastion, READ_ONLY, &harmless).success();
}

#[test]
fn a_refusal_fails_the_transaction_as_any_error_does() {
    let (postgres, bastion) = start();
    let script = [
        "BEGIN",
        "UPDATE accounts SET balance = 0 WHERE id = 1",
        "UPDATE accounts SET balance = 0",
        "SELECT 1",
        "COMMIT",
        "SELECT balance FROM accounts WHERE id = 1",
    ];
    let mut command = bastion.client("psql", "alice", GUARDED);
    let file = bastion.scratch().join("script.sql");
    std::fs::write(&file, script.join(";\n") + ";\n").unwrap();
    let told: Finished =
        command.args(["-XAtq", "-v", "VERBOSITY=verbose", "-f"]).arg(file).output().unwrap().into();
    assert!(
        told.stderr.contains("42501: refused by Sallyport: ") && told.stderr.contains("GUARDED-WHERE"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("25P02"), "the transaction is aborted: {}", told.stderr);
    assert_eq!(told.stdout.trim(), "10", "and rolled back");

    // Dropping needs a transaction around it: a savepoint's end does not end it, a commit does.
    postgres.query("ledger", "CREATE TABLE extra (); ALTER TABLE extra OWNER TO ledger_owner").success();
    let refused = psql(&bastion, GUARDED, &["DROP TABLE extra", "BEGIN; COMMIT; DROP TABLE extra"]);
    assert_eq!(refused.stderr.matches("GUARDED-TRANSACTION").count(), 2, "{}", refused.stderr);
    let chained = psql(&bastion, GUARDED, &["BEGIN; COMMIT AND NO CHAIN; DROP TABLE extra"]);
    assert!(chained.stderr.contains("GUARDED-TRANSACTION"), "{}", chained.stderr);
    let allowed = "BEGIN; SAVEPOINT a; ROLLBACK TO a; DROP TABLE extra; ROLLBACK";
    psql(&bastion, GUARDED, &[allowed]).success();
}

/// The extended protocol's messages for one statement.
fn extended(sql: &str) -> Vec<u8> {
    [
        message(b'P', format!("\0{sql}\0\0\0").as_bytes()),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
    ]
    .concat()
}

/// The tags of all messages up to `ReadyForQuery`.
fn tags(wire: &mut Wire) -> String {
    let mut tags = String::new();
    while !tags.ends_with('Z') {
        tags.push(char::from(wire.receive().unwrap().0));
    }
    tags
}

#[test]
fn in_a_pipeline_what_follows_is_skipped_and_the_next_one_runs() {
    let (postgres, bastion) = start();
    let (mut wire, _) = Wire::session(&bastion, "alice", READ_ONLY);
    let sync = message(b'S', b"");
    wire.send(
        &[extended("SELECT 1"), extended("DELETE FROM accounts"), extended("SELECT 2"), sync.clone()]
            .concat(),
    );
    assert_eq!(tags(&mut wire), "12TDCEZ");
    wire.send(&[extended("SELECT 3"), sync.clone()].concat());
    assert_eq!(tags(&mut wire), "12TDCZ");
    // What is refused need not even be planned.
    wire.send(&[message(b'P', b"d\0DELETE FROM accounts\0\0\0"), sync.clone()].concat());
    assert_eq!(tags(&mut wire), "EZ");
    wire.send(&[message(b'B', b"\0d\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), sync].concat());
    assert_eq!(tags(&mut wire), "EZ", "there is no such statement");
    // Many at once: each error is its own.
    wire.send(
        &[
            query("DELETE FROM accounts"),
            query("SELECT nonsense"),
            query("DROP TABLE accounts"),
            query("SELECT 1"),
        ]
        .concat(),
    );
    let mut errors = Vec::new();
    for (tag, body) in std::iter::from_fn(|| wire.receive()).take_while(|(tag, _)| *tag != b'D') {
        if tag == b'E' {
            errors.push(support::wire::field(&body, b'C'));
        }
    }
    assert_eq!(errors, ["42501", "42703", "42501"]);
    assert_eq!(rows(&postgres), "100");
}

#[test]
fn a_transaction_that_may_not_have_begun_is_none() {
    let (postgres, bastion) = start();
    postgres.query("ledger", "CREATE TABLE extra (); ALTER TABLE extra OWNER TO ledger_owner").success();
    let (mut wire, _) = Wire::session(&bastion, "alice", GUARDED);
    let sync = message(b'S', b"");
    // The first BEGIN is never run.
    wire.send(&[query("SELECT 1/0; BEGIN"), query("DROP TABLE extra")].concat());
    assert!(tags(&mut wire).contains('E') && tags(&mut wire).contains('E'));
    let skipped = [
        extended("SELECT nonsense"),
        extended("BEGIN"),
        sync.clone(),
        extended("DROP TABLE extra"),
        sync.clone(),
    ];
    wire.send(&skipped.concat());
    assert!(tags(&mut wire).contains('E') && tags(&mut wire).contains('E'));
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pg_class WHERE relname = 'extra'"), "1");
    // In one batch it is certain: drivers send BEGIN with the first statement.
    wire.send(
        &[extended("BEGIN"), extended("DROP TABLE extra"), sync.clone(), extended("ROLLBACK"), sync].concat(),
    );
    assert!(!tags(&mut wire).contains('E') && !tags(&mut wire).contains('E'));
}

#[test]
fn a_setting_that_is_on_its_way_hides_nothing() {
    let (postgres, bastion) = start();
    let (mut wire, _) = Wire::session(&bastion, "alice", READ_ONLY);
    // With the setting off, the backslash escapes the quote: what follows is a statement.
    let sneaky = query("SELECT '\\'' ; DELETE FROM accounts; SELECT ''");
    wire.send(&[query("SET standard_conforming_strings = off"), sneaky.clone()].concat());
    assert!(!tags(&mut wire).contains('E'));
    assert!(tags(&mut wire).contains('E'));
    // The target tells of a setting with `ReadyForQuery`, not with the answer to the statement.
    wire.send(&query("SET standard_conforming_strings = on"));
    tags(&mut wire);
    wire.send(&[extended("SET standard_conforming_strings = off"), message(b'H', b"")].concat());
    wire.until(b'C');
    wire.send(&sneaky);
    assert!(tags(&mut wire).contains('E'));
    wire.send(&query("SET standard_conforming_strings = on"));
    tags(&mut wire);
    // In SJIS the second byte of a character may be a backslash.
    let hidden = query("SET client_encoding = 'SJIS'");
    let mut soo = b"SELECT E'\x83\x5c'; DELETE FROM accounts; --'\0".to_vec();
    wire.send(&hidden);
    tags(&mut wire);
    wire.send(&message(b'Q', &soo));
    assert!(tags(&mut wire).contains('E'));
    soo = b"SELECT $\x83[$ ' $\x83[$; DELETE FROM accounts; --'\0".to_vec();
    wire.send(&message(b'Q', &soo));
    assert!(tags(&mut wire).contains('E'));
    // In EUC_JP the bytes of one name are those of another in UTF-8; of strings nobody asks.
    wire.send(&query("SET client_encoding = 'EUC_JP'"));
    tags(&mut wire);
    wire.send(&message(b'Q', b"SELECT '\xc4\xa1' AS name\0"));
    assert!(!tags(&mut wire).contains('E'));
    wire.send(&message(b'Q', b"SELECT 1 AS \xc4\xa1\0"));
    assert!(tags(&mut wire).contains('E'));
    assert_eq!(rows(&postgres), "100");
    bastion.verify().success();
}

#[test]
fn what_a_transaction_has_come_to_is_known_when_the_target_says_so() {
    let (postgres, bastion) = start();
    postgres.query("ledger", "CREATE TABLE extra (); ALTER TABLE extra OWNER TO ledger_owner").success();
    let (mut wire, _) = Wire::session(&bastion, "alice", GUARDED);
    let (sync, flush) = (message(b'S', b""), message(b'H', b""));
    wire.send(&query("BEGIN"));
    tags(&mut wire);
    // Committed, and not yet told as such.
    wire.send(&[extended("COMMIT"), flush].concat());
    wire.until(b'C');
    wire.send(&[extended("DROP TABLE extra"), sync].concat());
    assert!(tags(&mut wire).contains('E'));
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pg_class WHERE relname = 'extra'"), "1");
}

/// A portal of the protocol was judged in the transaction of its own statement, if at all.
#[test]
fn a_portal_is_not_run_by_its_name() {
    let (_postgres, bastion) = start();
    let (mut wire, _) = Wire::session(&bastion, "alice", GUARDED);
    wire.send(&query("BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH ALL FROM c"));
    assert!(!tags(&mut wire).contains('E'));
    let parse = message(b'P', b"\0SELECT id FROM accounts\0\0\0");
    let bind = message(b'B', b"p\0\0\0\0\0\0\0\0");
    wire.send(&[parse, bind, message(b'S', b"")].concat());
    assert!(!tags(&mut wire).contains('E'));
    wire.send(&query("SELECT id FROM accounts ORDER BY id FETCH FIRST 1 ROW ONLY"));
    assert!(!tags(&mut wire).contains('E'));
    wire.send(&query("FETCH ALL FROM p"));
    let (sqlstate, message, _) = support::wire::error(wire.receive());
    assert_eq!(sqlstate, "42501", "{message}");
    assert!(message.contains("UNKNOWN-STATEMENT"), "{message}");
    wire.until(b'Z');
}

#[test]
fn rules_changed_while_connected_hold_for_the_next_statement() {
    let (postgres, mut bastion) = start();
    let (mut wire, _) = Wire::session(&bastion, "alice", GUARDED);
    wire.send(&query("UPDATE accounts SET balance = balance WHERE id = 1"));
    assert!(tags(&mut wire).contains('C'));
    let entry = target(GUARDED, "dev", "bank-core", &postgres, Path::new(ADMIN_DIR));
    let entry = entry.replace("accesses =", "labels = { statements = \"read-only\" }\naccesses =");
    bastion.set_targets(&entry);
    bastion.signal(rustix::process::Signal::HUP);
    support::wait_until("the label is in force", || {
        wire.send(&query("UPDATE accounts SET balance = balance WHERE id = 1"));
        tags(&mut wire).contains('E')
    });
}

#[test]
fn what_was_prepared_is_run_by_the_rules_for_what_it_does() {
    let (postgres, bastion) = start();
    let told = psql(
        &bastion,
        READ_ONLY,
        &[
            "PREPARE count AS SELECT count(*) FROM accounts",
            "EXECUTE count",
            "PREPARE \"Count\"(int) AS SELECT $1; EXECUTE \"Count\"(abs(-7))",
            "SELECT 1; EXECUTE COUNT",
        ],
    );
    assert_eq!(told.success().stdout.split_whitespace().collect::<Vec<_>>(), ["100", "7", "1", "100"]);
    let refused = [
        "EXECUTE other",
        "EXECUTE \"COUNT\"",
        "EXECUTE count; DELETE FROM accounts",
        "EXECUTE count DELETE FROM accounts",
        "EXPLAIN ANALYZE EXECUTE count",
        "CREATE TABLE stolen AS EXECUTE count",
        "DEALLOCATE count; PREPARE count AS DELETE FROM accounts; EXECUTE count",
        "PREPARE transaction AS DELETE FROM accounts",
    ];
    let told = psql(&bastion, READ_ONLY, &[&["PREPARE count AS SELECT 1"], &refused[..]].concat());
    assert_eq!(told.stderr.matches("42501: refused by Sallyport").count(), refused.len(), "{}", told.stderr);

    // What the name stood for before counts too: the server may have kept it.
    let told = psql(
        &bastion,
        GUARDED,
        &[
            "PREPARE change AS UPDATE accounts SET balance = 1 WHERE id = 1",
            "EXECUTE change",
            "PREPARE all_of_them AS UPDATE accounts SET balance = 2",
            "EXECUTE all_of_them",
        ],
    );
    assert_eq!(told.stderr.matches("42501: refused by Sallyport").count(), 2, "{}", told.stderr);
    assert_eq!(
        postgres.value("ledger", "SELECT string_agg(DISTINCT balance::text, ',') FROM accounts WHERE id = 1"),
        "1"
    );
    assert_eq!(rows(&postgres), "100");

    bastion.verify().success();
}

#[test]
fn what_the_protocol_prepared_is_run_by_sql_under_the_same_rules() {
    let (_postgres, bastion) = start();
    let (mut wire, _) = Wire::session(&bastion, "alice", READ_ONLY);
    let sync = message(b'S', b"");
    wire.send(&[message(b'P', b"known\0SELECT 5\0\0\0"), sync.clone()].concat());
    assert_eq!(tags(&mut wire), "1Z");
    wire.send(&query("EXECUTE known"));
    assert_eq!(tags(&mut wire), "TDCZ");
    wire.send(&[message(b'P', b"gone\0DELETE FROM accounts\0\0\0"), sync.clone()].concat());
    assert_eq!(tags(&mut wire), "EZ");
    wire.send(&query("EXECUTE gone"));
    assert_eq!(tags(&mut wire), "EZ");
    // What is more than a query changes what is known, or the protocol itself.
    for (name, sql) in [("d", "DEALLOCATE known"), ("c", "COPY (SELECT 1) TO STDOUT"), ("b", "BEGIN")] {
        wire.send(&[message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes()), sync.clone()].concat());
        assert_eq!(tags(&mut wire), "1Z", "{sql}");
        wire.send(&query(&format!("EXECUTE {name}")));
        assert_eq!(tags(&mut wire), "EZ", "{sql}");
    }
    // Many of them in one text are not looked at.
    wire.send(&query(&"EXECUTE known;".repeat(33)));
    assert_eq!(tags(&mut wire), "EZ");
    wire.send(&query("EXECUTE known"));
    assert_eq!(tags(&mut wire), "TDCZ");
    // A name that the server may know by another: none can be told after it.
    wire.send(&[message(b'P', "\u{c4}\0SELECT 6\0\0\0".as_bytes()), sync].concat());
    assert_eq!(tags(&mut wire), "1Z");
    wire.send(&query("EXECUTE known"));
    assert_eq!(tags(&mut wire), "EZ");
    bastion.verify().success();
}

#[test]
fn a_dump_of_a_read_only_target_equals_a_direct_one() {
    let (postgres, bastion) = start();
    let content = "SET ROLE ledger_owner; CREATE TABLE blobs (id int PRIMARY KEY, data bytea); \
        CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); \
        INSERT INTO blobs SELECT n, decode(md5(n::text), 'hex') FROM generate_series(1, 300) n; \
        CREATE FUNCTION half(n int) RETURNS int LANGUAGE sql AS 'SELECT n / 2'; \
        CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)";
    postgres.query("ledger", content).success();
    let dump = |mut client: std::process::Command| -> Vec<String> {
        let dumped =
            Finished::from(client.arg("--serializable-deferrable").output().unwrap()).success().stdout;
        dumped.lines().filter(|line| !line.contains("restrict ")).map(str::to_owned).collect()
    };
    let direct = dump(postgres.client("pg_dump", "ledger"));
    assert!(direct.iter().any(|line| line.contains("half")), "the dump is not empty");
    assert!(dump(bastion.client("pg_dump", "alice", READ_ONLY)) == direct, "the dumps differ");
    let statements = bastion.statements();
    let run = statements
        .iter()
        .filter(|record| record["sql"].as_str().is_some_and(|sql| sql.starts_with("EXECUTE dump")));
    assert!(run.count() >= 4, "it runs by SQL what it prepared");
}
