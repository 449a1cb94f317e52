//! `sallyport replay` of an SSH connection, from the files: as text, exported, and played in a real
//! pseudo-terminal (that of `script`), which is afterwards as it was before.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in the test's own helpers too, a step that fails fails the test"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use sallyport::audit::record::{
    ChannelEnded, Context, Data, Input, Opened, Output as FromTarget, Pty, SshClient,
};
use sallyport::audit::{Body, Journal, JournalOptions, Opening, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::target::Environment;
use sallyport::domain::time::Timestamp;
use tempfile::TempDir;

const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

fn connection() -> ConnectionId {
    ConnectionId::from_random([7; 10])
}

fn opening() -> Opening {
    Opening {
        context: Context {
            principal: Actor { id: PrincipalId::from_random([2; 10]), name: "alice".parse().unwrap() },
            session: SessionId::from_random([3; 10]),
            request: RequestId::from_random([4; 10]),
            connection: connection(),
            target: "web-1".parse().unwrap(),
            access: "shell".parse().unwrap(),
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            client: "192.0.2.7:40000".parse().unwrap(),
            break_glass: false,
        },
        opened: Opened {
            reason: "look at it".to_owned(),
            ticket: None,
            approvals: Vec::new(),
            granted_at: START,
            ends_at: START.plus(Duration::from_hours(1)),
            policy_hash: "00".to_owned(),
            application: None,
            database: None,
            credential: None,
            client_tls: None,
            client_ssh: Some(SshClient {
                software: "SSH-2.0-OpenSSH_10.0".to_owned(),
                auth: "publickey".to_owned(),
                key: None,
                jump: None,
            }),
            target_tls: None,
        },
    }
}

/// A log with one recording: a shell that takes an hour, and with `terminals` 2 another.
async fn log(terminals: u32) -> TempDir {
    let home = TempDir::new().unwrap();
    let key = SigningKey::from_pem(SigningKey::generate().as_ref(), NodeId::from_random([1; 10])).unwrap();
    let clock = Clock::manual(START);
    let mut options = JournalOptions::new(key);
    (options.file_size, options.reserve) = (1 << 20, 1 << 10);
    let (journal, _) = Journal::open(home.path(), clock.clone(), options).unwrap();
    let recorder = journal.begin(opening()).await.unwrap();
    for ch in 1..=terminals {
        let (term, modes) = ("xterm".to_owned(), BTreeMap::new());
        recorder.record(&[Body::Pty(Pty { ch, term, cols: 80, rows: 24, modes })]).await.unwrap();
    }
    let shown = |bytes: &[u8]| Body::Output(FromTarget { ch: 1, data: Data::new(bytes), err: false });
    let typed = |bytes: &[u8]| Body::Input(Input { ch: 1, data: Data::new(bytes), masked: None });
    for body in [
        shown(b"alice@web-1:~$ "),
        typed(b"ls\r"),
        shown(b"ls\r\n\x1b[1mna\xc3"),
        shown(b"\xafve.txt\x1b[0m\r\n\x1b]52;c;c3RvbGVu\x07\x1b[6n$ "),
        shown(b"exit\r\n"),
    ] {
        clock.advance(Duration::from_mins(12));
        recorder.record(&[body]).await.unwrap();
    }
    let ended = ChannelEnded {
        ch: 1,
        exit_status: Some(0),
        exit_signal: None,
        bytes_in: 3,
        bytes_out: 60,
        duration_us: 3_600_000_000,
        why: None,
    };
    recorder.record(&[Body::ChannelEnded(ended)]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals { channels: 1, ..Totals::default() }).await.unwrap();
    journal.close().await.unwrap();
    home
}

fn replay(log: &TempDir, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(["replay", connection().as_str(), "--audit-dir"]).arg(log.path());
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A player in a terminal of its own, between two looks at the terminal's settings.
struct Playing {
    script: Child,
    shown: String,
}

impl Playing {
    fn start(log: &TempDir, arguments: &str) -> Self {
        let (binary, dir) = (env!("CARGO_BIN_EXE_sallyport"), log.path().display());
        let replay = format!("'{binary}' replay {} --audit-dir '{dir}' {arguments}", connection());
        let line = format!("stty -g; sh -c \"echo pid \\$\\$; exec {replay}\"; echo \"exit $?\"; stty -g");
        let mut script = Command::new("timeout");
        script.args(["--foreground", "60", "script", "-qec", &line, "/dev/null"]);
        script.env("SHELL", "/bin/sh").env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { script: script.spawn().unwrap(), shown: String::new() }
    }

    /// Waits until the terminal has shown `text`.
    fn until(&mut self, text: &str) {
        let mut bytes = self.shown.clone().into_bytes();
        let mut byte = [0];
        while !self.shown.ends_with(text) {
            let read = self.script.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert_eq!(read, 1, "`{text}` never came: {:?}", self.shown);
            bytes.push(byte[0]);
            self.shown = String::from_utf8_lossy(&bytes).into_owned();
        }
    }

    fn press(&mut self, keys: &[u8]) {
        let stdin = self.script.stdin.as_mut().unwrap();
        stdin.write_all(keys).unwrap();
        stdin.flush().unwrap();
    }

    fn pid(&self) -> Pid {
        let (_, after) = self.shown.split_once("pid ").unwrap();
        Pid::from_raw(after.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    /// What the terminal showed, once the player has gone; it must have left the terminal as it was.
    fn gone(mut self) -> String {
        let mut rest = Vec::new();
        self.script.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        let status = self.script.wait().unwrap();
        let shown = format!("{}{}", self.shown, text(&rest));
        assert!(status.success(), "{status}: {shown:?}");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() > 4, "{shown:?}");
        assert_eq!(lines[0], lines[lines.len() - 1], "the terminal's settings: {shown:?}");
        assert_eq!(lines[lines.len() - 2], "exit 0", "{shown:?}");
        shown
    }
}

#[tokio::test]
async fn without_a_terminal_a_recording_is_text() {
    let log = log(1).await;
    let read = replay(&log, "");
    assert!(read.status.success());
    let read = text(&read.stdout);
    for line in
        ["client      SSH-2.0-OpenSSH_10.0, by publickey", "00:36:00.000  | alice@web-1:~$ ls", "| naïve.txt"]
    {
        assert!(read.contains(line), "{line} in {read}");
    }
    assert_eq!(text(&replay(&log, "--format text").stdout), read);
}

#[tokio::test]
async fn records_come_as_stored() {
    let log = log(1).await;
    let json = text(&replay(&log, "--json").stdout);
    assert_eq!(json.lines().count(), 9);
    assert_eq!(text(&replay(&log, "--format json").stdout), json);
}

#[tokio::test]
async fn a_terminal_is_exported_whole() {
    let log = log(1).await;
    let cast = text(&replay(&log, "--format asciicast").stdout);
    let lines: Vec<serde_json::Value> =
        cast.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["version"], &lines[0]["width"]), (&2.into(), &80.into()));
    assert_eq!(lines[3], serde_json::json!([2160.0, "o", "ls\r\n\u{1b}[1mna"]));
    assert!(
        lines[4][2].as_str().unwrap().starts_with("ïve.txt\u{1b}[0m\r\n\u{1b}]52;"),
        "unchanged: {}",
        lines[4]
    );
    let none = replay(&log, "--format asciicast --channel 5");
    assert_eq!(none.status.code(), Some(4));
    assert!(text(&none.stderr).contains("no channel 5"), "{}", text(&none.stderr));
    let nowhere = replay(&log, "--format terminal");
    assert_eq!(nowhere.status.code(), Some(2));
}

#[tokio::test]
async fn a_terminal_plays_in_a_terminal_and_leaves_it_as_it_was() {
    let log = log(2).await;
    let shown = Playing::start(&log, "--idle 100ms --speed 2").gone();
    assert!(shown.contains("alice@web-1:~$ ls\r\n\u{1b}[1mnaïve.txt\u{1b}[0m\r\n$ exit\r\n"), "{shown:?}");
    assert!(!shown.contains("\u{1b}[6n") && !shown.contains("c3RvbGVu"), "{shown:?}");
    assert!(shown.contains("this is channel 1; --channel plays another with a terminal: 2"), "{shown:?}");
}

#[tokio::test]
async fn keys_steer_the_player_and_q_leaves() {
    let log = log(1).await;
    let mut playing = Playing::start(&log, "--idle 1h --format terminal --from 20m");
    playing.until("alice@web-1:~$ ");
    playing.press(b"..");
    playing.until("ve.txt\u{1b}[0m\r\n$ ");
    playing.press(b"\x1b[D");
    playing.until("\u{1b}[H\u{1b}[2J");
    playing.press(b"q");
    let shown = playing.gone();
    assert!(!shown.contains("exit\r\n"), "{shown:?}");
}

#[tokio::test]
async fn a_player_that_is_told_to_end_leaves_the_terminal_as_it_was() {
    let log = log(1).await;
    let mut playing = Playing::start(&log, "--idle 1h --from 20m");
    playing.until("alice@web-1:~$ ");
    rustix::process::kill_process(playing.pid(), Signal::TERM).unwrap();
    playing.gone();
}
