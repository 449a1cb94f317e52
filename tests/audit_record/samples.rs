//! A record of every kind and of every action, made by the journal itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sallyport::audit::export;
use sallyport::audit::record::{
    Body, Cancel, ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, CopyEnd, Credential,
    CredentialMark, Data, Direction, Env, Eof, File, FilePhase, Format, How, Input, Listen, Notice, Output,
    Parameter, Program, ProgramKind, Pty, Resize, Signal, SshClient, Statement, StatementEnd,
    StatementOutcome, StreamSum, Tls, Transaction,
};
use sallyport::audit::{ControlEntry, Journal, JournalOptions, Opening, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::approval::Approval;
use sallyport::domain::deny::EndReason;
use sallyport::domain::event::{Action, Event, Outcome};
use sallyport::domain::id::{PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::request::AskHash;
use sallyport::domain::target::Environment;
use serde_json::Value;
use tempfile::TempDir;

use crate::log::{START, connection, node, opening};

/// How many kinds of [`Body`] there are.
const BODIES: usize = 23;

/// A body's place in the list of kinds. A new kind does not compile here: give it a place and a sample.
const fn place(body: &Body) -> usize {
    match body {
        Body::SqlPart(_) => 0,
        Body::ParameterPart(_) => 1,
        Body::Statement(_) => 2,
        Body::StatementEnd(_) => 3,
        Body::CopyEnd(_) => 4,
        Body::Cancel(_) => 5,
        Body::Notice(_) => 6,
        Body::Credential(_) => 7,
        Body::ChannelOpened(_) => 8,
        Body::ChannelRefused(_) => 9,
        Body::Pty(_) => 10,
        Body::Env(_) => 11,
        Body::Program(_) => 12,
        Body::Input(_) => 13,
        Body::Output(_) => 14,
        Body::Resize(_) => 15,
        Body::Signal(_) => 16,
        Body::Eof(_) => 17,
        Body::StreamEnd(_) => 18,
        Body::StreamSoFar(_) => 19,
        Body::File(_) => 20,
        Body::Listen(_) => 21,
        Body::ChannelEnded(_) => 22,
    }
}

/// The action that comes after another in the list of all; a new one does not compile here.
const fn after(action: Action) -> Option<Action> {
    Some(match action {
        Action::RequestCreated => Action::RequestApproved,
        Action::RequestApproved => Action::RequestDenied,
        Action::RequestDenied => Action::RequestCancelled,
        Action::RequestCancelled => Action::RequestLapsed,
        Action::RequestLapsed => Action::SessionActivated,
        Action::SessionActivated => Action::SessionRevoked,
        Action::SessionRevoked => Action::SessionEnded,
        Action::SessionEnded => Action::BlockAdded,
        Action::BlockAdded => Action::BlockLifted,
        Action::BlockLifted => Action::ConnectionRefused,
        Action::ConnectionRefused => Action::ConnectionOpened,
        Action::ConnectionOpened => Action::ConnectionEnded,
        Action::ConnectionEnded => Action::StatementCancelled,
        Action::StatementCancelled => Action::CredentialIntended,
        Action::CredentialIntended => Action::CredentialIssued,
        Action::CredentialIssued => Action::CredentialDestroyed,
        Action::CredentialDestroyed => Action::CredentialDestructionFailed,
        Action::CredentialDestructionFailed => Action::CredentialDenied,
        Action::CredentialDenied => Action::CredentialOrphaned,
        Action::CredentialOrphaned => Action::CredentialShut,
        Action::CredentialShut => Action::UserAdded,
        Action::UserAdded => Action::UserChanged,
        Action::UserChanged => Action::UserLoggedOut,
        Action::UserLoggedOut => Action::SshKeyAdded,
        Action::SshKeyAdded => Action::SshKeyRemoved,
        Action::SshKeyRemoved => Action::SshCertificateIssued,
        Action::SshCertificateIssued => Action::SecondFactorSet,
        Action::SecondFactorSet => Action::SecondFactorRemoved,
        Action::SecondFactorRemoved => Action::SecondFactorChecked,
        Action::SecondFactorChecked => Action::Login,
        Action::Login => Action::Logout,
        Action::Logout => Action::Read,
        Action::Read => Action::RecordingReplayed,
        Action::RecordingReplayed => Action::Searched,
        Action::Searched => Action::AuditExported,
        Action::AuditExported => Action::ApiRefused,
        Action::ApiRefused => Action::NodeStarted,
        Action::NodeStarted => Action::NodeStopped,
        Action::NodeStopped => Action::ConfigurationReloaded,
        Action::ConfigurationReloaded => Action::ClockBehind,
        Action::ClockBehind => Action::WitnessSilent,
        Action::WitnessSilent => Action::WitnessRefused,
        Action::WitnessRefused => Action::WitnessBack,
        Action::WitnessBack => Action::JournalTrimmed,
        Action::JournalTrimmed => Action::StreamBehind,
        Action::StreamBehind => Action::StreamCaughtUp,
        Action::StreamCaughtUp => Action::CheckpointUnsigned,
        Action::CheckpointUnsigned => Action::CheckpointSigned,
        Action::CheckpointSigned => Action::Canary,
        Action::Canary => Action::CanaryFailed,
        Action::CanaryFailed => Action::CanaryPassed,
        Action::CanaryPassed => Action::StoreRestored,
        Action::StoreRestored => return None,
    })
}

/// Every action.
pub(crate) fn actions() -> Vec<Action> {
    std::iter::successors(Some(Action::RequestCreated), |action| after(*action)).collect()
}

pub(crate) fn alice() -> Actor {
    Actor { id: PrincipalId::from_random([2; 10]), name: "alice".parse().unwrap() }
}

fn session() -> SessionId {
    SessionId::from_random([3; 10])
}

fn request() -> RequestId {
    RequestId::from_random([4; 10])
}

fn mark() -> CredentialMark {
    CredentialMark { handle: "sp_x".to_owned(), fingerprint: Some("f1".to_owned()) }
}

#[expect(clippy::unnecessary_wraps, reason = "short for fields that need not be there")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// What a Postgres connection records, with every field that it can have.
fn statements() -> Vec<Body> {
    let param = |value: Option<&[u8]>| Parameter::new(value, Format::Text, 25);
    let long = vec![b'x'; 100_000];
    // More than one record takes: the journal makes the parts.
    let split = format!("SELECT '{}'", "y".repeat(200_000));
    let mut parted = Statement::new(1, How::Extended, split.as_bytes());
    parted.params = (0..4).map(|_| param(Some(&long))).collect();
    let mut whole = Statement::new(2, How::Extended, b"SELECT $1, $2, $3, $4");
    whole.name = some("s1");
    whole.portal = some("p1");
    whole.fingerprint = some("0123456789abcdef");
    whole.params = vec![param(Some(b"x")), param(Some(b"\xff")), param(None), param(Some(&long))];
    whole.certain = false;
    whole.masked = 2;
    whole.resumes = Some(1);
    let mut end = StatementEnd::new(1, StatementOutcome::Failed);
    end.tag = some("SELECT 1");
    end.rows = Some(1);
    end.sqlstate = some("22012");
    end.message = some("division by zero");
    end.duration_us = Some(1234);
    end.bytes = Some(10);
    end.after = Some(1);
    end.tx = Some(Transaction::Failed);
    (end.first_us, end.suspended) = (Some(1000), true);
    let mut bodies = vec![
        Body::Statement(parted),
        Body::Statement(whole),
        Body::Statement(Statement::new(3, How::Simple, b"SELECT '\xff'")),
        Body::StatementEnd(end),
    ];
    for (n, outcome) in
        (2..).zip([StatementOutcome::Done, StatementOutcome::Skipped, StatementOutcome::Cancelled])
    {
        bodies.push(Body::StatementEnd(StatementEnd::new(n, outcome)));
    }
    for direction in [Direction::In, Direction::Out] {
        bodies.push(Body::CopyEnd(CopyEnd {
            n: 2,
            direction,
            table: some("t"),
            columns: vec!["a".to_owned()],
            rows: Some(1),
            bytes: 3,
            sha256: "00".to_owned(),
        }));
    }
    let from = Some("192.0.2.9:5000".parse().unwrap());
    bodies.push(Body::Cancel(Cancel { n: Some(2), from, why: "asked".to_owned() }));
    bodies.push(Body::Notice(Notice {
        text: "settings".to_owned(),
        n: Some(2),
        sets: vec!["role".to_owned()],
    }));
    for step in ["issued", "destroyed", "destruction_failed", "renewed"] {
        bodies.push(Body::Credential(Credential {
            step: step.to_owned(),
            mark: mark(),
            detail: some("why"),
        }));
    }
    bodies
}

/// What an SSH connection records, with every field that it can have.
fn channels() -> Vec<Body> {
    let text = Data::new(b"x");
    let bytes = Data::new(b"\xff");
    let mut bodies = Vec::new();
    for (ch, channel) in (1..).zip([
        ChannelKind::Session,
        ChannelKind::DirectTcpip,
        ChannelKind::ForwardedTcpip,
        ChannelKind::DirectStreamlocal,
        ChannelKind::ForwardedStreamlocal,
        ChannelKind::Agent,
    ]) {
        let destination = if ch % 2 == 0 { "db.internal:5432" } else { "/run/db.sock" };
        bodies.push(Body::ChannelOpened(ChannelOpened {
            ch,
            channel,
            destination: some(destination),
            originator: some("[2001:db8::1]:9"),
            credential: Some(mark()),
        }));
    }
    bodies.push(Body::ChannelRefused(ChannelRefused {
        ch: 7,
        what: "x11".to_owned(),
        destination: some("d:1"),
        rule: "SSH".to_owned(),
        needs: "nothing".to_owned(),
    }));
    let modes = BTreeMap::from([("ECHO".to_owned(), 1)]);
    bodies.push(Body::Pty(Pty { ch: 1, term: "xterm".to_owned(), cols: 80, rows: 24, modes }));
    for value in [text.clone(), bytes.clone()] {
        bodies.push(Body::Env(Env { ch: 1, name: "LANG".to_owned(), value: value.clone(), passed: true }));
        let how = ProgramKind::Exec;
        bodies.push(Body::Program(Program { ch: 1, how, command: Some(value.clone()), hint: some("scp") }));
        bodies.push(Body::Input(Input { ch: 1, data: value.clone(), masked: None }));
        bodies.push(Body::Output(Output { ch: 1, data: value, err: true }));
    }
    bodies.push(Body::Input(Input { ch: 1, data: Data::none(), masked: Some(8) }));
    bodies.push(Body::Resize(Resize { ch: 1, cols: 100, rows: 50 }));
    bodies.push(Body::Signal(Signal { ch: 1, name: "INT".to_owned() }));
    bodies.push(Body::Eof(Eof { ch: 1, from: Direction::In }));
    let sum =
        StreamSum { ch: 1, direction: Direction::Out, err: true, bytes: 9, head: 4, sha256: "00".to_owned() };
    bodies.push(Body::StreamSoFar(sum.clone()));
    bodies.push(Body::StreamEnd(sum));
    bodies.extend(files(&text, &bytes));
    bodies.extend(ends());
    bodies
}

fn ends() -> Vec<Body> {
    let mut bodies = Vec::new();
    for (granted, cancelled) in [(true, false), (false, false), (true, true)] {
        let address = "localhost".to_owned();
        bodies.push(Body::Listen(Listen { ch: 0, address, port: 80, streamlocal: true, granted, cancelled }));
    }
    for ch in [1, 2] {
        bodies.push(Body::ChannelEnded(ChannelEnded {
            ch,
            exit_status: Some(0),
            exit_signal: some("TERM"),
            bytes_in: 1,
            bytes_out: 2,
            duration_us: 3000,
            why: some("closed"),
        }));
    }
    bodies
}

fn files(text: &Data, bytes: &Data) -> Vec<Body> {
    let file = |n, op: &str, phase, outcome: Option<&str>| File {
        ch: 1,
        n,
        phase,
        tool: "sftp".to_owned(),
        op: op.to_owned(),
        path: text.clone(),
        to: Some(text.clone()),
        flags: some("read"),
        attributes: some("mode 600"),
        read: None,
        written: None,
        sha256: some("00"),
        outcome: outcome.map(str::to_owned),
        message: some("fine"),
    };
    let mut bodies = Vec::new();
    for (n, op) in (1..).zip([
        "open",
        "list",
        "remove",
        "rename",
        "posix-rename",
        "mkdir",
        "rmdir",
        "symlink",
        "hardlink",
        "setstat",
        "lsetstat",
        "fsetstat",
        "copy-data",
        "scp-file",
        "scp-directory",
        "extended",
    ]) {
        bodies.push(Body::File(file(n, op, FilePhase::Asked, None)));
        bodies.push(Body::File(file(n, op, FilePhase::Answered, Some("done"))));
    }
    let answered = |n, outcome| file(n, "open", FilePhase::Answered, Some(outcome));
    bodies.push(Body::File(File { read: Some(5), ..answered(90, "done") }));
    bodies.push(Body::File(File { written: Some(5), ..answered(91, "failed") }));
    let paths = File { path: bytes.clone(), to: Some(bytes.clone()), ..answered(92, "unknown") };
    bodies.push(Body::File(paths));
    bodies
}

/// An opening with every field that it can have.
fn full(number: u8) -> Opening {
    let mut opening = opening(connection(number), session(), request());
    opening.context.break_glass = true;
    let opened = &mut opening.opened;
    opened.ticket = some("T-1");
    opened.approvals = vec![Approval {
        by: Actor { id: PrincipalId::from_random([5; 10]), name: "bob".parse().unwrap() },
        domain: "bank-core".parse().unwrap(),
        at: START,
        ask: AskHash("00".to_owned()),
        comment: "fine".to_owned(),
    }];
    opened.application = some("psql");
    opened.database = some("ledger");
    opened.credential = Some(mark());
    let (version, cipher) = ("TLSv1.3".to_owned(), "TLS_AES_128_GCM_SHA256".to_owned());
    let tls = Tls { version, cipher, certificate: None };
    opened.client_tls = Some(Tls { certificate: some("00"), ..tls.clone() });
    opened.target_tls = Some(tls);
    opening
}

fn client(auth: &str) -> SshClient {
    SshClient { software: "OpenSSH_9".to_owned(), auth: auth.to_owned(), key: some("SHA256:x"), jump: None }
}

/// An event with all that any of its kind says, for each outcome.
pub(crate) fn events(action: Action) -> Vec<Event> {
    let outcomes = [Outcome::Done, Outcome::Refused, Outcome::Failed];
    outcomes
        .into_iter()
        .flat_map(|outcome| {
            let full = Event {
                principal: Some(alice()),
                session: Some(session()),
                request: Some(request()),
                connection: Some(connection(1)),
                target: Some("ledger-prod".parse().unwrap()),
                access: Some("readonly".parse().unwrap()),
                environment: Some(Environment::Prod),
                domain: Some("bank-core".parse().unwrap()),
                client: Some("192.0.2.7:40000".parse().unwrap()),
                break_glass: true,
                ..Event::new(action, outcome)
            };
            let full = full
                .with("holder", "alice")
                .with("user", "bob")
                .with("user_id", "usr-1")
                .with("blocked", "bob")
                .with("blocked_id", "usr-1")
                .with("granted_at", START.to_string())
                .with("ends_at", START.to_string())
                .with("comment", "fine")
                .with("disabled", true)
                .with("why", "because")
                .with("code", "policy_refused")
                .with("refusal", "no");
            // As bare as an event can be: nothing that a class requires may hang on what need not be there.
            [full, Event::new(action, outcome)]
        })
        .collect()
}

/// Reasons with every field that one can have.
fn reason(number: u8) -> EndReason {
    let text = || "why".to_owned();
    match number {
        2 => EndReason::ClientClosed,
        3 => EndReason::Blocked { by: "bob".parse().unwrap(), why: text() },
        4 => EndReason::TargetUnreachable { detail: text() },
        5 => EndReason::NoLongerPermitted { why: text() },
        _ => EndReason::Protocol { detail: text() },
    }
}

fn options(pem: &str) -> JournalOptions {
    let mut options = JournalOptions::new(SigningKey::from_pem(pem, node()).unwrap());
    options.file_size = 8 << 20;
    options
}

/// A log of all these that a node left open when it crashed, and opened again; with its directory.
pub(crate) async fn log() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let pem = SigningKey::generate();
    let (running, crashed) = (dir.path().join("running"), dir.path().join("audit"));
    let (journal, _) = Journal::open(&running, Clock::manual(START), options(&pem)).unwrap();
    for event in actions().into_iter().flat_map(events) {
        journal.control(&[ControlEntry { outbox: Some(1), at: START, event }]).await.unwrap();
    }
    let recorder = journal.begin(full(1)).await.unwrap();
    recorder.record(&statements()).await.unwrap();
    let totals = Totals { statements: 3, bytes_from_client: 1, bytes_from_target: 2, channels: 0 };
    let revoked = EndReason::Revoked { by: "bob".parse().unwrap(), why: "over".to_owned() };
    recorder.end(revoked, totals).await.unwrap();
    let ways = ["publickey", "certificate", "keyboard-interactive", "password", "something"];
    for (number, auth) in (2..).zip(ways) {
        let mut opening = full(number);
        let jump = Some(Box::new(client("publickey")));
        opening.opened.client_ssh = Some(SshClient { jump, ..client(auth) });
        let recorder = journal.begin(opening).await.unwrap();
        recorder.record(&channels()).await.unwrap();
        let cancel = Cancel { n: None, from: None, why: "asked".to_owned() };
        let credential = Credential { step: "issued".to_owned(), mark: mark(), detail: None };
        let notice = Notice::new("said".to_owned());
        let others = [Body::Cancel(cancel), Body::Notice(notice), Body::Credential(credential)];
        recorder.record(&others).await.unwrap();
        recorder.end(reason(number), Totals { channels: 6, ..totals }).await.unwrap();
    }
    let open = journal.begin(full(9)).await.unwrap();
    open.record(&[Body::Statement(Statement::new(1, How::Simple, b"SELECT 1"))]).await.unwrap();
    crash(&running, &crashed);
    let (again, recovery) = Journal::open(&crashed, Clock::manual(START), options(&pem)).unwrap();
    // The torn write and nothing else: a record that cannot be read back would be taken for one.
    assert_eq!(recovery.repaired.map(|repaired| repaired.discarded), Some(4));
    again.close().await.unwrap();
    (dir, crashed)
}

/// What a crash leaves of a log: its files, and a write that was torn.
fn crash(running: &Path, crashed: &Path) {
    fs::create_dir(crashed).unwrap();
    for entry in fs::read_dir(running).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.file_name().unwrap().to_str().unwrap().starts_with("journal-") {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            bytes[end..end + 4].copy_from_slice(b"torn");
        }
        fs::write(crashed.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

/// The log's records in a form.
pub(crate) fn exported(directory: &Path, format: export::Format) -> Vec<Value> {
    let filter = export::Filter::default();
    let order = export::Order { directory, format, filter: &filter, size: None };
    let mut written = Vec::new();
    let counts = export::write(&order, &mut |_| true, &mut written).unwrap();
    let lines = std::str::from_utf8(&written).unwrap().lines();
    let records: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(counts.written, u64::try_from(records.len()).unwrap());
    assert_eq!((counts.left_out, counts.log), (0, counts.written));
    records
}

/// There is a sample of every kind.
#[test]
fn every_kind_has_a_sample() {
    let bodies = [statements(), channels()].concat();
    let places: BTreeSet<usize> = bodies.iter().map(place).collect();
    // The journal makes these two.
    assert_eq!(places, (2..BODIES).collect());
}
