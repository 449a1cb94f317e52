//! What is told when a statement ends: the transaction's state, what skipped it, what it set, when the first answer came.

use super::*;
use crate::postgres::codec::backend::TransactionStatus::{Failed, Idle, InTransaction};
use crate::postgres::lexer::Strings;

fn run(sql: &str) -> Vec<Vec<u8>> {
    vec![parse("", sql, &[]), bind("", "", 0, &[]), execute("", 0)]
}

fn ran(tag: &str) -> Vec<Vec<u8>> {
    vec![message(b'1', b""), message(b'2', b""), complete(tag)]
}

#[test]
fn the_transactions_state_is_told_where_the_target_told_it() {
    let mut watch = Watch::default();
    watch.client(&[query("BEGIN")]).server(&[complete("BEGIN"), ready(b'T')]);
    watch.client(&[query("SELECT 1/0")]).server(&[error("22012"), ready(b'E')]);
    watch.client(&[query("ROLLBACK")]).server(&[complete("ROLLBACK"), ready(b'I')]);
    watch.client(&[run("SELECT 1"), run("BEGIN"), vec![sync()]].concat());
    watch.server(&[ran("SELECT 1"), ran("BEGIN")].concat());
    assert_eq!(watch.ended().len(), 4, "the last one waits for what comes with the answer to `Sync`");
    watch.server(&[ready(b'T')]);
    let told: Vec<_> = watch.ended().iter().map(|ended| ended.transaction).collect();
    assert_eq!(told, [Some(InTransaction), Some(Failed), Some(Idle), None, Some(InTransaction)]);
}

#[test]
fn without_a_sync_the_end_is_told_at_once() {
    let mut watch = Watch::default();
    watch.client(&[run("SELECT 1"), vec![message(b'H', b"")]].concat()).server(&ran("SELECT 1"));
    assert_eq!((watch.ended().len(), watch.ended()[0].transaction), (1, None));
    let mut watch = Watch::default();
    watch.client(&[run("SELECT 1"), vec![sync()]].concat()).server(&ran("SELECT 1"));
    assert_eq!(watch.ended().len(), 0);
    watch.observer.finish(9, &mut watch.events);
    assert_eq!((watch.ended().len(), &watch.ended()[0].outcome), (1, &Outcome::Done));
}

#[test]
fn a_commit_that_failed_is_told_behind_what_it_undid() {
    let mut watch = Watch::default();
    watch.client(&[run("INSERT"), vec![sync()]].concat()).server(&ran("INSERT 0 1"));
    watch.server(&[error("23503"), ready(b'I')]);
    let place = |is_it: fn(&Event) -> bool| watch.events.iter().position(is_it).unwrap();
    let ended = place(|event| matches!(event, Event::StatementEnded(_)));
    assert!(ended < place(|event| matches!(event, Event::CommitFailed { .. })));
    assert_eq!(watch.ended()[0].transaction, Some(Idle));
}

#[test]
fn what_was_skipped_says_which_statement_failed() {
    let mut watch = Watch::default();
    let batch = [run("SELECT 1"), run("SELECT 1/0"), run("SELECT 3"), run("SELECT 4"), vec![sync()]];
    watch.client(&batch.concat());
    let answers =
        [ran("SELECT 1"), vec![message(b'1', b""), message(b'2', b""), error("22012"), ready(b'I')]];
    watch.server(&answers.concat());
    let skipped = Outcome::Skipped { after: Some(2) };
    let ended = watch.ended();
    assert!(matches!(ended[1].outcome, Outcome::Failed { .. }), "{ended:?}");
    assert_eq!((&ended[2].outcome, &ended[3].outcome), (&skipped, &skipped));
    assert_eq!((ended[2].first_us, ended[2].transaction), (None, Some(Idle)));

    // It failed before what is skipped was sent.
    watch.client(&[run("SELECT 1/0"), vec![message(b'H', b"")]].concat());
    watch.server(&[message(b'1', b""), message(b'2', b""), error("22012")]);
    watch.client(&[run("SELECT 6"), vec![sync()]].concat()).server(&[ready(b'I')]);
    assert_eq!(watch.ended()[5].outcome, Outcome::Skipped { after: Some(5) });

    // What failed was no statement's: nothing is named.
    watch.client(&[vec![named(b'D', b'P', "gone")], run("SELECT 7"), vec![sync()]].concat());
    watch.server(&[error("34000"), ready(b'I')]);
    assert_eq!(watch.ended()[6].outcome, Outcome::Skipped { after: None });
}

#[test]
fn the_first_answer_is_a_row_or_else_whatever_comes() {
    let mut watch = Watch::default();
    watch.client(&[query("SELECT 1")]);
    watch.server(&[message(b'T', b"\0\0"), message(b'D', b"\0\0"), complete("SELECT 1")]);
    watch.now += 10;
    watch.server(&[ready(b'I')]);
    watch.client(&[query("UPDATE t SET a = 1")]).server(&[complete("UPDATE 1")]);
    watch.now += 10;
    watch.server(&[ready(b'I')]);
    let told: Vec<_> = watch.ended().iter().map(|ended| (ended.first_us, ended.total_us)).collect();
    assert_eq!(told, [(Some(1), 12), (Some(1), 12)]);
}

/// Of the settings that are told, with the statement's number and text.
fn set(watch: &Watch) -> Vec<(u64, String, Bytes)> {
    let told = |event: &Event| match event {
        Event::Set { n, settings, sql } => Some((*n, settings.join(" "), sql.clone())),
        _ => None,
    };
    watch.events.iter().filter_map(told).collect()
}

#[test]
fn a_setting_is_told_when_its_command_is_done() {
    let mut watch = Watch::default();
    watch.client(&[query("SELECT 1; SET ROLE a; SET LOCAL search_path = b; RESET ROLE")]);
    watch.server(&[complete("SELECT 1"), complete("SET")]);
    assert_eq!(set(&watch), [(1, "role".to_owned(), Bytes::from("SET ROLE a"))]);
    watch.server(&[error("25P01"), ready(b'I')]);
    watch.client(&[run("DISCARD ALL"), vec![sync()]].concat()).server(&ran("DISCARD ALL"));
    let settings = "session_authorization role search_path".to_owned();
    assert_eq!(set(&watch)[1..], [(2, settings, Bytes::from("DISCARD ALL"))]);
    // The tag of something else: the numbers cannot be right.
    watch.server(&[ready(b'I')]).client(&[query("SET ROLE b")]).server(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!(set(&watch).len(), 2);
}

#[test]
fn strings_are_read_as_the_target_says() {
    let sql = r"SELECT 'a\'; SET ROLE b; --'";
    for (strings, told) in [(Strings::Standard, 1), (Strings::Escaped, 0)] {
        let mut watch = Watch { observer: Observer::default().reading(strings), ..Watch::default() };
        watch.client(&[query(sql)]);
        watch.server(&[complete("SELECT 1"), complete("SET"), ready(b'I')]);
        assert_eq!(set(&watch).len(), told, "{strings:?}");
    }
    let mut watch = Watch::default();
    watch.server(&[message(b'S', b"standard_conforming_strings\0off\0")]).client(&[query(sql)]);
    watch.server(&[complete("SELECT 1"), complete("SET"), ready(b'I')]);
    assert_eq!(set(&watch).len(), 0);
}

#[test]
fn every_execution_has_the_fingerprint_of_its_text() {
    let mut watch = Watch::default();
    watch.client(&[parse("s", "SELECT $1", &[]), sync()]).server(&[message(b'1', b""), ready(b'I')]);
    for value in [b"1", b"2"] {
        watch.client(&[bind("", "s", 0, &[Some(value)]), execute("", 0), sync()]);
        watch.server(&[message(b'2', b""), complete("SELECT 1"), ready(b'I')]);
    }
    watch.client(&[query("select 'x'")]);
    let prints: Vec<_> = watch.begun().iter().map(|begun| begun.fingerprint).collect();
    assert_eq!(prints.len(), 4);
    assert!(prints[0].is_some() && prints.windows(2).all(|pair| pair[0] == pair[1]), "{prints:?}");
    watch.client(&[query(""), bind("", "unknown", 0, &[]), execute("", 0)]);
    assert!(watch.begun()[4..].iter().all(|begun| begun.fingerprint.is_none()));
}
