//! The observer against exchanges as `scp -t` and `scp -f` have them.

use proptest::prelude::*;

use super::*;
use crate::crypto::sha256;
use crate::ssh::observe::file::{Answered, Asked, Content, FileOp};

/// Who speaks, and what.
#[derive(Debug, Clone)]
enum Turn {
    Sender(Vec<u8>),
    Receiver(Vec<u8>),
}

fn sender(bytes: impl Into<Vec<u8>>) -> Turn {
    Turn::Sender(bytes.into())
}

fn receiver(bytes: impl Into<Vec<u8>>) -> Turn {
    Turn::Receiver(bytes.into())
}

fn told(role: ScpRole, turns: &[Turn], size: usize) -> Vec<FileEvent> {
    let (mut observer, mut events) = (ScpObserver::new(role), Vec::new());
    for turn in turns {
        let (bytes, to_target) = match turn {
            Turn::Sender(bytes) => (bytes, role == ScpRole::Sink),
            Turn::Receiver(bytes) => (bytes, role == ScpRole::Source),
        };
        for chunk in bytes.chunks(size) {
            if to_target { observer.client(chunk, &mut events) } else { observer.server(chunk, &mut events) }
        }
    }
    observer.finish(&mut events);
    pairs(&events);
    events
}

fn pairs(events: &[FileEvent]) {
    let asked: Vec<u64> = asked(events).iter().map(|event| event.n).collect();
    let mut answered: Vec<u64> = answered(events).iter().map(|event| event.n).collect();
    answered.sort_unstable();
    assert_eq!(asked, answered);
}

fn asked(events: &[FileEvent]) -> Vec<&Asked> {
    events.iter().filter_map(|event| if let FileEvent::Asked(it) = event { Some(it) } else { None }).collect()
}

fn answered(events: &[FileEvent]) -> Vec<&Answered> {
    events
        .iter()
        .filter_map(|event| if let FileEvent::Answered(it) = event { Some(it) } else { None })
        .collect()
}

fn lost(events: &[FileEvent]) -> Option<Lost> {
    events.iter().find_map(|event| if let FileEvent::Lost { why } = event { Some(*why) } else { None })
}

/// `scp -r dir`, where one file cannot be written.
fn recursive() -> Vec<Turn> {
    vec![
        receiver(*b"\0"),
        sender(*b"T1700000000 0 1700000001 0\n"),
        receiver(*b"\0"),
        sender(*b"D0755 0 dir\n"),
        receiver(*b"\0"),
        sender(*b"C0644 5 a b\n"),
        receiver(*b"\0"),
        sender(*b"hello\0"),
        receiver(*b"\0"),
        sender(*b"C0600 3 no\n"),
        receiver(*b"\x01scp: dir/no: Permission denied\n"),
        sender(*b"D0700 0 sub\n"),
        receiver(*b"\0"),
        sender(*b"C0644 0 empty\n"),
        receiver(*b"\0"),
        sender(*b"\0"),
        receiver(*b"\0"),
        sender(*b"E\n"),
        receiver(*b"\0"),
        sender(*b"E\n"),
        receiver(*b"\0"),
    ]
}

#[test]
fn a_tree_is_told_file_by_file_with_paths() {
    for role in [ScpRole::Sink, ScpRole::Source] {
        let events = told(role, &recursive(), usize::MAX);
        assert_eq!(lost(&events), None);
        let paths: Vec<_> = asked(&events).iter().map(|asked| asked.path.to_vec()).collect();
        assert_eq!(paths, [&b"dir"[..], b"dir/a b", b"dir/no", b"dir/sub", b"dir/sub/empty"]);
        let first = &asked(&events)[0];
        assert_eq!((first.op.name(), first.attributes.mode), ("scp-directory", Some(0o755)));
        assert_eq!(first.attributes.times.unwrap().accessed, 1_700_000_001);
        assert_eq!(asked(&events)[1].attributes.size, Some(5));
        let answers = answered(&events);
        let content = Some(Content { bytes: 5, sha256: Some(sha256(&[b"hello"])), from: 0 });
        let file = answers.iter().find(|file| file.n == 2).unwrap();
        let expected = if role == ScpRole::Sink { (None, content) } else { (content, None) };
        assert_eq!(((file.read, file.written), &file.outcome), (expected, &Outcome::Done));
        let refused = answers.iter().find(|file| file.n == 3).unwrap();
        let message = "scp: dir/no: Permission denied".into();
        assert_eq!(refused.outcome, Outcome::Failed { code: 1, message });
    }
}

#[test]
fn a_file_is_told_before_its_line_is_forwarded() {
    let (mut observer, mut events) = (ScpObserver::new(ScpRole::Sink), Vec::new());
    observer.client(b"C0644 5 a", &mut events);
    assert!(events.is_empty());
    observer.client(b"\n", &mut events);
    assert!(matches!(events.as_slice(), [FileEvent::Asked(asked)] if asked.op == FileOp::ScpFile));
}

#[test]
fn it_is_the_same_wherever_it_is_cut() {
    let whole = told(ScpRole::Sink, &recursive(), usize::MAX);
    for size in 1..30 {
        assert_eq!(told(ScpRole::Sink, &recursive(), size), whole, "cut every {size}");
    }
}

#[test]
fn a_sender_that_does_not_wait_is_followed() {
    let turns = [sender(*b"C0644 5 a\nhello\0C0644 2 b\nhi\0"), receiver(*b"\0\0\0\0\0")];
    let events = told(ScpRole::Sink, &turns, 3);
    let outcomes: Vec<_> = answered(&events).iter().map(|file| file.outcome.clone()).collect();
    assert_eq!((outcomes, lost(&events)), (vec![Outcome::Done, Outcome::Done], None));
}

#[test]
fn a_sender_that_went_on_after_a_refusal_is_lost() {
    let turns = [receiver(*b"\0"), sender(*b"C0644 5 a\nhello\0"), receiver(*b"\x01no\n")];
    assert_eq!(lost(&told(ScpRole::Sink, &turns, 100)), Some(Lost::WentOn));
    let turns = [receiver(*b"\0"), sender(*b"D0755 0 a\nC0644 5 b\n"), receiver(*b"\x01no\n")];
    assert_eq!(lost(&told(ScpRole::Sink, &turns, 100)), Some(Lost::WentOn));
}

#[test]
fn failures_of_either_side_fail_the_file() {
    let begin = [receiver(*b"\0"), sender(*b"C0644 5 a\n"), receiver(*b"\0")];
    for (end, code, text) in [
        ([sender(*b"hel\0\0\x01read error\n"), receiver(*b"\0")], 1, "read error"),
        ([sender(*b"hello\0"), receiver(*b"\x01disk full\n")], 1, "disk full"),
        ([sender(*b"hello\0"), receiver(*b"\x02fatal\n")], 2, "fatal"),
    ] {
        let events = told(ScpRole::Sink, &[&begin[..], &end].concat(), 4);
        let outcome = Outcome::Failed { code, message: text.into() };
        assert_eq!(answered(&events)[0].outcome, outcome);
        assert_eq!(answered(&events)[0].written.unwrap().bytes, 5);
    }
    let missing = [receiver(*b"\0"), sender(*b"\x01scp: x: No such file or directory\n")];
    let events = told(ScpRole::Source, &missing, 100);
    assert!(matches!(answered(&events)[0].outcome, Outcome::Failed { code: 1, .. }));
}

#[test]
fn what_is_cut_off_has_an_unknown_outcome() {
    let turns = [receiver(*b"\0"), sender(*b"C0644 5 a\n"), receiver(*b"\0"), sender(*b"hel")];
    let events = told(ScpRole::Sink, &turns, 100);
    assert_eq!(answered(&events)[0].outcome, Outcome::Unknown);
    assert_eq!(answered(&events)[0].written.unwrap().sha256, Some(sha256(&[b"hel"])));
}

#[test]
fn what_is_not_scp_is_lost_at_once() {
    for (turn, why) in [
        (sender(*b"bash-5.2$ "), Lost::CopyLine),
        (receiver(*b"bash-5.2$ "), Lost::CopyAnswer),
        (sender(*b"Cargo.toml\n"), Lost::CopyLine),
        (sender(*b"E\n"), Lost::CopyLine),
        (receiver(*b"\0\0"), Lost::CopyAnswer),
        (sender(vec![b'C'; 20_000]), Lost::TooMany { of: "bytes in a line" }),
        (receiver(vec![1; 20_000]), Lost::TooMany { of: "bytes in a line" }),
        (sender(b"D0755 0 d\n".repeat(100)), Lost::TooMany { of: "lines without an answer" }),
    ] {
        for size in [1, 1000, usize::MAX] {
            let turns = [turn.clone()];
            let events = told(ScpRole::Sink, &turns, size);
            assert_eq!(lost(&events), Some(why));
            let Some(FileEvent::Opaque { client, server }) = events.last() else { panic!("{events:?}") };
            assert!(client.bytes + server.bytes > 0);
        }
    }
}

#[test]
fn paths_have_a_bound() {
    let line = format!("D0755 0 {}\n", "d".repeat(4000));
    let turns: Vec<Turn> = (0..30).flat_map(|_| [sender(line.clone()), receiver(*b"\0")]).collect();
    let events = told(ScpRole::Sink, &[&[receiver(*b"\0")], turns.as_slice()].concat(), 10_000);
    assert_eq!(lost(&events), Some(Lost::TooMany { of: "bytes of paths" }));
}

proptest! {
    #[test]
    fn a_bent_exchange_keeps_its_pairs(
        turn in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut turns = recursive();
        let turn = turn.index(turns.len());
        let (Turn::Sender(bytes) | Turn::Receiver(bytes)) = &mut turns[turn];
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = told(ScpRole::Sink, &turns, usize::MAX);
        prop_assert_eq!(told(ScpRole::Sink, &turns, 1), whole);
    }

    #[test]
    fn garbage_is_survived(
        begin in prop::sample::select(vec![&b""[..], b"C0644 9 a\n", b"D0755 0 d\n", b"T1 0 1 0\n", b"\x01"]),
        garbage in prop::collection::vec(any::<u8>(), 0..300),
        answers in prop::collection::vec(0_u8..3, 0..20),
    ) {
        let turns = [sender([begin, &garbage].concat()), receiver(answers)];
        told(ScpRole::Sink, &turns, 5);
        told(ScpRole::Source, &turns, 50);
    }
}
