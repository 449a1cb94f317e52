//! What the audit log costs: durable statements a second next to what the disk can sync, verification, processor time
//! of a statement, memory of an open recording. In this process, with the real journal on the disk of `$TMPDIR`.
//!
//! Prints tables; asserts what must hold, never a time.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "audit/bare.rs"]
mod bare;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sallyport::audit::record::{Context, How, Opened, Statement, StatementEnd, StatementOutcome};
use sallyport::audit::verify::{Options, verify};
use sallyport::audit::{Body, Journal, JournalOptions, Opening, Recorder, SigningKey, Totals};
use sallyport::clock::Clock;
use sallyport::domain::deny::EndReason;
use sallyport::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::target::Environment;

/// How long each rate is measured.
const MEASURE: Duration = Duration::from_secs(3);
/// How often, one after the other; the median counts.
const ROUNDS: usize = 3;
/// How many write at once, unless `AUDIT_BENCH_WRITERS` says otherwise (with commas between).
const WRITERS: &str = "1,8,64";
const SQL: &[u8] = b"SELECT id, owner, balance FROM accounts WHERE owner = $1 AND balance > 100 ORDER BY id";
/// Journal that is verified, in bytes.
const VERIFIED: u64 = 256 << 20;
const RECORDINGS: usize = 10_000;

struct House {
    directory: tempfile::TempDir,
    pem: String,
}

impl House {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), pem: SigningKey::generate().to_string() }
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_pem(&self.pem, NodeId::from_random([1; 10])).unwrap()
    }

    fn journal(&self) -> Journal {
        Journal::open(self.directory.path(), Clock::system(), JournalOptions::new(self.key())).unwrap().0
    }
}

fn opening(number: u64) -> Opening {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let now = Clock::system().now();
    Opening {
        context: Context {
            principal: Actor { id: PrincipalId::from_random([2; 10]), name: "alice".parse().unwrap() },
            session: SessionId::from_random([3; 10]),
            request: RequestId::from_random([4; 10]),
            connection: ConnectionId::from_random(random),
            target: "ledger-prod".parse().unwrap(),
            access: "readonly".parse().unwrap(),
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            client: "192.0.2.7:40000".parse().unwrap(),
            break_glass: false,
        },
        opened: Opened {
            reason: "month-end reconciliation".to_owned(),
            ticket: Some("OPS-4711".to_owned()),
            approvals: Vec::new(),
            granted_at: now,
            ends_at: now.plus(Duration::from_hours(1)),
            policy_hash: "0".repeat(64),
            application: Some("psql".to_owned()),
            database: Some("ledger".to_owned()),
            credential: None,
            client_tls: None,
            client_ssh: None,
            target_tls: None,
        },
    }
}

fn statement(n: u64) -> Body {
    Body::Statement(Statement::new(n, How::Extended, SQL))
}

fn statement_end(n: u64) -> Body {
    Body::StatementEnd(StatementEnd::new(n, StatementOutcome::Done))
}

/// User and system time of this process, in seconds.
fn processor_time() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let seconds = |field: &str| field.parse::<f64>().unwrap() / 100.0;
    (seconds(fields[11]), seconds(fields[12]))
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a number of writers, each waiting for its statement, get recorded in a second; and the bytes of a line.
async fn waiting_writers(journal: &Journal, lanes: &Lanes, writers: usize, first: u64) -> f64 {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks = tokio_util::task::TaskTracker::new();
    for writer in 0..writers as u64 {
        let recorder = journal.begin(opening(first + writer)).await.unwrap();
        let (over, count) = (over.clone(), count.clone());
        let work = async move {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                recorder.record(&[statement(n)]).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
            recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
        };
        tasks.spawn_on(work, lanes.handle(writer));
    }
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURE).await;
    let done = count.load(Ordering::Relaxed) - before;
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    tasks.close();
    tasks.wait().await;
    rate
}

/// A thread with a runtime for each core, as the gateway has them for its connections.
struct Lanes {
    handles: Vec<tokio::runtime::Handle>,
    stop: tokio_util::sync::CancellationToken,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Lanes {
    fn start() -> Self {
        let mut lanes = Self {
            handles: Vec::new(),
            stop: tokio_util::sync::CancellationToken::new(),
            threads: Vec::new(),
        };
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            lanes.handles.push(runtime.handle().clone());
            let stop = lanes.stop.clone();
            lanes.threads.push(std::thread::spawn(move || runtime.block_on(stop.cancelled())));
        }
        lanes
    }

    fn handle(&self, writer: u64) -> &tokio::runtime::Handle {
        &self.handles[usize::try_from(writer).unwrap() % self.handles.len()]
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Durable statements a second, next to what as many lines with one sync would be, and to group commit of bare lines.
async fn group_commit() {
    println!("durable statements, each writer waits for its own\n");
    println!(
        "| writers | statements/s | one sync for all of them, bare | ratio | group commit of bare lines | ratio |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    let house = House::new();
    let (journal, lanes) = (house.journal(), Lanes::start());
    let (directory, line) = (house.directory.path(), line_bytes(&house, &journal).await);
    let counts = std::env::var("AUDIT_BENCH_WRITERS").unwrap_or_else(|_| WRITERS.to_owned());
    for (round, writers) in counts.split(',').map(|count| count.parse().unwrap()).enumerate() {
        let (mut rates, mut syncs, mut commits) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..ROUNDS {
            syncs.push(bare::syncs(directory, line * writers) * writers as f64);
            let first = 1000 * (round * ROUNDS + turn + 1) as u64;
            rates.push(waiting_writers(&journal, &lanes, writers, first).await);
            commits.push(bare::group_commit(directory, &lanes, writers, line).await);
        }
        let [rate, sync, commit] = [rates, syncs, commits].map(median);
        println!(
            "| {writers} | {rate:.0} | {sync:.0} | {:.2} | {commit:.0} | {:.2} |",
            rate / sync,
            rate / commit
        );
    }
    journal.close().await.unwrap();
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Bytes that a statement adds to the journal.
async fn line_bytes(house: &House, journal: &Journal) -> usize {
    let recorder = journal.begin(opening(1)).await.unwrap();
    let written = || fs::read(house.directory.path().join("journal-00000001.log")).unwrap();
    let length = || written().iter().position(|byte| *byte == 0).unwrap();
    let before = length();
    recorder.record(&[statement(1)]).await.unwrap();
    length() - before
}

/// Records statements with their results, nobody waiting but at the end of each batch.
async fn fill(recorder: &Recorder, statements: u64) {
    let mut n = 0;
    while n < statements {
        for _ in 0..500 {
            n += 1;
            recorder.note_wait(&[statement(n)]).await.unwrap();
            recorder.note_wait(&[statement_end(n)]).await.unwrap();
        }
        recorder.record(&[]).await.unwrap();
    }
}

/// Processor time of a statement and its result, and how fast a log is verified.
async fn cost_and_verification() {
    let house = House::new();
    let journal = house.journal();
    let line = line_bytes(&house, &journal).await as u64;
    let statements = VERIFIED / (2 * line);
    let recorder = journal.begin(opening(2)).await.unwrap();
    let (begun, (user, system)) = (Instant::now(), processor_time());
    fill(&recorder, statements).await;
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    let (user_after, system_after) = processor_time();
    let each = |seconds: f64| seconds * 1e6 / statements as f64;
    println!("\nprocessor time of a statement with its result ({} B), {statements} of them\n", 2 * line);
    println!("| user µs | system µs | statements/s |\n|---:|---:|---:|");
    println!(
        "| {:.2} | {:.2} | {:.0} |",
        each(user_after - user),
        each(system_after - system),
        statements as f64 / begun.elapsed().as_secs_f64()
    );
    journal.close().await.unwrap();

    let key = house.key().verify_key();
    let options = Options { directory: house.directory.path(), key: &key, pins: &[], witnesses: &[] };
    let bytes: u64 = fs::read_dir(house.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("journal-"))
        .map(|entry| {
            fs::read(entry.path()).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64)
        })
        .sum();
    let (begun, (user, system)) = (Instant::now(), processor_time());
    let report = verify(&options, &mut |_| {}).unwrap();
    let (taken, (user_after, system_after)) = (begun.elapsed().as_secs_f64(), processor_time());
    assert!(report.is_whole() && report.records > statements, "{report:?}");
    let mib = bytes as f64 / 1e6;
    println!("\nverification of {mib:.0} MB, {} records\n", report.records);
    println!("| MB/s | records/s | processor s/GB |\n|---:|---:|---:|");
    let processor = (user_after - user + system_after - system) / (mib / 1000.0);
    println!("| {:.0} | {:.0} | {processor:.2} |", mib / taken, report.records as f64 / taken);
}

/// Memory of recordings that are open and do nothing.
async fn memory() {
    let house = House::new();
    let journal = house.journal();
    let mut recorders = Vec::with_capacity(RECORDINGS);
    for number in 0..200 {
        recorders.push(journal.begin(opening(number)).await.unwrap());
    }
    let before = resident_kib();
    for number in 200..RECORDINGS as u64 {
        recorders.push(journal.begin(opening(number)).await.unwrap());
    }
    let each = (resident_kib() - before) as f64 / (RECORDINGS - 200) as f64;
    println!("\nmemory of an open recording: {each:.2} KiB ({RECORDINGS} of them)");
    drop(recorders);
    journal.close().await.unwrap();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        memory().await;
        group_commit().await;
        cost_and_verification().await;
    });
}
