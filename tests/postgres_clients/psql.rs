//! psql's scripts, run through the gateway and directly.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::support::{Bastion, Finished, Postgres};

const SCHEMA: &str = "
CREATE TABLE public.entries (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int REFERENCES accounts (id),
  amount numeric(12, 2) NOT NULL CHECK (amount <> 0), at timestamptz DEFAULT '2026-01-01 00:00Z', note text);
CREATE INDEX entries_by_account ON entries (account) WHERE amount > 0;
CREATE VIEW rich AS SELECT * FROM accounts WHERE balance > 900;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
COMMENT ON TABLE entries IS 'what moved';
ALTER TABLE entries OWNER TO ledger_owner; ALTER VIEW rich OWNER TO ledger_owner; GRANT SELECT ON entries TO ledger_readonly;
CREATE ROLE direct LOGIN PASSWORD 'past the gateway' IN ROLE ledger_owner;
";

fn run(mut psql: Command, script: &str) -> Finished {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    psql.arg("-X").arg("-f").arg(file.path());
    let finished: Finished = psql.output().unwrap().into();
    // psql begins its messages with the script's name, which is another each time.
    let name = file.path().to_str().unwrap();
    Finished {
        stdout: finished.stdout.replace(name, "script"),
        stderr: finished.stderr.replace(name, "script"),
        ..finished
    }
}

/// Runs `script` both ways and checks that nothing that psql prints differs. Gives what it printed.
#[track_caller]
fn the_same(postgres: &Postgres, bastion: &Bastion, script: &str) -> Finished {
    let mut direct = postgres.client("psql", "ledger");
    // With the rights that the session's role has.
    direct.env("PGUSER", "direct").env("PGPASSWORD", "past the gateway");
    let direct = run(direct, script);
    let proxied = run(bastion.client("psql", "alice", "ledger-dev"), script);
    assert_eq!(proxied.stdout, direct.stdout);
    assert_eq!(proxied.stderr, direct.stderr);
    assert_eq!(proxied.code(), direct.code());
    proxied
}

#[test]
fn psql_shows_through_the_gateway_what_it_shows_directly() {
    let (postgres, bastion) = crate::dba();
    postgres.query("ledger", SCHEMA).success();
    // The session's role comes into being with the first connection.
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();

    let meta = "\\d\n\\dt\n\\dt+\n\\di\n\\dv\n\\l\n\\du\n\\dn+\n\\df\n\\sf twice\n\\dp\n\\d+ entries\n\\d rich\n\
                \\dT\n\\dx\n\\dconfig work_mem\n\\x on\nSELECT * FROM accounts LIMIT 3;\n\\x off\n\
                SELECT * FROM rich ORDER BY id \\gx\nSELECT 1 AS one \\gset\n\\echo :one\n\
                \\encoding\nTABLE nowhere;\nSELECT id, owner FROM accounts ORDER BY id LIMIT 2 \\crosstabview\n\
                SELECT $1::int + $2::int \\bind 1 2 \\g\nSELECT n FROM generate_series(1, 3) n \\gdesc\n\
                SELECT 'SELECT ' || n FROM generate_series(1, 3) n \\gexec\n";
    let shown = the_same(&postgres, &bastion, meta);
    assert!(shown.stdout.contains("sp_ses_"), "\\du shows the session's role: {}", shown.stdout);
    assert!(shown.stdout.contains("entries_by_account"), "{}", shown.stdout);

    let scripts = [
        // Transactions, and several statements in one message.
        "BEGIN; SAVEPOINT a; SELECT 1/0; ROLLBACK TO a; SELECT 'goes on'; COMMIT;\n\
         SELECT 1\\; SELECT 2\\; SELECT 3;\nBEGIN\\; SELECT 1/0\\; SELECT 'never';\nSELECT 'after';ROLLBACK;\n\
         SELECT 1\\;;\n;\n-- a comment alone\n;/* and another */;\n",
        // Errors in full.
        "\\set VERBOSITY verbose\nSELECT 1/0;\nSELECT nowhere FROM accounts;\nINSERT INTO accounts VALUES (1, 'x', 1);\n\
         INSERT INTO accounts VALUES (NULL, 'x', 1);\nSELECT 'x'::int;\nSELEC 1;\n\
         DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'P0042', DETAIL = 'so', HINT = 'do', \
         COLUMN = 'c', TABLE = 't', SCHEMA = 's', DATATYPE = 'd', CONSTRAINT = 'k'; END $$;\n\\errverbose\n\
         SELECT 'ü', 'x'::date;\n",
        // Notices of every level, in order with the rows.
        "SET client_min_messages = debug1;\nDO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; RAISE INFO 'i'; \
         RAISE DEBUG 'd'; RAISE LOG 'l'; END $$;\nSELECT 1;\nDROP TABLE IF EXISTS nothing;\n",
        // Settings live as long as the connection and no longer.
        "SHOW DateStyle;\nSET DateStyle = 'German';\nSELECT date '2026-01-31';\nSET LOCAL x.y = '1';\n\
         SET x.y = 'kept';\nPREPARE p AS SELECT 7;\nCREATE TEMP TABLE mine (a int);\nLISTEN ear;\nDISCARD ALL;\n\
         SHOW DateStyle;\nEXECUTE p;\nTABLE mine;\nSELECT count(*) FROM pg_listening_channels();\n\
         SELECT current_setting('x.y', true);\nSET client_encoding = 'LATIN1';\nSELECT 'x';\n\\encoding\n",
        // COPY in a script, both ways, with the end marker and with an error halfway.
        "CREATE TEMP TABLE c (a int, b text);\nCOPY c FROM STDIN;\n1\tone\n2\t\\N\n\\.\nCOPY c TO STDOUT;\n\
         COPY c FROM STDIN WITH (FORMAT csv);\n3,\"three, and\nmore\"\n\\.\nCOPY c FROM STDIN;\nnot a number\tx\n\\.\n\
         COPY (SELECT * FROM c ORDER BY a DESC) TO STDOUT WITH (FORMAT csv, HEADER);\n\
         SELECT 1\\; COPY c TO STDOUT\\; SELECT 2;\nSELECT count(*) FROM c;\n",
        // Server-side cursors, FETCH_COUNT, and a result that comes in pieces.
        "\\set FETCH_COUNT 7\nSELECT n, n * n FROM generate_series(1, 30) n;\nBEGIN;\n\
         DECLARE cur SCROLL CURSOR FOR SELECT generate_series(1, 10);\nFETCH 3 FROM cur;\nMOVE 2 FROM cur;\n\
         FETCH BACKWARD 1 FROM cur;\nCLOSE cur;\nEND;\n",
    ];
    for script in scripts {
        let shown = the_same(&postgres, &bastion, script);
        assert!(!shown.stdout.is_empty() || !shown.stderr.is_empty());
    }
    let failed = the_same(&postgres, &bastion, "\\set ON_ERROR_STOP 1\nSELECT 1;\nSELECT 1/0;\nSELECT 2;\n");
    assert_eq!(failed.code(), 3);
    bastion.verify().success();
}

#[test]
fn copied_data_comes_out_as_it_went_in() {
    let (postgres, bastion) = crate::dba();
    let file = |name: &str| bastion.scratch().join(name).to_str().unwrap().to_owned();
    let (given, taken, binary) = (file("given"), file("taken"), file("binary"));
    let mut rows = String::new();
    for n in 0..100_000_u32 {
        writeln!(
            rows,
            "{n}\t{}\\\\ \\t ünï {}",
            "x".repeat((n % 50) as usize),
            n.wrapping_mul(2_654_435_761)
        )
        .unwrap();
    }
    fs::write(&given, &rows).unwrap();
    let script = format!(
        "\\set ON_ERROR_STOP 1\nCREATE TABLE copied (n int, t text);\n\\copy copied FROM '{given}'\n\
         \\copy (SELECT * FROM copied ORDER BY n) TO '{taken}'\n\\copy copied TO '{binary}' WITH (FORMAT binary)\n\
         CREATE TABLE again (LIKE copied);\n\\copy again FROM '{binary}' WITH (FORMAT binary)\n"
    );
    let shown = run(bastion.client("psql", "alice", "ledger-dev"), &script).success();
    assert_eq!(shown.stdout.matches("COPY 100000").count(), 4, "{}", shown.stdout);
    assert!(fs::read(&given).unwrap() == fs::read(&taken).unwrap(), "what came out is not what went in");
    let hash = |table: &str| {
        postgres.value("ledger", &format!("SELECT md5(string_agg(t, '|' ORDER BY n)) FROM {table}"))
    };
    assert_eq!(hash("copied"), hash("again"));

    let ends: Vec<_> = bastion.records().into_iter().filter(|record| record["kind"] == "copy_end").collect();
    assert_eq!(ends.len(), 4);
    assert_eq!(ends[0]["bytes"], rows.len(), "{}", ends[0]);
    assert_eq!(ends[0]["sha256"], ends[1]["sha256"], "both copies carried the same bytes");
}

#[test]
fn large_objects_come_out_as_they_went_in() {
    let (postgres, bastion) = crate::dba();
    let file = |name: &str| bastion.scratch().join(name).to_str().unwrap().to_owned();
    let (given, taken) = (file("given"), file("taken"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(&given, &bytes).unwrap();
    let script = format!(
        "\\set ON_ERROR_STOP 1\n\\lo_import '{given}' 'a picture'\n\\lo_export :LASTOID '{taken}'\n\\lo_list\n"
    );
    let shown = run(bastion.client("psql", "alice", "ledger-dev"), &script).success();
    assert!(shown.stdout.contains("a picture"), "{}", shown.stdout);
    assert!(fs::read(&taken).unwrap() == bytes, "what came out is not what went in");
    assert_eq!(postgres.value("ledger", "SELECT sum(length(data)) FROM pg_largeobject"), "3000000");
    // psql calls functions by the protocol's own message for that.
    let calls = bastion.statements().into_iter().filter(|statement| statement["how"] == "function").count();
    assert!(calls > 300, "{calls} function calls recorded");
}

#[test]
fn a_million_rows_and_a_statement_of_20_mb_pass_unchanged() {
    let (postgres, bastion) = crate::dba();
    let sql = "SELECT n, md5(n::text) FROM generate_series(1, 1000000) n";
    let direct = postgres.query("ledger", sql).success().stdout;
    let proxied = bastion.psql("alice", "ledger-dev", sql).success().stdout;
    assert_eq!(proxied.lines().count(), 1_000_000);
    assert!(proxied == direct, "the rows differ");

    let long = "0123456789abcdef".repeat(1_250_000);
    let script = format!("\\t\n\\a\nSELECT md5('{long}'), length('{long}');\n");
    let shown = run(bastion.client("psql", "alice", "ledger-dev"), &script).success();
    let expected = postgres.value("ledger", "SELECT md5(repeat('0123456789abcdef', 1250000))");
    assert!(shown.stdout.contains(&format!("{expected}|20000000")), "{:.200}", shown.stdout);
    bastion.verify().success();
}
