//! FR-282, what a record says beside a statement's text: parameters as the target itself writes them, the transaction's
//! state, what was copied, which settings changed, and which statements are the same.

mod support;

use std::error::Error;

use bytes::BytesMut;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use support::calls::text;
use support::wire::{self, Wire};
use support::{Bastion, Options, Postgres};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

type Failure = Box<dyn Error + Sync + Send>;

/// A value in binary form, of whatever type.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        self.to_sql(of, out)
    }
}

/// What each type is tried with, in SQL.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["'t'", "'f'"]),
    ("int2", &["'-32768'", "'7'"]),
    ("int4", &["'-2147483648'", "'4711'"]),
    ("int8", &["'-9223372036854775808'", "'12345678'"]),
    ("oid", &["'4294967295'"]),
    ("float4", &["'0.1'", "'-1e-5'", "'123456'", "'1234567'", "'3.4e38'", "'NaN'", "'-Infinity'", "'-0'"]),
    (
        "float8",
        &["'0.1'", "'1e-5'", "'123456789012345'", "'1e15'", "'2.5e-300'", "'NaN'", "'Infinity'", "'0.0001'"],
    ),
    (
        "numeric",
        &[
            "'0'",
            "'-0.00'",
            "'12345678.90120'",
            "'0.00000001'",
            "'-1e30'",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'99999999999999999999999999.9999'",
            "'1e-20'",
            "'10000'",
            "'0.1000'",
        ],
    ),
    ("text", &["''", "'ü ☃ it''s'", "'NULL'", "E'a\\nb'"]),
    ("varchar", &["'x y'"]),
    ("bpchar", &["'x y'"]),
    ("name", &["'a name'"]),
    ("\"char\"", &["'x'", "''"]),
    ("bytea", &["''", "'\\x00ff0a'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("json", &["'{\"a\" : [1, null]}'"]),
    ("jsonb", &["'{\"a\" : [1, null], \"b\":\"ü\"}'"]),
    (
        "date",
        &[
            "'2000-01-01'",
            "'2024-02-29'",
            "'0044-03-15 BC'",
            "'infinity'",
            "'-infinity'",
            "'5874897-12-31'",
            "'4714-11-24 BC'",
            "'0001-01-01'",
            "'10000-01-01'",
        ],
    ),
    ("time", &["'00:00'", "'23:59:59.123456'", "'24:00'", "'12:00:00.5'"]),
    ("timetz", &["'12:00:00+02'", "'12:00:00.25-05:30'", "'00:00:00+01:02:03'", "'01:00:00-00:00:07'"]),
    (
        "timestamp",
        &[
            "'2026-01-02 03:04:05.678'",
            "'1999-12-31 23:59:59.999999'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'4714-11-24 BC'",
        ],
    ),
    (
        "timestamptz",
        &["'2026-01-02 03:04:05.678+02'", "'infinity'", "'-infinity'", "'0044-03-15 12:00:00.1+00 BC'"],
    ),
    (
        "interval",
        &[
            "'0'",
            "'1 year 2 mons 3 days 04:05:06.789'",
            "'-1 mon +3 days'",
            "'-1 days +02:00'",
            "'1 day -00:00:01.5'",
            "'-3 years'",
            "'1 year -1 mon'",
            "'100 hours'",
            "'-1 year -2 mons +3 days -04:05:06'",
            "'1 mon 1 day'",
        ],
    ),
    ("cidr", &["'192.0.2.0/24'", "'192.0.2.1/32'", "'2001:db8::/32'", "'::/0'"]),
    (
        "inet",
        &[
            "'192.0.2.1'",
            "'192.0.2.1/24'",
            "'::1'",
            "'2001:db8::1/64'",
            "'::ffff:192.0.2.1'",
            "'::192.0.2.1'",
            "'1:0:0:2:0:0:0:3'",
        ],
    ),
    ("bool[]", &["'{t,f,NULL}'"]),
    (
        "int4[]",
        &[
            "'{}'",
            "'{1,-2,NULL}'",
            "'{{1,2},{3,4}}'",
            "'[0:1]={1,2}'",
            "'{{{1},{2}},{{3},{4}}}'",
            "'[-1:0][2:3]={{1,2},{3,4}}'",
        ],
    ),
    ("int8[]", &["'{9223372036854775807}'"]),
    (
        "text[]",
        &[r#"'{a,"","NULL",null,"b c","q\"q","back\\slash","{}","x,y",ü}'"#, "ARRAY[E'a\\tb', E'c\\x0b']"],
    ),
    ("varchar[]", &["'{a}'"]),
    ("bytea[]", &["ARRAY['\\x00ff', '']::bytea[]"]),
    ("numeric[]", &["'{1.50,NaN,-0.001}'"]),
    ("float8[]", &["'{0.1,1e300,NaN}'"]),
    ("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
    ("date[]", &["'{2000-01-01,infinity,0044-03-15 BC}'"]),
    ("timestamptz[]", &["'{2026-01-02 03:04:05+00,-infinity}'"]),
    ("interval[]", &["'{1 day,-1 mons +1 day}'"]),
    ("inet[]", &["'{192.0.2.1,2001:db8::/32}'"]),
    ("jsonb[]", &["ARRAY['{\"a\": \"b\"}', '1']::jsonb[]"]),
];

#[test]
fn parameters_in_binary_form_read_as_the_target_writes_them() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let driver = bastion.driver("alice", "ledger-dev");
    let printed: Vec<(String, String)> = driver.runtime.block_on(async {
        let client = &driver.client;
        client.batch_execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'").await.unwrap();
        let mut printed = Vec::new();
        for (name, values) in VALUES {
            // The cast of an address to text adds its mask; all others are what is sent.
            let shown = if *name == "inet" { "format('%s', $1::inet)" } else { &format!("$1::{name}::text") };
            for value in *values {
                let row = client.query_one(&format!("SELECT ({value})::{name}"), &[]).await.unwrap();
                let sql = format!("SELECT {shown} /* {} */", printed.len());
                let row = client.query_one(&sql, &[&row.get::<_, Raw>(0)]).await.unwrap();
                printed.push((sql, row.get(0)));
            }
        }
        printed
    });
    drop(driver);
    let recording = bastion.ended_recording_with("SELECT $1::bool::text /* 0 */");
    for (sql, expected) in &printed {
        let is_it = |record: &&Value| record["how"] == "extended" && record["sql"] == **sql;
        let statement = recording.iter().find(is_it).unwrap_or_else(|| panic!("{sql} is not on record"));
        let param = &statement["params"][0];
        assert_eq!((&param["text"], &param["format"]), (&json!(expected), &json!("binary")), "{statement}");
    }
}

#[test]
fn secrets_in_parameters_in_binary_form_are_masked() {
    const SECRET: &str = "correct-Horse-4711";
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let driver = bastion.driver("alice", "ledger-dev");
    let (dsn, url) = (format!("host=db password={SECRET}"), format!("postgres://ann:{SECRET}@db/x"));
    let echoed = driver.runtime.block_on(async {
        let sql = "SELECT $1::text, $2::bytea, $3::text[], $4::varchar";
        let list = vec!["a".to_owned(), url.clone()];
        let row = driver.client.query_one(sql, &[&dsn, &dsn.as_bytes(), &list, &url]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, String>(3))
    });
    assert_eq!(echoed, (dsn, url), "the target got it");
    drop(driver);
    let recording = bastion.ended_recording_with("$2::bytea");
    support::secrets::assert_nowhere(&bastion, SECRET);
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert!(!json!(recording).to_string().contains(&hex));
    let executed = recording.iter().find(|record| record["how"] == "extended").unwrap();
    let texts: Vec<&Value> =
        executed["params"].as_array().unwrap().iter().map(|param| &param["text"]).collect();
    let masked: String =
        b"host=db password=***".iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert_eq!(
        json!(texts),
        json!([
            "host=db password=***",
            format!("\\x{masked}"),
            "{a,postgres://ann:***@db/x}",
            "postgres://ann:***@db/x"
        ])
    );
    assert_eq!(executed["masked"], 4);
}

#[test]
fn ends_tell_the_transactions_state_and_when_the_first_answer_came() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-v", "ON_ERROR_STOP=0"]);
    for statement in ["BEGIN", "SELECT 1", "SELECT 1/0", "SELECT 2", "ROLLBACK", "SELECT 1, pg_sleep(0.2)"] {
        psql.args(["-c", statement]);
    }
    psql.output().unwrap();
    let recording = bastion.ended_recording_with("SELECT 1/0");
    let ends: Vec<&Value> = recording.iter().filter(|record| record["kind"] == "statement_end").collect();
    let states: Vec<&Value> = ends.iter().map(|end| &end["tx"]).collect();
    assert_eq!(json!(states), json!(["open", "open", "failed", "failed", "idle", "idle"]));
    for end in &ends {
        let (first, whole) = (end["first_us"].as_u64().unwrap(), end["duration_us"].as_u64().unwrap());
        assert!(first <= whole, "{end}");
    }
    assert!(ends[5]["first_us"].as_u64().unwrap() >= 200_000, "the row came behind the wait: {}", ends[5]);
    bastion.verify().success();
}

#[test]
fn copies_name_what_was_copied_and_settings_are_told() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let driver = bastion.driver("alice", "ledger-dev");
    driver.runtime.block_on(async {
        let client = &driver.client;
        client.batch_execute("CREATE TABLE \"T a\" (a int, b int)").await.unwrap();
        let sink = client.copy_in("COPY public . \"T a\" (b, A) FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        // Three rows in one message.
        sink.send(bytes::Bytes::from_static(b"1\t2\n3\t4\n5\t6\n")).await.unwrap();
        assert_eq!(sink.as_mut().finish().await.unwrap(), 3);
        client.batch_execute("SET search_path TO public, pg_temp; RESET ROLE").await.unwrap();
        client.execute("DISCARD ALL", &[]).await.unwrap();
        client.batch_execute("SET ROLE no_such_role").await.unwrap_err();
        client.batch_execute("DO $$ BEGIN SET search_path TO pg_temp; END $$").await.unwrap();
    });
    drop(driver);
    let recording = bastion.ended_recording_with("DISCARD ALL");
    let copied = recording.iter().find(|record| record["kind"] == "copy_end").unwrap();
    let told = (&copied["table"], &copied["columns"], &copied["rows"], &copied["bytes"]);
    assert_eq!(told, (&json!("public.\"T a\""), &json!(["b", "A"]), &json!(3), &json!(12)));
    let sets: Vec<Value> = recording
        .iter()
        .filter(|record| record["kind"] == "notice" && record["sets"].is_array())
        .map(|notice| json!([notice["sets"], notice["text"]]))
        .collect();
    let expected = json!([
        [["search_path"], "done: SET search_path TO public, pg_temp"],
        [["role"], "done: RESET ROLE"],
        [["session_authorization", "role", "search_path"], "done: DISCARD ALL"],
    ]);
    assert_eq!(json!(sets), expected);
    let of = |record: &Value| {
        recording.iter().find(|it| it["kind"] == "statement" && it["n"] == record["n"]).cloned()
    };
    let notice = recording.iter().find(|record| record["sets"].is_array()).unwrap();
    assert!(text(&of(notice).unwrap()["sql"]).starts_with("SET search_path"), "{notice}");
    bastion.verify().success();
}

#[test]
fn a_fingerprint_finds_statements_that_differ_in_their_values() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "frank"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    bastion.psql("alice", "ledger-dev", "SELECT owner FROM accounts WHERE id IN (1, 2)").success();
    bastion.psql("alice", "ledger-dev", "select owner from Accounts where id in (7) -- again").success();
    let driver = bastion.driver("alice", "ledger-dev");
    driver.runtime.block_on(async {
        let sql = "SELECT owner FROM accounts WHERE id IN ($1)";
        driver.client.query(sql, &[&1_i32]).await.unwrap();
    });
    drop(driver);
    bastion.ended_recording_with("IN ($1)");
    bastion.ended_recording_with("-- again");
    let normal = b"select owner from accounts where id in ( $ )";
    let print = sallyport::crypto::hex(&sallyport::crypto::sha256(&[normal])[..8]);
    let same = bastion.statements().into_iter().filter(|statement| statement["fingerprint"] == print);
    let texts: Vec<String> = same
        .filter(|statement| statement["how"] != "prepare")
        .map(|statement| text(&statement["sql"]))
        .collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    let found =
        bastion.run_as("frank", &["search", &print, "--kind", "statement", "--json"]).success().json();
    assert!(found["items"].as_array().unwrap().len() >= 3, "{found}");
}

#[test]
fn a_portal_that_stops_and_goes_on_is_told_from_one_that_is_run_again() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let mut driver = bastion.driver("alice", "ledger-dev");
    let rows = driver.runtime.block_on(async {
        let transaction = driver.client.transaction().await.unwrap();
        let portal =
            transaction.bind("SELECT id FROM accounts WHERE id <= 5 ORDER BY id", &[]).await.unwrap();
        let mut rows = Vec::new();
        for _ in 0..3 {
            rows.push(transaction.query_portal(&portal, 2).await.unwrap().len());
        }
        rows
    });
    assert_eq!(rows, [2, 2, 1]);
    drop(driver);
    let recording = bastion.ended_recording_with("ORDER BY id");
    let is_run =
        |record: &&Value| record["how"] == "extended" && text(&record["sql"]).ends_with("ORDER BY id");
    let runs: Vec<&Value> = recording.iter().filter(is_run).collect();
    let first = &runs[0]["n"];
    assert_eq!((runs.len(), &runs[0]["resumes"]), (3, &Value::Null));
    assert_eq!((&runs[1]["resumes"], &runs[2]["resumes"]), (first, first));
    let ends: Vec<Value> = runs
        .iter()
        .map(|run| {
            recording.iter().find(|end| end["kind"] == "statement_end" && end["n"] == run["n"]).unwrap()
        })
        .map(|end| json!([end["outcome"], end["suspended"], end["rows"]]))
        .collect();
    assert_eq!(json!(ends), json!([["done", true, 2], ["done", true, 2], ["done", null, 1]]));
    bastion.verify().success();
}

#[test]
fn a_role_and_a_search_path_that_were_asked_for_at_the_start_are_on_record() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let show = "SELECT current_user || ' ' || current_setting('search_path')";
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-Atc", show]);
    let output = psql.env("PGOPTIONS", "-c role=ledger_owner -c search-path=archive").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ledger_owner archive");
    let recording = bastion.ended_recording_with("current_setting");
    let notice = recording.iter().find(|record| record["sets"].is_array()).unwrap();
    let expected = "asked for at the start: options=-c role=ledger_owner -c search-path=archive";
    assert_eq!((&notice["sets"], &notice["text"]), (&json!(["role", "search_path"]), &json!(expected)));
}

/// Neither where a statement fails of which the target quotes what it did not understand, nor where it is a parameter.
#[test]
fn no_secret_is_told_by_an_error_or_a_parameter() {
    const SECRET: &str = "hunter2-and-more";
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let driver = bastion.driver("alice", "ledger-dev");
    let by_parameter = "WITH u (password) AS (VALUES ('x')) SELECT count(*) FROM u WHERE password = $1";
    driver.runtime.block_on(async {
        let slip = format!("ALTER USER bob SET PASSWORD '{SECRET}'");
        driver.client.batch_execute(&slip).await.unwrap_err();
        let row = driver.client.query_one(by_parameter, &[&SECRET]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
    });
    drop(driver);
    let recording = bastion.ended_recording_with("WITH u (password)");
    support::secrets::assert_nowhere(&bastion, SECRET);
    let failed = recording.iter().find(|record| record["outcome"] == "failed").unwrap();
    assert!(text(&failed["message"]).contains("'***'"), "{failed}");
    let run = recording.iter().find(|record| record["how"] == "extended").unwrap();
    assert_eq!((&run["params"][0]["text"], &run["masked"]), (&json!("***"), &json!(1)));
}

/// As a server does, which reads that it is over only behind what came before.
#[test]
fn what_was_asked_for_right_before_the_end_is_done() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let insert = "INSERT INTO accounts SELECT 4711, 'last', 1 FROM pg_sleep(0.3)";
    wire.send(&[wire::query(insert), wire::message(b'X', &[])].concat());
    drop(wire);
    let recording = bastion.ended_recording_with(insert);
    let end = recording.iter().find(|record| record["kind"] == "statement_end").unwrap();
    assert_eq!((&end["outcome"], &end["tag"]), (&json!("done"), &json!("INSERT 0 1")));
    let ended = recording.last().unwrap();
    assert_eq!(
        (&ended["kind"], &ended["reason"]["end"]),
        (&json!("ended"), &json!("client_closed")),
        "{ended}"
    );
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM accounts WHERE id = 4711"), "1");
}

/// A statement of the extended protocol, without the `Sync` that ends a batch.
fn extended(sql: &str) -> Vec<u8> {
    let parse = wire::message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat());
    [parse, wire::message(b'B', &[0; 8]), wire::message(b'E', &[0; 5])].concat()
}

fn ready(wire: &mut Wire) {
    while wire.receive().is_some_and(|(tag, _)| tag != b'Z') {}
}

#[test]
fn what_a_failure_keeps_from_being_done_or_undoes_is_told() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let sync = wire::message(b'S', b"");
    wire.send(&wire::query("CREATE TABLE once (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)"));
    ready(&mut wire);
    wire.send(&[extended("SELECT 1/0"), extended("SELECT 2"), sync.clone()].concat());
    ready(&mut wire);
    // Each is done, and both are undone when they are to be committed.
    wire.send(
        &[extended("INSERT INTO once VALUES (1)"), extended("INSERT INTO once VALUES (1) "), sync].concat(),
    );
    ready(&mut wire);
    wire.send(&wire::message(b'X', b""));
    drop(wire);
    let recording = bastion.ended_recording_with("SELECT 1/0");
    let end = |sql: &str| {
        let of = recording.iter().find(|record| record["how"] == "extended" && record["sql"] == sql).unwrap();
        let end = recording.iter().find(|end| end["kind"] == "statement_end" && end["n"] == of["n"]).unwrap();
        (of["n"].clone(), end.clone())
    };
    let (failed, (_, skipped)) = (end("SELECT 1/0"), end("SELECT 2"));
    assert_eq!((&failed.1["outcome"], &failed.1["sqlstate"]), (&json!("failed"), &json!("22012")));
    assert_eq!((&skipped["outcome"], &skipped["after"]), (&json!("skipped"), &failed.0));
    for sql in ["INSERT INTO once VALUES (1)", "INSERT INTO once VALUES (1) "] {
        assert_eq!(end(sql).1["outcome"], "done");
    }
    let is_told = |record: &&Value| {
        record["kind"] == "notice" && text(&record["text"]).starts_with("the commit failed")
    };
    let notice = recording.iter().find(is_told).unwrap();
    assert!(text(&notice["text"]).contains("23505"), "{notice}");
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM once"), "0");
    bastion.verify().success();
}
