//! Revocation at the moments at which a connection is neither there nor not there.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::sshd::HOST;
use crate::support::{Hosts, Options, Shell, wait_until};

/// Stands between the gateway and the host, and passes on only so many bytes of what the host says.
struct Relay {
    port: u16,
    passed: Arc<AtomicUsize>,
    /// Connections that the gateway has made and not closed.
    open: Arc<AtomicUsize>,
}

impl Relay {
    fn start(to: u16, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (passed, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let relay = Self { port, passed: Arc::clone(&passed), open: Arc::clone(&open) };
        thread::spawn(move || {
            for gateway in listener.incoming() {
                let (gateway, host) = (gateway.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
                open.fetch_add(1, Ordering::SeqCst);
                let (from, into) = (host.try_clone().unwrap(), gateway.try_clone().unwrap());
                let passed = Arc::clone(&passed);
                thread::spawn(move || pass(from, into, limit, &passed));
                let open = Arc::clone(&open);
                thread::spawn(move || {
                    pass(gateway, host, usize::MAX, &AtomicUsize::new(0));
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        relay
    }
}

/// Passes on `limit` bytes, and then nothing more without closing; ends when either side does.
fn pass(mut from: TcpStream, mut into: TcpStream, limit: usize, passed: &AtomicUsize) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let room = limit - passed.load(Ordering::SeqCst);
        let now = read.min(room);
        if into.write_all(&buffer[..now]).is_err() {
            return;
        }
        passed.fetch_add(now, Ordering::SeqCst);
    }
}

#[test]
fn a_revocation_while_the_target_is_dialled_or_convinced_ends_the_dial() {
    let mut hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    // Before its version, amid its key exchange, and after that.
    for limit in [0, 100, 1000, 1300, 1700, 2600] {
        let relay = Relay::start(hosts.sshd.port, limit);
        let target = hosts.sshd.target(HOST, "dev", "");
        let target = target.replace(&hosts.sshd.port.to_string(), &relay.port.to_string());
        hosts.bastion.set_targets(&target);
        let before = hosts.bastion.events("configuration_reloaded").len();
        hosts.bastion.signal(rustix::process::Signal::HUP);
        wait_until("it is read", || hosts.bastion.events("configuration_reloaded").len() > before);

        let session = hosts.grant().session;
        let mut ssh = hosts.through("ssh", "alice", HOST);
        let mut ssh = Shell::start(ssh.args(["localhost", "exec sleep 1000"]));
        wait_until("the target is dialled", || {
            relay.open.load(Ordering::SeqCst) == 1 && relay.passed.load(Ordering::SeqCst) == limit
        });
        let answer = crate::revoke(&hosts, &session);
        assert_eq!(answer["cuts"][0]["ended"], true, "{limit}: {answer}");
        assert_eq!(ssh.ends(), Some(255), "{limit}: {}", ssh.err());
        ssh.says("sallyport: your session was revoked by erin: incident 42");
        wait_until("the dial is over", || relay.open.load(Ordering::SeqCst) == 0);
        let connection = answer["cuts"][0]["connection"].as_str().unwrap();
        let reason = json!({ "end": "revoked", "by": "erin", "why": "incident 42" });
        assert_eq!(crate::end_of(&hosts.bastion, connection), reason);
        assert_eq!(crate::sockets(&hosts.bastion), 0);
    }
    crate::credentials_are_destroyed(&hosts.bastion);
    crate::all_is_well(&hosts.bastion);
}

#[test]
fn a_revocation_at_any_moment_of_a_connections_beginning_leaves_nothing() {
    const MOMENTS: u64 = 16;
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    for moment in 0..MOMENTS {
        let session = hosts.grant().session;
        let mut ssh = hosts.through("ssh", "alice", HOST);
        let mut ssh = Shell::start(ssh.args(["localhost", "while :; do echo tick; sleep 0.01; done"]));
        moment_passes(moment);
        crate::revoke(&hosts, &session);
        let status = ssh.ends();
        assert!(matches!(status, Some(77 | 255)), "{moment}: {status:?} {}", ssh.err());
        ssh.says("revoked by erin: incident 42");
        assert_eq!(crate::live(&hosts.bastion), [""; 0], "{moment}");
        wait_until("the gateway holds no socket", || crate::sockets(&hosts.bastion) == 0);
    }
    crate::all_is_well(&hosts.bastion);
}

#[expect(clippy::disallowed_methods, reason = "which moment it is, is what is tried")]
fn moment_passes(moment: u64) {
    thread::sleep(Duration::from_millis(12 * moment));
}
