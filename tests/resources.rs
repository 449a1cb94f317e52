//! What strangers and crowds may take: they keep nobody out, and what they took comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and reports what it measured"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::process::PATIENCE;
use support::wire::{self, Wire};
use support::{Bastion, Options, Postgres, wait_until};

fn start(settings: Vec<(&'static str, String)>) -> (Postgres, Bastion) {
    let postgres = Postgres::start();
    let options = Options { settings, ..Options::default() };
    let bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    (postgres, bastion)
}

fn descriptors(bastion: &Bastion) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", bastion.pid())).unwrap().count()
}

#[test]
fn half_open_connections_keep_nobody_out() {
    let (_postgres, bastion) = start(vec![("postgres", "handshake_timeout = \"60s\"".into())]);
    let (mut inside, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let before = descriptors(&bastion);
    let mut silent = Vec::new();
    let mut in_tls = Vec::new();
    for n in 0..200 {
        if n % 4 == 0 {
            in_tls.push(Wire::connect(&bastion));
        } else {
            let mut stream = wire::tcp(&bastion);
            stream.write_all(&wire::SSL_REQUEST[..n % 4]).unwrap();
            silent.push(stream);
        }
    }
    // One address has a quarter of the 400 slots.
    wait_until("the oldest are closed", || descriptors(&bastion) <= before + 100);
    let mut oldest = silent.remove(0);
    assert_eq!(oldest.read(&mut [0]).unwrap_or(0), 0);
    for _ in 0..3 {
        assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 'in'").success().stdout, "in\n");
    }
    inside.send(&wire::query("SELECT 'still in'"));
    assert!(inside.until(b'D').ends_with(b"still in"));
    assert!(bastion.log().contains("too many connections are still authenticating"));
    drop((silent, in_tls));
    wait_until("they are forgotten", || descriptors(&bastion) <= before);
}

#[test]
fn a_client_for_whom_there_is_no_place_is_told_so() {
    let (_postgres, bastion) = start(vec![("postgres", "max_connections = 2".into())]);
    let (first, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut second, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let mut strangers: Vec<TcpStream> = (0..10).map(|_| wire::tcp(&bastion)).collect();
    let mut third = Wire::connect(&bastion);
    let refused = third.log_in(&[("user", "alice+ledger-dev")], &bastion.token("alice")).unwrap_err();
    let (sqlstate, message, hint) = wire::error(Some(refused));
    assert_eq!(sqlstate, "53300");
    assert_eq!(message, "the gateway carries its limit of 2 connections");
    assert_eq!(hint, "Try again shortly.");
    third.is_closed();
    let refused = bastion.events("connection_refused").pop().unwrap();
    assert_eq!(refused["detail"]["code"], "too_many_connections", "{refused}");
    assert_eq!(refused["principal"]["name"], "alice");

    // Strangers take no place of those who are known.
    strangers.truncate(5);
    drop(first);
    wait_until("a place is free", || bastion.psql("alice", "ledger-dev", "SELECT 1").status.success());
    second.send(&wire::query("SELECT 'served'"));
    assert!(second.until(b'D').ends_with(b"served"));
}

/// A connection to the API that is kept for many calls.
struct Caller(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Caller {
    fn connect(bastion: &Bastion) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", bastion.api_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = wire::tls(bastion, &["http/1.1"]);
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        Self(rustls::StreamOwned::new(tls, stream))
    }

    /// The status of a call; `None` once the server has closed.
    fn get(&mut self, path: &str, token: Option<&str>) -> Option<u16> {
        let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{bearer}\r\n");
        self.0.write_all(request.as_bytes()).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        self.0.read_exact(&mut vec![0; length.parse().unwrap()]).ok()?;
        Some(head.split(' ').nth(1).unwrap().parse().unwrap())
    }
}

#[test]
fn strangers_keep_nobody_from_the_api_and_may_not_stay() {
    let (_postgres, bastion) = start(Vec::new());
    let token = bastion.token("alice");
    let mut known = Caller::connect(&bastion);
    assert_eq!(known.get("/whoami", Some(&token)), Some(200));
    // More than the slots that one address may hold.
    let mut crowd: Vec<Caller> = (0..100).map(|_| Caller::connect(&bastion)).collect();
    assert_eq!(crowd[0].get("/healthz", None), None, "the oldest went");
    let begun = Instant::now();
    let mut stranger = Caller::connect(&bastion);
    assert_eq!(stranger.get("/whoami", None), Some(401));
    assert_eq!(bastion.api(Some("alice"), "GET", "/whoami", None).0, 200);
    drop(crowd);
    // However busy it is with what is public.
    wait_until("the stranger has to go", || {
        assert_eq!(known.get("/healthz", None), Some(200), "who is known stays");
        stranger.get("/healthz", None).is_none()
    });
    assert!(begun.elapsed() > Duration::from_secs(12), "it had its time: {:?}", begun.elapsed());
    assert_eq!(known.get("/whoami", Some(&token)), Some(200));
}

#[test]
fn three_hundred_connections_leave_no_descriptor_behind() {
    let (_postgres, bastion) = start(Vec::new());
    // A third each: to the end, within TLS, in the middle of the login.
    let connect = |times: usize| {
        for n in 0..times {
            match n % 3 {
                0 => {
                    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
                    wire.send(&wire::message(b'X', b""));
                    wire.is_closed();
                }
                1 => Wire::connect(&bastion).cut(),
                _ => {
                    let mut wire = Wire::connect(&bastion);
                    wire.send(&wire::startup(wire::VERSION_3_0, &[("user", "alice+ledger-dev")]));
                    assert_eq!(wire.receive().unwrap().0, b'R');
                    wire.cut();
                }
            }
        }
    };
    connect(3);
    let live =
        || bastion.api(Some("erin"), "GET", "/pam/connections", None).1["items"] == serde_json::json!([]);
    wait_until("nothing is live", live);
    let before = descriptors(&bastion);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| connect(100));
        }
    });
    wait_until("nothing is live", live);
    wait_until("every descriptor is closed", || descriptors(&bastion) <= before);
    assert_eq!(bastion.events("connection_opened").len(), 1 + 3 * 34);
}

#[test]
fn an_idle_connection_costs_little_memory() {
    const CONNECTIONS: u64 = 50;
    let (_postgres, bastion) = start(Vec::new());
    drop(Wire::session(&bastion, "alice", "ledger-dev"));
    let before = bastion.resident_kib();
    let idle: Vec<Wire> =
        (0..CONNECTIONS).map(|_| Wire::session(&bastion, "alice", "ledger-dev").0).collect();
    let each = bastion.resident_kib().saturating_sub(before) / CONNECTIONS;
    eprintln!("an idle connection holds {each} KiB (unoptimised build)");
    assert!(each < 512, "{each} KiB");
    drop(idle);
}
