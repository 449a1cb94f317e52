//! GOV-006: any edit, removal, reordering or truncation of the audit log is found from the files
//! and the public key alone, and the first bad record is named.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in the test's own helpers too, a step that fails fails the test"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sallyport::audit::chain::{Log, record_hash};
use sallyport::audit::line::{parse_line, write_line};
use sallyport::audit::record::{
    Context, Format, How, Opened, Parameter, Statement, StatementEnd, StatementOutcome,
};
use sallyport::audit::verify::{Finding, Kind, Options, Report, verify};
use sallyport::audit::{
    Body, ControlEntry, Journal, JournalError, JournalOptions, Opening, SigningKey, Totals, VerifyKey,
};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::event::{Action, Event};
use sallyport::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::target::Environment;
use sallyport::domain::time::Timestamp;
use tempfile::TempDir;

const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

/// A log that was written and closed, and what is needed to attack it.
struct Sealed {
    home: TempDir,
    key_pem: String,
    key: VerifyKey,
}

fn node() -> NodeId {
    NodeId::from_random([1; 10])
}

fn connection(number: u8) -> ConnectionId {
    ConnectionId::from_random([number; 10])
}

fn opening(number: u8) -> Opening {
    let client: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    Opening {
        context: Context {
            principal: Actor { id: PrincipalId::from_random([2; 10]), name: "alice".parse().unwrap() },
            session: SessionId::from_random([3; 10]),
            request: RequestId::from_random([4; 10]),
            connection: connection(number),
            target: "ledger-prod".parse().unwrap(),
            access: "readonly".parse().unwrap(),
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            client,
            break_glass: false,
        },
        opened: Opened {
            reason: "reconcile".to_owned(),
            ticket: None,
            approvals: Vec::new(),
            granted_at: START,
            ends_at: START.plus(std::time::Duration::from_hours(1)),
            policy_hash: "00".to_owned(),
            application: None,
            database: None,
            credential: None,
            client_tls: None,
            client_ssh: None,
            target_tls: None,
        },
    }
}

fn options(pem: &str, file_size: u64) -> JournalOptions {
    let mut options = JournalOptions::new(SigningKey::from_pem(pem, node()).unwrap());
    options.file_size = file_size;
    options.reserve = 1024;
    options
}

async fn write_recording(journal: &Journal, number: u8) {
    let recorder = journal.begin(opening(number)).await.unwrap();
    let event = Event { connection: Some(connection(number)), ..Event::done(Action::ConnectionOpened) };
    let entry = ControlEntry { outbox: Some(i64::from(number)), at: START, event };
    journal.control(&[entry]).await.unwrap();
    let mut statement = Statement::new(1, How::Extended, b"SELECT balance FROM accounts WHERE id = $1");
    statement.params.push(Parameter::new(Some(b"42"), Format::Text, 23));
    recorder.record(&[Body::Statement(statement)]).await.unwrap();
    let end = StatementEnd { rows: Some(1), ..StatementEnd::new(1, StatementOutcome::Done) };
    recorder.note_wait(Body::StatementEnd(end)).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
}

impl Sealed {
    /// A log of `recordings` recordings, five records each, in files of `file_size` bytes.
    async fn write(recordings: u8, file_size: u64) -> Self {
        let home = TempDir::new().unwrap();
        let key_pem = SigningKey::generate().to_string();
        let key = SigningKey::from_pem(&key_pem, node()).unwrap().verify_key();
        let sealed = Self { home, key_pem, key };
        let journal = sealed.open(file_size).unwrap();
        for number in 1..=recordings {
            write_recording(&journal, number).await;
        }
        journal.close().await.unwrap();
        sealed
    }

    fn open(&self, file_size: u64) -> Result<Journal, JournalError> {
        let clock = Clock::manual(START);
        Journal::open(self.dir(), clock, options(&self.key_pem, file_size)).map(|(journal, _)| journal)
    }

    fn dir(&self) -> &Path {
        self.home.path()
    }

    fn file(&self, number: u32) -> PathBuf {
        self.dir().join(format!("journal-{number:08}.log"))
    }

    fn verify(&self) -> Report {
        self.verify_with(&[])
    }

    fn verify_with(&self, pins: &[PathBuf]) -> Report {
        let options = Options { directory: self.dir(), key: &self.key, pins };
        verify(&options, &mut |_| {}).unwrap()
    }

    fn first_bad(&self) -> Finding {
        self.verify().first_bad.expect("the damage is found")
    }

    /// The first file's lines, with their line feeds.
    fn lines(&self) -> Vec<Vec<u8>> {
        let bytes = fs::read(self.file(1)).unwrap();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes[..end].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// Replaces the first file's lines.
    fn set_lines(&self, lines: &[Vec<u8>]) {
        let size = fs::metadata(self.file(1)).unwrap().len();
        let mut bytes = lines.concat();
        bytes.resize(bytes.len().max(usize::try_from(size).unwrap()), 0);
        fs::write(self.file(1), bytes).unwrap();
    }

    /// Gives the lines from `from` on new indexes and hashes, so that they follow from each other:
    /// what somebody can do who knows the format and has no key.
    fn relink(&self, jsons: &[Vec<u8>]) {
        let mut log = Log::start(&node());
        let mut lines = Vec::new();
        for json in jsons {
            let hash = record_hash(json);
            let mut line = Vec::new();
            write_line(&mut line, log.size(), &log.after(&hash), json);
            log.push(&hash);
            lines.push(line);
        }
        self.set_lines(&lines);
    }

    fn jsons(&self) -> Vec<Vec<u8>> {
        let json = |line: &Vec<u8>| parse_line(line.strip_suffix(b"\n").unwrap()).unwrap().json.to_vec();
        self.lines().iter().map(json).collect()
    }

    /// Signs the log as it stands, as somebody with the stolen key can, leaving no other checkpoint.
    fn sign_with_stolen_key(&self) {
        let key = SigningKey::from_pem(&self.key_pem, node()).unwrap();
        let mut log = Log::start(&node());
        for json in self.jsons() {
            log.push(&record_hash(&json));
        }
        let note = key.sign(log.size(), &log.root());
        fs::write(self.dir().join("checkpoint"), &note).unwrap();
        fs::write(self.dir().join("checkpoints.log"), format!("{note}\n")).unwrap();
    }
}

fn replace(json: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(json).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    text.replace(from, to).into_bytes()
}

#[tokio::test]
async fn an_untouched_log_is_whole_and_wholly_vouched_for() {
    let sealed = Sealed::write(3, 1 << 20).await;
    let report = sealed.verify();
    assert_eq!(report.first_bad, None);
    assert_eq!((report.records, report.covered, report.recordings), (15, 15, 3));
    assert_eq!((report.unfinished.len(), report.unannounced, report.torn), (0, 0, 0));
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_record_named() {
    let sealed = Sealed::write(2, 16 << 10).await;
    let whole = fs::read(sealed.file(1)).unwrap();
    let lines = sealed.lines();
    let mut position = 0;
    for (n, line) in lines.iter().enumerate() {
        for _ in 0..line.len() {
            for mask in [0x01, 0x80] {
                let mut bytes = whole.clone();
                bytes[position] ^= mask;
                fs::write(sealed.file(1), bytes).unwrap();
                let found = sealed.first_bad();
                assert_eq!(found.n, u64::try_from(n).unwrap(), "byte {position}: {found}");
            }
            position += 1;
        }
    }
    // Behind the data there is nothing but zeros.
    for position in [position, position + 1, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[position] = b'x';
        fs::write(sealed.file(1), bytes).unwrap();
        let report = sealed.verify();
        assert!(!report.is_whole() || report.torn > 0, "byte {position}: {report}");
    }
}

#[tokio::test]
async fn every_overwritten_record_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut zeroed = lines.clone();
        zeroed[n].fill(0);
        sealed.set_lines(&zeroed);
        let found = sealed.first_bad();
        assert_eq!(found.n, u64::try_from(n).unwrap(), "{found}");
        let last = n + 1 == lines.len();
        assert_eq!(found.kind, if last { Kind::Truncated } else { Kind::Zeroed }, "{found}");
    }
}

#[tokio::test]
async fn every_removed_record_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut left = lines.clone();
        left.remove(n);
        sealed.set_lines(&left);
        let found = sealed.first_bad();
        assert_eq!(found.n, u64::try_from(n).unwrap(), "{found}");
        let last = n + 1 == lines.len();
        assert_eq!(found.kind, if last { Kind::Truncated } else { Kind::Removed }, "{found}");
    }
}

#[tokio::test]
async fn neighbours_that_change_places_are_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() - 1 {
        let mut swapped = lines.clone();
        swapped.swap(n, n + 1);
        sealed.set_lines(&swapped);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(n).unwrap(), Kind::Reordered), "{found}");
    }
}

#[tokio::test]
async fn a_record_that_stands_twice_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut doubled = lines.clone();
        doubled.insert(n, lines[n].clone());
        sealed.set_lines(&doubled);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(n).unwrap() + 1, Kind::Inserted), "{found}");
    }
}

#[tokio::test]
async fn a_log_cut_off_anywhere_is_found_by_its_checkpoint_and_not_opened() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for kept in 0..lines.len() {
        sealed.set_lines(&lines[..kept]);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(kept).unwrap(), Kind::Truncated), "{found}");
        let refused = sealed.open(1 << 20).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged(_)), "{refused}");
        assert!(refused.to_string().contains("sallyport audit verify"), "{refused}");
        // Also when the file itself ends there.
        fs::write(sealed.file(1), lines[..kept].concat()).unwrap();
        assert_eq!(sealed.first_bad().kind, Kind::Truncated);
    }
}

#[tokio::test]
async fn a_removed_recording_is_found() {
    let sealed = Sealed::write(3, 1 << 20).await;
    let of_second = connection(2).to_string();
    let is_second = |line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        text.contains(&format!("\"rec\":\"{of_second}\""))
    };
    let lines: Vec<_> = sealed.lines().into_iter().filter(|line| !is_second(line)).collect();
    sealed.set_lines(&lines);
    assert_eq!(sealed.first_bad().kind, Kind::Removed);
    // Linked anew, the checkpoint tells.
    let jsons = sealed.jsons();
    sealed.relink(&jsons);
    assert!(matches!(sealed.first_bad().kind, Kind::Truncated | Kind::Rewritten));
    // Signed anew with a stolen key, the control record of its opening tells.
    sealed.sign_with_stolen_key();
    let found = sealed.first_bad();
    assert_eq!((found.kind, found.rec), (Kind::MissingRecording, Some(of_second)));
}

#[tokio::test]
async fn a_removed_file_is_found() {
    let sealed = Sealed::write(8, 4 << 10).await;
    let files = sealed.verify().files;
    assert!(files >= 4, "{files}");
    for number in 1..=files {
        let kept = fs::read(sealed.file(number)).unwrap();
        fs::remove_file(sealed.file(number)).unwrap();
        let found = sealed.first_bad();
        let expected = if number == files { Kind::Truncated } else { Kind::FileMissing };
        assert_eq!(found.kind, expected, "{found}");
        fs::write(sealed.file(number), kept).unwrap();
    }
    assert!(sealed.verify().is_whole());
}

#[tokio::test]
async fn a_rewritten_log_is_found_by_its_checkpoint() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let jsons = sealed.jsons();
    for n in 0..jsons.len() {
        let mut rewritten = jsons.clone();
        rewritten[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
        sealed.relink(&rewritten);
        let found = sealed.first_bad();
        // A recording's own chain tells sooner than the checkpoint where it can.
        assert!(matches!(found.kind, Kind::Rewritten | Kind::BrokenRecording), "{found}");
        let refused = sealed.open(1 << 20).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_log_rewritten_with_the_stolen_key_is_found_by_a_pinned_checkpoint() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let elsewhere = TempDir::new().unwrap();
    let pin = elsewhere.path().join("pinned");
    fs::copy(sealed.dir().join("checkpoint"), &pin).unwrap();
    // A control record: no recording's chain covers it.
    let mut jsons = sealed.jsons();
    let n = jsons.iter().position(|json| json.starts_with(b"{\"v\":1,\"rec\":\"nod-")).unwrap();
    jsons[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
    sealed.relink(&jsons);
    sealed.sign_with_stolen_key();
    assert!(sealed.verify().is_whole(), "with the key alone it cannot be told");
    let found = sealed.verify_with(std::slice::from_ref(&pin)).first_bad.unwrap();
    assert_eq!(found.kind, Kind::Rewritten, "{found}");
    // A rollback to an earlier, honestly signed state as well.
    jsons.pop();
    sealed.relink(&jsons);
    sealed.sign_with_stolen_key();
    let found = sealed.verify_with(&[pin]).first_bad.unwrap();
    assert!(matches!(found.kind, Kind::Truncated | Kind::Rewritten), "{found}");
}

#[tokio::test]
async fn recordings_that_change_names_are_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let (one, two) = (connection(1).to_string(), connection(2).to_string());
    let swap = |json: &Vec<u8>| {
        let text = std::str::from_utf8(json).unwrap();
        text.replace(&one, "@").replace(&two, &one).replace('@', &two).into_bytes()
    };
    let original = sealed.lines();
    let renamed: Vec<_> = sealed.jsons().iter().map(swap).collect();
    let in_place: Vec<_> = original.iter().map(swap).collect();
    sealed.set_lines(&in_place);
    let found = sealed.first_bad();
    assert_eq!((found.n, found.kind), (0, Kind::Altered), "{found}");
    // Even linked and signed anew, the recordings' own chains start from their names.
    sealed.relink(&renamed);
    sealed.sign_with_stolen_key();
    assert_eq!(sealed.first_bad().kind, Kind::BrokenRecording);
}

#[tokio::test]
async fn a_forged_checkpoint_is_found() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let path = sealed.dir().join("checkpoint");
    let note = fs::read_to_string(&path).unwrap();
    for index in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[index] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = sealed.first_bad();
        assert!(matches!(found.kind, Kind::CheckpointForged | Kind::KeyMismatch), "byte {index}: {found}");
        assert!(sealed.open(1 << 20).is_err());
    }
    let foreign = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap();
    fs::write(&path, foreign.sign(5, &[0; 32])).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::KeyMismatch);
    fs::remove_file(&path).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::CheckpointMissing);
}

#[tokio::test]
async fn every_changed_byte_among_the_checkpoints_is_found() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let path = sealed.dir().join("checkpoints.log");
    let notes = fs::read(&path).unwrap();
    // The last byte is the separator: without it, the last note counts as being written.
    for index in 0..notes.len() - 1 {
        let mut bytes = notes.clone();
        bytes[index] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!sealed.verify().is_whole(), "byte {index}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::CheckpointMissing);
}

#[tokio::test]
async fn a_log_is_not_whole_for_another_logs_key() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let other = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap().verify_key();
    let options = Options { directory: sealed.dir(), key: &other, pins: &[] };
    let found = verify(&options, &mut |_| {}).unwrap().first_bad.unwrap();
    assert_eq!(found.kind, Kind::KeyMismatch);
}
