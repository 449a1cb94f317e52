//! Packets and messages that cannot be.

use std::io::{Read as _, Write as _};

use crate::support::Options;
use crate::support::wire::{self, SSL_REQUEST, VERSION_3_0, Wire};

/// Eight bytes: a length and a code.
fn first(length: u32, code: u32) -> Vec<u8> {
    [length.to_be_bytes(), code.to_be_bytes()].concat()
}

const LENGTHS: [u32; 9] = [0, 1, 4, 7, 10_005, 65_536, 0x7fff_ffff, 0x8000_0000, u32::MAX];

#[test]
fn nothing_is_accepted_outside_tls() {
    let (postgres, bastion) = crate::start(Options::default());
    let pairs = [("user", "alice+ledger-dev"), ("database", "ledger")];
    let mut stream = wire::tcp(&bastion);
    stream.write_all(&wire::startup(VERSION_3_0, &pairs)).unwrap();
    let answer = crate::read_to_end(&mut stream);
    assert_eq!(answer.first(), Some(&b'E'));
    assert_eq!(wire::field(&answer[5..], b'C'), "28000");
    assert!(wire::field(&answer[5..], b'H').contains("sslmode=verify-full"));

    // Sent before TLS in the same segment as the request for it: never taken for sent inside.
    let mut stream = wire::tcp(&bastion);
    stream.write_all(&[&SSL_REQUEST[..], &wire::startup(VERSION_3_0, &pairs)].concat()).unwrap();
    let answer = crate::read_to_end(&mut stream);
    assert_eq!(answer.first(), Some(&b'S'));
    assert!(!answer[1..].contains(&b'R') || answer[1] == 0x15, "a TLS alert at most: {answer:?}");
    let mut stream = wire::tcp(&bastion);
    let smuggled = [&SSL_REQUEST[..], b"Q\0\0\0\x0dSELECT 1\0"].concat();
    stream.write_all(&smuggled).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
    Wire::handshake(stream, wire::tls(&bastion, &[])).unwrap_err();

    // HTTP, SSH, an old TLS hello, noise.
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x00\x02\0\0\0",
        &[0xff; 64],
    ] {
        let mut stream = wire::tcp(&bastion);
        stream.write_all(greeting).unwrap();
        let answer = crate::read_to_end(&mut stream);
        assert!(matches!(answer.first(), None | Some(b'E')), "{answer:?}");
    }
    for length in LENGTHS {
        let mut stream = wire::tcp(&bastion);
        stream.write_all(&first(length, VERSION_3_0)).unwrap();
        let answer = crate::read_to_end(&mut stream);
        assert_eq!(wire::field(&answer[5..], b'C'), "08P01", "{length}");
    }
    assert!(crate::ends(&bastion).is_empty(), "no connection began");
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn impossible_startup_packets_are_refused_inside_tls() {
    let (postgres, bastion) = crate::start(Options::default());
    let refused = |bytes: &[u8]| {
        let mut wire = Wire::connect(&bastion);
        wire.send(bytes);
        let (sqlstate, message, _) = wire.last_words();
        assert_eq!(sqlstate, "08P01", "{message}");
        message
    };
    for length in LENGTHS {
        let said = refused(&first(length, VERSION_3_0));
        assert!(said.contains(&length.to_string()), "{said}");
    }
    for code in [0, 0x0001_0000, 0x0002_0000, 0x0004_0000, 0xffff_ffff, 80_877_105] {
        assert!(refused(&first(8, code)).contains("use PostgreSQL protocol 3"));
    }
    refused(&SSL_REQUEST);
    refused(&wire::GSSENC_REQUEST);
    refused(&first(9, 80_877_103));
    let good = wire::startup(VERSION_3_0, &[("user", "alice+ledger-dev")]);
    // Without its terminator; with a length that leaves the last byte out; with bytes after the end.
    let with_length = |length: usize, bytes: &[u8]| {
        [&u32::try_from(length).unwrap().to_be_bytes()[..], &bytes[4..]].concat()
    };
    refused(&with_length(good.len() - 1, &good[..good.len() - 1]));
    refused(&with_length(good.len() + 3, &[&good[..], b"abc"].concat()));
    refused(&with_length(12, &[&good[..8], b"user"].concat()));
    // Newer minor versions are negotiated down, and the connection goes on.
    let mut wire = Wire::connect(&bastion);
    let newer = wire::startup(0x0003_0063, &[("user", "alice+ledger-dev"), ("_pq_.wings", "1")]);
    wire.send(&newer);
    assert_eq!([wire.receive().unwrap().0, wire.receive().unwrap().0], *b"vR");
    wire.cut();
    // Junk after the startup is read as what should follow it, and refused as that.
    let mut wire = Wire::connect(&bastion);
    wire.send(&[&good[..], &wire::query("SELECT 1"), &[0xff; 40]].concat());
    assert_eq!(wire.last_words().0, "08P01");
    assert!(crate::ends(&bastion).is_empty(), "no connection began");
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn impossible_messages_during_authentication_are_refused() {
    let (postgres, bastion) = crate::start(Options::default());
    let sasl = |mechanism: &str, announced: u32, data: &[u8]| {
        let body = [mechanism.as_bytes(), b"\0", &announced.to_be_bytes(), data].concat();
        wire::message(b'p', &body)
    };
    let plain = b"n,,n=,r=client";
    let length = u32::try_from(plain.len()).unwrap();
    let mut messages = vec![
        wire::query("SELECT 1"),
        wire::message(b'Z', b"I"),
        wire::message(0, b""),
        wire::message(b'p', b""),
        wire::message(b'p', b"a clear password\0"),
        sasl("SCRAM-SHA-1", length, plain),
        sasl("PLAIN", length, plain),
        sasl("", length, plain),
        sasl("SCRAM-SHA-256", length + 1, plain),
        sasl("SCRAM-SHA-256", length - 1, plain),
        sasl("SCRAM-SHA-256", 0x8000_0000, plain),
        sasl("SCRAM-SHA-256", u32::MAX, b""),
        sasl("SCRAM-SHA-256", 0, b""),
        // The client says that it could bind the channel while the server offers that: a downgrade.
        sasl("SCRAM-SHA-256", length, b"y,,n=,r=client"),
        // Binding of another kind, and binding without the mechanism for it.
        sasl("SCRAM-SHA-256-PLUS", 23, b"p=tls-unique,,n=,r=abcd"),
        sasl("SCRAM-SHA-256", 32, b"p=tls-server-end-point,,n=,r=abc"),
        sasl("SCRAM-SHA-256", 8, b"n,,n=,r="),
        sasl("SCRAM-SHA-256", 12, b"n,,m=x,r=abc"),
        sasl("SCRAM-SHA-256", 7, b"n,,\xff\xfe\0\x01"),
    ];
    for length in [0_u32, 3, 65_537, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        messages.push([&b"p"[..], &length.to_be_bytes()].concat());
    }
    for message in &messages {
        let mut wire = Wire::connect(&bastion);
        wire.send(&wire::startup(VERSION_3_0, &[("user", "alice+ledger-dev")]));
        wire.until(b'R');
        wire.send(message);
        let (sqlstate, said, _) = wire.last_words();
        assert_eq!(sqlstate, "08P01", "{said}: {message:?}");
    }
    // The second message: proofs that prove nothing.
    for last in [
        &b""[..],
        b"c=biws",
        b"c=biws,r=other,p=AAAA",
        b"c=AAAA,r=client,p=AAAA",
        b"\xff\xff",
        b"c=biws,r=client,p=%%%%",
        b"c=biws,p=AAAA,r=client",
        &vec![b'x'; 60_000],
    ] {
        let mut wire = Wire::connect(&bastion);
        wire.send(&wire::startup(VERSION_3_0, &[("user", "alice+ledger-dev")]));
        wire.until(b'R');
        wire.send(&wire::sasl_initial(plain));
        wire.until(b'R');
        wire.send(&wire::message(b'p', last));
        let (sqlstate, said, _) = wire.last_words();
        assert!(["08P01", "28P01"].contains(&sqlstate.as_str()), "{sqlstate} {said}: {last:?}");
    }
    assert!(crate::ends(&bastion).is_empty(), "no connection began");
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn impossible_messages_after_login_end_the_connection_before_they_are_forwarded() {
    let (postgres, bastion) = crate::start(Options::default());
    let hidden = wire::query("SELECT 'hidden'");
    let raw = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    let messages = [
        // Lengths.
        raw(b'Q', 0),
        raw(b'Q', 3),
        raw(b'Q', 0x8000_0000),
        raw(b'Q', u32::MAX),
        raw(b'Q', 64 * 1024 * 1024 + 5),
        raw(b'P', 0x7fff_ffff),
        raw(b'd', u32::MAX),
        // Tags.
        wire::message(b'p', b"a password\0"),
        wire::message(b'R', &[0; 4]),
        wire::message(b'Z', b"I"),
        wire::message(b'T', b""),
        wire::message(b'?', b""),
        wire::message(0, b""),
        wire::message(0xff, b"x"),
        SSL_REQUEST.to_vec(),
        // A message inside a message, and one that ends too early or too late.
        wire::message(b'Q', &[&b"SELECT 'visible'\0"[..], &hidden].concat()),
        wire::message(b'Q', b"SELECT 'hidden'"),
        wire::message(b'Q', b""),
        wire::message(b'S', b"\0"),
        wire::message(b'P', b"\0SELECT 'hidden'\0\0\x05"),
        wire::message(b'P', b"\0SELECT 'hidden'\0\0\0\0"),
        wire::message(b'B', b"\0\0\0\0\xff\xff\0\0"),
        wire::message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        wire::message(b'B', b"\0\0\0\x01\0\x02\0\0\0\0"),
        wire::message(b'D', b"Xname\0"),
        wire::message(b'D', b""),
        wire::message(b'E', b"portal\0"),
        wire::message(b'C', b"Sname"),
        wire::message(b'F', b"\0\0\0\x01\0\0\xff\xff"),
    ];
    for (index, message) in messages.iter().enumerate() {
        let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
        // What came before in the same write is still answered.
        wire.send(&[&wire::query(&format!("SELECT 'before {index}'"))[..], message, &hidden].concat());
        let (sqlstate, said, _) = wire.last_words();
        assert_eq!(sqlstate, "08P01", "{said}: {message:?}");
    }
    wait_for_ends(&bastion, messages.len());
    for end in crate::ends(&bastion) {
        assert_eq!(end["reason"]["end"], "protocol", "{end}");
    }
    let log = postgres.log();
    assert!(!log.contains("hidden"), "nothing of it reached the target");
    assert!(log.contains("'before 0'"), "what came before did");
    assert!(!bastion.statements().iter().any(|one| one.to_string().contains("hidden")));
    crate::is_unharmed(&bastion, &postgres);
}

#[track_caller]
fn wait_for_ends(bastion: &crate::support::Bastion, count: usize) {
    crate::support::wait_until("every end is recorded", || crate::ends(bastion).len() == count);
}

#[test]
fn messages_that_come_together_or_byte_by_byte_are_each_recorded() {
    let (postgres, bastion) = crate::start(Options::default());
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&[wire::query("SELECT 'first'"), wire::query("SELECT 'second'")].concat());
    assert!(wire.until(b'D').ends_with(b"first"));
    assert!(wire.until(b'D').ends_with(b"second"));
    wire.until(b'Z');
    for byte in wire::query("SELECT 'third'") {
        wire.send(&[byte]);
    }
    assert!(wire.until(b'D').ends_with(b"third"));
    wire.until(b'Z');
    drop(wire);
    let recorded: Vec<_> =
        bastion.statements().iter().map(|one| one["sql"].as_str().unwrap().to_owned()).collect();
    assert_eq!(recorded, ["SELECT 'first'", "SELECT 'second'", "SELECT 'third'"]);
    crate::is_unharmed(&bastion, &postgres);
}
