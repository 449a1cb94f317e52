//! COPY in, out and both ways.

use super::*;
use crate::crypto::sha256;

fn data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

fn done() -> Vec<u8> {
    message(b'c', b"")
}

fn response(tag: u8) -> Vec<u8> {
    message(tag, b"\0\0\0")
}

fn copied(watch: &Watch) -> Vec<(Direction, u64, u64, crate::crypto::Hash, bool)> {
    let ended = |event: &Event| match event {
        Event::CopyEnded { direction, chunks, bytes, sha256, complete, .. } => {
            Some((*direction, *chunks, *bytes, *sha256, *complete))
        }
        _ => None,
    };
    watch.events.iter().filter_map(ended).collect()
}

#[test]
fn data_copied_in_is_counted_and_hashed() {
    let mut watch = Watch::default();
    watch.client(&[query("COPY t FROM STDIN")]);
    assert_eq!(watch.try_client(&data(b"early")), Ok(Observed::Hold { flush: true }));
    watch.server(&[response(b'G')]);
    watch.client(&[data(b"1\n"), data(b"2\n"), message(b'H', b""), done()]);
    watch.server(&[complete("COPY 2"), ready(b'I')]);
    assert_eq!(copied(&watch), [(Direction::In, 2, 4, sha256(&[b"1\n2\n"]), true)]);
    assert_eq!((watch.ended()[0].affected, watch.ended()[0].outcome.clone()), (2, Outcome::Done));
}

#[test]
fn long_copy_data_is_hashed_piece_by_piece() {
    let mut watch = Watch::default();
    watch.client(&[query("COPY t FROM STDIN")]).server(&[response(b'G')]);
    let whole = vec![b'x'; 200_000];
    let (mut splitter, mut buffer) = (Splitter::new(1024), BytesMut::new());
    for part in data(&whole).chunks(3000) {
        buffer.extend_from_slice(part);
        while let Some(piece) = splitter.next(&mut buffer).unwrap() {
            assert_eq!(watch.observer.piece(&piece, 1, &mut watch.events), Ok(Observed::Forward));
            assert!(matches!(piece, Piece::CopyStart { .. } | Piece::CopyBody { .. }));
        }
    }
    watch.client(&[done()]).server(&[complete("COPY 9"), ready(b'I')]);
    assert_eq!(copied(&watch), [(Direction::In, 1, 200_000, sha256(&[&whole]), true)]);
}

#[test]
fn nothing_but_copy_messages_may_come_during_a_copy_in() {
    for refused in [query("SELECT 1"), parse("", "SELECT 1", &[]), execute("", 0), named(b'C', b'S', "s")] {
        let mut watch = Watch::default();
        watch.client(&[query("COPY t FROM STDIN")]).server(&[response(b'G')]);
        assert!(matches!(watch.try_client(&refused), Err(CodecError::Unexpected { .. })));
    }
}

#[test]
fn what_follows_a_copy_waits_for_its_answer() {
    let mut watch = Watch::default();
    watch.client(&[query("copy t from stdin")]);
    assert_eq!(watch.try_client(&query("SELECT 1")), Ok(Observed::Hold { flush: true }));
    watch.server(&[error("42P01"), ready(b'I')]);
    watch.client(&[query("SELECT 1")]);
    assert_eq!(watch.begun().len(), 2);
}

#[test]
fn a_client_may_give_up_and_data_sent_too_late_is_ignored() {
    let mut watch = Watch::default();
    watch.client(&[query("COPY t FROM STDIN")]).server(&[response(b'G')]);
    watch.client(&[data(b"1\n"), message(b'f', b"no more\0")]).server(&[error("57014"), ready(b'I')]);
    assert!(!copied(&watch)[0].4);
    assert!(matches!(watch.ended()[0].outcome, Outcome::Cancelled { .. }));
    // The server ends a COPY on its own while data is under way.
    watch.client(&[query("COPY t FROM STDIN")]).server(&[response(b'G'), error("22P02"), ready(b'I')]);
    watch.client(&[data(b"late"), done(), query("SELECT 1")]);
    assert_eq!(copied(&watch)[1], (Direction::In, 0, 0, sha256(&[]), false));
}

#[test]
fn a_sync_swallowed_by_a_copy_in_is_not_waited_for() {
    let extended = |watch: &mut Watch| {
        watch.client(&[parse("", "COPY t FROM STDIN", &[]), bind("", "", 0, &[]), execute("", 0), sync()]);
        watch.server(&[message(b'1', b""), message(b'2', b""), response(b'G')]);
    };
    let next = |watch: &mut Watch| {
        watch.client(&[parse("", "SELECT 1", &[]), bind("", "", 0, &[]), execute("", 0), sync()]);
        watch.server(&[message(b'1', b""), message(b'2', b""), complete("SELECT 1"), ready(b'I')]);
        assert_eq!(watch.ended().last().unwrap().outcome, Outcome::Done);
        assert_eq!(watch.observer.queue.len(), 0);
    };
    let mut watch = Watch::default();
    extended(&mut watch);
    watch.client(&[data(b"1\n"), done(), sync()]).server(&[complete("COPY 1"), ready(b'I')]);
    next(&mut watch);
    // Bad data: libpq still ends the COPY, and its Sync is answered.
    let mut watch = Watch::default();
    extended(&mut watch);
    watch.client(&[data(b"bad\n")]).server(&[error("22P02")]);
    watch.client(&[done(), sync()]).server(&[ready(b'I')]);
    next(&mut watch);
    // A trigger failed before any data was read: both Syncs are answered.
    let mut watch = Watch::default();
    extended(&mut watch);
    watch.client(&[data(b"1\n"), done(), sync()]).server(&[error("P0001"), ready(b'I'), ready(b'I')]);
    next(&mut watch);
}

#[test]
fn nothing_can_hide_behind_a_sync_that_may_have_been_swallowed() {
    let mut watch = Watch::default();
    watch.client(&[parse("", "COPY t FROM STDIN", &[]), bind("", "", 0, &[]), execute("", 0), sync()]);
    watch.server(&[message(b'1', b""), message(b'2', b""), response(b'G'), error("22P02")]);
    assert!(matches!(watch.try_client(&query("DROP TABLE t")), Err(CodecError::Unexpected { .. })));
}

#[test]
fn data_copied_out_is_counted_and_hashed() {
    let mut watch = Watch::default();
    watch.client(&[query("COPY t TO STDOUT")]);
    watch.server(&[response(b'H'), data(b"1\n"), data(b"2\n"), done(), complete("COPY 2"), ready(b'I')]);
    assert_eq!(copied(&watch), [(Direction::Out, 2, 4, sha256(&[b"1\n2\n"]), true)]);
    assert_eq!((watch.ended()[0].bytes, watch.ended()[0].affected), (4, 2));
}

#[test]
fn replication_is_counted_both_ways() {
    let mut watch = Watch::default();
    watch.client(&[query("START_REPLICATION SLOT s LOGICAL 0/0")]).server(&[response(b'W'), data(b"change")]);
    watch.client(&[data(b"status")]);
    assert!(watch.try_client(&query("SELECT 1")).is_err());
    assert!(watch.try_client(&message(b'f', b"no\0")).is_err());
    watch.client(&[done()]).server(&[done(), complete("COPY 0"), ready(b'I')]);
    let expected = [
        (Direction::In, 1, 6, sha256(&[b"status"]), true),
        (Direction::Out, 1, 6, sha256(&[b"change"]), true),
    ];
    assert_eq!(copied(&watch), expected);
}

#[test]
fn a_copy_tells_its_table_and_the_rows_that_the_target_counted() {
    let mut watch = Watch::default();
    let sql = "SELECT 1; COPY public.t (a, \"B\") FROM STDIN; COPY (TABLE t) TO STDOUT; COPY u FROM STDIN";
    watch.client(&[query(sql)]).server(&[complete("SELECT 1"), response(b'G')]);
    watch.client(&[data(b"1\t2\n3\t4\n"), done()]);
    watch.server(&[complete("COPY 2"), response(b'H'), data(b"1\n"), done(), complete("COPY 1")]);
    watch.server(&[response(b'G')]).client(&[data(b"wrong"), done()]);
    watch.server(&[error("22P02"), ready(b'I')]);
    let told = |event: &Event| match event {
        Event::CopyEnded { of, rows, .. } => {
            Some((of.as_ref().map(|of| (of.table.clone(), of.columns.clone())), *rows))
        }
        _ => None,
    };
    let told: Vec<_> = watch.events.iter().filter_map(told).collect();
    let columns = vec!["a".to_owned(), "\"B\"".to_owned()];
    let expected = [
        (Some(("public.t".to_owned(), columns)), Some(2)),
        (None, Some(1)),
        (Some(("u".to_owned(), Vec::new())), None),
    ];
    assert_eq!(told, expected);
}
