//! Records of SSH connections: what is written is read back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::audit::record::{
    ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, CredentialMark, Data, Direction, Env, Eof,
    File, FilePhase, Input, Listen, Output, Program, ProgramKind, Pty, Resize, Signal, SshClient, StreamSum,
};

/// One of every kind, with as much in it as it can hold, then with as little.
fn every_kind() -> Vec<Body> {
    let odd = Data::new(b"/srv/\xff");
    let text = || Some("x".to_owned());
    let mark = CredentialMark { handle: "deploy".to_owned(), fingerprint: text() };
    let (ch, sha256) = (1, "00".repeat(32));
    let sum = StreamSum { ch, direction: Direction::Out, err: true, bytes: 9, head: 4, sha256 };
    let opened = |destination, originator, credential| {
        let channel = ChannelKind::DirectTcpip;
        Body::ChannelOpened(ChannelOpened { ch, channel, destination, originator, credential })
    };
    let program = |command, hint| Body::Program(Program { ch, how: ProgramKind::Exec, command, hint });
    let ended = |exit_status, exit_signal, why| {
        Body::ChannelEnded(ChannelEnded {
            ch,
            exit_status,
            exit_signal,
            bytes_in: 1,
            bytes_out: 2,
            duration_us: 3,
            why,
        })
    };
    let refused = |destination| {
        let (what, rule, needs) = ("x11".to_owned(), "R".to_owned(), "n".to_owned());
        Body::ChannelRefused(ChannelRefused { ch: 0, what, destination, rule, needs })
    };
    let pty = |modes| Body::Pty(Pty { ch, term: "xterm".to_owned(), cols: 80, rows: 24, modes });
    [
        opened(text(), text(), Some(mark)),
        opened(None, None, None),
        refused(text()),
        refused(None),
        pty(BTreeMap::from([("VINTR".to_owned(), 3)])),
        pty(BTreeMap::new()),
        Body::Env(Env { ch, name: "LANG".to_owned(), value: odd.clone(), passed: false }),
        program(Some(odd.clone()), text()),
        program(Some(Data::new(b"ls")), None),
        program(None, None),
        Body::Input(Input { ch, data: odd.clone(), masked: None }),
        Body::Input(Input { ch, data: Data::none(), masked: Some(8) }),
        Body::Output(Output { ch, data: odd, err: true }),
        Body::Output(Output { ch, data: Data::new(b"x"), err: false }),
        Body::Resize(Resize { ch, cols: 132, rows: 50 }),
        Body::Signal(Signal { ch, name: "INT".to_owned() }),
        Body::Eof(Eof { ch, from: Direction::In }),
        Body::StreamSoFar(sum.clone()),
        Body::StreamEnd(sum),
        Body::Listen(Listen {
            ch: 0,
            address: "localhost".to_owned(),
            port: 8080,
            streamlocal: true,
            granted: true,
            cancelled: true,
        }),
        ended(Some(1), text(), text()),
        ended(None, None, None),
    ]
    .into_iter()
    .chain(files())
    .collect()
}

fn files() -> [Body; 3] {
    let text = || Some("x".to_owned());
    let full_file = File {
        ch: 1,
        n: 3,
        phase: FilePhase::Answered,
        tool: "sftp".to_owned(),
        op: "rename".to_owned(),
        path: Data::new(b"/srv/\xff"),
        to: Some(Data::new(b"/srv/y")),
        flags: text(),
        attributes: text(),
        read: Some(1),
        written: Some(2),
        sha256: Some("00".repeat(32)),
        outcome: Some("done".to_owned()),
        message: text(),
    };
    let bare_file = File {
        phase: FilePhase::Asked,
        path: Data::new(b"/srv/x"),
        to: None,
        flags: None,
        attributes: None,
        read: None,
        written: None,
        sha256: None,
        outcome: None,
        message: None,
        ..full_file.clone()
    };
    let odd_file = File { to: Some(Data::new(b"\xfe")), path: Data::new(b"a"), ..full_file.clone() };
    [full_file, bare_file, odd_file].map(Body::File)
}

/// Records the bodies as one connection's and gives back its records, as JSON and as read.
async fn recorded(bodies: &[Body]) -> (House, Vec<serde_json::Value>, Vec<Body>) {
    let house = House::new();
    let (journal, _) = house.open();
    let mut opening = opening(1);
    opening.opened.client_ssh = Some(SshClient {
        software: "SSH-2.0-OpenSSH_10.0".to_owned(),
        auth: "publickey".to_owned(),
        key: Some("SHA256:x".to_owned()),
        jump: None,
    });
    let recorder = journal.begin(opening).await.unwrap();
    recorder.record(bodies).await.unwrap();
    let totals = Totals { channels: 1, ..Totals::default() };
    recorder.end(EndReason::ClientClosed, totals).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    let mut json = Vec::new();
    replay::replay_json(&replay::Source::new(house.dir(), &connection(1)), &mut json).unwrap();
    let json = json.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let json = json.map(|line| serde_json::from_slice(line).unwrap()).collect();
    let body = |content| match content {
        Content::Body(body) => Some(*body),
        _ => None,
    };
    let read = contents(house.dir(), 1).into_iter().filter_map(body).collect();
    (house, json, read)
}

#[tokio::test]
async fn every_kind_is_read_back_as_it_was_written() {
    let bodies = every_kind();
    let (_house, json, read) = recorded(&bodies).await;
    assert_eq!(read, bodies);
    for (body, json) in bodies.iter().zip(&json[1..]) {
        assert_eq!(json["kind"], body.kind(), "{json}");
        assert!(json["ch"].is_u64(), "{json}");
        assert!(!json.as_object().unwrap().values().any(serde_json::Value::is_null), "{json}");
    }
    assert_eq!(json[0]["client_ssh"]["auth"], "publickey");
    assert_eq!(json[json.len() - 1]["totals"]["channels"], 1);
    let refused = json.iter().find(|json| json["kind"] == "channel_refused").unwrap();
    assert_eq!(refused["outcome"], "refused");
    let file = json.iter().find(|json| json["kind"] == "file").unwrap();
    assert_eq!((&file["path_b64"], &file["to"]), (&"L3Nydi//".into(), &"/srv/y".into()));
}

#[test]
fn the_record_s_reference_names_every_kind_and_field() {
    let text = include_str!("../../../docs/audit-record.md");
    for body in every_kind() {
        let serde_json::Value::Object(fields) = serde_json::to_value(&body).unwrap() else { unreachable!() };
        for name in fields.keys().map(String::as_str).chain([body.kind()]) {
            assert!(text.contains(&format!("`{name}`")), "`{name}` of `{}`", body.kind());
        }
    }
}

#[tokio::test]
async fn long_data_is_split_in_order_and_nothing_is_lost() {
    let sent = [
        "é\u{1b}".repeat(300_000).into_bytes(),
        vec![0xff; 700_000],
        [vec![b'x'; (128 << 10) - 1], "漢".repeat(9).into_bytes(), vec![0xfe], b"end".to_vec()].concat(),
        b"short".to_vec(),
    ];
    let mut bodies = Vec::new();
    for bytes in &sent {
        bodies.push(Body::Output(Output { ch: 2, data: Data::new(bytes), err: true }));
        bodies.push(Body::Input(Input { ch: 1, data: Data::new(bytes), masked: None }));
    }
    let (_house, json, read) = recorded(&bodies).await;
    assert!(json.iter().all(|json| json.to_string().len() < LONGEST_RECORD));
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for body in read {
        match body {
            Body::Output(Output { ch: 2, data, err: true }) => from.extend(data.bytes()),
            Body::Input(Input { ch: 1, data, masked: None }) => to.extend(data.bytes()),
            other => panic!("{other:?}"),
        }
    }
    let sent = sent.concat();
    assert!(from == sent && to == sent, "what is read back is what was sent");
}

#[tokio::test]
async fn a_text_is_split_between_its_characters() {
    let text = format!("x{}", "漢".repeat(200_000));
    let (_house, _, read) =
        recorded(&[Body::Output(Output { ch: 1, data: Data::new(text.as_bytes()), err: false })]).await;
    let texts: Vec<String> = read
        .into_iter()
        .map(|body| match body {
            Body::Output(Output { data: Data::Text { txt }, .. }) => txt,
            other => panic!("not text: {other:?}"),
        })
        .collect();
    assert_eq!(texts.len(), 5);
    assert!(texts.concat() == text);
}

#[tokio::test]
async fn what_is_not_for_a_record_is_cut_with_its_length_and_hash() {
    let long = |byte: u8| Data::new(&vec![byte; 300_000]);
    let name = "n".repeat(300_000);
    let bodies = [
        Body::Env(Env { ch: 1, name: name.clone(), value: long(b'v'), passed: true }),
        Body::Env(Env { ch: 1, name: "A".to_owned(), value: long(0xff), passed: true }),
        Body::Program(Program { ch: 1, how: ProgramKind::Exec, command: Some(long(0xfe)), hint: Some(name) }),
    ];
    let (_house, json, _) = recorded(&bodies).await;
    for json in &json[1..4] {
        assert!(json.to_string().len() < 400_000);
        assert!(json["txt"].as_str().unwrap().contains("… (300000 bytes, sha256 "), "{json}");
    }
}

proptest! {
    #[test]
    fn data_is_text_or_base64_and_never_changed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let data = Data::new(&bytes);
        prop_assert_eq!(data.bytes(), bytes.clone());
        prop_assert_eq!(matches!(data, Data::Text { .. }), std::str::from_utf8(&bytes).is_ok());
        let body = Body::Input(Input { ch: 1, data, masked: None });
        let json = serde_json::to_vec(&body).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Body>(&json).unwrap(), body);
    }
}
