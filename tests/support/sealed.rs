//! Logs that were written and closed, for tests that attack them.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a harness fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sallyport::audit::chain::{Log, RecordingChain, record_hash};
use sallyport::audit::line::{Envelope, parse_line, write_line};
use sallyport::audit::record::{Format, How, Parameter, Statement, StatementEnd, StatementOutcome};
use sallyport::audit::verify::{Finding, Options, Report, verify};
use sallyport::audit::{
    Body, ControlEntry, Journal, JournalError, JournalOptions, Opening, Recorder, SigningKey, Totals,
    VerifyKey,
};
use sallyport::clock::Clock;
use sallyport::crypto::cosign::WitnessVerifyKey;
use sallyport::crypto::hex;
use sallyport::domain::deny::EndReason;
use sallyport::domain::event::{Action, Event};
use sallyport::domain::id::{RequestId, SessionId};
use tempfile::TempDir;

use crate::log::{self, START, connection, node};

/// A log that was written and closed, and what is needed to attack it.
pub(crate) struct Sealed {
    home: TempDir,
    key_pem: String,
    pub(crate) key: VerifyKey,
}

fn options(pem: &str, file_size: u64) -> JournalOptions {
    let mut options = JournalOptions::new(SigningKey::from_pem(pem, node()).unwrap());
    options.file_size = file_size;
    options.reserve = 1024;
    options
}

fn begun(number: u8) -> Opening {
    log::opening(connection(number), SessionId::from_random([3; 10]), RequestId::from_random([4; 10]))
}

/// What a log is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The connection goes on: it begins, is announced, runs a statement, has its result, and ends; then another
    /// begins in its place.
    Turn(u8),
    Checkpoint,
}

/// How many turns a connection takes: its records, and the control record that announces it.
pub(crate) const TURNS: usize = 5;

/// Writes steps into a journal.
pub(crate) struct Scribe {
    pub(crate) journal: Journal,
    /// Turns that were taken, and the recording that is open, by connection.
    connections: BTreeMap<u8, (usize, Option<Recorder>)>,
    /// Which process it is that writes the log.
    life: usize,
}

impl Scribe {
    pub(crate) fn new(journal: Journal, life: usize) -> Self {
        Self { journal, connections: BTreeMap::new(), life }
    }

    pub(crate) async fn write(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Turn(number) => self.turn(number).await,
                Step::Checkpoint => self.journal.checkpoint().await.unwrap(),
            }
        }
    }

    async fn turn(&mut self, number: u8) {
        let (turns, recorder) = self.connections.entry(number).or_default();
        // Others in the same place have other names.
        let name = number + u8::try_from(*turns / TURNS * 8 + self.life * 64).unwrap();
        match (*turns % TURNS, recorder.as_ref()) {
            (1, _) => {
                let event =
                    Event { connection: Some(connection(name)), ..Event::done(Action::ConnectionOpened) };
                let entry = ControlEntry { outbox: Some(i64::from(name)), at: START, event };
                self.journal.control(&[entry]).await.unwrap();
            }
            (2, Some(recorder)) => {
                let mut statement =
                    Statement::new(1, How::Extended, b"SELECT balance FROM accounts WHERE id = $1");
                statement.params.push(Parameter::new(Some(b"42"), Format::Text, 23));
                recorder.record(&[Body::Statement(statement)]).await.unwrap();
            }
            (3, Some(recorder)) => {
                let end = StatementEnd { rows: Some(1), ..StatementEnd::new(1, StatementOutcome::Done) };
                recorder.note_wait(&[Body::StatementEnd(end)]).await.unwrap();
            }
            (4, Some(_)) => {
                let recorder = recorder.take().unwrap();
                recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
            }
            _ => *recorder = Some(self.journal.begin(begun(name)).await.unwrap()),
        }
        *turns += 1;
    }
}

/// All files of a log.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

impl Sealed {
    /// A log of `recordings` recordings, five records each, in files of `file_size` bytes.
    pub(crate) async fn write(recordings: u8, file_size: u64) -> Self {
        let steps: Vec<_> = (1..=recordings).flat_map(|number| [Step::Turn(number); TURNS]).collect();
        Self::tell(&steps, file_size).await
    }

    /// A log of three recordings at the same time, with checkpoints on the way.
    pub(crate) async fn interleaved(file_size: u64) -> Self {
        let turns = [1, 2, 3].map(Step::Turn);
        let steps: Vec<_> = (0..TURNS).flat_map(|_| [&turns[..], &[Step::Checkpoint]].concat()).collect();
        Self::tell(&steps, file_size).await
    }

    pub(crate) async fn tell(steps: &[Step], file_size: u64) -> Self {
        let sealed = Self::empty();
        let mut scribe = Scribe::new(sealed.open(file_size).unwrap(), 0);
        scribe.write(steps).await;
        scribe.journal.close().await.unwrap();
        sealed
    }

    /// A directory and a key.
    pub(crate) fn empty() -> Self {
        let home = TempDir::new().unwrap();
        let key_pem = SigningKey::generate().to_string();
        let key = SigningKey::from_pem(&key_pem, node()).unwrap().verify_key();
        Self { home, key_pem, key }
    }

    pub(crate) fn open(&self, file_size: u64) -> Result<Journal, JournalError> {
        let clock = Clock::manual(START);
        Journal::open(self.dir(), clock, options(&self.key_pem, file_size)).map(|(journal, _)| journal)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn file(&self, number: u32) -> PathBuf {
        self.dir().join(format!("journal-{number:08}.log"))
    }

    pub(crate) fn verify(&self) -> Report {
        self.verify_with(&[])
    }

    pub(crate) fn verify_with(&self, pins: &[PathBuf]) -> Report {
        self.verify_in(self.dir(), pins, &[])
    }

    pub(crate) fn verify_in(
        &self,
        directory: &Path,
        pins: &[PathBuf],
        witnesses: &[WitnessVerifyKey],
    ) -> Report {
        let options = Options { directory, key: &self.key, pins, witnesses };
        verify(&options, &mut |_| {}).unwrap()
    }

    /// All files as they are, but for the lock.
    pub(crate) fn image(&self) -> Image {
        let entries = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.file_name().unwrap() != "lock");
        files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }

    /// All files as they were.
    pub(crate) fn restore(&self, image: &Image) {
        for path in self.image().into_keys().filter(|path| !image.contains_key(path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in image {
            fs::write(path, bytes).unwrap();
        }
    }

    /// The same log in another directory.
    pub(crate) fn copy(&self, home: TempDir) -> Self {
        for (path, bytes) in self.image() {
            fs::write(home.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        Self { home, key_pem: self.key_pem.clone(), key: self.key.clone() }
    }

    /// The lines of all files, with their line feeds, by file.
    pub(crate) fn files(&self) -> Vec<Vec<Vec<u8>>> {
        (1..).map_while(|number| fs::read(self.file(number)).ok()).map(|bytes| lines_of(&bytes)).collect()
    }

    /// Replaces the lines of all files.
    pub(crate) fn set_files(&self, files: &[Vec<Vec<u8>>]) {
        for (number, lines) in (1..).zip(files) {
            self.set_file(number, lines);
        }
    }

    pub(crate) fn first_bad(&self) -> Finding {
        self.verify().first_bad.expect("the damage is found")
    }

    /// The first file's lines, with their line feeds.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        lines_of(&fs::read(self.file(1)).unwrap())
    }

    /// Replaces the first file's lines.
    pub(crate) fn set_lines(&self, lines: &[Vec<u8>]) {
        self.set_file(1, lines);
    }

    fn set_file(&self, number: u32, lines: &[Vec<u8>]) {
        let size = fs::metadata(self.file(number)).unwrap().len();
        let mut bytes = lines.concat();
        bytes.resize(bytes.len().max(usize::try_from(size).unwrap()), 0);
        fs::write(self.file(number), bytes).unwrap();
    }

    /// Gives the lines from `from` on new indexes and hashes, so that they follow from each other:
    /// what somebody can do who knows the format and has no key.
    pub(crate) fn relink(&self, jsons: &[Vec<u8>]) {
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

    pub(crate) fn jsons(&self) -> Vec<Vec<u8>> {
        let json = |line: &Vec<u8>| parse_line(line.strip_suffix(b"\n").unwrap()).unwrap().json.to_vec();
        self.lines().iter().map(json).collect()
    }

    /// Computes anew what the ends of recordings say of them: with [`Self::relink`], all that needs no key.
    pub(crate) fn rechain(jsons: &mut [Vec<u8>]) {
        let mut chains: BTreeMap<String, RecordingChain> = BTreeMap::new();
        for json in jsons {
            let envelope = Envelope::parse(json).unwrap();
            let chain = chains
                .entry(envelope.rec.to_string())
                .or_insert_with(|| RecordingChain::start(&envelope.rec));
            if let Some(old) = &envelope.chain {
                *json = replace(json, old, &hex(chain.head()));
            }
            chain.push(&record_hash(json));
        }
    }

    /// Signs the log as it stands, as somebody with the stolen key can, leaving no other checkpoint.
    pub(crate) fn sign_with_stolen_key(&self) {
        let key = SigningKey::from_pem(&self.key_pem, node()).unwrap();
        let mut log = Log::start(&node());
        for json in self.jsons() {
            log.push(&record_hash(&json));
        }
        let note = key.sign(log.size(), &log.root()).unwrap();
        fs::write(self.dir().join("checkpoint"), &note).unwrap();
        fs::write(self.dir().join("checkpoints.log"), format!("{note}\n")).unwrap();
    }
}

/// A record with another text in place of the first.
pub(crate) fn replace(json: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(json).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    text.replace(from, to).into_bytes()
}

fn lines_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}
