//! The SFTP and scp observers beside the real programs: OpenSSH's `sftp` and `sftp-server`, and two
//! `scp` with each other, joined by pipes that this test copies from one to the other.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use sallyport::crypto::sha256;
use sallyport::ssh::observe::file::{Answered, Asked, Content, FileEvent, FileOp, Outcome};
use sallyport::ssh::observe::program::{ProgramHint, ScpRole};
use sallyport::ssh::observe::rsync::{RsyncObserver, RsyncSeen};
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
        let bytes = buffer.get(..length).unwrap();
        observe(bytes);
        // The other side may have ended.
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Joins a client and a server until both have ended; what the observer told.
fn watch(
    client: (impl Read + Send, impl Write + Send),
    mut server: Child,
    observer: impl Watches,
) -> Vec<FileEvent> {
    let state = Mutex::new((observer, Vec::new()));
    let (server_in, server_out) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy(client.0, server_in, |bytes| {
                let (observer, events) = &mut *state.lock().unwrap();
                observer.client(bytes, events);
            });
        });
        copy(server_out, client.1, |bytes| {
            let (observer, events) = &mut *state.lock().unwrap();
            observer.server(bytes, events);
        });
    });
    server.wait().unwrap();
    let (observer, mut events) = state.into_inner().unwrap();
    observer.finish(&mut events);
    let asked: Vec<u64> = asked(&events).iter().map(|event| event.n).collect();
    let mut ended: Vec<u64> = answered(&events).iter().map(|event| event.n).collect();
    ended.sort_unstable();
    assert_eq!(asked, ended, "{events:?}");
    let lost = events.iter().any(|event| matches!(event, FileEvent::Lost { .. }));
    assert!(!lost, "{events:?}");
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

/// A program that hands both its directions to a port on which this test listens. `sftp` runs it
/// in place of a server, `rsync` in place of `ssh`; what it is asked to run is left in `arguments`.
struct Relay {
    listener: TcpListener,
    command: String,
}

impl Relay {
    fn new(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (script, arguments) = (directory.join("relay"), directory.join("arguments"));
        let text = format!(
            "printf '%s\\n' \"$*\" >{}\nexec 3<>/dev/tcp/127.0.0.1/{port}\nexec 4<&0\ncat <&3 &\ncat <&4 >&3 &\nwait -n\nkill $(jobs -p)\n",
            arguments.display()
        );
        std::fs::write(&script, text).unwrap();
        Self { listener, command: format!("/bin/bash {}", script.display()) }
    }

    fn accept(&self) -> (TcpStream, Writing) {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (stream.try_clone().unwrap(), Writing(stream))
    }
}

/// The direction that ends when this is dropped.
struct Writing(TcpStream);

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        drop(self.0.shutdown(Shutdown::Write));
    }
}

/// Two directories, and what passes between them.
struct Transfers {
    directory: tempfile::TempDir,
}

impl Transfers {
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

    /// Runs commands of `sftp`; one that begins with `-` may fail.
    fn sftp(&self, options: &[&str], commands: &str) -> Vec<FileEvent> {
        let relay = Relay::new(self.directory.path());
        let batch = self.directory.path().join("commands");
        std::fs::write(&batch, commands).unwrap();
        let sftp = Command::new("sftp")
            .args(options)
            .arg("-b")
            .arg(batch)
            .args(["-D", &relay.command])
            .current_dir(self.here(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let server = piped(sftp_server(), &["-e"], &self.there(""));
        let events = watch(relay.accept(), server, SftpObserver::new(Limits::default()));
        let ended = sftp.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        events
    }

    /// Two `scp` with each other: one sends as the far side of a download would, one receives as the
    /// far side of an upload would. `role` is that of the one that is the target.
    fn scp(&self, role: ScpRole, options: &[&str], from: &str, to: &str) -> Vec<FileEvent> {
        let source = piped("scp", &[options, &["-f", from]].concat(), self.directory.path());
        let sink = piped("scp", &[options, &["-t", to]].concat(), self.directory.path());
        let (mut client, server) = match role {
            ScpRole::Sink => (source, sink),
            ScpRole::Source => (sink, source),
        };
        let ends = (client.stdout.take().unwrap(), client.stdin.take().unwrap());
        let events = watch(ends, server, ScpObserver::new(role));
        client.wait().unwrap();
        events
    }
}

/// Bytes that do not repeat.
fn content(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

fn hashed(bytes: &[u8], from: u64) -> Content {
    Content { bytes: bytes.len() as u64, sha256: Some(sha256(&[bytes])), from }
}

/// Operations with the name of their path, as far as they are told.
fn operations(events: &[FileEvent]) -> Vec<(&'static str, String, bool)> {
    let last = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
    };
    answered(events)
        .iter()
        .map(|told| (told.op.name(), last(&told.path), told.outcome == Outcome::Done))
        .collect()
}

fn operation(name: &'static str, path: &str, done: bool) -> (&'static str, String, bool) {
    (name, path.to_owned(), done)
}

#[test]
fn files_put_and_got_with_sftp_have_their_hashes() {
    let transfers = Transfers::new();
    let (large, small) = (content(10 << 20), content(7));
    std::fs::write(transfers.here("large"), &large).unwrap();
    std::fs::write(transfers.there("small"), &small).unwrap();
    std::fs::write(transfers.here("empty"), b"").unwrap();
    let events =
        transfers.sftp(&[], "put large up\nput empty nothing\nget up down\nget small less\n-get missing\n");
    assert_eq!(std::fs::read(transfers.here("down")).unwrap(), large);
    let told = answered(&events);
    let files: Vec<_> = told.iter().filter(|told| matches!(told.op, FileOp::Open(_))).collect();
    let content: Vec<_> = files.iter().map(|file| (file.written, file.read)).collect();
    let expected = [
        (Some(hashed(&large, 0)), None),
        (Some(hashed(b"", 0)), None),
        (None, Some(hashed(&large, 0))),
        (None, Some(hashed(&small, 0))),
    ];
    assert_eq!(content, expected);
    let flags: Vec<_> = files
        .iter()
        .map(|file| match &file.op {
            FileOp::Open(flags) => (flags.reads(), flags.writes() && flags.creates() && flags.truncates()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(flags, [(false, true), (false, true), (true, false), (true, false)]);
}

#[test]
fn small_requests_and_many_in_flight_change_nothing() {
    let transfers = Transfers::new();
    let whole = content(1 << 20);
    std::fs::write(transfers.here("a"), &whole).unwrap();
    for options in [["-B", "1024", "-R", "256"], ["-B", "200000", "-R", "1"]] {
        let events = transfers.sftp(&options, "put a b\nget b c\n");
        let moved: Vec<_> = answered(&events).iter().filter_map(|file| file.written.or(file.read)).collect();
        assert_eq!(moved, [hashed(&whole, 0), hashed(&whole, 0)]);
    }
}

#[test]
fn resumed_transfers_say_where_they_began() {
    let transfers = Transfers::new();
    let whole = content(300_000);
    std::fs::write(transfers.here("up"), &whole).unwrap();
    std::fs::write(transfers.there("up"), &whole[..100_000]).unwrap();
    std::fs::write(transfers.there("down"), &whole).unwrap();
    std::fs::write(transfers.here("down"), &whole[..70_001]).unwrap();
    let events = transfers.sftp(&[], "reput up up\nreget down down\n");
    assert_eq!(std::fs::read(transfers.there("up")).unwrap(), whole);
    assert_eq!(std::fs::read(transfers.here("down")).unwrap(), whole);
    let files = answered(&events);
    let moved: Vec<_> = files.iter().filter_map(|file| file.written.or(file.read)).collect();
    let expected = [hashed(&whole[100_000..], 100_000), hashed(&whole[70_001..], 70_001)];
    assert_eq!(moved, expected);
}

#[test]
fn every_change_made_with_sftp_is_told() {
    let transfers = Transfers::new();
    for name in ["a", "b", "c"] {
        std::fs::write(transfers.there(name), name).unwrap();
    }
    let events = transfers.sftp(
        &[],
        "rename a a2\nrm b\nmkdir d\nln -s c link\nln c hard\nchmod 600 c\nls d\n-rm missing\nrmdir d\n-mkdir c\n",
    );
    let expected = [
        operation("posix-rename", "a", true),
        operation("remove", "b", true),
        operation("mkdir", "d", true),
        operation("symlink", "link", true),
        operation("hardlink", "c", true),
        operation("setstat", "c", true),
        operation("list", "d", true),
        operation("rmdir", "d", true),
        operation("mkdir", "c", false),
    ];
    let told: Vec<_> = operations(&events).into_iter().filter(|told| expected.contains(told)).collect();
    assert_eq!(told, expected, "{:?}", operations(&events));
    let asked = asked(&events);
    let of = |name: &str| asked.iter().find(|asked| asked.op.name() == name).unwrap();
    assert!(of("posix-rename").to.as_ref().unwrap().ends_with(b"/a2"));
    assert_eq!(of("symlink").to.as_deref(), Some(&b"c"[..]));
    assert_eq!(std::fs::read_link(transfers.there("link")).unwrap(), Path::new("c"));
    assert_eq!(of("setstat").attributes.mode.map(|mode| mode & 0o777), Some(0o600));
}

#[test]
fn a_recursive_put_that_keeps_times_is_told_file_by_file() {
    let transfers = Transfers::new();
    std::fs::create_dir_all(transfers.here("tree/below")).unwrap();
    for name in ["tree/one", "tree/below/two"] {
        std::fs::write(transfers.here(name), name).unwrap();
    }
    let events = transfers.sftp(&["-p"], "put -r tree\n");
    let written: Vec<_> = answered(&events).iter().filter_map(|file| file.written).collect();
    assert_eq!(written.len(), 2);
    assert!(written.contains(&hashed(b"tree/below/two", 0)));
    let set = asked(&events).into_iter().filter(|asked| asked.op == FileOp::Fsetstat).count();
    assert!(set >= 2, "{:?}", operations(&events));
}

#[test]
fn trees_copied_with_scp_are_told_file_by_file() {
    for role in [ScpRole::Sink, ScpRole::Source] {
        let transfers = Transfers::new();
        let large = content(3 << 20);
        std::fs::create_dir_all(transfers.here("tree/below")).unwrap();
        std::fs::write(transfers.here("tree/large file"), &large).unwrap();
        std::fs::write(transfers.here("tree/below/empty"), b"").unwrap();
        let events = transfers.scp(role, &["-r", "-p"], "here/tree", "there");
        assert_eq!(std::fs::read(transfers.there("tree/large file")).unwrap(), large);
        let mut paths: Vec<_> = asked(&events).iter().map(|it| (it.op.name(), it.path.to_vec())).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                ("scp-directory", b"tree".to_vec()),
                ("scp-directory", b"tree/below".to_vec()),
                ("scp-file", b"tree/below/empty".to_vec()),
                ("scp-file", b"tree/large file".to_vec()),
            ]
        );
        assert!(asked(&events).iter().all(|asked| asked.attributes.times.is_some()));
        let answers = answered(&events);
        assert!(answers.iter().all(|told| told.outcome == Outcome::Done));
        let file = answers.iter().find(|told| &told.path[..] == b"tree/large file").unwrap();
        let moved = if role == ScpRole::Sink { file.written } else { file.read };
        assert_eq!(moved, Some(hashed(&large, 0)));
    }
}

#[test]
fn what_scp_cannot_write_or_read_is_told_as_failed() {
    let transfers = Transfers::new();
    std::fs::write(transfers.here("a"), b"a").unwrap();
    std::fs::create_dir_all(transfers.there("a/in the way")).unwrap();
    let events = transfers.scp(ScpRole::Sink, &["-d"], "here/a", "missing");
    assert!(answered(&events).iter().all(|told| told.outcome == Outcome::Unknown), "{events:?}");
    let events = transfers.scp(ScpRole::Sink, &[], "here/a", "there");
    let [told] = answered(&events)[..] else { panic!("{events:?}") };
    let Outcome::Failed { code: 1, message } = &told.outcome else { panic!("{told:?}") };
    assert!(message.ends_with(b"Is a directory"), "{message:?}");
    let events = transfers.scp(ScpRole::Source, &[], "here/missing", "there");
    let [told] = answered(&events)[..] else { panic!("{events:?}") };
    let Outcome::Failed { code: 1, message } = &told.outcome else { panic!("{told:?}") };
    assert!(message.ends_with(b"No such file or directory"), "{message:?}");
}

#[test]
fn rsync_is_recognised() {
    let transfers = Transfers::new();
    std::fs::write(transfers.here("a"), content(100_000)).unwrap();
    let relay = Relay::new(transfers.directory.path());
    let rsync = Command::new("rsync")
        .args(["-rz", "-e", &relay.command, "./", "target:there"])
        .current_dir(transfers.here(""))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let (from, to) = relay.accept();
    let asked = std::fs::read_to_string(transfers.directory.path().join("arguments")).unwrap();
    let command = asked.trim_end().strip_prefix("target ").unwrap();
    let hint = ProgramHint::of(command.as_bytes());
    assert_eq!(hint, ProgramHint::Rsync { sender: false, paths: vec![b"there".to_vec()] }, "{command}");
    let mut server = piped("sh", &["-c", command], transfers.directory.path());
    let (server_in, server_out) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    let state = Mutex::new((RsyncObserver::new(), Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy(from, server_in, |bytes| {
                let (observer, seen) = &mut *state.lock().unwrap();
                seen.extend(observer.client(bytes));
            });
        });
        copy(server_out, to, |bytes| {
            let (observer, seen) = &mut *state.lock().unwrap();
            seen.extend(observer.server(bytes));
        });
    });
    server.wait().unwrap();
    assert!(rsync.wait_with_output().unwrap().status.success());
    assert_eq!(std::fs::read(transfers.there("a")).unwrap(), content(100_000));
    let (_, seen) = state.into_inner().unwrap();
    assert!(matches!(seen[..], [RsyncSeen { version: 27..=40 }]), "{seen:?}");
}
