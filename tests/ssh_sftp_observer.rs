//! The SFTP and scp observers beside the real programs: OpenSSH's `sftp` and `sftp-server`, and two
//! `scp` with each other, joined by pipes that this test copies from one to the other.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sallyport::crypto::sha256;
use sallyport::ssh::observe::file::{Answered, Asked, Content, FileEvent, FileOp, Outcome};
use sallyport::ssh::observe::program::ScpRole;
use sallyport::ssh::observe::scp::ScpObserver;
use sallyport::ssh::observe::sftp::{Limits, SftpObserver};

const SFTP_SERVERS: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];

/// What watches both directions.
trait Watches: Send + 'static {
    fn client(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>);
    fn server(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>);
    fn finish(self, events: &mut Vec<FileEvent>);
}

impl Watches for SftpObserver {
    fn client(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        Self::client(self, bytes, events);
    }
    fn server(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        Self::server(self, bytes, events);
    }
    fn finish(self, events: &mut Vec<FileEvent>) {
        Self::finish(self, events);
    }
}

impl Watches for ScpObserver {
    fn client(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        Self::client(self, bytes, events);
    }
    fn server(&mut self, bytes: &[u8], events: &mut Vec<FileEvent>) {
        Self::server(self, bytes, events);
    }
    fn finish(self, events: &mut Vec<FileEvent>) {
        Self::finish(self, events);
    }
}

/// Copies from one pipe to another, observing before each write.
fn copy(mut from: impl Read, mut to: impl Write, mut observe: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 40_000];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if length == 0 {
            return;
        }
        observe(&buffer[..length]);
        // The other side may have ended.
        if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Joins a client and a server until both have ended; what the observer told.
fn watch(mut client: Child, mut server: Child, observer: impl Watches) -> Vec<FileEvent> {
    let state = Arc::new(Mutex::new((observer, Vec::new())));
    let ends = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let (server_in, server_out) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    std::thread::scope(|scope| {
        let up = Arc::clone(&state);
        scope.spawn(move || {
            copy(ends.1, server_in, |bytes| {
                let (observer, events) = &mut *up.lock().unwrap();
                observer.client(bytes, events);
            });
        });
        let down = Arc::clone(&state);
        scope.spawn(move || {
            copy(server_out, ends.0, |bytes| {
                let (observer, events) = &mut *down.lock().unwrap();
                observer.server(bytes, events);
            });
        });
    });
    client.wait().unwrap();
    server.wait().unwrap();
    let state = Arc::into_inner(state).unwrap().into_inner().unwrap();
    let (observer, mut events) = state;
    observer.finish(&mut events);
    let asked: Vec<u64> = asked(&events).iter().map(|event| event.n).collect();
    let mut ended: Vec<u64> = answered(&events).iter().map(|event| event.n).collect();
    ended.sort_unstable();
    assert_eq!(asked, ended, "{events:?}");
    events
}

fn asked(events: &[FileEvent]) -> Vec<&Asked> {
    events.iter().filter_map(|event| if let FileEvent::Asked(it) = event { Some(it) } else { None }).collect()
}

fn answered(events: &[FileEvent]) -> Vec<&Answered> {
    events
        .iter()
        .filter_map(|event| if let FileEvent::Answered(it) = event { Some(it) } else { None })
        .collect()
}

fn piped(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str], directory: &Path) -> Child {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn sftp_server() -> PathBuf {
    let found = SFTP_SERVERS.iter().map(Path::new).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("install openssh-sftp-server")).to_owned()
}

/// `sftp` reads its commands from a file, and speaks with a "server" that is a pair of `cat`: its
/// two ends are the named pipes that this test reads and writes.
struct Sftp {
    directory: tempfile::TempDir,
}

impl Sftp {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("here")).unwrap();
        std::fs::create_dir(directory.path().join("there")).unwrap();
        Self { directory }
    }

    fn here(&self, name: &str) -> PathBuf {
        self.directory.path().join("here").join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.directory.path().join("there").join(name)
    }

    /// Runs commands; one that begins with `-` may fail.
    fn run(&self, options: &[&str], commands: &str) -> Vec<FileEvent> {
        let at = |name: &str| self.directory.path().join(name);
        std::fs::write(at("commands"), commands).unwrap();
        std::fs::write(at("relay"), "#!/bin/sh\ncat up.out &\ncat > up.in\n").unwrap();
        for pipe in ["up.in", "up.out"] {
            drop(std::fs::remove_file(at(pipe)));
            assert!(Command::new("mkfifo").arg(at(pipe)).status().unwrap().success());
        }
        // `-D` runs a program in place of a connection: it hands both directions to the named pipes.
        let (up_in, up_out) = (at("up.in"), at("up.out"));
        let relay = format!("/bin/sh -c \"cat '{}' & exec cat > '{}'\"", up_out.display(), up_in.display());
        std::fs::write(at("relay"), format!("#!/bin/sh\n{relay}\n")).unwrap();
        let server = piped(sftp_server(), &["-e"], &self.directory.path().join("there"));
        let mut sftp = Command::new("sftp")
            .args(options)
            .arg("-b")
            .arg(at("commands"))
            .arg("-D")
            .arg(format!("/bin/sh {}", at("relay").display()))
            .current_dir(self.directory.path().join("here"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let client = Command::new("sh")
            .args(["-c", "cat up.in & exec cat > up.out"])
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let events = watch(client, server, SftpObserver::new(Limits::default()));
        let mut said = String::new();
        sftp.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(sftp.wait().unwrap().success(), "{said}");
        let lost = events.iter().any(|event| matches!(event, FileEvent::Lost { .. }));
        assert!(!lost, "{events:?}");
        events
    }
}
