//! What the PostgreSQL gateway costs beside the way straight to the server, `PgBouncer` (session mode, TLS on both legs)
//! and `HAProxy` (which passes the TLS bytes on): queries in every mode of pgbench, bulk both ways, connecting, idle connections.
//!
//! Real `pgbench` and `psql`, a real server, the real binary; rounds of the ways interleaved, medians, ratios to the
//! direct way in the same run. Latencies with everything on one core, else the scheduler's placement is measured. With
//! `--plot FILE` also as a picture. Asserts results, never times. `POSTGRES_BENCH` picks parts.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "postgres/idle.rs"]
mod idle;
#[path = "shared/plot.rs"]
mod plot;
#[path = "postgres/result.rs"]
mod result;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "postgres/ways.rs"]
mod ways;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ways::{WAYS, Way, World};

/// Bytes that are copied each way.
const BULK: u64 = 512 << 20;
const ROW: usize = 8_000;
const PIPELINED: u32 = 20;

/// What one way took in one round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// What the row is about, in its unit.
    figure: f64,
    /// Processor time of what is in the middle, in the row's unit.
    cpu: f64,
}

/// A line of the table for each way.
struct Row {
    what: &'static str,
    unit: &'static str,
    cpu_unit: &'static str,
    /// In the order of [`WAYS`].
    samples: [Sample; WAYS.len()],
    /// Whether the difference to the direct way is what counts, else the ratio.
    is_latency: bool,
}

impl Row {
    fn print(&self) {
        for (way, sample) in WAYS.into_iter().zip(&self.samples) {
            let direct = self.samples[0].figure;
            let (ratio, added) = (sample.figure / direct, sample.figure - direct);
            let told = if self.is_latency { format!("+{added:.0}") } else { format!("{ratio:.2}") };
            println!(
                "| {} | {} | {:.2} {} | {told} | {:.2} {} |",
                self.what,
                way.name(),
                sample.figure,
                self.unit,
                sample.cpu,
                self.cpu_unit
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs the ways by turns, and takes the median of each.
fn rounds(world: &World, rounds: usize, mut run: impl FnMut(Way) -> (f64, f64)) -> [Sample; WAYS.len()] {
    let mut taken: [Vec<(f64, f64)>; WAYS.len()] = Default::default();
    for _ in 0..rounds {
        for (index, way) in WAYS.into_iter().enumerate() {
            let before = world.cpu(way);
            let (figure, units) = run(way);
            taken[index].push((figure, world.cpu(way).saturating_sub(before).as_secs_f64() / units));
        }
    }
    taken.map(|taken| Sample {
        figure: median(taken.iter().map(|(figure, _)| *figure).collect()),
        cpu: median(taken.iter().map(|(_, cpu)| *cpu).collect()),
    })
}

/// How pgbench is to ask.
struct Load<'a> {
    arguments: Vec<&'a str>,
    clients: usize,
    /// Queries of one of its transactions.
    queries: u32,
    seconds: u32,
}

/// Transactions a second, how many there were, and their median latency in microseconds.
fn pgbench(world: &World, way: Way, load: &Load<'_>, directory: &Path) -> (f64, f64, f64) {
    let prefix = directory.join(format!("{}-{}", way.name().replace([' ', ','], ""), load.clients));
    let mut command = world.client(way, "pgbench");
    command.args(["-n", "-l", "--log-prefix"]).arg(&prefix).args(["-c", &load.clients.to_string()]);
    command.args(["-T", &load.seconds.to_string()]).args(&load.arguments);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {told}{}", way.name(), String::from_utf8_lossy(&output.stderr));
    let number = |what: &str| -> f64 {
        let line = told.lines().find_map(|line| line.split_once(what)).unwrap_or_else(|| panic!("{told}"));
        line.1.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (tps, transactions) = (number("tps = "), number("transactions actually processed: "));
    let mut latencies = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // pgbench: client, transaction, latency in microseconds, …
        let text = fs::read_to_string(&path).unwrap();
        latencies.extend(text.lines().map(|line| line.split(' ').nth(2).unwrap().parse::<f64>().unwrap()));
        fs::remove_file(path).unwrap();
    }
    (tps, transactions, median(latencies))
}

/// Latency of a query, everything on one core.
fn latency(world: &World, what: &'static str, mode: &str, directory: &Path) -> Row {
    let load = Load { arguments: vec!["-S", "-M", mode], clients: 1, queries: 1, seconds: 2 };
    let samples = rounds(world, 5, |way| {
        let (_, transactions, latency) = pgbench(world, way, &load, directory);
        (latency, transactions / 1e6)
    });
    Row { what, unit: "µs", cpu_unit: "CPU µs", samples, is_latency: true }
}

/// Queries a second.
fn throughput(world: &World, what: &'static str, load: &Load<'_>, directory: &Path) -> Row {
    let samples = rounds(world, 3, |way| {
        let (tps, transactions, _) = pgbench(world, way, load, directory);
        let each = f64::from(load.queries);
        (tps * each, transactions * each / 1e6)
    });
    Row { what, unit: "/s", cpu_unit: "CPU µs", samples, is_latency: false }
}

fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed().as_secs_f64()
}

/// MB/s of what psql copies, or shows.
fn bulk(world: &World, what: &'static str, bytes: u64, command: impl Fn(&mut Command)) -> Row {
    let megabytes = bytes as f64 / 1e6;
    let samples = rounds(world, 3, |way| {
        let mut psql = world.client(way, "psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        command(&mut psql);
        (megabytes / timed(&mut psql), megabytes / 1e3)
    });
    Row { what, unit: "MB/s", cpu_unit: "CPU s/GB", samples, is_latency: false }
}

fn bulk_rows(world: &World, directory: &Path) -> Vec<Row> {
    let rows = BULK / ROW as u64;
    let copy_out =
        format!("COPY (SELECT repeat('x', {}) FROM generate_series(1, {rows})) TO STDOUT", ROW - 1);
    let out = bulk(world, "COPY out, 8 kB rows", BULK, |psql| {
        psql.args(["-c", &copy_out, "-o", "/dev/null"]).stdout(Stdio::null());
    });
    let lines = directory.with_extension("lines");
    fs::write(&lines, format!("{}\n", "x".repeat(ROW - 1)).repeat(usize::try_from(rows).unwrap())).unwrap();
    let into = bulk(world, "COPY in, 8 kB rows", BULK, |psql| {
        psql.args(["-c", "BEGIN", "-c", "TRUNCATE sink", "-c", "COPY sink FROM STDIN", "-c", "ROLLBACK"]);
        psql.stdin(fs::File::open(&lines).unwrap());
    });
    fs::remove_file(&lines).unwrap();
    let select = "SELECT n, 'customer ' || n FROM generate_series(1, 1000000) n";
    let narrow = bulk(world, "a million rows (23.8 MB)", 23_777_790, |psql| {
        psql.args(["-c", select, "-o", "/dev/null"]);
    });
    vec![out, into, narrow]
}

/// How long the disk takes to keep a few bytes, p50 in microseconds: what write-ahead waits for.
fn fdatasync() -> f64 {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let time = |n: u64| {
        // About as long as a statement's record with the result before it.
        file.write_all_at(&[2; 1200], n * 800).unwrap();
        let began = Instant::now();
        file.sync_data().unwrap();
        began.elapsed().as_secs_f64() * 1e6
    };
    median((0..1000).map(time).collect())
}

fn script(directory: &Path) -> PathBuf {
    let query = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";
    let text = format!(
        "\\set aid random(1, 1000000)\n\\startpipeline\n{}\\endpipeline\n",
        query.repeat(PIPELINED as usize)
    );
    let path = directory.with_extension("sql");
    fs::write(&path, text).unwrap();
    path
}

/// What is asked for how many queries a second come through: by its part, with its name.
fn loads(script: &str) -> Vec<(&'static str, &'static str, Load<'_>)> {
    let load = |part, what, mode, clients, more: &[&'static str]| {
        let arguments = [&["-M", mode], more].concat();
        (part, what, Load { arguments, clients, queries: 1, seconds: 3 })
    };
    let pipelined = |what, clients, threads| {
        let arguments = vec!["-M", "extended", "-j", threads, "-f", script];
        ("pipelined", what, Load { arguments, clients, queries: PIPELINED, seconds: 3 })
    };
    let many = ["-S", "-j", "2"];
    vec![
        pipelined("pipelined by 20", 1, "1"),
        pipelined("8 clients, pipelined by 20", 8, "2"),
        pipelined("64 clients, pipelined by 20", 64, "2"),
        load("c8", "8 clients, simple", "simple", 8, &many),
        load("c8", "8 clients, extended", "extended", 8, &many),
        load("c8", "8 clients, prepared", "prepared", 8, &many),
        load("c64", "64 clients, simple", "simple", 64, &many),
        load("c64", "64 clients, extended", "extended", 64, &many),
        load("c64", "64 clients, prepared", "prepared", 64, &many),
        load("connect", "connect, SELECT, close", "simple", 1, &["-S", "-C"]),
    ]
}

fn main() {
    let wanted = std::env::var("POSTGRES_BENCH").unwrap_or_default();
    let wants = |name: &str| wanted.is_empty() || wanted.split(',').any(|part| part == name);
    let world = World::start();
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("logs");
    fs::create_dir(&directory).unwrap();
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        row.print();
        rows.push(row);
    };
    println!("| | | median | to direct | in the middle |\n|---|---|---:|---:|---:|");
    let last_core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    if wants("latency") {
        // The last: the first has the disk's interrupts as well.
        world.pin(&last_core.to_string());
        add(latency(&world, "a query, simple, p50", "simple", &directory));
        add(latency(&world, "a query, extended, p50", "extended", &directory));
        add(latency(&world, "a query, prepared, p50", "prepared", &directory));
        println!("\nfdatasync on that core, p50: {:.0} µs\n", fdatasync());
        world.pin(&format!("0-{}", last_core.max(1)));
    }
    let script = script(&directory);
    let script = script.to_str().unwrap();
    for (part, what, load) in loads(script) {
        if wants(part) {
            add(throughput(&world, what, &load, &directory));
        }
    }
    if wants("bulk") {
        bulk_rows(&world, &directory).into_iter().for_each(&mut add);
    }
    if wants("idle") {
        idle::print(&world, scratch.path());
    }
    // It takes long: only who asks for it has it.
    if wanted.split(',').any(|part| part == "result") {
        result::print(&world);
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plot").skip(1);
    if let Some(path) = arguments.next() {
        let bars = |row: &Row| {
            let direct = row.samples[0].figure;
            let ratio = |sample: &Sample| {
                if row.is_latency { direct / sample.figure } else { sample.figure / direct }
            };
            (row.what, row.samples.each_ref().map(ratio))
        };
        fs::write(path, plot::svg(&WAYS.map(Way::name), &rows.iter().map(bars).collect::<Vec<_>>())).unwrap();
    }
    world.verify();
}
