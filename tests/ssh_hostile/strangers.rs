//! Who says nothing sensible before the keys are exchanged.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::process::PATIENCE;
use crate::support::{Hosts, Options};

const VERSION: &[u8] = b"SSH-2.0-Stranger\r\n";

fn connect(hosts: &Hosts) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", hosts.bastion.ssh_port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads to the end: whatever it was told, the connection is over.
#[track_caller]
fn is_closed(mut stream: &TcpStream, what: &str) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
                return assert!(!timed_out, "{what}: still open");
            }
        }
    }
}

/// A packet before there is a cipher (RFC 4253, section 6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

fn kexinit(kex: &str) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    let (cipher, mac) = ("aes128-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com");
    for list in [kex, "ssh-ed25519", cipher, cipher, mac, mac, "none", "none", "", ""] {
        payload.extend(string(list.as_bytes()));
    }
    payload.extend([0; 5]);
    packet(&payload)
}

/// `SSH_MSG_KEX_ECDH_INIT` with something for a public key.
fn ecdh_init(public: &[u8]) -> Vec<u8> {
    packet(&[&[30][..], &string(public)].concat())
}

#[test]
fn what_is_no_ssh_is_closed_and_costs_nothing() {
    let settings = vec![("ssh", "handshake_timeout = \"5s\"".to_owned())];
    let hosts = Hosts::start_for(Options { settings, ..Options::default() }, &["alice"]);
    hosts.grant();
    let before = hosts.bastion.resident_kib();
    let curve = "curve25519-sha256";
    let begun = |rest: &[u8]| [VERSION, &kexinit(curve), rest].concat();
    let low_order = [0_u8; 32];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("an old version", b"SSH-1.5-Stranger\r\n".to_vec()),
        ("a version of a megabyte", [b"SSH-2.0-", &vec![b'x'; 1 << 20][..], b"\r\n"].concat()),
        ("a megabyte without a line", vec![b'x'; 1 << 20]),
        ("many lines before the version", b"hello\r\n".repeat(100_000)),
        ("a packet of 4 GiB", [VERSION, &[0xff; 4], &[0; 64]].concat()),
        ("a packet of 100 MB", [VERSION, &100_000_000_u32.to_be_bytes(), &[0; 64]].concat()),
        ("a packet of nothing", [VERSION, &[0; 64]].concat()),
        ("padding longer than the packet", [VERSION, &12_u32.to_be_bytes(), &[255], &[20; 11]].concat()),
        ("no algorithm in common", [VERSION, &kexinit("none")].concat()),
        ("key exchanges begun over and over", [VERSION, &kexinit(curve).repeat(20_000)].concat()),
        (
            "a list longer than its packet",
            [VERSION, &packet(&[&[20][..], &[0; 16], &[0xff; 8]].concat())].concat(),
        ),
        ("no public key", begun(&ecdh_init(b""))),
        ("a public key too long", begun(&ecdh_init(&[9; 30_000]))),
        ("a public key of low order", begun(&ecdh_init(&low_order))),
        ("keys taken before they are exchanged", begun(&packet(&[21]))),
        ("a login before the keys are exchanged", begun(&packet(&[&[50][..], &string(b"alice")].concat()))),
        (
            "a channel before the keys are exchanged",
            begun(&packet(&[&[90][..], &string(b"session")].concat())),
        ),
    ];
    for (what, bytes) in cases {
        let mut stream = connect(&hosts);
        // It may be closed before all of it is taken.
        let _refused = stream.write_all(&bytes);
        is_closed(&stream, what);
    }
    crate::nobody_notices(&hosts, before);
}

#[test]
fn who_says_nothing_is_closed_when_the_time_is_up() {
    let settings = vec![("ssh", "handshake_timeout = \"2s\"".to_owned())];
    let hosts = Hosts::start_for(Options { settings, ..Options::default() }, &["alice"]);
    let cases: [(&str, &[u8]); 4] = [
        ("nothing", b""),
        ("half a version", b"SSH-2.0-Str"),
        ("a version", VERSION),
        ("half a packet", b"SSH-2.0-Stranger\r\n\0\0\x04"),
    ];
    let began = Instant::now();
    let streams: Vec<_> = cases
        .iter()
        .map(|(what, bytes)| {
            let mut stream = connect(&hosts);
            stream.write_all(bytes).unwrap();
            (what, stream)
        })
        .collect();
    for (what, stream) in &streams {
        is_closed(stream, what);
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "not before: {:?}", began.elapsed());
    crate::nothing_broke(&hosts.bastion);
}

#[test]
fn five_hundred_unfinished_key_exchanges_keep_nobody_out() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    let before = hosts.bastion.resident_kib();
    let mut held = Vec::new();
    for number in 0..500 {
        let mut stream = connect(&hosts);
        // Half-open ones, half-said ones, and those that stop before the last message.
        let _evicted = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(&[VERSION, &kexinit("curve25519-sha256")].concat()),
            _ => stream.write_all(&[VERSION, &kexinit("curve25519-sha256"), &ecdh_init(&[9; 32])].concat()),
        };
        held.push(stream);
        if number % 50 == 49 {
            crate::nobody_notices(&hosts, before);
        }
    }
    crate::nobody_notices(&hosts, before);
    drop(held);
    crate::nobody_notices(&hosts, before);
}
