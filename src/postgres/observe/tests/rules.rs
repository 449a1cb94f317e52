//! One rule a test: names, batches, values, bounds.

use proptest::prelude::*;

use super::*;

fn done() -> Vec<Vec<u8>> {
    vec![message(b'1', b""), message(b'2', b""), complete("SELECT 1"), ready(b'I')]
}

#[test]
fn a_simple_query_of_several_statements_begins_and_ends_once() {
    let mut watch = Watch::default();
    watch.client(&[query("SELECT 1; UPDATE t SET x = 2")]);
    let row = message(b'D', b"\0\0");
    watch.server(&[message(b'T', b""), row.clone(), row, complete("SELECT 2"), complete("UPDATE 3")]);
    watch.server(&[ready(b'I')]);
    let (begun, ended) = (watch.begun(), watch.ended());
    assert_eq!(
        (begun.len(), begun[0].how, &begun[0].sql[..]),
        (1, How::Simple, &b"SELECT 1; UPDATE t SET x = 2"[..])
    );
    assert_eq!((ended.len(), &ended[0].outcome, ended[0].commands), (1, &Outcome::Done, 2));
    assert_eq!((ended[0].rows, ended[0].affected, ended[0].bytes), (2, 5, 14));
    assert_eq!((ended[0].first_us, ended[0].total_us), (Some(1), 2));
}

#[test]
fn an_error_in_a_simple_query_fails_it_and_an_empty_one_is_done() {
    let mut watch = Watch::default();
    watch.client(&[query("SELECT 1; SELECT 1/0")]).server(&[
        complete("SELECT 1"),
        error("22012"),
        ready(b'I'),
    ]);
    watch.client(&[query("")]).server(&[message(b'I', b""), ready(b'I')]);
    watch.client(&[query("SELECT pg_sleep(9)")]).server(&[error("57014"), ready(b'I')]);
    let outcomes: Vec<_> = watch.ended().iter().map(|ended| ended.outcome.clone()).collect();
    let (sqlstate, no) = (Bytes::from_static(b"22012"), Bytes::from_static(b"no"));
    let failed = Outcome::Failed { sqlstate, message: no.clone() };
    assert_eq!(outcomes, [failed, Outcome::Done, Outcome::Cancelled { message: no }]);
}

#[test]
fn an_execution_is_recorded_with_its_statement_and_values() {
    let mut watch = Watch::default();
    watch.client(&[
        parse("", "SELECT $1, $2", &[23, 2950]),
        bind("", "", 1, &[Some(&7i32.to_be_bytes()), Some(&[0xab; 16])]),
        execute("", 0),
        sync(),
    ]);
    watch.server(&done());
    let begun = watch.begun();
    let [begun] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!((begun.how, &begun.sql[..], begun.certain), (How::Extended, &b"SELECT $1, $2"[..], true));
    assert_eq!(begun.params[0].text().as_deref(), Some("7"));
    assert_eq!(begun.params[1].text().as_deref(), Some("abababab-abab-abab-abab-abababababab"));
}

#[test]
fn null_is_told_from_empty_and_long_values_are_cut_with_their_hash() {
    let mut watch = Watch::default();
    let long = vec![b'x'; LONGEST_SHOWN + 1];
    let values = [None, Some(&b""[..]), Some(&long[..])];
    watch.client(&[parse("", "SELECT $1", &[]), bind("", "", 0, &values), execute("", 0)]);
    let params = watch.begun()[0].params.clone();
    assert_eq!((&params[0].value, &params[1].value), (&Value::Null, &Value::Text(Bytes::new())));
    assert_eq!((params[2].length, params[2].sha256), (long.len(), Some(crate::crypto::sha256(&[&long]))));
    assert!(matches!(&params[2].value, Value::Text(head) if head.len() == LONGEST_SHOWN));
}

#[test]
fn types_left_to_the_target_are_learnt_from_its_description() {
    let mut watch = Watch::default();
    watch.client(&[parse("s", "SELECT $1", &[]), named(b'D', b'S', "s"), sync()]);
    let described = message(b't', b"\0\x01\0\0\0\x14");
    watch.server(&[message(b'1', b""), described, message(b'n', b""), ready(b'I')]);
    watch.client(&[bind("", "s", 1, &[Some(&(-5i64).to_be_bytes())]), execute("", 0), sync()]);
    assert_eq!(watch.begun().last().unwrap().params[0].text().as_deref(), Some("-5"));
}

#[test]
fn what_is_prepared_and_not_run_is_recorded_once() {
    let mut watch = Watch::default();
    watch.client(&[parse("s", "DELETE FROM t", &[]), sync()]);
    assert_eq!((watch.begun()[0].how, &watch.begun()[0].sql[..]), (How::Prepare, &b"DELETE FROM t"[..]));
    watch.server(&[message(b'1', b""), ready(b'I')]);
    watch.client(&[bind("", "s", 0, &[Some(b"1")])]);
    assert_eq!(
        (watch.begun().len(), watch.begun()[1].how, watch.begun()[1].params.len()),
        (2, How::Prepare, 1)
    );
    watch.client(&[execute("", 0), sync()]);
    assert_eq!((watch.begun().len(), watch.begun()[2].how), (3, How::Extended));
}

#[test]
fn a_name_defined_in_an_unanswered_batch_is_held() {
    // s1 exists. A second Parse of it fails in the server; a Bind sent meanwhile would run the first.
    let mut watch = Watch::default();
    watch.client(&[parse("s1", "DELETE FROM t", &[]), sync()]).server(&[message(b'1', b""), ready(b'I')]);
    watch.client(&[parse("s1", "SELECT 1", &[]), sync()]);
    for used in [bind("", "s1", 0, &[]), named(b'C', b'S', "s1"), parse("s1", "SELECT 2", &[])] {
        assert_eq!(watch.try_client(&used), Ok(Observed::Hold { flush: true }));
    }
    watch.server(&[error("42P05"), ready(b'I')]);
    watch.client(&[bind("", "s1", 0, &[]), execute("", 0), sync()]);
    let last = *watch.begun().last().unwrap();
    assert_eq!((&last.sql[..], last.certain), (&b"DELETE FROM t"[..], true));
}

#[test]
fn unnamed_statements_are_pipelined_without_holding() {
    let mut watch = Watch::default();
    for n in 0..50 {
        let sql = format!("SELECT {n}");
        watch.client(&[parse("", &sql, &[]), bind("", "", 0, &[]), execute("", 0), sync()]);
        assert_eq!(watch.begun().last().unwrap().sql, sql);
    }
    for _ in 0..50 {
        watch.server(&done());
    }
    assert_eq!(watch.ended().len(), 50);
}

#[test]
fn after_an_error_everything_to_sync_is_skipped_and_undone() {
    let mut watch = Watch::default();
    watch.client(&[parse("s", "SELECT 1", &[]), sync()]).server(&[message(b'1', b""), ready(b'I')]);
    watch.client(&[
        parse("", "bad", &[]),
        bind("", "", 0, &[]),
        execute("", 0),
        named(b'C', b'S', "s"),
        query("DROP TABLE t"),
        sync(),
    ]);
    watch.server(&[error("42601"), ready(b'I')]);
    let ended = watch.ended();
    assert!(matches!(ended[1].outcome, Outcome::Failed { .. }), "the execution of what failed");
    assert_eq!(ended[2].outcome, Outcome::Skipped { after: Some(2) }, "the query behind it");
    watch.client(&[bind("", "s", 0, &[]), execute("", 0), sync()]);
    assert_eq!(
        (&watch.begun().last().unwrap().sql[..], watch.begun().last().unwrap().certain),
        (&b"SELECT 1"[..], true)
    );
}

#[test]
fn a_suspended_portal_is_resumed_by_the_next_execute() {
    let mut watch = Watch::default();
    watch.client(&[parse("", "SELECT 1", &[]), bind("p", "", 0, &[]), execute("p", 10), message(b'H', b"")]);
    watch.server(&[message(b'1', b""), message(b'2', b""), message(b'D', b"\0\0"), message(b's', b"")]);
    watch.client(&[execute("p", 10), sync()]).server(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!((watch.ended()[0].outcome.clone(), watch.begun()[1].resumes), (Outcome::Suspended, Some(1)));
    // The end of the transaction destroyed the portal.
    watch.client(&[execute("p", 0), sync()]);
    assert_eq!((watch.begun()[2].sql.len(), watch.begun()[2].certain), (0, false));
}

#[test]
fn sql_that_may_move_names_makes_them_uncertain_until_parsed_again() {
    for sql in ["DO $$ BEGIN EXECUTE 'deALLocate s'; END $$", "PREPARE s AS SELECT 2", "SELECT 'DISCARD'"] {
        let mut watch = Watch::default();
        watch.client(&[parse("s", "SELECT 1", &[]), sync()]).server(&[message(b'1', b""), ready(b'I')]);
        watch.client(&[query(sql)]).server(&[complete("DO"), ready(b'I')]);
        watch.client(&[bind("", "s", 0, &[]), execute("", 0), sync()]);
        assert!(!watch.begun().last().unwrap().certain, "{sql}");
        watch.server(&[message(b'2', b""), complete("SELECT 1"), ready(b'I')]);
        watch.client(&[
            named(b'C', b'S', "s"),
            parse("s", "SELECT 3", &[]),
            bind("", "s", 0, &[]),
            execute("", 0),
        ]);
        assert!(watch.begun().last().unwrap().certain, "{sql}");
    }
}

#[test]
fn a_name_that_sql_made_is_recorded_as_unknown() {
    let mut watch = Watch::default();
    watch.client(&[bind("", "made_by_sql", 0, &[]), execute("", 0), sync()]);
    assert_eq!((&watch.begun()[0].statement[..], watch.begun()[0].certain), (&b"made_by_sql"[..], false));
}

#[test]
fn a_function_call_is_recorded_with_its_arguments() {
    let mut watch = Watch::default();
    let call = message(b'F', b"\0\0\x03\xe9\0\x01\0\x01\0\x01\0\0\0\x02hi\0\x01");
    watch.client(&[call]).server(&[message(b'V', b"\xff\xff\xff\xff"), ready(b'I')]);
    assert_eq!(watch.begun()[0].how, How::Function(1001));
    assert_eq!(watch.begun()[0].params[0].value, Value::Binary(Bytes::from_static(b"hi")));
    assert_eq!(watch.ended()[0].outcome, Outcome::Done);
}

#[test]
fn a_commit_that_fails_at_sync_is_told() {
    let mut watch = Watch::default();
    watch.client(&[parse("", "INSERT", &[]), bind("", "", 0, &[]), execute("", 0), sync()]);
    watch.server(&[
        message(b'1', b""),
        message(b'2', b""),
        complete("INSERT 0 1"),
        error("23503"),
        ready(b'I'),
    ]);
    assert!(watch.events.iter().any(|event| matches!(event, Event::CommitFailed { .. })));
}

#[test]
fn who_leaves_the_target_waiting_lets_it_work_on_nothing() {
    let mut watch = Watch::default();
    let at_work = |watch: &Watch| watch.observer.is_at_work();
    // It keeps its answers to itself until it is asked for them.
    watch.client(&[parse("", "SELECT 1", &[]), bind("", "", 0, &[]), execute("", 0)]);
    assert!(!at_work(&watch));
    watch.client(&[message(b'H', b"")]);
    assert!(at_work(&watch));
    watch.server(&[message(b'1', b""), message(b'2', b""), complete("SELECT 1")]);
    assert!(!at_work(&watch));
    watch.client(&[sync()]).server(&[ready(b'I')]);
    watch.client(&[query("COPY t FROM STDIN")]);
    assert!(at_work(&watch));
    watch.server(&[message(b'G', &[0, 0, 1, 0, 0])]);
    assert!(!at_work(&watch), "it waits for what is to be copied");
    watch.client(&[message(b'c', b"")]);
    assert!(at_work(&watch));
    watch.server(&[complete("COPY 0"), ready(b'I')]);
    assert!(!at_work(&watch));
}

/// It looks at the first 63 bytes.
#[test]
fn names_that_postgres_cuts_are_cut() {
    let long = "x".repeat(63);
    let mut watch = Watch::default();
    let messages = [
        parse(&format!("{long}1"), "SELECT 'long'", &[]),
        bind(&format!("{long}2"), &format!("{long}3"), 0, &[]),
        execute(&long, 0),
        sync(),
    ];
    watch.client(&messages);
    let begun = watch.begun();
    let [begun] = begun.as_slice() else { panic!("{begun:?}") };
    assert_eq!((&begun.sql[..], begun.certain), (&b"SELECT 'long'"[..], true));
    assert_eq!((&begun.statement[..], &begun.portal[..]), (long.as_bytes(), long.as_bytes()));
}

#[test]
fn what_is_named_by_more_than_ascii_is_told_but_not_for_certain() {
    let certainty = |portal: &str, statement: &str| {
        let mut watch = Watch::default();
        watch.client(&[
            parse(statement, "SELECT 1", &[]),
            bind(portal, statement, 0, &[]),
            execute(portal, 0),
            sync(),
        ]);
        let begun = watch.begun();
        assert_eq!(begun[0].sql, "SELECT 1");
        begun[0].certain
    };
    assert!(certainty("p", "s"));
    assert!(!certainty("p", "\u{e9}"));
    assert!(!certainty("\u{e9}", "s"));
}

#[test]
fn answers_to_nothing_are_refused() {
    for stray in [
        message(b'1', b""),
        complete("SELECT 1"),
        message(b'D', b"\0\0"),
        ready(b'I'),
        message(b'G', b"\0\0\0"),
    ] {
        assert!(Watch::default().try_server(&stray).is_err());
        let mut watch = Watch::default();
        watch.client(&[named(b'D', b'P', "")]);
        assert!(watch.try_server(&stray).is_err());
    }
}

#[test]
fn notices_settings_and_an_end_unasked_for_may_come_at_any_time() {
    let mut watch = Watch::default();
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhi\0\0");
    watch.server(&[
        notice,
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'A', b"\0\0\0\x01c\0p\0"),
        error("57P01"),
    ]);
    assert_eq!(watch.events, [Event::Parameter { name: "TimeZone".into(), value: "UTC".into() }]);
}

#[test]
fn what_was_open_when_the_connection_ended_is_unresolved_and_nothing_follows() {
    let mut watch = Watch::default();
    watch.client(&[query("SELECT 1")]);
    watch.observer.finish(9, &mut watch.events);
    assert_eq!(watch.ended()[0].outcome, Outcome::Unresolved);
    let mut watch = Watch::default();
    watch.client(&[message(b'X', b"")]);
    assert!(watch.try_client(&query("SELECT 1")).is_err());
}

#[test]
fn statements_kept_are_bounded_in_number_and_bytes() {
    let mut watch = Watch::default();
    for n in 0..MOST_NAMES {
        watch.client(&[parse(&format!("s{n}"), "SELECT 1", &[])]).server(&[message(b'1', b"")]);
    }
    assert!(matches!(
        watch.try_client(&parse("one more", "SELECT 1", &[])),
        Err(CodecError::TooMuchKept { .. })
    ));
    let mut watch = Watch::default();
    let long = "x".repeat(MOST_KEPT / 4);
    let refused = (0..5).find_map(|n| watch.try_client(&parse(&format!("s{n}"), &long, &[])).err());
    assert!(matches!(refused, Some(CodecError::TooMuchKept { .. })));
}

#[test]
fn the_longest_statement_may_be_replaced_by_another() {
    let longest = MOST_KEPT;
    let mut watch = Watch { observer: Observer::new(longest), ..Watch::default() };
    let long = "x".repeat(longest - 100);
    for _ in 0..3 {
        watch.client(&[parse("", &long, &[])]).server(&[message(b'1', b"")]);
    }
}

#[test]
fn messages_without_answers_are_bounded() {
    let mut watch = Watch::default();
    let held = (0..20_000).find(|_| watch.try_client(&sync()) == Ok(Observed::Hold { flush: true }));
    assert_eq!(held, Some(16_384));
    assert_eq!(watch.server(&[ready(b'I')]).try_client(&sync()), Ok(Observed::Forward));
}

/// What is told of whole streams, cut as given.
fn told(client: &[u8], server: &[u8], cuts: &[usize]) -> Vec<Event> {
    let mut watch = Watch::default();
    let (mut splitter, mut buffer) = (Splitter::new(1 << 20), BytesMut::new());
    for part in cut(client, cuts) {
        buffer.extend_from_slice(part);
        while let Some(piece) = splitter.next(&mut buffer).unwrap() {
            assert_eq!(watch.observer.piece(&piece, 1, &mut watch.events), Ok(Observed::Forward));
            assert!(matches!(piece, Piece::Frame(_)));
        }
    }
    watch.observer.flush(1, &mut watch.events);
    let mut walker = Walker::new();
    for part in cut(server, cuts) {
        let mut at = 0;
        while let Some(message) = walker.next(part, &mut at).unwrap() {
            watch.observer.server(&message, 2, &mut watch.events).unwrap();
        }
    }
    watch.events
}

fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for at in cuts {
        let (part, rest) = bytes.split_at((*at).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

proptest! {
    #[test]
    fn where_the_streams_are_cut_changes_no_event(cuts in prop::collection::vec(0..40usize, 0..20)) {
        let client = [
            parse("s", "SELECT $1", &[23]), bind("", "s", 1, &[Some(&[0, 0, 0, 7])]), execute("", 0), sync(),
            query("TABLE t"), parse("x", "UNUSED", &[]), sync(),
        ].concat();
        let server = [
            message(b'1', b""), message(b'2', b""), message(b'D', &[5; 70]), message(b'D', b"\0\0"),
            complete("SELECT 2"), ready(b'I'), message(b'T', b"\0\0"), error("42P01"), ready(b'I'),
            error("42601"), ready(b'I'),
        ].concat();
        prop_assert_eq!(told(&client, &server, &cuts), told(&client, &server, &[]));
    }

    #[test]
    fn arbitrary_messages_never_panic(script in prop::collection::vec((any::<bool>(), 0..24usize, prop::collection::vec(0..4u8, 0..12)), 0..60)) {
        let mut watch = Watch::default();
        for (from_client, tag, body) in script {
            let tags: &[u8] = if from_client { b"QPBFfCDEHSXcd" } else { b"CZSNETtIs123ncdGHWVA" };
            let bytes = message(tags[tag % tags.len()], &body);
            let refused = if from_client { watch.try_client(&bytes).is_err() } else { watch.try_server(&bytes).is_err() };
            watch.observer.flush(watch.now, &mut watch.events);
            if refused {
                break;
            }
        }
        watch.observer.finish(watch.now, &mut watch.events);
        prop_assert_eq!(watch.begun().len(), watch.ended().len());
    }
}

#[test]
fn two_pipelined_batches_that_both_fail_leave_what_was_there_before_them() {
    let mut watch = Watch::default();
    watch.client(&[parse("", "DELETE FROM t", &[]), sync()]).server(&[message(b'1', b""), ready(b'I')]);
    for sql in ["SELECT 1", "SELECT 2"] {
        watch.client(&[named(b'D', b'P', "gone"), parse("", sql, &[]), sync()]);
    }
    for _ in 0..2 {
        watch.server(&[error("34000"), ready(b'I')]);
    }
    watch.client(&[bind("", "", 0, &[]), execute("", 0), sync()]);
    let last = *watch.begun().last().unwrap();
    assert_eq!((&last.sql[..], last.certain), (&b"DELETE FROM t"[..], true));
}
