//! FR-282: everything that is done under a session is in the record before the target sees it: each
//! statement once per execution, with its parameters, rows, duration and error; COPY by size and
//! hash; refused and failed attempts too.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use support::calls::text;
use support::{Bastion, Postgres};

/// Statements of a recording with what came of each: `(statement, end)`.
fn executions(recording: &[Value]) -> Vec<(Value, Value)> {
    let of_kind = |kind: &'static str| recording.iter().filter(move |record| record["kind"] == kind);
    of_kind("statement")
        .map(|statement| {
            let mut ends = of_kind("statement_end").filter(|end| end["n"] == statement["n"]);
            let end = ends.next().unwrap_or_else(|| panic!("no end of {statement}")).clone();
            assert!(ends.next().is_none(), "two ends of {statement}");
            assert!(seq(&end) > seq(statement), "the end was recorded before its statement: {end}");
            (statement.clone(), end)
        })
        .collect()
}

fn seq(record: &Value) -> u64 {
    record["seq"].as_u64().unwrap()
}

/// The one execution of `sql`.
#[track_caller]
fn execution(recording: &[Value], sql: &str) -> (Value, Value) {
    let mut found: Vec<_> = executions(recording).into_iter().filter(|(it, _)| it["sql"] == sql).collect();
    assert_eq!(found.len(), 1, "`{sql}` in {recording:?}");
    found.remove(0)
}

/// A parameter's value, in whichever form it was kept.
fn value(param: &Value) -> Value {
    let forms = [&param["text"], &param["b64"], &param["null"]];
    forms.into_iter().find(|form| !form.is_null()).unwrap().clone()
}

fn sha256(bytes: &[u8]) -> String {
    sallyport::crypto::hex(&sallyport::crypto::sha256(&[bytes]))
}

#[test]
fn every_record_of_a_connection_says_who_under_what_where_and_from_where() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 'told apart'").success();
    let recording = bastion.ended_recording_with("told apart");
    let (_, alice) = bastion.api(Some("alice"), "GET", "/whoami", None);
    let first = &recording[0];
    let connection = text(&first["connection"]);
    let kinds: Vec<&str> = recording.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("opened", "ended"));
    for (place, record) in recording.iter().enumerate() {
        assert_eq!(seq(record), u64::try_from(place).unwrap(), "a hole in {recording:?}");
        let at: sallyport::domain::time::Timestamp = text(&record["at"]).parse().unwrap();
        assert!(at.as_micros() > 0);
        assert!(text(&record["node"]).starts_with("nod-"), "{record}");
        assert_eq!(record["principal"], json!({ "id": alice["id"], "name": "alice" }), "{record}");
        assert_eq!(
            (&record["session"], &record["request"]),
            (&json!(granted.session), &json!(granted.request))
        );
        assert_eq!((&record["rec"], &record["connection"]), (&json!(connection), &json!(connection)));
        assert_eq!((&record["target"], &record["access"]), (&json!("ledger-prod"), &json!("readonly")));
        assert_eq!((&record["environment"], &record["domain"]), (&json!("prod"), &json!("bank-core")));
        let client: std::net::SocketAddr = text(&record["client"]).parse().unwrap();
        assert!(client.ip().is_loopback() && client.port() != 0, "{record}");
        assert_eq!(record["client"], first["client"]);
    }
    assert!(recording.windows(2).all(|pair| text(&pair[0]["at"]) <= text(&pair[1]["at"])), "time goes on");
    for record in
        recording.iter().filter(|r| ["opened", "statement_end", "ended"].contains(&&*text(&r["kind"])))
    {
        assert_eq!(record["outcome"], "done", "{record}");
    }
    assert_eq!(first["reason"], "a test");
    assert_eq!((&first["application"], &first["database"]), (&json!("psql"), &json!("ledger")));
    let approvers: Vec<&Value> =
        first["approvals"].as_array().unwrap().iter().map(|approval| &approval["by"]["name"]).collect();
    assert_eq!(approvers, ["bob", "carol"]);
    let session = bastion.session("alice", &granted.session);
    assert_eq!((&first["granted_at"], &first["ends_at"]), (&session["granted_at"], &session["ends_at"]));
    assert_eq!(text(&first["policy_hash"]).len(), 64);
    assert_eq!(first["client_tls"]["version"], "TLSv1.3");
    assert!(text(&first["client_tls"]["cipher"]).starts_with("TLS_AES_"), "{first}");
    assert_eq!(recording.last().unwrap()["reason"], json!({ "end": "client_closed" }));

    let opened = bastion.events("connection_opened");
    let ended = bastion.events("connection_ended");
    assert_eq!((opened.len(), ended.len()), (1, 1));
    for event in opened.iter().chain(&ended) {
        for field in
            ["principal", "session", "request", "connection", "target", "environment", "domain", "client"]
        {
            assert_eq!(event[field], first[field], "{field} of {event}");
        }
    }
}

#[test]
fn simple_statements_are_recorded_with_rows_duration_and_error() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let statements = [
        "CREATE TABLE t (id int, name text)",
        "INSERT INTO t SELECT n, 'é ß 漢字 🏦 it''s' FROM generate_series(1, 3) n",
        "SELECT * FROM t -- it's \"quoted\" \\ back",
        "UPDATE t SET id = id + 1 WHERE id > 1",
        "SELECT 1 / 0",
        "SELEC nothing",
        "SELECT pg_sleep(0.2)",
        "SELECT 1; SELECT 2; SELECT 3 WHERE false",
    ];
    let mut command = bastion.psql_command("alice", "ledger-prod", &["-v", "ON_ERROR_STOP=0"]);
    for statement in statements {
        command.args(["-c", statement]);
    }
    let finished: support::Finished = command.output().unwrap().into();
    assert!(finished.stdout.contains("漢字 🏦 it's"), "{finished:?}");
    let recording = bastion.ended_recording_with("CREATE TABLE t");
    let recorded = executions(&recording);
    let texts: Vec<&str> = recorded.iter().map(|(statement, _)| statement["sql"].as_str().unwrap()).collect();
    assert_eq!(texts, statements, "each once, in order, to the letter");
    let ends: Vec<Value> = recorded
        .iter()
        .map(|(_, end)| json!([end["outcome"], end["tag"], end["rows"], end["sqlstate"]]))
        .collect();
    assert_eq!(
        Value::from(ends),
        json!([
            ["done", "CREATE TABLE", 0, null],
            ["done", "INSERT 0 3", 3, null],
            ["done", "SELECT 3", 3, null],
            ["done", "UPDATE 2", 2, null],
            ["failed", null, null, "22012"],
            ["failed", null, null, "42601"],
            ["done", "SELECT 1", 1, null],
            ["done", "SELECT 1; SELECT 1; SELECT 0", 2, null],
        ])
    );
    assert_eq!(recorded[4].1["message"], "division by zero");
    for (statement, end) in &recorded {
        assert_eq!((&statement["how"], &statement["certain"]), (&json!("simple"), &json!(true)));
        assert!(end["duration_us"].as_u64().unwrap() > 0, "{end}");
    }
    assert!(recorded[6].1["duration_us"].as_u64().unwrap() >= 200_000, "{}", recorded[6].1);
    let totals = &recording.last().unwrap()["totals"];
    assert_eq!(totals["statements"], statements.len(), "{totals}");
    assert!(
        totals["bytes_from_client"].as_u64().unwrap() > 0
            && totals["bytes_from_target"].as_u64().unwrap() > 0
    );

    let replay = bastion.run_as("frank", &["replay", &text(&recording[0]["rec"])]).success();
    for shown in [&statements[..7], &["22012 division by zero", "INSERT 0 3", "SELECT 1; SELECT 2"]].concat()
    {
        assert!(replay.stdout.contains(shown), "`{shown}` is not in {}", replay.stdout);
    }
    bastion.verify().success();
}

#[test]
fn an_error_that_the_client_worded_passes_for_no_statement_in_the_replay() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, support::Options::default(), &["alice", "frank"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let trick = "DO $$ BEGIN RAISE EXCEPTION E'x\\n00:00:00.050  [6] DROP TABLE accounts'; END $$";
    bastion.psql("alice", "ledger-dev", trick).failure();
    let recording = bastion.ended_recording_with("RAISE EXCEPTION");
    let (_, end) = execution(&recording, trick);
    assert_eq!(end["message"], "x\n00:00:00.050  [6] DROP TABLE accounts", "the record has it to the letter");
    let replay = bastion.run_as("frank", &["replay", &text(&recording[0]["rec"])]).success();
    let told = "P0001 x\\n00:00:00.050  [6] DROP TABLE accounts";
    assert!(replay.stdout.contains(told), "{}", replay.stdout);
    assert!(!replay.stdout.contains("\n00:00:00.050  [6]"), "{}", replay.stdout);
}

#[test]
fn parameters_are_recorded_with_every_execution() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let driver = bastion.driver("alice", "ledger-prod");
    driver.runtime.block_on(async {
        let client = &driver.client;
        let sql = "SELECT owner FROM accounts WHERE id = $1 AND owner <> $2";
        let statement = client.prepare(sql).await.unwrap();
        for id in [7_i32, 8, 9] {
            let rows = client.query(&statement, &[&id, &"o'hara; DROP TABLE accounts"]).await.unwrap();
            assert_eq!(rows.len(), 1);
        }
        let none: Option<i64> = None;
        let values = "SELECT $1::int8, $2::bool, $3::text, $4::bytea, $5::float8, $6::int8";
        client
            .query(values, &[&-5_000_000_000_i64, &true, &"ü ☃", &&[0_u8, 255, 10][..], &1.5_f64, &none])
            .await
            .unwrap();
        let failed = client.execute("INSERT INTO accounts VALUES ($1, $2, 0)", &[&1_i32, &"again"]).await;
        assert_eq!(failed.unwrap_err().code().unwrap().code(), "23505");
    });
    drop(driver);
    let recording = bastion.ended_recording_with("WHERE id = $1");
    let executed: Vec<(Value, Value)> =
        executions(&recording).into_iter().filter(|(statement, _)| statement["how"] == "extended").collect();
    let of = |part: &str| -> Vec<&(Value, Value)> {
        executed.iter().filter(|(statement, _)| text(&statement["sql"]).contains(part)).collect()
    };
    let selects = of("WHERE id = $1");
    assert_eq!(selects.len(), 3, "once for each execution: {recording:?}");
    for (id, (statement, end)) in ["7", "8", "9"].iter().zip(selects) {
        assert_eq!(
            (&statement["params"][0]["text"], &statement["params"][0]["oid"]),
            (&json!(id), &json!(23))
        );
        assert_eq!(statement["params"][1]["text"], "o'hara; DROP TABLE accounts");
        assert_eq!(
            (&end["outcome"], &end["rows"], &end["tag"]),
            (&json!("done"), &json!(1), &json!("SELECT 1"))
        );
    }
    let [(values, _)] = of("$6::int8")[..] else { panic!("{executed:?}") };
    let recorded: Vec<Value> = values["params"].as_array().unwrap().iter().map(value).collect();
    assert_eq!(Value::from(recorded), json!(["-5000000000", "true", "ü ☃", "\\x00ff0a", "1.5", true]));
    let [(_, failed)] = of("INSERT INTO accounts")[..] else { panic!("{executed:?}") };
    assert_eq!((&failed["outcome"], &failed["sqlstate"]), (&json!("failed"), &json!("23505")));
    let replay = bastion.run_as("frank", &["replay", &text(&recording[0]["rec"])]).success();
    for shown in ["$1 = '8'", "$2 = 'o'hara; DROP TABLE accounts'", "$6 = NULL", "23505"] {
        assert!(replay.stdout.contains(shown), "`{shown}` is not in {}", replay.stdout);
    }
}

#[test]
fn copies_are_recorded_by_size_and_hash() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let data = "1001\tmr. in\t5\n1002\tmrs. in\t6\n1003\t\\N?\t7\n";

    let copy = "COPY accounts FROM STDIN";
    let mut command = bastion.psql_command("alice", "ledger-prod", &["-c", copy]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(data.as_bytes()).unwrap();
    support::Finished::from(child.wait_with_output().unwrap()).success();
    let recording = bastion.ended_recording_with(copy);
    let (statement, end) = execution(&recording, copy);
    assert_eq!((&end["outcome"], &end["tag"], &end["rows"]), (&json!("done"), &json!("COPY 3"), &json!(3)));
    let copied = recording.iter().find(|record| record["kind"] == "copy_end").expect("a copy");
    assert_eq!((&copied["n"], &copied["direction"]), (&statement["n"], &json!("in")));
    assert_eq!((&copied["bytes"], &copied["sha256"]), (&json!(data.len()), &json!(sha256(data.as_bytes()))));

    let out = "COPY (SELECT id, owner FROM accounts ORDER BY id LIMIT 50) TO STDOUT";
    let given = bastion.psql("alice", "ledger-prod", out).success().stdout;
    let recording = bastion.ended_recording_with(out);
    assert_eq!(execution(&recording, out).1["tag"], "COPY 50");
    let copied = recording.iter().find(|record| record["kind"] == "copy_end").expect("a copy");
    assert_eq!((&copied["direction"], &copied["rows"]), (&json!("out"), &json!(50)));
    assert_eq!(
        (&copied["bytes"], &copied["sha256"]),
        (&json!(given.len()), &json!(sha256(given.as_bytes())))
    );

    bastion.verify().success();
}

#[test]
fn copies_of_a_driver_are_recorded_too_and_so_is_one_that_fails() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let driver = bastion.driver("alice", "ledger-prod");
    let read = driver.runtime.block_on(async {
        let sink = driver
            .client
            .copy_in("COPY accounts (id, owner, balance) FROM STDIN (FORMAT csv)")
            .await
            .unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(b"2001,a,1\n2002,")).await.unwrap();
        sink.send(bytes::Bytes::from_static(b"b,2\n")).await.unwrap();
        assert_eq!(sink.as_mut().finish().await.unwrap(), 2);
        let sink = driver.client.copy_in("COPY accounts FROM STDIN (DELIMITER ';')").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(b"not a number;x;1\n")).await.unwrap();
        assert_eq!(sink.as_mut().finish().await.unwrap_err().code().unwrap().code(), "22P02");
        let stream = driver.client.copy_out("COPY (SELECT 42) TO STDOUT").await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let mut read = Vec::new();
        while let Some(chunk) = stream.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        read
    });
    assert_eq!(read, b"42\n");
    drop(driver);
    let recording = bastion.ended_recording_with("(FORMAT csv)");
    let hashes: Vec<&Value> =
        recording.iter().filter(|record| record["kind"] == "copy_end").map(|end| &end["sha256"]).collect();
    let whole: [&[u8]; 3] = [b"2001,a,1\n2002,b,2\n", b"not a number;x;1\n", b"42\n"];
    assert_eq!(hashes, whole.map(|bytes| json!(sha256(bytes))).iter().collect::<Vec<_>>());
    let failed: Vec<Value> = executions(&recording)
        .into_iter()
        .map(|(_, end)| end)
        .filter(|end| end["outcome"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["sqlstate"], "22P02");
    bastion.verify().success();
}

#[test]
fn the_record_holds_every_statement_that_the_target_saw() {
    let postgres = Postgres::start_with(&["log_statement=all", "log_line_prefix=%u|"]);
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("dba");
    let numbered: Vec<String> = (1..=40).map(|n| format!("SELECT {n} AS marked;\n")).collect();
    let script = numbered.concat()
        + "BEGIN; INSERT INTO accounts VALUES (5000, 'marked', 1); SAVEPOINT s; SELECT 1/0;\n\
           ROLLBACK TO s; COMMIT;\nSELECT 'marked' \\; SELECT 'twice, marked';\n\
           PREPARE p (int) AS SELECT $1 + 1 AS marked;\nEXECUTE p(3);\nDO $$ BEGIN PERFORM 'marked'; END $$;\n";
    let file = bastion.scratch().join("script.sql");
    std::fs::write(&file, script).unwrap();
    let arguments = ["-v", "ON_ERROR_STOP=0", "-f", file.to_str().unwrap()];
    bastion.psql_command("alice", "ledger-prod", &arguments).output().unwrap();
    let driver = bastion.driver("alice", "ledger-prod");
    driver.runtime.block_on(async {
        for n in 0..5_i32 {
            driver.client.query("SELECT $1::int AS marked_by_driver", &[&n]).await.unwrap();
        }
    });
    driver.simple("SELECT 'marked'; SELECT 'as one message'").unwrap();
    drop(driver);
    bastion.ended_recording_with("1 AS marked");
    bastion.ended_recording_with("as one message");

    let recorded: Vec<String> =
        bastion.statements().iter().filter_map(|record| record["sql"].as_str().map(str::to_owned)).collect();
    let log = postgres.log();
    // `sp_…|LOG:  statement: …` and `sp_…|LOG:  execute <name>: …`, continued on lines with a tab.
    let mut seen = Vec::<String>::new();
    for line in log.lines() {
        if let Some(rest) = line.strip_prefix('\t') {
            if let Some(last) = seen.last_mut() {
                last.push('\n');
                last.push_str(rest);
            }
        } else if line.starts_with("sp_") && line.contains("|LOG:  ") {
            let rest = line.split_once("|LOG:  ").unwrap().1;
            let execute = rest.starts_with("execute ").then(|| rest.split_once(": ").unwrap().1);
            seen.extend(rest.strip_prefix("statement: ").or(execute).map(str::to_owned));
        }
    }
    assert!(seen.len() >= 55, "the target logged what it was sent: {log}");
    let mut times = std::collections::BTreeMap::<&str, i64>::new();
    for statement in &seen {
        *times.entry(statement).or_default() += 1;
    }
    for statement in bastion.statements().iter().filter(|record| record["how"] != "prepare") {
        let sql = statement["sql"].as_str().unwrap();
        *times.get_mut(sql).unwrap_or_else(|| panic!("recorded, but never sent: {sql}")) -= 1;
    }
    times.retain(|_, left| *left != 0);
    assert!(times.is_empty(), "not recorded as often as executed: {times:?}\nrecorded: {recorded:?}");
}

#[test]
fn long_and_odd_statements_are_recorded_to_the_byte() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("readonly");
    let driver = bastion.driver("alice", "ledger-prod");
    let long = format!("SELECT length('{}') /* the long one */", "0123456789abcdé\n".repeat(1 << 16));
    assert!(long.len() > 1 << 20);
    driver.simple(&long).unwrap();
    let odd = "SELECT E'\\\\ \"quoted\" '' \u{1} \u{7f} \u{202e}', $q$\t\r\n'$q$, '\\u0000', \
               '{\"sql\":\"nested\",\"seq\":0}' /* the odd one */";
    driver.simple(odd).unwrap();
    let parameter = "p".repeat(100_000);
    driver.runtime.block_on(async {
        let length =
            driver.client.query_one("SELECT length($1::text) /* the wide one */", &[&parameter]).await;
        assert_eq!(length.unwrap().get::<_, i32>(0), 100_000);
    });
    drop(driver);
    let recording = bastion.ended_recording_with("the odd one");
    execution(&recording, odd);

    let last = recording
        .iter()
        .find(|r| r["kind"] == "statement" && r["sql_parts"].is_number())
        .expect("a split one");
    let parts: Vec<&Value> =
        recording.iter().filter(|r| r["kind"] == "sql_part" && r["n"] == last["n"]).collect();
    assert_eq!(json!(parts.len()), last["sql_parts"]);
    assert!(parts.iter().all(|part| seq(part) < seq(last)), "the parts come before what they are parts of");
    let mut whole = Vec::new();
    for record in parts.into_iter().chain([last]) {
        match record["b64"].as_str() {
            Some(b64) => whole.extend(data_encoding::BASE64.decode(b64.as_bytes()).unwrap()),
            None => whole.extend_from_slice(record["sql"].as_str().unwrap().as_bytes()),
        }
    }
    assert!(whole == long.as_bytes(), "the statement is not what was sent");
    assert_eq!(last["sql_sha256"], json!(sha256(long.as_bytes())));
    let (wide, _) = executions(&recording)
        .into_iter()
        .find(|(it, _)| {
            it["how"] == "extended" && it["sql"].as_str().is_some_and(|sql| sql.contains("the wide one"))
        })
        .unwrap();
    let kept = &wide["params"][0];
    let hash = sha256(parameter.as_bytes());
    assert_eq!((&kept["length"], &kept["sha256"]), (&json!(100_000), &json!(hash)));

    let replay = bastion.run_as("frank", &["replay", &text(&recording[0]["rec"])]).success().stdout;
    assert!(replay.contains("the long one") && replay.contains("the odd one"));
    assert!(replay.matches("0123456789abcdé").count() >= 1 << 16, "the whole of it is shown");
    assert!(!replay.contains('\u{1}'), "control characters do not reach a terminal");
    bastion.verify().success();
}

#[test]
fn refused_and_failed_attempts_are_recorded() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.psql("alice", "ledger-prod", "SELECT 1").failure();
    let wrong = "spt_wrongwrongwrongwrongwrongwrongwrongwrong";
    bastion.try_driver("alice", "ledger-prod", wrong).unwrap_err();
    bastion.try_driver("mallory", "ledger-prod", wrong).unwrap_err();
    bastion.psql("alice", "no-such-target", "SELECT 1").failure().says("there is no target `no-such-target`");
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    bastion
        .psql_in("postgres", "alice", "ledger-dev", "SELECT 1")
        .failure()
        .says("has no database `postgres`");
    let (status, _) =
        bastion.api(None, "POST", "/login", Some(json!({ "user": "alice", "password": "guessed wrongly" })));
    assert_eq!(status, 401);

    let refused = bastion.events("connection_refused");
    let codes: Vec<&str> = refused.iter().map(|event| event["detail"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["no_session", "wrong_token", "wrong_token", "unknown_target", "unknown_database"]);
    for event in &refused {
        assert_eq!(event["outcome"], "refused", "{event}");
        assert!(text(&event["client"]).starts_with("127.0.0.1:"), "{event}");
        assert_ne!(text(&event["detail"]["why"]), "", "{event}");
    }
    assert_eq!(refused[0]["principal"]["name"], "alice");
    let place = ["target", "environment", "domain"].map(|field| refused[0][field].as_str());
    assert_eq!(place, [Some("ledger-prod"), Some("prod"), Some("bank-core")]);
    assert_eq!(refused[1]["principal"], Value::Null, "nobody proved who they are");
    assert_eq!(refused[2]["detail"]["claimed"], "mallory");
    let logins: Vec<Value> =
        bastion.events("login").into_iter().filter(|event| event["outcome"] == "refused").collect();
    assert_eq!(logins.len(), 1);
    assert_eq!((&logins[0]["detail"]["claimed"], &logins[0]["principal"]), (&json!("alice"), &Value::Null));
    assert!(!serde_json::to_string(&bastion.records()).unwrap().contains("guessed wrongly"));
    let recordings: BTreeSet<String> =
        bastion.records().iter().filter_map(|r| r["connection"].as_str().map(str::to_owned)).collect();
    assert!(recordings.is_empty(), "what was refused has no recording");
}

#[test]
fn a_statement_that_is_not_text_is_recorded_by_its_bytes() {
    use std::os::unix::ffi::OsStrExt as _;

    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("readonly");
    let sent = b"SELECT 'caf\xe9 \xff\xfe' /* not UTF-8 */";
    let mut command = bastion.psql_command("alice", "ledger-prod", &["-c", "SELECT 'before'", "-c"]);
    let finished: support::Finished = command.arg(std::ffi::OsStr::from_bytes(sent)).output().unwrap().into();
    finished.failure().says("invalid byte sequence");
    let recording = bastion.ended_recording_with("'before'");
    let recorded = executions(&recording);
    assert_eq!(recorded.len(), 2, "{recorded:?}");
    let (statement, end) = &recorded[1];
    assert_eq!(statement["b64"], json!(data_encoding::BASE64.encode(sent)));
    assert_eq!((&end["outcome"], &end["sqlstate"]), (&json!("failed"), &json!("22021")));
    let replay = bastion.run_as("frank", &["replay", &text(&recording[0]["rec"])]).success();
    replay.says("(not text, base64)");
}
