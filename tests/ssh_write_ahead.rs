//! G1 for SSH: nothing reaches a host that is not in the record first, wherever the server is killed.
//!
//! People type into a terminal whose program keeps every byte, feed a command and upload files, while the
//! server is killed (SIGKILL) at random moments and started again. Afterwards the host has no byte that
//! the record does not have. A killed process loses what it had not given to the kernel, so a byte
//! that was forwarded before its record was written would be missing.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;
use support::process::Running;
use support::sshd::HOST;
use support::{Hosts, Options, wait_until};

const KILLS: u32 = 8;
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
}

#[expect(clippy::disallowed_methods, reason = "when the server is killed, and how fast people type")]
fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// The people, and where on the host their bytes go.
struct Load {
    hosts: Hosts,
    kept: PathBuf,
    next: AtomicU32,
    over: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The terminal echoes: what is typed is kept.
    Echoed,
    /// It does not: what is typed is counted.
    Silent,
    Fed,
}

impl Way {
    fn prefix(self) -> &'static str {
        match self {
            Self::Echoed => "echoed",
            Self::Silent => "silent",
            Self::Fed => "fed",
        }
    }

    fn command(self, file: &Path) -> String {
        let file = file.display();
        match self {
            // In raw mode `cat` has each byte at once, and the terminal echoes it or not.
            Self::Echoed => format!("stty raw echo; exec cat >{file}"),
            Self::Silent => format!("stty raw -echo; exec cat >{file}"),
            Self::Fed => format!("exec cat >{file}"),
        }
    }
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn file(&self, prefix: &str) -> PathBuf {
        self.kept.join(format!("{prefix}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Connects, sends numbered words until the connection breaks, and again.
    fn send(&self, way: Way) {
        while !self.is_over() {
            let file = self.file(way.prefix());
            let mut ssh = self.hosts.through("ssh", "alice", HOST);
            if way != Way::Fed {
                ssh.arg("-tt");
            }
            ssh.args(["localhost", &way.command(&file)]);
            ssh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut ssh = Running::start(&mut ssh);
            let mut input = ssh.child().stdin.take().unwrap();
            // What is typed before the terminal is as it should be would be taken for something else.
            while ssh.is_running() && !file.exists() && !self.is_over() {
                pause(5);
            }
            for word in 0_u64.. {
                if self.is_over() || input.write_all(format!("{word};").as_bytes()).is_err() {
                    break;
                }
                pause(if way == Way::Fed { 0 } else { 2 });
                // The head of a stream is kept, no more of it.
                if way == Way::Fed && word == 100_000 {
                    break;
                }
            }
        }
    }

    /// One upload after another.
    fn upload(&self) {
        let source = self.hosts.bastion.scratch().join("upload");
        fs::write(&source, vec![b'u'; 100_000]).unwrap();
        while !self.is_over() {
            let line = format!("put {} {}\n", source.display(), self.file("uploaded").display());
            let lines = line.repeat(20);
            let batch = self.hosts.bastion.scratch().join("batch");
            fs::write(&batch, lines).unwrap();
            let mut sftp = self.hosts.through("sftp", "alice", HOST);
            sftp.arg("-b").arg(&batch).arg("localhost");
            sftp.stdout(Stdio::null()).stderr(Stdio::null());
            let _broken = Running::start(&mut sftp).child().wait();
            pause(5);
        }
    }

    fn kept_bytes(&self) -> u64 {
        fs::read_dir(&self.kept)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().map_or(0, |file| file.len()))
            .sum()
    }
}

/// What the record has of one channel.
#[derive(Default)]
struct Recorded {
    input: Vec<u8>,
    masked: u64,
}

/// The channels that run a command, by the file that the command writes.
fn by_file(records: &[Value]) -> BTreeMap<String, Recorded> {
    let channel = |record: &Value| (record["rec"].to_string(), record["ch"].to_string());
    let mut files = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "program") {
        if let Some((_, file)) = record["txt"].as_str().unwrap_or_default().split_once('>') {
            files.insert(channel(record), file.to_owned());
        }
    }
    let mut recorded: BTreeMap<String, Recorded> = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "input") {
        let Some(file) = files.get(&channel(record)) else { continue };
        let of_file = recorded.entry(file.clone()).or_default();
        of_file.input.extend_from_slice(&data(record));
        of_file.masked += record["masked"].as_u64().unwrap_or_default();
    }
    recorded
}

fn data(record: &Value) -> Vec<u8> {
    match (record["txt"].as_str(), record["b64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => BASE64.decode(text.as_bytes()).unwrap(),
        (None, None) => Vec::new(),
    }
}

#[test]
fn whatever_reached_the_host_is_in_the_record_wherever_the_server_is_killed() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "erin"]);
    hosts.grant();
    let kept = hosts.bastion.scratch().join("kept");
    fs::create_dir(&kept).unwrap();
    let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut load = Arc::new(Load { hosts, kept, next, over });
    let mut moments = Moments(SEED);
    for kill in 1..=KILLS {
        load = one_life(load, &mut moments);
        println!("kill {kill} of {KILLS}: {} bytes have reached the host", load.kept_bytes());
    }
    let load = Arc::into_inner(load).unwrap();
    let records = load.hosts.bastion.records();
    let recorded = by_file(&records);
    let opened: Vec<String> = records
        .iter()
        .filter(|record| record["kind"] == "file" && record["phase"] == "asked" && record["op"] == "open")
        .map(|record| record["path"].as_str().unwrap().to_owned())
        .collect();
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in fs::read_dir(&load.kept).unwrap() {
        let path = entry.unwrap().path();
        let (bytes, name) = (fs::read(&path).unwrap(), path.display().to_string());
        let prefix = ["echoed", "silent", "fed", "uploaded"];
        let prefix = prefix.into_iter().find(|prefix| name.contains(&format!("/{prefix}-"))).unwrap();
        *reached.entry(prefix).or_default() += u64::try_from(bytes.len()).unwrap();
        if prefix == "uploaded" {
            assert!(opened.contains(&name), "{name} was written and its opening is not recorded");
            continue;
        }
        let none = Recorded::default();
        let of_file = recorded.get(&name).unwrap_or(&none);
        let size = u64::try_from(bytes.len()).unwrap();
        let of_record = u64::try_from(of_file.input.len()).unwrap() + of_file.masked;
        assert!(size <= of_record, "{name}: {size} bytes reached the host, {of_record} are recorded");
        if of_file.masked == 0 {
            assert!(of_file.input.starts_with(&bytes), "{name}: other bytes than those recorded");
        }
    }
    println!("bytes that reached the host: {reached:?}");
    for prefix in ["echoed", "silent", "fed", "uploaded"] {
        assert!(reached.get(prefix).is_some_and(|bytes| *bytes > 1000), "{prefix}: {reached:?}");
    }
    let masked: u64 = recorded.values().map(|recorded| recorded.masked).sum();
    assert!(masked > 100, "what is not echoed is counted: {masked}");
    load.hosts.bastion.verify().success();
}

/// The server from its start to its death, under load.
fn one_life(load: Arc<Load>, moments: &mut Moments) -> Arc<Load> {
    load.over.store(false, Ordering::Relaxed);
    let people: Vec<_> = [Some(Way::Echoed), Some(Way::Silent), Some(Way::Fed), None]
        .into_iter()
        .map(|way| {
            let load = Arc::clone(&load);
            thread::spawn(move || match way {
                Some(way) => load.send(way),
                None => load.upload(),
            })
        })
        .collect();
    let before = load.kept_bytes();
    wait_until("the people are at work", || load.kept_bytes() > before + 100_000);
    pause(50 + moments.next() % 1000);
    load.hosts.bastion.signal(rustix::process::Signal::KILL);
    load.over.store(true, Ordering::Relaxed);
    for person in people {
        person.join().unwrap();
    }
    // What is on its way within the host arrives.
    let mut last = 0;
    wait_until("the host is done with all", || {
        let now = load.kept_bytes();
        pause(100);
        std::mem::replace(&mut last, now) == now
    });
    let mut load = Arc::into_inner(load).unwrap();
    load.hosts.bastion.kill();
    load.hosts.bastion.boot();
    load.hosts.bastion.verify().success();
    Arc::new(load)
}
