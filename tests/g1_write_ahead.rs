//! G1: nothing reaches a target that is not in the record first, wherever the server is killed.
//!
//! Clients run distinguishable statements while the server is killed (SIGKILL) at random moments and
//! started again. Afterwards everything in the target's own log of statements must be in the audit log.
//! A killed process loses what it had not given to the kernel, so a statement that was forwarded
//! before its record was written would be missing.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::calls::text;
use support::process::PATIENCE;
use support::{Bastion, Options, Postgres, wait_until};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

const KILLS: u32 = 12;
/// Connections of the driver; each runs several statements at a time.
const DRIVERS: u32 = 4;
/// The psql among the clients goes by this number.
const PSQL: u32 = 99;
const SEED: u64 = 0x5a11_7000;

/// Numbers that are the same at every run.
struct Moments(u64);

impl Moments {
    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(50 + self.next() % 1000)
    }
}

/// What the clients need, and what they count.
struct Load {
    driver: (tokio_postgres::Config, MakeRustlsConnect),
    conninfo: String,
    token: String,
    script: PathBuf,
    /// Numbers the statements of all clients.
    next: AtomicU64,
    answered: AtomicU64,
    over: AtomicBool,
}

impl Load {
    fn new(bastion: &Bastion) -> Self {
        let token = bastion.token("alice");
        Self {
            driver: bastion.driver_config("alice", "ledger-dev", &token),
            conninfo: bastion.conninfo("alice", "ledger-dev"),
            token,
            script: bastion.scratch().join("script.sql"),
            next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

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

/// The marks in a text: `mark 17-203`.
fn marks(text: &str) -> BTreeSet<String> {
    let number =
        |rest: &str| rest.find(|c: char| !c.is_ascii_digit() && c != '-').map(|end| rest[..end].to_owned());
    text.split("mark ").skip(1).filter_map(number).filter(|mark| mark.contains('-')).collect()
}

/// The marks of the recorded statements, wherever a statement holds them.
fn recorded(records: &[Value]) -> BTreeSet<String> {
    let statements = records.iter().filter(|record| record["kind"] == "statement");
    statements
        .flat_map(|statement| marks(&format!("{} {} ", statement["sql"], statement["params"])))
        .collect()
}

/// How each recording ended that has begun; none has two ends.
fn ends(records: &[Value]) -> BTreeMap<String, Option<String>> {
    let mut ends = BTreeMap::new();
    for record in records {
        let id = text(&record["rec"]);
        match record["kind"].as_str().unwrap() {
            "opened" => assert_eq!(ends.insert(id, None), None),
            "ended" => {
                let end = text(&record["reason"]["end"]);
                assert_eq!(ends.insert(id, Some(end)), Some(None), "an end without a beginning, or two ends");
            }
            _ => {}
        }
    }
    ends
}

/// Recordings that the starts after a crash say they have ended.
fn recovered(records: &[Value]) -> BTreeSet<String> {
    let starts = records.iter().filter(|record| record["kind"] == "recovered");
    starts.flat_map(|start| start["recordings"].as_array().unwrap().iter().map(text)).collect()
}

#[test]
fn whatever_reached_the_target_is_in_the_record_wherever_the_server_is_killed() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    let load = Arc::new(Load::new(&bastion));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..DRIVERS {
        let load = Arc::clone(&load);
        clients.spawn_on(async move { load.drive(client).await }, runtime.handle());
    }
    let psql = Arc::clone(&load);
    clients.spawn_on(async move { psql.run_psql().await }, runtime.handle());

    let mut moments = Moments(SEED);
    for kill in 1..=KILLS {
        let before = load.answered.load(Ordering::Relaxed);
        wait_until("the clients are at work", || load.answered.load(Ordering::Relaxed) > before);
        let pause = moments.pause();
        runtime.block_on(async { tokio::time::sleep(pause).await });
        bastion.kill();
        bastion.boot();
        bastion.verify().success();
        println!("kill {kill} of {KILLS}: {} statements answered", load.answered.load(Ordering::Relaxed));
    }
    load.over.store(true, Ordering::Relaxed);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, clients.join_all()).await }).unwrap();
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'";
    wait_until("the target is done with all", || postgres.value("postgres", at_work) == "0");
    assert_eq!(bastion.stop().code(), 0);

    let (reached, records) = (marks(&postgres.log()), bastion.records());
    let (recorded, ends, recovered) = (recorded(&records), ends(&records), recovered(&records));
    let missing: Vec<&String> = reached.difference(&recorded).collect();
    println!(
        "statements: {} sent, {} reached the target, {} recorded, {} missing; kills: {KILLS}; recordings: {}, \
         of them {} ended as crashed",
        load.next.load(Ordering::Relaxed),
        reached.len(),
        recorded.len(),
        missing.len(),
        ends.len(),
        recovered.len(),
    );
    assert!(missing.is_empty(), "reached the target and are not recorded: {missing:?}");
    for client in (0..DRIVERS).chain([PSQL]) {
        let own = format!("{client}-");
        assert!(
            reached.iter().filter(|mark| mark.starts_with(&own)).count() > 100,
            "client {client} was idle"
        );
    }
    let crashed: BTreeSet<String> =
        ends.iter().filter(|(_, end)| end.as_deref() == Some("crashed")).map(|(id, _)| id.clone()).collect();
    assert_eq!(crashed, recovered);
    assert!(crashed.len() >= usize::try_from(KILLS).unwrap(), "connections were open when it was killed");
    assert_eq!(ends.values().filter(|end| end.is_none()).count(), 0, "every recording has its end");
    bastion.verify().success();
}
