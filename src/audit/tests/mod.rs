//! The journal as a whole. Here: a place for journals, and a medium that fails on demand.

mod commit;
mod crash;
mod help;
mod next;
mod reading;
mod signing;
mod ssh;
mod ssh_replay;
mod stream;
mod trim;
mod turn;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::line::{LONGEST_RECORD, parse_line};
use super::medium::{Directory, Medium, NotAllocated, file_name};
use super::record::{
    Cancel, Context, Format, How, Notice, Opened, Parameter, Sql, Statement, StatementEnd, StatementOutcome,
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
            ends_at: START.plus(Duration::from_hours(1)),
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

fn statement(n: u64, sql: &str) -> Body {
    Body::Statement(Statement::new(n, How::Simple, sql.as_bytes()))
}

fn note(text: &str) -> Body {
    Body::Notice(Notice::new(text.to_owned()))
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
        let (file_size, reserve) = (self.file_size, self.reserve);
        JournalOptions { file_size, reserve, ..JournalOptions::new(self.key()) }
    }

    fn open_in(&self, dir: &Path) -> Result<(Journal, Recovery), JournalError> {
        Journal::open(dir, Clock::manual(START), self.options())
    }

    fn open(&self) -> (Journal, Recovery) {
        self.open_in(self.dir()).unwrap()
    }

    fn open_on(&self, faults: &Arc<Faults>) -> Journal {
        let wrap = |inner| Faulty { inner, faults: faults.clone() };
        Journal::open_on(self.dir(), Clock::manual(START), self.options(), wrap).unwrap().0
    }

    fn verify_in(&self, directory: &Path) -> Report {
        let key = self.key().verify_key();
        verify(&Options { directory, key: &key, pins: &[], witnesses: &[] }, &mut |_| {}).unwrap()
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
    let replayed = replay::replay(&replay::Source::new(dir, &connection(number)), each).unwrap();
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

#[derive(Debug)]
struct Faulty {
    inner: Directory,
    faults: Arc<Faults>,
}

impl Medium for Faulty {
    fn allocate(&mut self, number: u32, size: u64) -> Result<(), NotAllocated> {
        self.faults.step()?;
        if self.faults.files_left.load(Ordering::SeqCst) == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
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

    fn ends_here(&mut self) {
        self.inner.ends_here();
    }
}
