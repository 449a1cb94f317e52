//! The journal as a whole: group commit, crashes, failing disks.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::line::{LONGEST_RECORD, parse_line};
use super::medium::{Directory, Medium, file_name};
use super::record::{
    Context, Format, How, Notice, Opened, Parameter, Sql, Statement, StatementEnd, StatementOutcome,
};
use super::replay::{self, Content, Replayed};
use super::verify::{Options, Report, verify};
use super::*;
use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event};
use crate::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use crate::domain::principal::Actor;
use crate::domain::target::Environment;
use crate::domain::time::Timestamp;

const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

fn node() -> NodeId {
    NodeId::from_random([1; 10])
}

fn connection(number: u8) -> ConnectionId {
    ConnectionId::from_random([number; 10])
}

fn opening(number: u8) -> Opening {
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
            client: "192.0.2.7:40000".parse().unwrap(),
            break_glass: true,
        },
        opened: Opened {
            reason: "incident".to_owned(),
            ticket: None,
            approvals: Vec::new(),
            granted_at: START,
            ends_at: START.plus(Duration::from_secs(3600)),
            policy_hash: "00".to_owned(),
            application: None,
            database: None,
            credential: None,
            client_tls: None,
            target_tls: None,
        },
    }
}

fn statement(n: u64, sql: &str) -> Body {
    Body::Statement(Statement::new(n, How::Simple, sql.as_bytes()))
}

fn note(text: &str) -> Body {
    Body::Notice(Notice { text: text.to_owned() })
}

/// A place for journals, with their key.
struct House {
    home: TempDir,
    pem: String,
    file_size: u64,
    reserve: u64,
}

impl House {
    fn new() -> Self {
        let pem = SigningKey::generate().to_string();
        Self { home: TempDir::new().unwrap(), pem, file_size: 32 << 10, reserve: 8 << 10 }
    }

    fn dir(&self) -> &Path {
        self.home.path()
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_pem(&self.pem, node()).unwrap()
    }

    fn options(&self) -> JournalOptions {
        JournalOptions { key: self.key(), file_size: self.file_size, reserve: self.reserve }
    }

    fn open_in(&self, dir: &Path) -> Result<(Journal, Recovery), JournalError> {
        Journal::open(dir, node(), Clock::manual(START), self.options())
    }

    fn open(&self) -> (Journal, Recovery) {
        self.open_in(self.dir()).unwrap()
    }

    fn open_on(&self, faults: &Arc<Faults>) -> Journal {
        let wrap = |inner| Faulty { inner, faults: faults.clone() };
        Journal::open_on(self.dir(), &node(), Clock::manual(START), self.options(), wrap).unwrap().0
    }

    fn verify_in(&self, directory: &Path) -> Report {
        let key = self.key().verify_key();
        verify(&Options { directory, key: &key, pins: &[] }, &mut |_| {}).unwrap()
    }

    fn verify(&self) -> Report {
        self.verify_in(self.dir())
    }

    /// What a crash leaves: a copy of the files as they are now.
    fn crashed(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        for entry in fs::read_dir(self.dir()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }
}

fn contents(dir: &Path, number: u8) -> Vec<Content> {
    let mut contents = Vec::new();
    let each = |entry: &replay::Entry| {
        contents.push(entry.content.clone());
        Ok(())
    };
    let replayed = replay::replay(dir, &connection(number), each).unwrap();
    assert_eq!(replayed, Replayed::Whole);
    contents
}

fn end_of(dir: &Path, number: u8) -> EndReason {
    match contents(dir, number).pop() {
        Some(Content::Ended(ended)) => ended.reason,
        other => panic!("no end: {other:?}"),
    }
}

fn data(dir: &Path) -> Vec<u8> {
    let bytes = fs::read(dir.join(file_name(1))).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}

/// Counts what the writer does, and fails on demand.
#[derive(Debug)]
struct Faults {
    syncs: AtomicU64,
    /// Steps (allocate, write, sync, checkpoint) until everything fails.
    steps_left: AtomicU64,
    /// Allocations until the disk is full.
    files_left: AtomicU64,
}

impl Faults {
    fn none() -> Arc<Self> {
        Arc::new(Self {
            syncs: AtomicU64::new(0),
            steps_left: AtomicU64::new(u64::MAX),
            files_left: AtomicU64::new(u64::MAX),
        })
    }

    fn step(&self) -> io::Result<()> {
        let taken = |left: u64| left.checked_sub(1);
        match self.steps_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("injected")),
        }
    }
}

struct Faulty {
    inner: Directory,
    faults: Arc<Faults>,
}

impl Medium for Faulty {
    fn allocate(&mut self, number: u32, size: u64) -> io::Result<()> {
        self.faults.step()?;
        if self.faults.files_left.load(Ordering::SeqCst) == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.faults.files_left.fetch_sub(1, Ordering::SeqCst);
        self.inner.allocate(number, size)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.step()?;
        self.inner.write(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.faults.step()?;
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync()
    }

    fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        self.faults.step()?;
        self.inner.checkpoint(note)
    }
}

#[tokio::test]
async fn many_waiters_share_a_sync() {
    let house = House::new();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    let before = faults.syncs.load(Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=200 {
        let recorder = recorder.clone();
        tasks.spawn(async move { recorder.record(&[statement(n, "SELECT 1")]).await });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!((1..200).contains(&syncs), "{syncs} syncs for 200 records");
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let report = house.verify();
    assert!(report.is_whole(), "{report}");
    // opened, 200 statements, their unknown outcomes, ended
    assert_eq!(report.records, 402);
}

#[tokio::test]
async fn what_was_recorded_is_in_the_file_before_the_caller_goes_on() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..20 {
        let sql = format!("SELECT {n}");
        recorder.record(&[statement(n, &sql)]).await.unwrap();
        assert!(String::from_utf8(data(house.dir())).unwrap().contains(&sql));
    }
}

#[tokio::test]
async fn a_crash_at_every_byte_of_the_last_write_leaves_a_whole_log() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let acknowledged = data(house.dir()).len();
    recorder.record(&[statement(1, "SELECT 1"), note("n")]).await.unwrap();
    let whole = data(house.dir()).len();
    let crashed = house.crashed();
    let image = fs::read(crashed.path().join(file_name(1))).unwrap();
    for cut in acknowledged..=whole {
        let dir = TempDir::new().unwrap();
        for name in ["checkpoint", "checkpoints.log"] {
            fs::copy(crashed.path().join(name), dir.path().join(name)).unwrap();
        }
        let mut torn = image.clone();
        torn[cut..].fill(0);
        fs::write(dir.path().join(file_name(1)), &torn).unwrap();
        let before = house.verify_in(dir.path());
        assert!(before.is_whole(), "cut at {cut}: {before}");
        assert_eq!(before.unfinished, [connection(1).to_string()]);
        let (journal, recovery) = house.open_in(dir.path()).unwrap();
        let repaired = recovery.repaired.expect("a recording was open");
        assert_eq!(repaired.recordings, [connection(1)]);
        assert_eq!(repaired.discarded, before.torn);
        journal.close().await.unwrap();
        let report = house.verify_in(dir.path());
        assert!(report.is_whole() && report.unfinished.is_empty(), "cut at {cut}: {report}");
        assert_eq!(end_of(dir.path(), 1), EndReason::Crashed);
        if contents(dir.path(), 1).len() > 2 {
            let unknown = |content: &Content| match content {
                Content::Body(body) => matches!(
                    body.as_ref(),
                    Body::StatementEnd(StatementEnd { n: 1, outcome: StatementOutcome::Unknown, .. })
                ),
                _ => false,
            };
            assert!(contents(dir.path(), 1).iter().any(unknown), "cut at {cut}");
        }
        let (_, again) = house.open_in(dir.path()).unwrap();
        assert_eq!(again.repaired, None, "a second start finds nothing to repair");
    }
}

#[tokio::test]
async fn damage_that_no_crash_explains_is_refused() {
    let house = House::new();
    let (journal, _) = house.open();
    let _recorder = journal.begin(opening(1)).await.unwrap();
    journal.checkpoint().await.unwrap();
    let crashed = house.crashed();
    let path = crashed.path().join(file_name(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = house.open_in(crashed.path()).unwrap_err();
    let JournalError::Damaged(damage) = &refused else { panic!("{refused}") };
    assert_eq!((damage.n, damage.file.as_str()), (0, "journal-00000001.log"));
    assert!(refused.to_string().contains("sallyport audit verify"));
}

#[tokio::test]
async fn two_processes_never_share_a_journal() {
    let house = House::new();
    let (journal, _) = house.open();
    assert!(matches!(house.open_in(house.dir()), Err(JournalError::InUse { .. })));
    journal.close().await.unwrap();
    assert!(house.open_in(house.dir()).is_ok());
}

#[tokio::test]
async fn after_any_failed_step_nothing_is_recorded_and_everybody_knows() {
    let mut failed_at = HashSet::new();
    for steps in 0..12 {
        let house = House::new();
        let faults = Faults::none();
        let journal = house.open_on(&faults);
        faults.steps_left.store(steps, Ordering::SeqCst);
        let mut acknowledged = 0;
        let why = loop {
            let result = match journal.begin(opening(acknowledged)).await {
                Ok(recorder) => recorder.end(EndReason::Idle, Totals::default()).await,
                Err(why) => Err(why),
            };
            match result {
                Ok(()) => acknowledged += 1,
                Err(why) => break why,
            }
        };
        failed_at.insert(acknowledged);
        assert!(matches!(&why, Unrecordable::Failed { .. }), "{why}");
        assert_eq!(journal.failed().await, why);
        let event = ControlEntry { outbox: None, at: START, event: Event::done(Action::Login) };
        assert_eq!(journal.control(&[event]).await, Err(why.clone()));
        assert_eq!(journal.begin(opening(99)).await.map(drop), Err(why.clone()));
        assert_eq!(journal.checkpoint().await, Err(why));
        drop(journal);
        // What was acknowledged is there after a restart.
        let (_journal, _) = house.open();
        assert!(house.verify().is_whole());
        let listed = replay::list(house.dir()).unwrap();
        assert!(listed.len() >= usize::from(acknowledged));
        assert!(listed.iter().all(|recording| recording.ended_at.is_some()));
    }
    assert!(failed_at.len() > 1, "failures at different times were tried: {failed_at:?}");
}

#[tokio::test]
async fn a_failed_note_is_reported_by_the_next_call() {
    let house = House::new();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    faults.steps_left.store(0, Ordering::SeqCst);
    recorder.note(note("lost")).unwrap();
    let why = journal.failed().await;
    assert_eq!(recorder.record(&[note("next")]).await, Err(why.clone()));
    assert_eq!(recorder.note(note("next")), Err(why.clone()));
    assert_eq!(recorder.end(EndReason::Idle, Totals::default()).await, Err(why));
}

#[tokio::test]
async fn with_the_disk_full_open_recordings_still_get_their_end() {
    let mut house = House::new();
    house.file_size = 16 << 10;
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorders = [journal.begin(opening(1)).await.unwrap(), journal.begin(opening(2)).await.unwrap()];
    faults.files_left.store(0, Ordering::SeqCst);
    let mut n = 0;
    while recorders[0].record(&[statement(n, "SELECT 1")]).await.is_ok() {
        recorders[0]
            .record(&[Body::StatementEnd(StatementEnd::new(n, StatementOutcome::Done))])
            .await
            .unwrap_or_default();
        n += 1;
    }
    let why = journal.failed().await;
    assert!(why.to_string().contains("allocate"), "{why}");
    drop(recorders);
    drop(journal);
    let report = house.verify();
    assert!(report.is_whole() && report.unfinished.is_empty(), "{report}");
    assert_eq!(report.covered, report.records, "a last checkpoint vouches for all");
    for number in [1, 2] {
        assert!(matches!(end_of(house.dir(), number), EndReason::Unrecordable { .. }));
    }
    // With room again, the log goes on.
    let (journal, recovery) = house.open();
    assert_eq!(recovery.repaired, None);
    let recorder = journal.begin(opening(3)).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
}

#[tokio::test]
async fn a_recording_ends_explicitly_whatever_becomes_of_its_recorder() {
    let house = House::new();
    let (journal, _) = house.open();
    let dropped = journal.begin(opening(1)).await.unwrap();
    drop((dropped.clone(), dropped));
    let forgotten = journal.begin(opening(2)).await.unwrap();
    let cloned = journal.begin(opening(3)).await.unwrap();
    let other = cloned.clone();
    cloned.end(EndReason::Expired, Totals::default()).await.unwrap();
    assert_eq!(other.record(&[note("late")]).await, Err(Unrecordable::Ended));
    assert_eq!(other.end(EndReason::Idle, Totals::default()).await, Err(Unrecordable::Ended));
    assert_eq!(journal.begin(opening(2)).await.map(drop), Err(Unrecordable::Ended));
    journal.close().await.unwrap();
    assert_eq!(forgotten.record(&[note("late")]).await, Err(Unrecordable::Closed));
    assert_eq!(end_of(house.dir(), 1), EndReason::Internal);
    assert_eq!(end_of(house.dir(), 2), EndReason::Shutdown);
    assert_eq!(end_of(house.dir(), 3), EndReason::Expired);
}

#[tokio::test]
async fn the_outbox_goes_on_behind_what_is_recorded() {
    let house = House::new();
    let (journal, recovery) = house.open();
    assert_eq!((recovery.outbox, recovery.latest), (None, None));
    let entry = |outbox| ControlEntry { outbox, at: START, event: Event::done(Action::RequestCreated) };
    journal.control(&[entry(Some(7)), entry(Some(8)), entry(None)]).await.unwrap();
    journal.close().await.unwrap();
    let (_, recovery) = house.open();
    assert_eq!((recovery.outbox, recovery.latest), (Some(8), Some(START)));
    assert_eq!(recovery.records, 3);
}

#[tokio::test]
async fn silence_is_vouched_for_too() {
    let house = House::new();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(house.dir(), node(), clock.clone(), house.options()).unwrap();
    let count =
        || fs::read_to_string(house.dir().join("checkpoints.log")).unwrap().matches('\u{2014}').count();
    let before = count();
    let stop = tokio_util::sync::CancellationToken::new();
    let ticking = {
        let (journal, stop) = (journal.clone(), stop.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { journal.checkpoints(stop).await });
        tasks
    };
    let grown = async {
        while count() < before + 3 {
            clock.advance(CHECKPOINT_EVERY);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), grown).await.unwrap();
    stop.cancel();
    for ended in ticking.join_all().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn long_statements_and_many_parameters_are_split_and_nothing_is_lost() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let texts = ["é\u{1}".repeat(400_000).into_bytes(), vec![0xff; 700_000], b"SELECT 1".to_vec()];
    for (n, sql) in (1..).zip(&texts) {
        let mut statement = Statement::new(n, How::Extended, sql);
        statement.params = vec![Parameter::new(Some(&[1; 200_000]), Format::Binary, 17); 3];
        statement.params.extend(vec![Parameter::new(None, Format::Text, 0); 20_000]);
        recorder.record(&[Body::Statement(statement)]).await.unwrap();
    }
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    let mut read: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut pending = (Vec::new(), 0);
    for content in contents(house.dir(), 1) {
        let Content::Body(body) = content else { continue };
        match *body {
            Body::SqlPart(part) => pending.0.extend(part.sql.bytes()),
            Body::ParameterPart(part) => pending.1 += part.params.len(),
            Body::Statement(statement) => {
                pending.0.extend(statement.sql.bytes());
                pending.1 += statement.params.len();
                read.push(std::mem::take(&mut pending));
            }
            _ => {}
        }
    }
    let expected: Vec<_> = texts.into_iter().map(|sql| (sql, 20_003)).collect();
    assert!(read == expected, "what is read back is what was sent");
    for file in 1.. {
        let Ok(bytes) = fs::read(house.dir().join(file_name(file))) else { break };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| line.first() != Some(&0)) {
            assert!(line.is_empty() || parse_line(line).unwrap().json.len() < LONGEST_RECORD);
        }
    }
}

#[tokio::test]
async fn every_record_says_who_where_and_under_what() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let mut out = Vec::new();
    replay::replay_json(house.dir(), &connection(1), &mut out).unwrap();
    for line in String::from_utf8(out).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in [
            "v",
            "rec",
            "seq",
            "at",
            "mono",
            "node",
            "kind",
            "principal",
            "session",
            "request",
            "connection",
            "target",
            "access",
            "environment",
            "domain",
            "client",
            "break_glass",
        ] {
            assert!(record.get(field).is_some(), "{field} in {line}");
        }
    }
    let mut text = Vec::new();
    replay::replay_text(house.dir(), &connection(1), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in
        ["alice", "ledger-prod", "incident", "BREAK-GLASS", "[1] SELECT 1", "outcome unknown", "closed"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_tail_sees_what_is_added() {
    let mut house = House::new();
    house.file_size = 12 << 10;
    let (journal, _) = house.open();
    let mut tail = replay::Tail::from_end(house.dir()).unwrap();
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..40 {
        recorder.record(&[note(&format!("note {n}"))]).await.unwrap();
        let mut seen = Vec::new();
        while let Some(record) = tail.next().unwrap() {
            seen.push(String::from_utf8(record).unwrap());
        }
        assert!(seen.last().unwrap().contains(&format!("note {n}\"")), "{seen:?}");
    }
    assert!(house.dir().join(file_name(2)).exists());
}

#[test]
fn bytes_that_are_not_text_are_kept() {
    let sql = Sql::new(&[0xff, 0, b'x']);
    assert_eq!(sql, Sql::Bytes { b64: "/wB4".to_owned() });
    assert_eq!(sql.bytes(), [0xff, 0, b'x']);
}
