//! Two ways to one host, straight and through the gateway, and what a client sees on each.

use std::fmt;
use std::fs;
use std::io::{Read, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::support::Hosts;
use crate::support::process::{Running, pause};
use crate::support::sshd::login;

/// Longer than any client takes here.
const BOUND: Duration = Duration::from_secs(100);

/// The host's name in the configuration of both ways; on the gateway's, `closed` is a target whose
/// labels open nothing.
pub(crate) const NAME: &str = "host";
pub(crate) const CLOSED: &str = "closed";

/// A behaviour: what is seen of it, as text, must be the same on both ways.
pub(crate) type Case = (&'static str, fn(&Way<'_>) -> String);

/// A way to the host, with a directory of its own.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) through: bool,
    pub(crate) config: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

impl<'a> Way<'a> {
    pub(crate) fn direct(hosts: &'a Hosts) -> Self {
        let path = |name: &str| hosts.sshd.path(name).display().to_string();
        let text = format!(
            "HostName 127.0.0.1\nPort {}\nUser {}\nIdentityFile {}\nStrictHostKeyChecking no\n\
             UserKnownHostsFile /dev/null\n",
            hosts.sshd.port,
            login(),
            path("direct"),
        );
        Self::with_config(hosts, false, &format!("Host {NAME}\n{text}"))
    }

    pub(crate) fn through(hosts: &'a Hosts) -> Self {
        let key = hosts.bastion.home("alice").join("ssh/id_ed25519").display().to_string();
        let entry = |name: &str, target: &str| {
            format!(
                "Host {name}\nHostName localhost\nPort {}\nUser alice+{target}\nIdentityFile {key}\n\
                 CertificateFile {key}-cert.pub\nStrictHostKeyChecking yes\n{}\n",
                hosts.bastion.ssh_port,
                hosts.known_hosts().replace('=', " "),
            )
        };
        let text = entry(NAME, crate::support::sshd::HOST) + &entry(CLOSED, "web-closed");
        Self::with_config(hosts, true, &text)
    }

    fn with_config(hosts: &'a Hosts, through: bool, text: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("way").tempdir().unwrap();
        let config = dir.path().join("config");
        let common = "Host *\nAddressFamily inet\nIdentitiesOnly yes\nBatchMode yes\nLogLevel ERROR\n";
        fs::write(&config, format!("{text}\n{common}")).unwrap();
        Self { hosts, through, config, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, for command lines.
    pub(crate) fn place(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A program of the client's machine, with nothing of the test's surroundings.
    pub(crate) fn program(&self, name: impl AsRef<Path>) -> Command {
        let mut command = Command::new(name.as_ref());
        command
            .env("HOME", self.dir.path())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::null())
            .current_dir(self.dir.path());
        for name in ["SSH_AUTH_SOCK", "DISPLAY", "LANG", "LC_ALL", "LANGUAGE"] {
            command.env_remove(name);
        }
        command
    }

    /// `ssh`, `scp`, `sftp`: what takes `-F`.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = self.program(program);
        command.arg("-F").arg(&self.config);
        command
    }

    pub(crate) fn ssh(&self, arguments: &[&str]) -> Command {
        let mut command = self.client("ssh");
        command.args(arguments);
        command
    }

    /// For programs that start `ssh` themselves.
    pub(crate) fn ssh_line(&self) -> String {
        format!("ssh -F {}", self.config.display())
    }

    /// Runs a command on the host.
    pub(crate) fn run(&self, command: &str) -> Seen {
        seen(&mut self.ssh(&[NAME, command]))
    }
}

/// What a client did.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl From<Output> for Seen {
    fn from(output: Output) -> Self {
        Self { status: output.status.to_string(), stdout: output.stdout, stderr: output.stderr }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, stdout {}, stderr {}", self.status, brief(&self.stdout), brief(&self.stderr))
    }
}

impl Seen {
    /// Ended with `code`, having said exactly this and nothing on standard error.
    #[track_caller]
    pub(crate) fn gives(self, code: i32, stdout: impl AsRef<[u8]>) -> String {
        assert_eq!(self.status, format!("exit status: {code}"), "{self}");
        assert!(self.stdout == stdout.as_ref(), "{self}, not {}", brief(stdout.as_ref()));
        assert!(self.stderr.is_empty(), "{self}");
        self.to_string()
    }

    /// Ended with `code`; on standard error this among other things.
    #[track_caller]
    pub(crate) fn complains(self, code: i32, about: &str) -> String {
        assert_eq!(self.status, format!("exit status: {code}"), "{self}");
        assert!(self.error().contains(about), "`{about}` is not in: {self}");
        self.to_string()
    }

    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.status, "exit status: 0", "{self}");
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Text while it is short, or else size and hash.
pub(crate) fn brief(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= 4096 => format!("{text:?}"),
        _ => format!("{} bytes, SHA-256 {}", bytes.len(), sha256(bytes)),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(crate) fn seen(command: &mut Command) -> Seen {
    finish(command, None)
}

/// With bytes on standard input.
pub(crate) fn fed(command: &mut Command, input: Vec<u8>) -> Seen {
    finish(command.stdin(Stdio::piped()), Some(input))
}

/// Runs to the end, or for [`BOUND`]: a client that hangs is a failure with a name.
fn finish(command: &mut Command, input: Option<Vec<u8>>) -> Seen {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let feeding = child.stdin.take().zip(input).map(|(mut stdin, input)| {
        // One that does not read it all is no fault here.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let (stdout, stderr) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
    let mut child = Running::from(child);
    let deadline = Instant::now() + BOUND;
    while child.is_running() {
        if Instant::now() > deadline {
            drop(child);
            panic!("hangs: {command:?}");
        }
        pause();
    }
    let status = child.child().wait().unwrap().to_string();
    if let Some(feeding) = feeding {
        feeding.join().unwrap();
    }
    Seen { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn gather(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// `size` bytes without a pattern, the same for the same `seed`.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Cases that are shown at the same time.
const AT_ONCE: usize = 4;

/// Shows every case on both ways; fails with all that differ.
#[track_caller]
pub(crate) fn same(hosts: &Hosts, cases: &[Case]) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            match (show(*case, &Way::direct(hosts)), show(*case, &Way::through(hosts))) {
                (Ok(direct), Ok(through)) if direct == through => {}
                (direct, through) => {
                    let failure = format!("{name}\n  direct:  {direct:?}\n  through: {through:?}");
                    failures.lock().unwrap().push(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// What a case gives, or how it fails; its directory has one name for all.
fn show(case: fn(&Way<'_>) -> String, way: &Way<'_>) -> Result<String, String> {
    let directory = way.dir.path().display().to_string();
    let shown = catch_unwind(AssertUnwindSafe(|| case(way).replace(&directory, "DIRECTORY")));
    shown.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "panicked".into(), |text| (*text).into()),
    })
}
