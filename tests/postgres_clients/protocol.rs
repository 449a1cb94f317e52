//! The protocol message by message: every kind that a client may send, with the same answers as directly.

use std::collections::HashMap;

use crate::support::wire::{self, Message, VERSION_3_0, Wire, message, query, startup};
use crate::support::{Bastion, Postgres, wait_until};

pub(super) const DIRECT: &str = "CREATE ROLE direct LOGIN PASSWORD 'past the gateway' IN ROLE ledger_owner";
const SCHEMA: &str = "SET ROLE ledger_owner; CREATE TABLE raw (n int PRIMARY KEY, t text)";
const VERSION_3_2: u32 = 0x0003_0002;

/// What is sent at once, and the kind of message that ends the answer to it, with how many there are.
type Step = (Vec<u8>, u8, usize);

pub(super) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

/// Values in text; the result in `format`.
pub(super) fn bind(portal: &str, statement: &str, values: &[Option<&[u8]>], format: u8) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default());
    }
    body.extend([0, 1, 0, format]);
    message(b'B', &body)
}

pub(super) fn execute(portal: &str, rows: i32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

/// `Describe` or `Close` of a statement (`S`) or portal (`P`).
pub(super) fn about(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    message(tag, &[&[kind], name.as_bytes(), b"\0"].concat())
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), execute("", 0)].concat()
}

pub(super) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn ready(messages: &[Vec<u8>]) -> Step {
    (messages.concat(), b'Z', 1)
}

fn simple() -> Vec<Step> {
    let queries = [
        "SELECT 1 AS a, NULL, 'ü', ''",
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2; INSERT INTO raw VALUES (1, 'one'); SELECT 3",
        "SELECT 4; SELECT 1/0; SELECT 5",
        "SELEC 1",
        "BEGIN",
        "INSERT INTO raw VALUES (1, 'again')",
        "SELECT 'in a failed transaction'",
        "ROLLBACK",
        "SELECT n FROM generate_series(1, 2000) n",
    ];
    queries.iter().map(|sql| ready(&[query(sql)])).collect()
}

fn extended() -> Vec<Step> {
    let described = [about(b'D', b'S', "s"), bind("p", "s", &[Some(b"7"), None], 1), about(b'D', b'P', "p")];
    vec![
        ready(&[parse("s", "SELECT $1::int4 * 2, $2::text"), described.concat(), execute("p", 0), sync()]),
        // The portal has gone with its transaction, the statement stays.
        ready(&[execute("p", 0), sync()]),
        ready(&[bind("", "s", &[Some(b""), Some(b"")], 0), execute("", 0), sync()]),
        ready(&[bind("", "s", &[Some(b"8"), Some("ü".as_bytes())], 0), execute("", 0), sync()]),
        ready(&[bind("", "s", &[Some(b"8")], 0), execute("", 0), sync()]),
        ready(&[parse("s", "SELECT 'twice'"), sync()]),
        ready(&[
            about(b'C', b'S', "s"),
            parse("s", "SELECT 'anew'"),
            bind("", "s", &[], 0),
            execute("", 0),
            sync(),
        ]),
        ready(&[about(b'C', b'S', "nowhere"), about(b'C', b'P', "nowhere"), sync()]),
        ready(&[about(b'D', b'S', "nowhere"), sync()]),
        ready(&[about(b'D', b'P', "nowhere"), sync()]),
        ready(&[bind("", "nowhere", &[], 0), sync()]),
        ready(&[execute("nowhere", 0), sync()]),
        ready(&[
            parse("", ""),
            about(b'D', b'S', ""),
            bind("", "", &[], 0),
            about(b'D', b'P', ""),
            execute("", 0),
            sync(),
        ]),
        ready(&[run("CREATE TEMP TABLE t (n int)"), about(b'D', b'P', ""), sync()]),
        (sync().repeat(3), b'Z', 3),
        // Answers come when they are asked for, without an end of the batch.
        ([parse("f", "SELECT $1::int8"), about(b'D', b'S', "f"), message(b'H', b"")].concat(), b'T', 1),
        ([bind("", "f", &[Some(b"9")], 0), execute("", 0), message(b'H', b"")].concat(), b'C', 1),
        ready(&[sync()]),
        // What was made by the other protocol.
        ready(&[query("PREPARE made AS SELECT $1::int4 + 1")]),
        ready(&[about(b'D', b'S', "made"), bind("", "made", &[Some(b"1")], 0), execute("", 0), sync()]),
        ready(&[query("DEALLOCATE ALL")]),
        ready(&[bind("", "made", &[Some(b"1")], 0), sync()]),
        ready(&[parse("made", "SELECT 'anew'"), bind("", "made", &[], 0), execute("", 0), sync()]),
        ready(&[query("DISCARD ALL")]),
        ready(&[bind("", "made", &[], 0), execute("", 0), sync()]),
    ]
}

fn pipelines() -> Vec<Step> {
    let rows = "SELECT generate_series(1, 10)";
    let other = "SELECT generate_series(101, 105)";
    vec![
        // Everything after the error is skipped, simple queries too, up to the end of the batch.
        (
            [
                run("INSERT INTO raw VALUES (20, 'undone')"),
                parse("bad", "SELECT nowhere"),
                bind("", "bad", &[], 0),
                execute("", 0),
                about(b'D', b'S', "bad"),
                about(b'C', b'S', "bad"),
                query("SELECT 'skipped'"),
                message(b'H', b""),
                sync(),
                run("SELECT count(*) FROM raw WHERE n = 20"),
                sync(),
            ]
            .concat(),
            b'Z',
            2,
        ),
        ready(&[
            run("SELECT 1"),
            run("SELECT 1 / (n - 3) FROM generate_series(1, 5) n"),
            run("SELECT 2"),
            sync(),
        ]),
        // Portals in parts, by turns.
        ready(&[query("BEGIN")]),
        ready(&[
            [parse("", rows), bind("p", "", &[], 0), parse("", other), bind("q", "", &[], 1)].concat(),
            [execute("p", 3), execute("q", 2), execute("p", 3), execute("q", 2)].concat(),
            [execute("p", 0), execute("p", 0), execute("q", 9)].concat(),
            sync(),
        ]),
        ready(&[execute("p", 1), about(b'C', b'P', "p"), about(b'D', b'P', "q"), sync()]),
        ready(&[query("DECLARE \"ünï\" CURSOR FOR SELECT generate_series(1, 5)")]),
        ready(&[about(b'D', b'P', "ünï"), execute("ünï", 2), sync()]),
        ready(&[query("FETCH 2 FROM \"ünï\"; CLOSE \"ünï\"; COMMIT")]),
        ready(&[execute("p", 1), sync()]),
        ready(&[run("BEGIN"), run("SAVEPOINT a"), sync()]),
        ready(&[run("SELECT 1/0"), sync()]),
        ready(&[run("ROLLBACK TO a"), run("COMMIT"), sync()]),
        // A thousand in one write.
        ((0..1000).flat_map(|n| [run(&format!("SELECT {n}")), sync()].concat()).collect(), b'Z', 1000),
    ]
}

fn functions() -> Vec<Step> {
    let call = |oid: u32, format: u8, value: Option<&[u8]>| {
        let mut body = [&oid.to_be_bytes()[..], &[0, 1, 0, format, 0, 1]].concat();
        body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
        body.extend(value.unwrap_or_default());
        body.extend([0, format]);
        ready(&[message(b'F', &body)])
    };
    // `int4abs`, by its number in PostgreSQL's catalogue.
    vec![
        call(1397, 0, Some(b"-5")),
        call(1397, 1, Some(&(-6_i32).to_be_bytes())),
        call(1397, 0, None),
        call(1397, 0, Some(b"x")),
        call(1, 0, Some(b"x")),
    ]
}

fn copies() -> Vec<Step> {
    let data = |rows: &str| message(b'd', rows.as_bytes());
    let (done, fail) = (message(b'c', b""), message(b'f', b"changed my mind\0"));
    let copy_in = "COPY raw FROM STDIN";
    vec![
        (query(copy_in), b'G', 1),
        ready(&[data("30\ta\n31\t"), data("b\n"), done.clone()]),
        (query(copy_in), b'G', 1),
        ready(&[data("32\tnever\n"), fail.clone()]),
        // Without waiting for the target's word, and with an error halfway.
        ready(&[query(copy_in), data("33\tc\n"), done.clone()]),
        ready(&[query(copy_in), data("x\tc\n"), data("34\td\n"), done.clone()]),
        ready(&[query("SELECT 1; COPY raw FROM STDIN; SELECT 2"), data("35\td\n"), done.clone()]),
        ready(&[query("SELECT 1; COPY (SELECT 1, 'ü') TO STDOUT; SELECT 2")]),
        ready(&[query("COPY (SELECT generate_series(1, 3)) TO STDOUT (FORMAT binary)")]),
        // In the middle of a pipeline.
        ready(&[
            run("SELECT 'before'"),
            run(copy_in),
            data("36\te\n"),
            done.clone(),
            run("SELECT 'after'"),
            sync(),
        ]),
        ready(&[run("SELECT 'before'"), run("COPY raw TO STDOUT"), run("SELECT 'after'"), sync()]),
        ready(&[run(copy_in), data("37\tnever\n"), fail, sync()]),
        ready(&[run(copy_in), data("x\tnever\n"), done.clone(), sync()]),
        // The server ignores these while it copies, and copied data where nothing is copied.
        ready(&[run(copy_in), message(b'H', b""), data("38\tf\n"), done.clone(), sync()]),
        ready(&[data("stray"), done, query("SELECT count(*), sum(n) FROM raw")]),
    ]
}

fn settings() -> Vec<Step> {
    let encoded =
        |before: &[u8], text: &[u8], after: &[u8]| message(b'Q', &[before, text, after, b"\0"].concat());
    let mut steps: Vec<Step> = [
        "SET DateStyle = 'German'",
        "SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'; SELECT timestamptz '2026-01-31 12:00Z', interval '3 days'",
        "SET application_name = 'ünï'",
        "SET standard_conforming_strings = off",
        "SELECT 'back\\\\slash', '\\'', 'x'",
        "RESET ALL",
        "LISTEN news; NOTIFY news, 'heard ü'",
        "SELECT pg_notify('news', 'again'), pg_notify('news', 'again')",
        "UNLISTEN *; NOTIFY news, 'unheard'",
        "DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$",
        "SET client_encoding = 'LATIN1'",
    ]
    .iter()
    .map(|sql| ready(&[query(sql)]))
    .collect();
    let unnamed =
        [parse("", "SELECT $1::text, length($1::text)"), bind("", "", &[Some(b"caf\xe9")], 0)].concat();
    steps.extend([
        ready(&[encoded(b"SELECT '", b"caf\xe9", b"', length('\xe9')")]),
        ready(&[unnamed, execute("", 0), sync()]),
        ready(&[query("SELECT chr(9731)")]),
        ready(&[query("SET client_encoding = 'SJIS'")]),
        // Their second byte is a backslash.
        ready(&[encoded(b"SELECT '", b"\x95\x5c\x83\x5c", b"', 'x'")]),
        ready(&[encoded(b"SELECT * FROM ", b"\x95\x5c", b"")]),
        ready(&[query("SET client_encoding = 'UTF8'")]),
        ready(&[encoded(b"SELECT '", b"\xe9", b"'")]),
        ready(&[query("DROP TABLE IF EXISTS nowhere; TRUNCATE raw")]),
    ]);
    steps
}

/// Everything that is answered; what two connections must differ in is blotted out.
#[track_caller]
fn converse(wire: &mut Wire, steps: &[Step]) -> Vec<Vec<Message>> {
    let answer = |(sent, last, count): &Step| {
        let (mut answers, mut left) = (Vec::new(), *count);
        wire.send(sent);
        while left > 0 {
            let (tag, mut body) = wire.receive().unwrap();
            left -= usize::from(tag == *last);
            // Which process notified.
            if let (b'A', Some(process)) = (tag, body.get_mut(..4)) {
                process.fill(0);
            }
            answers.push((tag, body));
        }
        answers
    };
    steps.iter().map(answer).collect()
}

pub(super) fn directly(postgres: &Postgres) -> Wire {
    let mut wire = Wire::connect_to(postgres.port, &postgres.ca_file());
    wire.log_in(&[("user", "direct"), ("database", "ledger")], "past the gateway").unwrap();
    wire.until(b'Z');
    wire
}

#[test]
fn every_message_is_answered_as_it_is_directly() {
    let (postgres, bastion) = crate::dba();
    postgres.query("ledger", DIRECT).success();
    postgres.query("ledger", SCHEMA).success();
    let (mut direct, (mut proxied, _)) =
        (directly(&postgres), Wire::session(&bastion, "alice", "ledger-dev"));
    let mut kinds = HashMap::<u8, usize>::new();
    for steps in [simple(), extended(), pipelines(), functions(), copies(), settings()] {
        let expected = converse(&mut direct, &steps);
        // What the first has left would be in the way of the second.
        postgres.query("ledger", "TRUNCATE raw").success();
        let answers = converse(&mut proxied, &steps);
        postgres.query("ledger", "TRUNCATE raw").success();
        for ((step, expected), answers) in steps.iter().zip(&expected).zip(&answers) {
            let sent = String::from_utf8_lossy(&step.0[..step.0.len().min(300)]).into_owned();
            assert_eq!(show(answers), show(expected), "after {sent:?}");
        }
        for (tag, _) in expected.iter().flatten() {
            *kinds.entry(*tag).or_default() += 1;
        }
    }
    for tag in *b"123ACDEGHINSTVZcdnst" {
        assert!(kinds.contains_key(&tag), "`{}` was never answered: {kinds:?}", char::from(tag));
    }
    for wire in [&mut direct, &mut proxied] {
        wire.send(&message(b'X', b""));
        assert_eq!(wire.receive(), None);
    }
    let statements = bastion.statements();
    let recorded =
        |sql: &str| statements.iter().filter(|one| one["sql"] == sql && one["how"] != "prepare").count();
    assert_eq!(recorded("SELECT 999"), 1);
    assert_eq!(recorded("SELECT 'skipped'"), 1, "what the target skips is recorded all the same");
    assert_eq!(recorded("COPY raw FROM STDIN"), 8);
    bastion.verify().success();
}

fn show(answers: &[Message]) -> Vec<(char, String)> {
    answers.iter().map(|(tag, body)| (char::from(*tag), String::from_utf8_lossy(body).into_owned())).collect()
}

/// What comes before authentication is asked for, and the cancel key.
fn greeted(bastion: &Bastion, version: u32, options: &[(&str, &str)]) -> (Wire, Vec<Message>, Vec<u8>) {
    let mut wire = Wire::connect(bastion);
    let pairs = [&[("user", "alice+ledger-dev"), ("database", "ledger")], options].concat();
    wire.send(&startup(version, &pairs));
    let mut before = Vec::new();
    let asked = loop {
        match wire.receive().unwrap() {
            asked @ (b'R', _) => break asked,
            other => before.push(other),
        }
    };
    wire.prove(asked, &bastion.token("alice")).unwrap();
    let key = wire.until(b'K');
    wire.until(b'Z');
    (wire, before, key)
}

#[test]
fn the_version_of_the_protocol_is_negotiated_first() {
    let (postgres, bastion) = crate::dba();
    let negotiation = |version: u32, options: &[&str]| {
        let count = u32::try_from(options.len()).unwrap();
        let mut body = [version.to_be_bytes(), count.to_be_bytes()].concat();
        body.extend(options.iter().flat_map(|option| [option.as_bytes(), b"\0"].concat()));
        (b'v', body)
    };
    let wings = [("_pq_.wings", "1"), ("_pq_.tail", "on")];
    let names = ["_pq_.wings", "_pq_.tail"];
    // Our target speaks 3.0 and says so in the same place.
    let mut direct = Wire::connect_to(postgres.port, &postgres.ca_file());
    direct.send(&startup(VERSION_3_2, &[&[("user", "postgres")], &wings[..]].concat()));
    assert_eq!(direct.receive(), Some(negotiation(VERSION_3_0, &names)));
    assert_eq!(direct.receive().unwrap().0, b'R');

    let cases = [
        (VERSION_3_0, &wings[..0], None, 4),
        (VERSION_3_2, &wings[..0], None, 32),
        (0x0003_270f, &wings[..0], Some(negotiation(VERSION_3_2, &[])), 32),
        (0x0003_0003, &wings[..], Some(negotiation(VERSION_3_2, &names)), 32),
        (VERSION_3_2, &wings[..], Some(negotiation(VERSION_3_2, &names)), 32),
        (VERSION_3_0, &wings[..], Some(negotiation(VERSION_3_0, &names)), 4),
    ];
    for (version, options, answer, length) in cases {
        let (mut wire, before, key) = greeted(&bastion, version, options);
        assert_eq!(before, Vec::from_iter(answer), "{version:x}");
        assert_eq!(key.len(), 4 + length, "{version:x}");
        wire.send(&query("SELECT 42"));
        assert!(wire.until(b'D').ends_with(b"42"));
    }
}

#[test]
fn a_long_key_cancels() {
    let (postgres, bastion) = crate::dba();
    let (mut wire, _, key) = greeted(&bastion, VERSION_3_2, &[]);
    wire.send(&query("SELECT pg_sleep(600)"));
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("the target is at work", || postgres.value("postgres", asleep) == "1");
    let process = u32::from_be_bytes(key[..4].try_into().unwrap());
    let mut other = Wire::connect(&bastion);
    other.send(&wire::cancel_request(process, &key[4..]));
    other.ends_well();
    let answer = std::iter::from_fn(|| wire.receive()).find(|(tag, _)| *tag == b'E');
    assert_eq!(wire::error(answer).0, "57014");
}
