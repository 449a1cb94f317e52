//! `pg_dump` and `pgbench`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::Finished;
use crate::support::postgres::server_program;

#[test]
fn a_dump_through_the_gateway_equals_a_direct_one() {
    let (postgres, bastion) = crate::dba();
    let content = "SET ROLE ledger_owner; \
        CREATE TABLE blobs (id int PRIMARY KEY, data bytea, note text COLLATE \"C\"); \
        INSERT INTO blobs SELECT n, decode(repeat(md5(n::text), 1 + n % 40), 'hex'), E'tab\\t ü ' || n \
          FROM generate_series(1, 3000) n; \
        CREATE FUNCTION half(n int) RETURNS int LANGUAGE sql AS 'SELECT n / 2'; \
        CREATE VIEW poor AS SELECT * FROM accounts WHERE balance < 100; CREATE SEQUENCE tickets START 42; \
        SELECT lo_from_bytea(0, 'large')";
    postgres.query("ledger", content).success();
    // From version 15.14 on, `\restrict` and its counterpart carry a random word.
    let text = |finished: Finished| -> Vec<String> {
        let stdout = finished.success().stdout;
        stdout.lines().filter(|line| !line.contains("restrict ")).map(str::to_owned).collect()
    };
    for arguments in [&["--format=plain"][..], &["--inserts", "--clean", "--if-exists"], &["--schema-only"]] {
        let direct = text(postgres.client("pg_dump", "ledger").args(arguments).output().unwrap().into());
        let proxied =
            text(bastion.client("pg_dump", "alice", "ledger-dev").args(arguments).output().unwrap().into());
        assert!(direct.iter().any(|line| line.contains("half")), "the dump is not empty");
        assert!(proxied == direct, "{arguments:?}: the dumps differ");
    }
    let rows = "SELECT md5(string_agg(id || note || encode(data, 'hex'), ',' ORDER BY id)) FROM blobs";
    // Of a directory by several connections that share one snapshot, and back by several.
    for (format, jobs) in [("custom", "1"), ("tar", "1"), ("directory", "4")] {
        let file = bastion.scratch().join(format);
        let mut dump = bastion.client("pg_dump", "alice", "ledger-dev");
        dump.args(["--format", format, "--jobs", jobs, "--file"]).arg(&file);
        Finished::from(dump.output().unwrap()).success();
        let list = |file: &Path| -> Finished {
            Command::new("pg_restore").arg("-f-").arg(file).output().unwrap().into()
        };
        let direct = bastion.scratch().join(format!("direct-{format}"));
        let mut dump = postgres.client("pg_dump", "ledger");
        Finished::from(dump.args(["--format", format, "--file"]).arg(&direct).output().unwrap()).success();
        assert!(text(list(&file)) == text(list(&direct)), "{format}: the dumps differ");

        let restore_jobs = if format == "tar" { "1" } else { "4" };
        let mut restore = bastion.client("pg_restore", "alice", "ledger-dev");
        restore
            .args(["--dbname=dbname=archive", "--jobs", restore_jobs, "--exit-on-error", "--no-owner"])
            .arg(&file);
        Finished::from(restore.output().unwrap()).success();
        assert_eq!(postgres.value("archive", rows), postgres.value("ledger", rows));
        let emptied = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; DROP SCHEMA public CASCADE; \
            CREATE SCHEMA public AUTHORIZATION ledger_owner";
        postgres.query("archive", emptied).success();
    }
    bastion.verify().success();
}

#[test]
fn pgbench_runs_in_every_protocol_mode() {
    let (postgres, bastion) = crate::dba();
    let pgbench = server_program("pgbench");
    let run = |arguments: &[&str]| -> Finished {
        let mut command = bastion.client(&pgbench, "alice", "ledger-dev");
        command.args(arguments).output().unwrap().into()
    };
    run(&["-i", "-q", "-s", "1"]).success();
    for mode in ["simple", "extended", "prepared"] {
        let done = run(&["-n", "-c", "4", "-t", "50", "-M", mode]).success();
        assert!(
            done.stdout.contains("number of transactions actually processed: 200/200"),
            "{}",
            done.stdout
        );
        assert!(done.stdout.contains("number of failed transactions: 0"), "{}", done.stdout);
    }
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM pgbench_history"), "600");
    let updates = |how: &str| {
        let begun = |statement: &&serde_json::Value| {
            statement["how"] == how
                && statement["sql"].as_str().is_some_and(|sql| sql.starts_with("UPDATE pgbench_accounts"))
        };
        bastion.statements().iter().filter(begun).count()
    };
    assert_eq!(updates("simple"), 200);
    assert_eq!(updates("extended"), 400);

    let script = bastion.scratch().join("pipeline.sql");
    let statements: Vec<String> =
        (0..50).map(|n| format!("SELECT :client_id * 1000 + {n} AS piped;\n")).collect();
    fs::write(&script, format!("\\startpipeline\n{}\\endpipeline\n", statements.concat())).unwrap();
    let script = script.to_str().unwrap();
    for mode in ["extended", "prepared"] {
        let done = run(&["-n", "-c", "4", "-t", "10", "-M", mode, "-f", script]).success();
        assert!(done.stdout.contains("actually processed: 40/40"), "{}", done.stdout);
    }
    let statements = bastion.statements();
    let piped = |one: &&serde_json::Value| {
        let is_last = |sql: &str| sql.starts_with("SELECT $1 * 1000 + 49 AS piped");
        one["how"] == "extended" && one["sql"].as_str().is_some_and(is_last)
    };
    assert_eq!(statements.iter().filter(piped).count(), 80);
    bastion.verify().success();
}
