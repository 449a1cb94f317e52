//! What connections cost, and that those who hold them open without authenticating keep nobody out.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use support::client::{Client, Clients};
use support::{Bastion, Postgres, wait_until};
use tokio::task::JoinSet;

/// `SSLRequest` (PostgreSQL documentation, section 54.7).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Connections that have run a statement, a few at a time.
fn connect(clients: &Clients, count: usize) -> Vec<Client> {
    const AT_ONCE: usize = 4;
    let mut connected = Vec::new();
    while connected.len() < count {
        let batch = AT_ONCE.min(count - connected.len());
        connected.extend(clients.block_on(async {
            let mut connecting = JoinSet::new();
            for _ in 0..batch {
                let connect = clients.racer();
                connecting.spawn(async move {
                    let client = connect.await.unwrap();
                    client.sql.simple_query("SELECT 1").await.unwrap();
                    client
                });
            }
            connecting.join_all().await
        }));
    }
    connected
}

#[test]
fn an_idle_connection_is_small() {
    const COUNT: u64 = 40;
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let clients = Clients::new(&bastion, "alice", "ledger-dev");
    // What is there once whatever the number of connections is there before anything is measured.
    drop(connect(&clients, 8));
    let before = bastion.resident_kib();
    let idle = connect(&clients, usize::try_from(COUNT).unwrap());
    let after = bastion.resident_kib();
    let each = after.saturating_sub(before) / COUNT;
    println!("{before} KiB before, {after} KiB with {COUNT} idle connections: {each} KiB each");
    assert!(each < 1024, "{each} KiB each");
    assert!(idle.iter().all(Client::is_live));
}

/// Somebody who begins a TLS handshake and never goes on.
fn says_hello_only(mut stream: TcpStream) -> TcpStream {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut hello = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    // Those who come later may have displaced us already.
    let _displaced = hello.write_tls(&mut stream);
    stream
}

fn is_closed(stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    let mut stream = stream;
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            // The server's part of the handshake.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn connections_that_never_authenticate_keep_nobody_out_and_are_closed() {
    const STRANGERS: usize = 200;
    const PLACES: usize = 100;
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let clients = Clients::new(&bastion, "alice", "ledger-dev");
    let known = clients.connect();
    let strangers: Vec<TcpStream> = (0..STRANGERS)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", bastion.postgres_port)).unwrap();
            if n % 2 == 0 {
                return stream;
            }
            stream.write_all(&SSL_REQUEST).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"S");
            says_hello_only(stream)
        })
        .collect();
    let began = Instant::now();
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    println!("let in after {:.1?} with {STRANGERS} strangers at the door", began.elapsed());
    clients.connect();
    let closed = || strangers.iter().filter(|stranger| is_closed(stranger)).count();
    wait_until("the oldest have made place", || closed() > STRANGERS - PLACES);
    wait_until("the others have run out of time", || closed() == STRANGERS);
    clients.block_on(known.sql.simple_query("SELECT 1")).unwrap();

    // At the API too: from there sessions are revoked.
    let strangers: Vec<TcpStream> = (0..300)
        .map(|n| {
            let stream = TcpStream::connect(("127.0.0.1", bastion.api_port)).unwrap();
            if n % 2 == 0 { stream } else { says_hello_only(stream) }
        })
        .collect();
    assert_eq!(bastion.api(Some("alice"), "GET", "/whoami", None).0, 200);
    let closed = strangers.iter().filter(|stranger| is_closed(stranger)).count();
    println!("{closed} of {} strangers at the API displaced", strangers.len());
}

#[test]
fn file_descriptors_are_given_back() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let clients = Clients::new(&bastion, "alice", "ledger-dev");
    let elsewhere = Clients::new(&bastion, "olga", "ledger-dev");
    let open = || fs::read_dir(format!("/proc/{}/fd", bastion.pid())).unwrap().count();
    drop(connect(&clients, 8));
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'";
    wait_until("all are gone", || postgres.value("postgres", idle) == "0");
    let before = open();
    for round in 0..25 {
        // Four who work and go, fifteen who hang up during the handshake, one who has no session.
        drop(connect(&clients, 4));
        for n in 0..15 {
            let mut stream = TcpStream::connect(("127.0.0.1", bastion.postgres_port)).unwrap();
            if n % 3 > 0 {
                stream.write_all(&SSL_REQUEST).unwrap();
            }
            if n % 3 > 1 {
                stream.read_exact(&mut [0]).unwrap();
                says_hello_only(stream);
            }
        }
        let refused = elsewhere.block_on(elsewhere.try_connect());
        assert!(refused.is_err(), "round {round}");
    }
    let mut after = open();
    wait_until("descriptors are given back", || {
        after = open();
        // The API's and the admin's own connections come and go.
        after <= before + 4
    });
    println!("{before} descriptors before, {after} after 500 connections");
}
