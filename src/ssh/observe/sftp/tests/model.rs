//! Properties: whole conversations told the same wherever they are cut, garbage survived.

use proptest::prelude::*;

use super::encode::{Stream, string};
use super::*;

/// A transfer of one file, with its requests in flight together and its answers in any order.
#[derive(Debug, Clone)]
struct Transfer {
    content: Vec<u8>,
    size: usize,
    upload: bool,
    rotate: usize,
}

fn transfer() -> impl Strategy<Value = Transfer> {
    (prop::collection::vec(any::<u8>(), 0..300), 5_usize..60, any::<bool>(), 0_usize..40)
        .prop_map(|(content, size, upload, rotate)| Transfer { content, size, upload, rotate })
}

/// What the client sends, what the server answers, in turns.
fn conversation(transfers: &[Transfer]) -> Vec<(Stream, Stream)> {
    let mut turns = vec![(Stream::new().init().clone(), Stream::new().version(3).clone())];
    for (n, transfer) in (0_u8..).zip(transfers) {
        let handle = [n, n, n, n];
        let flags = if transfer.upload { WRITE_CREATE_TRUNCATE } else { READ };
        let path = format!("file-{n}");
        turns.push((Stream::new().open(1, &path, flags).clone(), Stream::new().handle(1, &handle).clone()));
        let (mut asked, mut answers) = (Stream::new(), Vec::new());
        for (index, chunk) in (0_u32..).zip(transfer.content.chunks(transfer.size)) {
            let at = u64::from(index) * transfer.size as u64;
            if transfer.upload {
                asked.write(10 + index, &handle, at, chunk);
                answers.push(Stream::new().status(10 + index, 0).bytes.clone());
            } else {
                asked.read(10 + index, &handle, at, u32::try_from(transfer.size).unwrap());
                answers.push(Stream::new().data(10 + index, chunk).bytes.clone());
            }
        }
        let by = if answers.is_empty() { 0 } else { transfer.rotate % answers.len() };
        answers.rotate_left(by);
        turns.push((asked, Stream { bytes: answers.concat() }));
        let removed = Stream::new().close(2, &handle).packet(13, 3, &[&string(b"old")]).clone();
        turns.push((removed, Stream::new().status(2, 0).status(3, 2).clone()));
    }
    turns
}

fn told(turns: &[(Stream, Stream)], size: usize) -> Vec<FileEvent> {
    let (mut observer, mut events) = (SftpObserver::new(Limits::default()), Vec::new());
    for (client, server) in turns {
        client.bytes.chunks(size).for_each(|chunk| observer.client(chunk, &mut events));
        server.bytes.chunks(size).for_each(|chunk| observer.server(chunk, &mut events));
    }
    observer.finish(&mut events);
    events
}

/// Everything asked is answered once.
fn pairs(events: &[FileEvent]) {
    let mut asked: Vec<u64> = Vec::new();
    let mut answered: Vec<u64> = Vec::new();
    for event in events {
        match event {
            FileEvent::Asked(event) => asked.push(event.n),
            FileEvent::Answered(event) => answered.push(event.n),
            FileEvent::Lost { .. } | FileEvent::Opaque { .. } => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(asked, answered);
    assert!(asked.iter().copied().eq(1..=asked.len() as u64));
    assert!(events.iter().filter(|event| matches!(event, FileEvent::Lost { .. })).count() < 2);
}

proptest! {
    #[test]
    fn transfers_are_told_with_their_hashes(transfers in prop::collection::vec(transfer(), 1..4)) {
        let events = told(&conversation(&transfers), usize::MAX);
        pairs(&events);
        let files: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                FileEvent::Answered(told) if matches!(told.op, FileOp::Open(_)) => Some(told),
                _ => None,
            })
            .collect();
        prop_assert_eq!(files.len(), transfers.len());
        for (file, transfer) in files.iter().zip(&transfers) {
            prop_assert_eq!(&file.outcome, &Outcome::Done);
            let (moved, other) =
                if transfer.upload { (file.written, file.read) } else { (file.read, file.written) };
            prop_assert_eq!(moved, Some(content(&transfer.content, 0)));
            prop_assert_eq!(other, None);
        }
    }

    #[test]
    fn a_conversation_is_told_the_same_wherever_it_is_cut(
        transfers in prop::collection::vec(transfer(), 1..3),
        size in 1_usize..50,
    ) {
        let turns = conversation(&transfers);
        prop_assert_eq!(told(&turns, size), told(&turns, usize::MAX));
    }

    #[test]
    fn a_bent_conversation_keeps_its_pairs(
        transfers in prop::collection::vec(transfer(), 1..3),
        turn in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        server in any::<bool>(),
    ) {
        let mut turns = conversation(&transfers);
        let turn = turn.index(turns.len());
        let stream = if server { &mut turns[turn].1 } else { &mut turns[turn].0 };
        if !stream.bytes.is_empty() {
            let at = at.index(stream.bytes.len());
            stream.bytes[at] = byte;
        }
        let whole = told(&turns, usize::MAX);
        pairs(&whole);
        prop_assert_eq!(told(&turns, 3), whole);
    }

    #[test]
    fn garbage_is_survived(client in prop::collection::vec(any::<u8>(), 0..600), server in prop::collection::vec(any::<u8>(), 0..600)) {
        let garbage = |begin: &mut Stream, bytes: &[u8]| Stream { bytes: [&begin.bytes, bytes].concat() };
        let turn = (garbage(Stream::new().init(), &client), garbage(Stream::new().version(3), &server));
        pairs(&told(&[turn], 11));
    }
}

#[test]
fn nothing_is_kept_for_what_is_only_announced() {
    let (mut observer, mut events) = (SftpObserver::new(Limits::default()), Vec::new());
    observer.client(&Stream::new().init().bytes, &mut events);
    // Content of 4 GiB, of which 64 MiB come.
    let head = [&0xffff_ffff_u32.to_be_bytes()[..], &[6], &[0; 4], &string(b"h"), &[0; 8]].concat();
    observer.client(&head, &mut events);
    observer.client(&0xffff_0000_u32.to_be_bytes(), &mut events);
    let content = vec![0; 1 << 20];
    for _ in 0..64 {
        observer.client(&content, &mut events);
    }
    assert!(!observer.is_lost() && events.is_empty());
    assert!(observer.client.unfinished().is_empty());
}
