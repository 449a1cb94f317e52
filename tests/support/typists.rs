//! People at a host over SSH who never stop, whatever happens to the gateway: they type into terminals whose program
//! keeps every byte, feed a command, and upload files; and what the record has of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use super::Hosts;
use super::process::{Running, pause_for, wait_until};
use super::sshd::HOST;

/// How each way's files on the host begin.
const PREFIXES: [&str; 4] = ["echoed", "silent", "fed", "uploaded"];
const UPLOAD_BYTES: usize = 100_000;
/// What each way brings to the host at least, before they end: less proves nothing.
const LEAST_BYTES: u64 = 1000;

fn pause(milliseconds: u64) {
    pause_for(Duration::from_millis(milliseconds));
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

/// How hard they work.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Milliseconds between words that are typed.
    pub rest: u64,
    /// How many words a command is fed at most.
    pub words: u64,
    /// How often a file is uploaded in one go.
    pub uploads: usize,
}

/// How to get through the gateway, and where on the host the bytes go.
struct Shared {
    arguments: Vec<OsString>,
    home: PathBuf,
    kept: PathBuf,
    effort: Effort,
    next: AtomicU32,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn file(&self, prefix: &str) -> PathBuf {
        self.kept.join(format!("{prefix}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn through(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.arguments).env("HOME", &self.home).env_remove("SSH_AUTH_SOCK");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Connects, sends numbered words until the connection breaks, and again.
    fn send(&self, way: Way) {
        while !self.is_over() {
            let file = self.file(way.prefix());
            let mut ssh = self.through("ssh");
            if way != Way::Fed {
                ssh.arg("-tt");
            }
            ssh.args(["localhost", &way.command(&file)]).stdin(Stdio::piped());
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
                pause(if way == Way::Fed { 0 } else { self.effort.rest });
                // The head of a stream is kept, no more of it.
                if way == Way::Fed && word == self.effort.words {
                    break;
                }
            }
            pause(5);
        }
    }

    /// One upload after another.
    fn upload(&self) {
        let (source, batch) = (self.home.join("upload"), self.home.join("batch"));
        fs::write(&source, vec![b'u'; UPLOAD_BYTES]).unwrap();
        while !self.is_over() {
            let line = format!("put {} {}\n", source.display(), self.file("uploaded").display());
            fs::write(&batch, line.repeat(self.effort.uploads)).unwrap();
            let mut sftp = self.through("sftp");
            sftp.arg("-b").arg(&batch).arg("localhost");
            let _broken = Running::start(&mut sftp).child().wait();
            pause(5);
        }
    }
}

/// The people at work.
pub struct Typists {
    shared: Arc<Shared>,
    people: Vec<JoinHandle<()>>,
}

impl Typists {
    /// Alice, four times.
    pub fn start(hosts: &Hosts, effort: Effort) -> Self {
        let home = hosts.bastion.scratch().to_owned();
        let kept = home.join("kept");
        fs::create_dir(&kept).unwrap();
        let arguments = hosts.through("ssh", "alice", HOST).get_args().map(ToOwned::to_owned).collect();
        let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { arguments, home, kept, effort, next, over });
        let start = |way: Option<Way>| {
            let shared = shared.clone();
            std::thread::spawn(move || match way {
                Some(way) => shared.send(way),
                None => shared.upload(),
            })
        };
        let people = [Some(Way::Echoed), Some(Way::Silent), Some(Way::Fed), None].map(start).into();
        Self { shared, people }
    }

    /// How many bytes have reached the host.
    pub fn kept_bytes(&self) -> u64 {
        kept(&self.shared.kept, "")
    }

    /// Waits until so many more bytes have reached the host.
    #[track_caller]
    pub fn are_at_work(&self, bytes: u64) {
        let before = self.kept_bytes();
        wait_until("the people are at work", || self.kept_bytes() > before + bytes);
    }

    /// Ends them when each way has brought some bytes to the host, and waits for what is on its way within it.
    pub fn stop(&mut self) {
        for prefix in PREFIXES {
            wait_until("every way was used", || kept(&self.shared.kept, prefix) > LEAST_BYTES);
        }
        self.shared.over.store(true, Ordering::Relaxed);
        for person in self.people.drain(..) {
            person.join().unwrap();
        }
        let mut last = 0;
        wait_until("the host is done with all", || {
            let now = self.kept_bytes();
            pause(100);
            std::mem::replace(&mut last, now) == now
        });
    }
}

/// How many bytes the files have whose names begin so.
fn kept(directory: &Path, prefix: &str) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.metadata().map_or(0, |file| file.len()))
        .sum()
}

/// What the record has of one channel's input.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    masked: u64,
}

/// What a log says, gathered record by record.
#[derive(Debug, Default)]
pub struct Typed {
    /// The file that a channel's program writes, by recording and channel.
    channels: BTreeMap<(String, String), String>,
    inputs: BTreeMap<String, Input>,
    opened: BTreeSet<String>,
}

impl Typed {
    pub fn take(&mut self, record: &Value) {
        let channel = || (record["rec"].to_string(), record["ch"].to_string());
        match record["kind"].as_str().unwrap() {
            "program" => {
                if let Some((_, file)) = record["txt"].as_str().unwrap_or_default().split_once('>') {
                    self.channels.insert(channel(), file.to_owned());
                }
            }
            "input" => {
                let Some(file) = self.channels.get(&channel()) else { return };
                let input = self.inputs.entry(file.clone()).or_default();
                input.bytes.extend_from_slice(&data(record));
                input.masked += record["masked"].as_u64().unwrap_or_default();
            }
            "file" if record["phase"] == "asked" && record["op"] == "open" => {
                self.opened.insert(record["path"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }

    /// Everything that reached the host is on record; every way was used.
    pub fn has_all_of(&self, people: &Typists) {
        let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in fs::read_dir(&people.shared.kept).unwrap() {
            let path = entry.unwrap().path();
            let (bytes, name) = (fs::read(&path).unwrap(), path.display().to_string());
            let prefix = PREFIXES.into_iter().find(|prefix| name.contains(&format!("/{prefix}-"))).unwrap();
            let size = u64::try_from(bytes.len()).unwrap();
            *reached.entry(prefix).or_default() += size;
            if prefix == "uploaded" {
                assert!(self.opened.contains(&name), "{name} was written and its opening is not recorded");
                continue;
            }
            let none = Input::default();
            let input = self.inputs.get(&name).unwrap_or(&none);
            let recorded = u64::try_from(input.bytes.len()).unwrap() + input.masked;
            assert!(size <= recorded, "{name}: {size} bytes reached the host, {recorded} are recorded");
            if input.masked == 0 {
                assert!(input.bytes.starts_with(&bytes), "{name}: other bytes than those recorded");
            }
        }
        println!("bytes that reached the host: {reached:?}");
        for prefix in PREFIXES {
            assert!(reached.get(prefix).is_some_and(|bytes| *bytes > LEAST_BYTES), "{prefix}: {reached:?}");
        }
        let masked: u64 = self.inputs.values().map(|input| input.masked).sum();
        assert!(masked > 100, "what is not echoed is counted: {masked}");
    }
}

fn data(record: &Value) -> Vec<u8> {
    match (record["txt"].as_str(), record["b64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => BASE64.decode(text.as_bytes()).unwrap(),
        (None, None) => Vec::new(),
    }
}
