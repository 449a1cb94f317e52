//! The observer against packets written here, in any order and cut anywhere.

mod encode;
mod model;

use encode::{Stream, attributes, string};

use super::*;
use crate::crypto::sha256;
use crate::ssh::observe::file::{Answered, Content, FileOp, OpenFlags, Outcome};

const READ: u32 = 0x01;
const WRITE_CREATE_TRUNCATE: u32 = 0x1a;
const APPEND: u32 = 0x0e;

/// An observer past its greeting, and what it told.
struct Watch {
    observer: SftpObserver,
    events: Vec<FileEvent>,
}

impl Watch {
    fn with(limits: Limits) -> Self {
        let mut watch = Self { observer: SftpObserver::new(limits), events: Vec::new() };
        watch.client(Stream::new().init());
        watch.server(Stream::new().version(3));
        watch
    }

    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn client(&mut self, stream: &Stream) {
        self.observer.client(&stream.bytes, &mut self.events);
    }

    fn server(&mut self, stream: &Stream) {
        self.observer.server(&stream.bytes, &mut self.events);
    }

    fn open(&mut self, id: u32, path: &str, flags: u32, handle: &[u8]) {
        self.client(Stream::new().open(id, path, flags));
        self.server(Stream::new().handle(id, handle));
    }

    fn answered(&self) -> Vec<&Answered> {
        self.events
            .iter()
            .filter_map(|event| match event {
                FileEvent::Answered(answered) => Some(answered),
                _ => None,
            })
            .collect()
    }

    fn lost(&self) -> Option<Lost> {
        self.events.iter().find_map(|event| match event {
            FileEvent::Lost { why } => Some(*why),
            _ => None,
        })
    }

    fn finish(mut self) -> Vec<FileEvent> {
        self.observer.finish(&mut self.events);
        self.events
    }
}

fn content(bytes: &[u8], from: u64) -> Content {
    Content { bytes: bytes.len() as u64, sha256: Some(sha256(&[bytes])), from }
}

#[test]
fn a_change_is_told_before_it_is_forwarded_and_after_it_is_answered() {
    let mut watch = Watch::new();
    watch.client(Stream::new().packet(18, 7, &[&string(b"a"), &string(b"b")]));
    let [FileEvent::Asked(asked)] = watch.events.as_slice() else { panic!("{:?}", watch.events) };
    assert_eq!((asked.n, &asked.op, &asked.path[..]), (1, &FileOp::Rename, &b"a"[..]));
    assert_eq!(asked.to.as_deref(), Some(&b"b"[..]));
    watch.server(Stream::new().status(7, 4));
    let [answered] = watch.answered()[..] else { panic!("{:?}", watch.events) };
    assert_eq!(answered.n, 1);
    assert_eq!(answered.outcome, Outcome::Failed { code: 4, message: "text".into() });
}

#[test]
fn every_kind_of_change_is_told() {
    let mut watch = Watch::new();
    let mode = attributes(0o640);
    let extended =
        |name: &str, fields: &[&[u8]]| [&[string(name.as_bytes()).as_slice()], fields].concat().concat();
    let (a, b) = (string(b"a"), string(b"b"));
    let mut stream = Stream::new();
    stream
        .packet(9, 1, &[&a, &mode])
        .packet(13, 2, &[&a])
        .packet(14, 3, &[&a, &mode])
        .packet(15, 4, &[&a])
        .packet(20, 5, &[&b, &a])
        .packet(200, 6, &[&extended("posix-rename@openssh.com", &[&a, &b])])
        .packet(200, 7, &[&extended("hardlink@openssh.com", &[&a, &b])])
        .packet(200, 8, &[&extended("lsetstat@openssh.com", &[&a, &mode])])
        .packet(200, 9, &[&extended("strange@example.org", &[&a])])
        .packet(200, 10, &[&extended("statvfs@openssh.com", &[&a])])
        .packet(17, 11, &[&a])
        .packet(16, 12, &[&a])
        .packet(11, 13, &[&a]);
    watch.client(&stream);
    let told: Vec<_> = watch
        .events
        .iter()
        .map(|event| match event {
            FileEvent::Asked(asked) => (asked.op.name(), asked.to.is_some(), asked.attributes.mode.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            ("setstat", false, true),
            ("remove", false, false),
            ("mkdir", false, true),
            ("rmdir", false, false),
            ("symlink", true, false),
            ("posix-rename", true, false),
            ("hardlink", true, false),
            ("lsetstat", false, true),
            ("extended", false, false),
            ("list", false, false),
        ]
    );
    let FileEvent::Asked(link) = &watch.events[4] else { panic!() };
    assert_eq!((&link.path[..], link.to.as_deref()), (&b"a"[..], Some(&b"b"[..])));
}

#[test]
fn a_written_file_has_its_hash_when_it_is_closed() {
    let mut watch = Watch::new();
    watch.open(1, "up", WRITE_CREATE_TRUNCATE, b"h");
    watch.client(Stream::new().write(2, b"h", 0, b"one ").write(3, b"h", 4, b"two").close(4, b"h"));
    assert!(watch.answered().is_empty(), "told too early");
    watch.server(Stream::new().status(2, 0).status(3, 0).status(4, 0));
    let [file] = watch.answered()[..] else { panic!("{:?}", watch.events) };
    assert_eq!((file.n, &file.path[..], &file.outcome), (1, &b"up"[..], &Outcome::Done));
    assert_eq!((file.read, file.written), (None, Some(content(b"one two", 0))));
}

#[test]
fn reads_that_overtake_each_other_are_hashed_in_order() {
    let mut watch = Watch::new();
    watch.open(1, "down", READ, b"h");
    watch.client(Stream::new().read(2, b"h", 0, 4).read(3, b"h", 4, 4).read(4, b"h", 8, 4));
    watch.server(Stream::new().data(3, b"efgh").data(2, b"abcd").status(4, 1));
    watch.client(Stream::new().close(5, b"h"));
    watch.server(Stream::new().status(5, 0));
    let [file] = watch.answered()[..] else { panic!("{:?}", watch.events) };
    assert_eq!(
        (file.read, file.written, &file.outcome),
        (Some(content(b"abcdefgh", 0)), None, &Outcome::Done)
    );
}

#[test]
fn a_short_read_that_is_asked_for_again_is_hashed() {
    let mut watch = Watch::new();
    watch.open(1, "down", READ, b"h");
    watch.client(Stream::new().read(2, b"h", 0, 4).read(3, b"h", 4, 4));
    watch.server(Stream::new().data(2, b"ab").data(3, b"efgh"));
    watch.client(Stream::new().read(4, b"h", 2, 2));
    watch.server(Stream::new().data(4, b"cd"));
    watch.client(Stream::new().close(5, b"h"));
    watch.server(Stream::new().status(5, 0));
    assert_eq!(watch.answered()[0].read, Some(content(b"abcdefgh", 0)));
}

#[test]
fn appended_bytes_are_hashed_from_where_they_were_said_to_begin() {
    let mut watch = Watch::new();
    watch.open(1, "log", APPEND, b"h");
    // A server that appends ignores the second offset.
    watch.client(Stream::new().write(2, b"h", 100, b"ab").write(3, b"h", 0, b"cd").close(4, b"h"));
    watch.server(Stream::new().status(2, 0).status(3, 0).status(4, 0));
    assert_eq!(watch.answered()[0].written, Some(content(b"abcd", 100)));
}

#[test]
fn a_failed_write_fails_the_file_and_leaves_no_hash() {
    let mut watch = Watch::new();
    watch.open(1, "up", WRITE_CREATE_TRUNCATE, b"h");
    watch.client(Stream::new().write(2, b"h", 0, b"one ").write(3, b"h", 4, b"two").close(4, b"h"));
    watch.server(Stream::new().status(2, 0).status(3, 4).status(4, 0));
    let [file] = watch.answered()[..] else { panic!("{:?}", watch.events) };
    assert!(matches!(file.outcome, Outcome::Failed { code: 4, .. }));
    assert_eq!(file.written, Some(Content { bytes: 4, sha256: None, from: 0 }));
}

#[test]
fn a_close_that_overtakes_a_write_waits_for_it() {
    let mut watch = Watch::new();
    watch.open(1, "up", WRITE_CREATE_TRUNCATE, b"h");
    watch.client(Stream::new().write(2, b"h", 0, b"x").close(3, b"h"));
    watch.server(Stream::new().status(3, 0));
    assert!(watch.answered().is_empty());
    watch.server(Stream::new().status(2, 0));
    assert_eq!(watch.answered()[0].written, Some(content(b"x", 0)));
}

#[test]
fn a_handle_given_again_stands_for_the_new_file() {
    let mut watch = Watch::new();
    watch.open(1, "first", WRITE_CREATE_TRUNCATE, b"h");
    watch.client(Stream::new().close(2, b"h").open(3, "second", WRITE_CREATE_TRUNCATE));
    // The answers come the other way round.
    watch.server(Stream::new().handle(3, b"h").status(2, 0));
    watch.client(Stream::new().write(4, b"h", 0, b"x").close(5, b"h"));
    watch.server(Stream::new().status(4, 0).status(5, 0));
    let files: Vec<_> = watch.answered().iter().map(|file| (file.path.to_vec(), file.written)).collect();
    assert_eq!(
        files,
        [(b"first".to_vec(), Some(content(b"", 0))), (b"second".to_vec(), Some(content(b"x", 0)))]
    );
}

#[test]
fn a_guessed_handle_counts_and_has_no_hash() {
    let mut watch = Watch::new();
    watch
        .client(Stream::new().open(1, "up", WRITE_CREATE_TRUNCATE).write(2, b"h", 0, b"evil").close(3, b"h"));
    watch.server(Stream::new().handle(1, b"h").status(2, 0).status(3, 0));
    let [file] = watch.answered()[..] else { panic!("{:?}", watch.events) };
    assert_eq!(file.written, Some(Content { bytes: 4, sha256: None, from: 0 }));
    assert_eq!(watch.lost(), None);
}

#[test]
fn a_handle_that_was_never_given_and_works_is_lost() {
    let mut watch = Watch::new();
    watch.client(Stream::new().write(2, b"h", 0, b"evil"));
    assert_eq!(watch.lost(), None, "the server may refuse it");
    watch.server(Stream::new().status(2, 0));
    assert_eq!(watch.lost(), Some(Lost::UnknownHandle));
}

#[test]
fn copied_data_has_no_hash() {
    let mut watch = Watch::new();
    watch.open(1, "a", READ, b"r");
    watch.open(2, "b", WRITE_CREATE_TRUNCATE, b"w");
    let body = [string(b"copy-data"), string(b"r"), vec![0; 16], string(b"w"), vec![0; 8]].concat();
    watch.client(Stream::new().packet(200, 3, &[&body]).close(4, b"w"));
    watch.server(Stream::new().status(3, 0).status(4, 0));
    let told: Vec<_> = watch.answered().iter().map(|told| (told.op.name(), told.to.clone())).collect();
    assert_eq!(told, [("copy-data", Some("b".into())), ("open", None)]);
    assert_eq!(watch.answered()[1].written.unwrap().sha256, None);
}

#[test]
fn what_is_open_at_the_end_has_an_unknown_outcome() {
    let mut watch = Watch::new();
    watch.open(1, "up", WRITE_CREATE_TRUNCATE, b"h");
    watch.client(Stream::new().write(2, b"h", 0, b"abc").packet(13, 3, &[&string(b"x")]));
    watch.server(Stream::new().status(2, 0));
    let events = watch.finish();
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            FileEvent::Answered(told) => Some((told.n, told.outcome.clone(), told.written)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, Outcome::Unknown, Some(content(b"abc", 0))), (2, Outcome::Unknown, None)]);
}

#[test]
fn what_is_not_the_protocol_is_lost_once_and_counted_from_there() {
    let begun = Stream::new().init().bytes.clone();
    for (client, server, why) in [
        (&begun[..], &b"Welcome to web-1, all is well\n"[..], Lost::UnknownPacket { kind: b'o' }),
        (&begun, &Stream::new().status(1, 0).bytes, Lost::NotBegun),
        (&begun, &Stream::new().version(6).bytes, Lost::Version { version: 6 }),
        (&begun, &Stream::new().version(3).status(1, 0).bytes, Lost::Unasked { id: 1 }),
        (&Stream::new().close(1, b"h").bytes, b"", Lost::NotBegun),
        (&Stream::new().init().packet(22, 1, &[]).bytes, b"", Lost::UnknownPacket { kind: 22 }),
        (&Stream::new().init().packet(17, 1, &[]).packet(17, 1, &[]).bytes, b"", Lost::IdInUse { id: 1 }),
        (
            &Stream::new().init().packet(13, 1, &[b"\0\0\0\x09a"]).bytes,
            b"",
            Lost::Malformed { packet: "remove" },
        ),
    ] {
        for size in [1, 7, 1000] {
            let mut observer = SftpObserver::new(Limits::default());
            let mut events = Vec::new();
            client.chunks(size).for_each(|chunk| observer.client(chunk, &mut events));
            server.chunks(size).for_each(|chunk| observer.server(chunk, &mut events));
            observer.client(b"more", &mut events);
            assert!(observer.is_lost());
            observer.finish(&mut events);
            let [FileEvent::Lost { why: told }, FileEvent::Opaque { client: ours, .. }] = events.as_slice()
            else {
                panic!("{events:?}")
            };
            assert_eq!(*told, why);
            assert!(ours.bytes >= 4, "{why:?}: {ours:?}");
        }
    }
}

#[test]
fn the_packet_that_is_not_understood_is_counted_whole() {
    let bad = Stream::new().packet(22, 1, &[b"anything"]).bytes.clone();
    for size in 1..bad.len() {
        let mut watch = Watch::new();
        for chunk in bad.chunks(size) {
            watch.observer.client(chunk, &mut watch.events);
        }
        let events = watch.finish();
        let Some(FileEvent::Opaque { client, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!((client.bytes, client.sha256), (bad.len() as u64, sha256(&[&bad])), "cut every {size}");
    }
}

#[test]
fn what_was_skipped_is_not_counted_as_not_understood() {
    let list = Stream::new().packet(104, 1, &[&[0; 50]]).bytes.clone();
    let bad = Stream::new().packet(7, 1, &[b"anything"]).bytes.clone();
    for size in [1, 10, 1000] {
        let mut watch = Watch::new();
        watch.client(Stream::new().packet(12, 1, &[&string(b"d")]));
        for chunk in [&list[..], &bad].concat().chunks(size) {
            watch.observer.server(chunk, &mut watch.events);
        }
        let events = watch.finish();
        let Some(FileEvent::Opaque { server, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!(server.sha256, sha256(&[&bad]), "cut every {size}");
    }
}

#[test]
fn what_is_kept_has_bounds() {
    let few = Limits { requests: 3, handles: 2, paths: 100, early: 10 };
    let mut watch = Watch::with(few);
    watch.client(Stream::new().packet(17, 1, &[]).packet(17, 2, &[]).packet(17, 3, &[]).packet(17, 4, &[]));
    assert_eq!(watch.lost(), Some(Lost::TooMany { of: "unanswered requests" }));

    let mut watch = Watch::with(few);
    (0..3_u8).for_each(|n| watch.open(n.into(), "a", READ, &[n]));
    assert_eq!(watch.lost(), Some(Lost::TooMany { of: "open handles" }));

    let mut watch = Watch::with(few);
    watch.client(Stream::new().open(1, &"a".repeat(60), READ).open(2, &"a".repeat(60), READ));
    assert_eq!(watch.lost(), Some(Lost::TooMany { of: "bytes of paths" }));

    let mut watch = Watch::with(few);
    watch.open(1, "a", READ, b"h");
    watch.client(Stream::new().read(2, b"h", 0, 20).read(3, b"h", 20, 20).close(4, b"h"));
    watch.server(Stream::new().data(3, &[0; 20]).data(2, &[0; 20]).status(4, 0));
    assert_eq!(watch.answered()[0].read, Some(Content { bytes: 40, sha256: None, from: 0 }));
}

#[test]
fn room_is_given_back() {
    let mut watch = Watch::with(Limits { requests: 3, handles: 2, paths: 100, early: 10 });
    for round in 0..50 {
        watch.open(1, &"a".repeat(60), READ, b"h");
        watch.client(Stream::new().read(2, b"h", 0, 5).read(3, b"h", 5, 9));
        watch.server(Stream::new().data(3, &[1; 9]).data(2, &[1; 5]));
        watch.client(Stream::new().close(4, b"h"));
        watch.server(Stream::new().status(4, 0));
        watch.client(Stream::new().open(5, &"a".repeat(60), READ));
        watch.server(Stream::new().status(5, 2));
        assert_eq!(watch.lost(), None, "round {round}");
    }
    assert!(watch.answered().iter().all(|told| told.read.is_none_or(|read| read.sha256.is_some())));
}

#[test]
fn flags_are_read_as_the_draft_has_them() {
    let flags = OpenFlags(WRITE_CREATE_TRUNCATE);
    assert!(flags.writes() && flags.creates() && flags.truncates());
    assert!(!flags.reads() && !flags.appends() && !flags.excludes());
}
