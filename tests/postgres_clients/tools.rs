//! `pg_dump` and `pgbench`.

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
    // Several connections that share one snapshot.
    let directory = bastion.scratch().join("dump");
    let mut parallel = bastion.client("pg_dump", "alice", "ledger-dev");
    let done: Finished =
        parallel.args(["--format=directory", "--jobs=3", "--file"]).arg(&directory).output().unwrap().into();
    done.success();
    let mut restore = bastion.client("pg_restore", "alice", "ledger-dev");
    restore.args(["--dbname=dbname=archive", "--jobs=2", "--exit-on-error", "--no-owner"]).arg(&directory);
    Finished::from(restore.output().unwrap()).success();
    let rows = "SELECT md5(string_agg(id || note || encode(data, 'hex'), ',' ORDER BY id)) FROM blobs";
    assert_eq!(postgres.value("archive", rows), postgres.value("ledger", rows));
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
    bastion.verify().success();
}
