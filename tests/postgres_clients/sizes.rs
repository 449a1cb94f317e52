//! What is large: statements and parameters of 64 MB, and a result that is larger than the gateway's memory may grow.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::{Bastion, Finished, Options, Postgres};

const MEGABYTES_64: usize = 64_000_000;
/// How much of the result is in one row.
const ROW: u64 = 1_000_000;
const ROWS: u64 = 1_000;

#[test]
fn statements_and_parameters_of_64_mb_pass() {
    let (_postgres, bastion) = crate::dba();
    let driver = bastion.driver("alice", "ledger-dev");
    let statement = |mark: char| format!("SELECT length('{}')", mark.to_string().repeat(MEGABYTES_64 - 20));
    driver.simple(&statement('0')).unwrap();
    driver.runtime.block_on(async {
        let row = driver.client.query_one(&statement('1'), &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 63_999_980);
        let parameter = "p".repeat(MEGABYTES_64);
        let row = driver.client.query_one("SELECT length($1::text), $1::text", &[&parameter]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 64_000_000);
        assert!(row.get::<_, &str>(1) == parameter, "the parameter came back changed");
    });
    drop(driver);
    let recording = bastion.ended_recording_with("SELECT length($1::text), $1::text");
    let parted = recording.iter().filter(|one| one["kind"] == "statement" && one["sql_parts"].is_number());
    assert!(parted.count() >= 2, "each is recorded whole, in parts");
}

#[test]
fn who_sends_too_much_is_told_so() {
    let postgres = Postgres::start();
    let settings = vec![("postgres", "max_message_bytes = 1048576".to_owned())];
    let bastion = Bastion::start_for(&postgres, Options { settings, ..Options::default() }, &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let script = bastion.scratch().join("long.sql");
    fs::write(&script, format!("SELECT length('{}');\n", "x".repeat(20_000_000))).unwrap();
    let mut psql = bastion.client("psql", "alice", "ledger-dev");
    let finished: Finished = psql.args(["-X", "-f"]).arg(&script).output().unwrap().into();
    // psql is still sending when it is over.
    assert!(finished.failure().stderr.contains("more than the 1048576 allowed"));
}

#[test]
fn a_gigabyte_of_results_passes_in_constant_memory() {
    let (_postgres, bastion) = crate::dba();
    let sql = format!("COPY (SELECT repeat('x', {}) FROM generate_series(1, {ROWS})) TO STDOUT", ROW - 1);
    let mut command = bastion.client("psql", "alice", "ledger-dev");
    command.args(["-XAtq", "-c", &sql]).stdout(std::process::Stdio::piped());
    let mut psql = crate::support::process::Running::start(&mut command);
    let mut output = psql.child().stdout.take().unwrap();
    let before = bastion.resident_kib();
    let (over, largest) = (AtomicBool::new(false), AtomicU64::new(0));
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                largest.fetch_max(bastion.resident_kib(), Ordering::Relaxed);
                crate::support::process::pause();
            }
        });
        let received = std::io::copy(&mut output, &mut std::io::sink()).unwrap();
        over.store(true, Ordering::Relaxed);
        received
    });
    psql.finish().success();
    assert_eq!(received, ROW * ROWS);
    let grown = largest.into_inner().saturating_sub(before);
    assert!(grown < 64 * 1024, "grown by {grown} KiB for {received} bytes");
    let records = bastion.records();
    let copied = records.iter().find(|record| record["kind"] == "copy_end").unwrap();
    assert_eq!((copied["bytes"].as_u64(), copied["rows"].as_u64()), (Some(received), Some(ROWS)));
}
