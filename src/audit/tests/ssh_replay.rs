//! A recording of an SSH connection with two terminals and a command: as text, as asciicast.

use std::collections::BTreeMap;

use super::*;
use crate::audit::asciicast::{Header, replay_asciicast};
use crate::audit::record::{
    ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, Data, Direction, Eof, Input, Output, Program,
    ProgramKind, Pty, Resize, SshClient, StreamSum,
};
use crate::audit::replay::ReplayError;

fn opened(ch: u32) -> Body {
    Body::ChannelOpened(ChannelOpened {
        ch,
        channel: ChannelKind::Session,
        destination: None,
        originator: None,
        credential: None,
    })
}

fn pty(ch: u32) -> Body {
    Body::Pty(Pty { ch, term: "xterm".to_owned(), cols: 80, rows: 24, modes: BTreeMap::new() })
}

fn shell(ch: u32) -> Body {
    Body::Program(Program { ch, how: ProgramKind::Shell, command: None, hint: None })
}

fn exec(ch: u32, command: &str) -> Body {
    let command = Some(Data::new(command.as_bytes()));
    Body::Program(Program { ch, how: ProgramKind::Exec, command, hint: None })
}

fn output(ch: u32, bytes: &[u8]) -> Body {
    Body::Output(Output { ch, data: Data::new(bytes), err: false })
}

fn errors(ch: u32, bytes: &[u8]) -> Body {
    Body::Output(Output { ch, data: Data::new(bytes), err: true })
}

fn typed(ch: u32, bytes: &[u8]) -> Body {
    Body::Input(Input { ch, data: Data::new(bytes), masked: None })
}

fn masked(ch: u32, count: u64) -> Body {
    Body::Input(Input { ch, data: Data::none(), masked: Some(count) })
}

fn ended(ch: u32, exit_status: u32) -> Body {
    Body::ChannelEnded(ChannelEnded {
        ch,
        exit_status: Some(exit_status),
        exit_signal: None,
        bytes_in: 10,
        bytes_out: 20,
        duration_us: 1_500_000,
        why: None,
    })
}

/// A connection's recording: each body so many milliseconds after the one before.
async fn recording(bodies: impl IntoIterator<Item = (u64, Body)>, is_ended: bool) -> House {
    let house = House::new();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(house.dir(), clock.clone(), house.options()).unwrap();
    let mut opening = opening(1);
    opening.opened.client_ssh = Some(SshClient {
        software: "SSH-2.0-OpenSSH_10.0".to_owned(),
        auth: "publickey".to_owned(),
        key: Some("SHA256:abc".to_owned()),
        jump: None,
    });
    let recorder = journal.begin(opening).await.unwrap();
    for (after, body) in bodies {
        clock.advance(Duration::from_millis(after));
        recorder.record(&[body]).await.unwrap();
    }
    if !is_ended {
        let home = house.crashed();
        return House { home, ..house };
    }
    let totals = Totals { channels: 3, bytes_from_client: 1, bytes_from_target: 2, statements: 0 };
    recorder.end(EndReason::ClientClosed, totals).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    house
}

fn busy() -> Vec<(u64, Body)> {
    vec![
        (100, opened(1)),
        (0, pty(1)),
        (0, shell(1)),
        (400, output(1, b"\x1b[1malice@web\x1b[0m:~$ ")),
        (500, typed(1, b"l")),
        (10, output(1, b"l")),
        (500, opened(2)),
        (0, exec(2, "cat x; id")),
        (0, typed(2, b"first\nsecond")),
        (10, Body::Eof(Eof { ch: 2, from: Direction::In })),
        (0, output(2, b"uid=0\n\xff\xfe\nno")),
        (0, errors(2, b"cat: x\n")),
        (
            0,
            Body::StreamEnd(StreamSum {
                ch: 2,
                direction: Direction::Out,
                err: false,
                bytes: 4_000,
                head: 12,
                sha256: "00ff".to_owned(),
            }),
        ),
        (0, ended(2, 1)),
        (500, typed(1, b"s\r")),
        (10, output(1, "s\r\nna\u{ef}ve.txt \u{6f22}".as_bytes().split_last().unwrap().1)),
        (10, output(1, b"\xa2\r\nPassword: ")),
        (2_000, masked(1, 6)),
        (10, Body::Resize(Resize { ch: 1, cols: 132, rows: 50 })),
        (0, opened(3)),
        (0, pty(3)),
        (0, output(3, b"other")),
        (500, output(1, b"\r\n$ ")),
        (0, ended(1, 0)),
        (
            0,
            Body::ChannelRefused(ChannelRefused {
                ch: 0,
                what: "x11".to_owned(),
                destination: None,
                rule: "SSH-X11".to_owned(),
                needs: "nobody forwards X11".to_owned(),
            }),
        ),
    ]
}

fn text(house: &House) -> String {
    let mut text = Vec::new();
    replay::replay_text(&replay::Source::new(house.dir(), &connection(1)), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_transcript_reads_as_the_screen_and_the_streams_did() {
    let house = recording(busy(), true).await;
    let text = text(&house);
    let (head, records) = text.split_once("\n\n").unwrap();
    assert!(head.contains("client      SSH-2.0-OpenSSH_10.0, by publickey SHA256:abc"), "{head}");
    let expected = "\
00:00:00.100  session opened
00:00:00.100  terminal xterm, 80x24
00:00:00.100  shell
00:00:01.510  #2 session opened
00:00:01.510  #2 command cat x; id
00:00:01.510  #2 in  | first
00:00:01.520  #2 nothing more to the target
00:00:01.520  #2 out | uid=0
00:00:01.520  #2 out | (not text)
00:00:01.520  #2 err | cat: x
00:00:01.520  #2 stream from the target: 4000 bytes, the first 12 kept, sha256 00ff
00:00:01.520  #2 in  | second
00:00:01.520  #2 out | no
00:00:01.520  #2 channel ended: exit status 1 (10 bytes in, 20 bytes out, 1.500 s)
00:00:02.020  #1 typed ls\\r
00:00:02.030  #1 | alice@web:~$ ls
00:00:02.040  #1 | na\u{ef}ve.txt \u{6f22}
00:00:04.040  #1 typed (6 characters that are not kept)
00:00:04.050  #1 resized to 132x50
00:00:04.050  #3 session opened
00:00:04.050  #3 terminal xterm, 80x24
00:00:04.550  #1 | Password:
00:00:04.550  #1 | $
00:00:04.550  #1 channel ended: exit status 0 (10 bytes in, 20 bytes out, 1.500 s)
00:00:04.550  REFUSED x11 by SSH-X11: nobody forwards X11
00:00:04.550  #3 | other
00:00:04.550  ended: the client closed the connection
              3 channels, 1 bytes from the client, 2 bytes from the target
";
    assert_eq!(records, expected);
}

#[tokio::test]
async fn a_recording_without_an_end_shows_what_stands_on_the_screen() {
    let house = recording(busy().into_iter().take(6), false).await;
    let text = text(&house);
    assert!(
        text.ends_with(
            "00:00:01.010  | alice@web:~$ l\n00:00:01.010  typed l\n\
         (no end is recorded: the connection is live, or the node stopped)\n"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_host_wrote_passes_for_no_line_of_the_transcript() {
    let forged = "x\n00:00:00.050  #6 shell\r\u{2028}\u{202e}\u{1b}[2A\u{9b}2J\n";
    let mut bodies = vec![pty(2), exec(1, forged), errors(1, forged.as_bytes()), typed(1, forged.as_bytes())];
    bodies.extend([output(2, forged.as_bytes()), typed(2, forged.as_bytes()), output(1, forged.as_bytes())]);
    let house = recording(bodies.into_iter().map(|body| (0, body)), true).await;
    let text = text(&house);
    let (_, records) = text.split_once("\n\n").unwrap();
    for line in records.lines() {
        assert!(line.starts_with("00:00:00.000  ") || line.starts_with("              3 channels"), "{line}");
    }
    assert!(!text.contains(|symbol: char| symbol != '\n' && symbol.is_control()), "{text:?}");
    assert!(!text.contains(['\u{2028}', '\u{202e}']), "{text:?}");
}

/// A time, a code, data.
type Line = (f64, String, String);

fn cast(house: &House, channel: Option<u32>) -> Result<(Header, Vec<Line>), ReplayError> {
    let mut bytes = Vec::new();
    replay_asciicast(&replay::Source::new(house.dir(), &connection(1)), channel, &mut bytes)?;
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let header = serde_json::from_str(lines.next().unwrap()).unwrap();
    Ok((header, lines.map(|line| serde_json::from_str(line).unwrap()).collect()))
}

#[tokio::test]
async fn an_asciicast_has_the_terminal_whole_and_in_time() {
    let house = recording(busy(), true).await;
    let (header, events) = cast(&house, None).unwrap();
    assert_eq!((header.version, header.width, header.height), (2, 80, 24));
    assert_eq!(header.timestamp, START.as_micros() / 1_000_000);
    assert_eq!(header.env["TERM"], "xterm");
    assert_eq!(header.title, format!("alice on ledger-prod as readonly, {}, channel 1", connection(1)));
    let expected = [
        (0.4, "o", "\u{1b}[1malice@web\u{1b}[0m:~$ "),
        (0.9, "i", "l"),
        (0.91, "o", "l"),
        (1.92, "i", "s\r"),
        (1.93, "o", "s\r\nna\u{ef}ve.txt "),
        (1.94, "o", "\u{6f22}\r\nPassword: "),
        (3.94, "i", "******"),
        (3.95, "r", "132x50"),
        (4.45, "o", "\r\n$ "),
    ];
    assert_eq!(events, expected.map(|(at, code, data)| (at, code.to_owned(), data.to_owned())));
}

#[tokio::test]
async fn an_asciicast_is_of_the_channel_that_is_asked_for() {
    let house = recording(busy(), true).await;
    let (header, events) = cast(&house, Some(3)).unwrap();
    assert!(header.title.ends_with("channel 3"));
    assert_eq!(events, [(0.0, "o".to_owned(), "other".to_owned())]);
    let (header, events) = cast(&house, Some(2)).unwrap();
    assert!((header.width, header.height) == (80, 24) && header.env.is_empty());
    let shown: String = events.into_iter().filter(|event| event.1 == "o").map(|event| event.2).collect();
    assert_eq!(shown, "uid=0\n\u{fffd}\u{fffd}\nnocat: x\n");
}

#[tokio::test]
async fn what_has_no_terminal_makes_no_asciicast() {
    let house = recording(busy(), true).await;
    assert!(matches!(cast(&house, Some(9)), Err(ReplayError::NoTerminal { channel: Some(9), .. })));
    let house = recording([(0, opened(1)), (0, exec(1, "id")), (0, output(1, b"uid=0"))], true).await;
    assert!(matches!(cast(&house, None), Err(ReplayError::NoTerminal { channel: None, .. })));
    assert!(cast(&house, Some(1)).is_ok());
}
