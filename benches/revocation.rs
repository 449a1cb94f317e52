//! How soon clients are cut after a session is revoked, what an idle connection costs in memory, and how long psql takes to
//! its first answer: through the gateway for the first time in a session, again, and directly.
//!
//! Against a real PostgreSQL, through the real binary. An instant is when a client's socket is closed,
//! seen from the client, counted from the moment the revocation was sent over an open HTTPS connection.
//! Prints a table; asserts what must hold, never a time.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bastion::run_with_input;
use support::process::PATIENCE;
use support::wire::Wire;
use support::{Bastion, Options, Postgres};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Connections of the one session.
const CONNECTIONS: usize = 200;
/// Sessions of one connection each.
const SINGLES: usize = 50;
/// Before memory is measured, so that what the process allocates once does not count.
const WARM_UP: usize = 20;
const TARGET: &str = "ledger-dev";
const KEPT: &str = "ledger-kept";

/// Somebody who may revoke, with an HTTPS connection that is open already.
struct Revoker {
    client: reqwest::Client,
    token: String,
    url: String,
}

/// What one revocation took.
struct Cut {
    /// Until each client's socket was closed.
    closed: Vec<Duration>,
    /// Until the call returned.
    call: Duration,
}

impl Revoker {
    fn new(bastion: &Bastion) -> Self {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(bastion.ca_file()).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build().unwrap();
        let url = format!("https://localhost:{}", bastion.api_port);
        Self { client, token: bastion.token("erin"), url }
    }

    async fn warm_up(&self) {
        let asked = self.client.get(format!("{}/whoami", self.url)).bearer_auth(&self.token);
        assert_eq!(asked.send().await.unwrap().bytes().await.unwrap().first(), Some(&b'{'));
    }

    async fn revoke(&self, session: &str, clients: Vec<TcpStream>) -> Cut {
        self.warm_up().await;
        let mut watched = JoinSet::new();
        for client in clients {
            watched.spawn(closed_at(client));
        }
        let body = json!({ "session": session, "why": "measured" });
        let asked = self.client.post(format!("{}/pam/revoke", self.url)).bearer_auth(&self.token).json(&body);
        let sent = Instant::now();
        let answer = asked.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        let call = sent.elapsed();
        assert_eq!(status, 200, "{body}");
        let closed = tokio::time::timeout(PATIENCE, watched.join_all()).await.unwrap();
        Cut { closed: closed.into_iter().map(|at| at.duration_since(sent)).collect(), call }
    }
}

/// Reads what the client is told, still encrypted, until the socket is closed.
async fn closed_at(mut client: TcpStream) -> Instant {
    let (mut told, mut buffer) = (0, [0; 4096]);
    loop {
        match client.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => told += read,
            Err(error) => panic!("{error} instead of a goodbye"),
        }
    }
    let closed = Instant::now();
    assert!(told > 0, "the client was told why");
    closed
}

/// Idle connections of alice's, each ready for a query.
fn connect(bastion: &Bastion, runtime: &Runtime, count: usize) -> Vec<TcpStream> {
    let _entered = runtime.enter();
    (0..count)
        .map(|_| {
            let (wire, _key) = Wire::session(bastion, "alice", TARGET);
            let socket = wire.into_socket();
            socket.set_nonblocking(true).unwrap();
            TcpStream::from_std(socket).unwrap()
        })
        .collect()
}

fn session(bastion: &Bastion) -> String {
    bastion.grant("alice", TARGET, "readonly", 3600, &[]).session
}

/// Revokes, and checks that the role is gone when the call has returned.
fn revoke(
    bastion: &(Bastion, Postgres),
    runtime: &Runtime,
    by: &Revoker,
    session: &str,
    clients: Vec<TcpStream>,
) -> Cut {
    let (_, postgres) = bastion;
    assert_eq!(postgres.session_roles().len(), 1, "the session has its role");
    let cut = runtime.block_on(by.revoke(session, clients));
    assert!(postgres.session_roles().is_empty(), "the role is gone");
    cut
}

/// KiB of the server's memory per idle connection.
fn memory(bastion: &Bastion, runtime: &Runtime) -> (f64, Vec<TcpStream>) {
    let mut clients = connect(bastion, runtime, WARM_UP);
    let before = bastion.resident_kib();
    clients.extend(connect(bastion, runtime, CONNECTIONS - WARM_UP));
    let grown = bastion.resident_kib().saturating_sub(before);
    let count = u32::try_from(CONNECTIONS - WARM_UP).unwrap();
    (f64::from(u32::try_from(grown).unwrap()) / f64::from(count), clients)
}

/// Nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1].as_secs_f64() * 1000.0
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&times, percent));
    println!("{what:<58} {:>5} {p50:>8.1} {p99:>8.1} {most:>8.1}", times.len());
}

/// From the start of psql to its end; one statement, as whoever may run it where it points.
fn answer(mut psql: std::process::Command) -> Duration {
    let begun = Instant::now();
    support::Finished::from(psql.args(["-XAtqc", "SELECT 1"]).output().unwrap()).success();
    begun.elapsed()
}

/// A target of the same server where nothing is made for a session: what a connection takes without that.
fn kept_target(postgres: &Postgres) -> String {
    let make = "CREATE ROLE ledger_app LOGIN PASSWORD 'kept'; GRANT ledger_readonly TO ledger_app";
    postgres.query("ledger", make).success();
    format!(
        "[[target]]\nname = \"{KEPT}\"\nkind = \"postgres\"\naddress = \"localhost:{}\"\nconnect_to = \"127.0.0.1\"\n\
         ca_file = \"{}\"\nenvironment = \"dev\"\ndomain = \"bank-core\"\ndatabases = [\"ledger\"]\n\
         accesses = {{ readonly = \"{KEPT}\" }}\n[target.credential]\nkind = \"static\"\n\n",
        postgres.port,
        postgres.ca_file().display(),
    )
}

fn keep_password(bastion: &Bastion) {
    let config = bastion.config_file();
    let set = [
        "secret",
        "set",
        KEPT,
        "--user",
        "ledger_app",
        "--password-stdin",
        "--config",
        config.to_str().unwrap(),
    ];
    run_with_input(bastion.command(&set), "kept").success();
}

/// Interleaved, each first connection in a session of its own.
fn connecting((bastion, postgres): &(Bastion, Postgres)) {
    let (mut first, mut again, mut kept, mut direct) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    bastion.grant("alice", KEPT, "readonly", 3600, &[]);
    answer(bastion.client("psql", "alice", KEPT));
    for _ in 0..SINGLES {
        let session = session(bastion);
        first.push(answer(bastion.client("psql", "alice", TARGET)));
        again.push(answer(bastion.client("psql", "alice", TARGET)));
        kept.push(answer(bastion.client("psql", "alice", KEPT)));
        direct.push(answer(postgres.client("psql", "ledger")));
        bastion.run_as("erin", &["revoke", &session, "--why", "measured"]).success();
    }
    row("psql to its end, directly", direct);
    row("psql to its end, with a kept password, nothing made", kept);
    row("psql to its end, the first of a session", first);
    row("psql to its end, another of the session", again);
}

fn main() {
    let postgres = Postgres::start();
    let options = Options { targets: kept_target(&postgres), ..Options::default() };
    let bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    keep_password(&bastion);
    let both = (bastion, postgres);
    let bastion = &both.0;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let revoker = Revoker::new(bastion);

    println!("{:<58} {:>5} {:>8} {:>8} {:>8}", "milliseconds", "n", "p50", "p99", "most");
    let shared = session(bastion);
    let (kib, clients) = memory(bastion, &runtime);
    let cut = revoke(&both, &runtime, &revoker, &shared, clients);
    row(&format!("revoke → socket closed, {CONNECTIONS} connections of one session"), cut.closed);
    row("  until the call returned, credential destroyed", vec![cut.call]);
    println!("memory per idle connection: {kib:.0} KiB");

    let (mut singly, mut single_calls) = (Vec::new(), Vec::new());
    for _ in 0..SINGLES {
        let session = session(bastion);
        let clients = connect(bastion, &runtime, 1);
        let cut = revoke(&both, &runtime, &revoker, &session, clients);
        singly.extend(cut.closed);
        single_calls.push(cut.call);
    }
    row("revoke → socket closed, one connection of one session", singly);
    row("  until the call returned, credential destroyed", single_calls);
    connecting(&both);
    bastion.verify().success();
}
