//! Clients of a database that never stop, whatever happens to the gateway, and whose statements can be told from each
//! other; and what the record has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::calls::text;
use super::process::{PATIENCE, wait_until};
use super::{Bastion, Postgres};

/// Connections of the driver; each runs several statements at a time.
const DRIVERS: u32 = 4;
/// The psql among the clients goes by this number.
const PSQL: u32 = 99;
/// Who and where all clients are.
const WHO: (&str, &str) = ("alice", "ledger-dev");

/// Numbers that are the same at every run.
#[derive(Debug)]
pub struct Moments(pub u64);

impl Moments {
    /// `SplitMix64`.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// What the clients need, and what they count.
struct Shared {
    driver: (tokio_postgres::Config, MakeRustlsConnect),
    conninfo: String,
    token: String,
    script: PathBuf,
    /// How long a driver's connection rests between statements.
    rest: Duration,
    /// Numbers the statements of all clients.
    next: AtomicU64,
    answered: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn mark(&self, client: u32) -> String {
        format!("mark {client}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Connects, works until the connection breaks, and again.
    async fn drive(&self, client: u32) {
        let (config, tls) = &self.driver;
        while !self.is_over() {
            let Ok((connected, connection)) = config.connect(tls.clone()).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let work = async { while !self.is_over() && self.round(&connected, client).await.is_ok() {} };
            tokio::select! {
                _ended = connection => {}
                () = work => {}
            }
        }
    }

    /// Three statements at once: simple, extended, and extended with the mark in a parameter.
    async fn round(&self, connected: &Client, client: u32) -> Result<(), tokio_postgres::Error> {
        let (simple, extended, parameter) = (self.mark(client), self.mark(client), self.mark(client));
        let (simple_sql, extended_sql) = (format!("SELECT '{simple}'"), format!("SELECT '{extended}'"));
        let parameters: [&(dyn ToSql + Sync); 1] = [&parameter];
        let (_, rows, row) = tokio::try_join!(
            connected.simple_query(&simple_sql),
            connected.query(&extended_sql, &[]),
            connected.query_one("SELECT $1::text", &parameters),
        )?;
        assert_eq!((rows[0].get(0), row.get(0)), (extended.as_str(), parameter.as_str()));
        self.answered.fetch_add(3, Ordering::Relaxed);
        tokio::time::sleep(self.rest).await;
        Ok(())
    }

    /// One psql after another, each with a script of statements.
    async fn run_psql(&self) {
        while !self.is_over() {
            let lines: Vec<String> = (0..50).map(|_| format!("SELECT '{}';", self.mark(PSQL))).collect();
            std::fs::write(&self.script, lines.join("\n")).unwrap();
            let mut command = tokio::process::Command::new("psql");
            command.arg(&self.conninfo).args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&self.script);
            command.env("PGPASSWORD", &self.token).env("LC_ALL", "C").kill_on_drop(true);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !command.status().await.unwrap().success() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    runtime: Runtime,
}

impl Load {
    /// Four connections of a driver and one psql after another, as alice on `ledger-dev`.
    pub fn start(bastion: &Bastion, rest: Duration) -> Self {
        let (who, target) = WHO;
        let token = bastion.token(who);
        let shared = Arc::new(Shared {
            driver: bastion.driver_config(who, target, &token),
            conninfo: bastion.conninfo(who, target),
            token,
            script: bastion.scratch().join("script.sql"),
            rest,
            next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut clients = JoinSet::new();
        for client in 0..DRIVERS {
            let shared = shared.clone();
            clients.spawn_on(async move { shared.drive(client).await }, runtime.handle());
        }
        let psql = shared.clone();
        clients.spawn_on(async move { psql.run_psql().await }, runtime.handle());
        Self { shared, clients, runtime }
    }

    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Waits until statements are answered that were not before.
    #[track_caller]
    pub fn is_at_work(&self) {
        let before = self.answered();
        wait_until("the clients of the database are at work", || self.answered() > before);
    }

    /// Ends the clients, and what they left at the target.
    pub fn stop(&mut self, postgres: &Postgres) {
        self.shared.over.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, clients.join_all()).await }).unwrap();
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'";
        wait_until("the target is done with all", || postgres.value("postgres", at_work) == "0");
    }
}

/// What a log says, gathered record by record.
#[derive(Debug, Default)]
pub struct Recorded {
    marks: BTreeSet<String>,
    /// How each recording ended that has begun; none has two ends.
    ends: BTreeMap<String, Option<String>>,
    /// Recordings that the starts after a crash say they have ended.
    recovered: BTreeSet<String>,
}

impl Recorded {
    pub fn take(&mut self, record: &Value) {
        let id = || text(&record["rec"]);
        match record["kind"].as_str().unwrap() {
            "opened" => assert_eq!(self.ends.insert(id(), None), None),
            "ended" => {
                let before = self.ends.insert(id(), Some(text(&record["reason"]["end"])));
                assert_eq!(before, Some(None), "an end without a beginning, or two ends");
            }
            "recovered" => self.recovered.extend(record["recordings"].as_array().unwrap().iter().map(text)),
            // Wherever a statement holds it.
            "statement" => self.marks.extend(marks(&format!("{} {} ", record["sql"], record["params"]))),
            _ => {}
        }
    }

    /// Everything that reached the target is on record, and that is `least` statements of every client and more.
    pub fn has_all_of(&self, postgres: &Postgres, load: &Load, least: usize) {
        let reached = marks(&postgres.log());
        let missing: Vec<&String> = reached.difference(&self.marks).collect();
        println!(
            "statements: {} sent, {} answered, {} reached the target, {} recorded, {} missing",
            load.sent(),
            load.answered(),
            reached.len(),
            self.marks.len(),
            missing.len(),
        );
        assert!(missing.is_empty(), "reached the target and are not recorded: {missing:?}");
        for client in (0..DRIVERS).chain([PSQL]) {
            let own = format!("{client}-");
            let own = reached.iter().filter(|mark| mark.starts_with(&own)).count();
            assert!(own >= least, "client {client} was idle: {own}");
        }
    }

    /// Every recording has its end, and those that a crash ended are those that the starts after it name.
    /// Gives how many these are.
    pub fn all_have_ended(&self) -> usize {
        let open: Vec<_> = self.ends.iter().filter(|(_, end)| end.is_none()).collect();
        assert!(open.is_empty(), "without an end: {open:?}");
        let is_crashed = |end: &Option<String>| end.as_deref() == Some("crashed");
        let crashed: BTreeSet<String> =
            self.ends.iter().filter(|(_, end)| is_crashed(end)).map(|(id, _)| id.clone()).collect();
        assert_eq!(crashed, self.recovered);
        println!("recordings: {}, of them {} ended as crashed", self.ends.len(), crashed.len());
        crashed.len()
    }
}

/// The marks in a text: `mark 17-203`.
fn marks(text: &str) -> BTreeSet<String> {
    let number =
        |rest: &str| rest.find(|c: char| !c.is_ascii_digit() && c != '-').map(|end| rest[..end].to_owned());
    text.split("mark ").skip(1).filter_map(number).filter(|mark| mark.contains('-')).collect()
}
