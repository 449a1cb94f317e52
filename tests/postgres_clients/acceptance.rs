//! What is no message of the protocol to the server is none to the gateway, and the reverse: the same spoiled bytes are sent
//! to both. `SALLYPORT_TEST_ROUNDS` says how many; by default few, as each takes two connections.

#![expect(clippy::indexing_slicing, reason = "places are chosen within what is there")]

use super::protocol::{DIRECT, about, bind, directly, execute, parse, sync};
use crate::support::load::Moments;
use crate::support::wire::{Message, Wire, field, message, query};

/// Messages that a client may send one after the other.
fn conversation() -> Vec<Vec<u8>> {
    vec![
        query("SELECT 1"),
        parse("s", "SELECT $1::text, $2::int"),
        about(b'D', b'S', "s"),
        bind("p", "s", &[Some(b"text"), Some(b"7")], 0),
        about(b'D', b'P', "p"),
        execute("p", 1),
        execute("p", 0),
        about(b'C', b'P', "p"),
        sync(),
        query("SELECT 2; SELECT 3"),
        parse("", "SELECT 4"),
        bind("", "", &[], 1),
        execute("", 0),
        message(b'H', b""),
        sync(),
        // int4abs(-7), by its number.
        message(b'F', &[0, 0, 4, 227, 0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 255, 255, 255, 249, 0, 1]),
        query("CREATE TEMP TABLE copied (a text)"),
        query("COPY copied FROM STDIN"),
        message(b'd', b"one\n"),
        message(b'd', b"two\nthree\n"),
        message(b'c', b""),
        query("COPY copied TO STDOUT"),
        parse("", "COPY copied FROM STDIN"),
        bind("", "", &[], 0),
        execute("", 0),
        message(b'd', b"four\n"),
        // Means nothing here.
        sync(),
        message(b'f', b"given up\0"),
        sync(),
        query("SELECT count(*) FROM copied"),
    ]
}

/// One of them is spoiled: a byte is another, is missing or is one too many; a length is wrong; something is cut off.
fn spoiled(moments: &mut Moments) -> Vec<u8> {
    let mut messages = conversation();
    let mut below = |limit: usize| usize::try_from(moments.next() % limit as u64).unwrap();
    let which = below(messages.len());
    let bytes = &mut messages[which];
    let at = below(bytes.len());
    match below(7) {
        0 => bytes[at] ^= 1 << below(8),
        1 => bytes[at] = [0, 0xff, b'Q', b'S', b'\''][below(5)],
        2 => _ = bytes.remove(at),
        3 => bytes.insert(at, [0, 0xff, b'X'][below(3)]),
        4 => {
            // The length word says less or more than there is.
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
            let wrong = [0, 3, 4, length - 1, length + 1, length + 40, 1 << 30, u32::MAX][below(8)];
            bytes[1..5].copy_from_slice(&wrong.to_be_bytes());
        }
        5 => bytes[0] = [b'p', b'd', b'c', b'f', b'F', b'W', 0, b'Z'][below(8)],
        _ => bytes.truncate(at),
    }
    messages.concat()
}

/// Whether a message is announced that is longer than the gateway is configured to take, and not too long for the server.
fn is_too_long_for_us(mut bytes: &[u8]) -> bool {
    while let [_, a, b, c, d, ..] = *bytes {
        let length = u32::from_be_bytes([a, b, c, d]);
        if ((64 << 20) + 1..1 << 30).contains(&length) {
            return true;
        }
        bytes = bytes.get(1 + length as usize..).unwrap_or_default();
    }
    false
}

/// What the server says to its log alone, before it closes.
const UNSAID: [&str; 2] = ["invalid message length", "invalid frontend message type"];

/// Whether all of it were messages of the protocol, as far as the client is told; and whatever came.
fn accepted(mut wire: Wire, bytes: &[u8]) -> (bool, Vec<Message>) {
    // One that has had enough may not take all of it.
    let _taken = wire.try_send(bytes);
    let answers = wire.finish();
    let protocol_violated = |(tag, body): &Message| *tag == b'E' && field(body, b'C') == "08P01";
    (!answers.iter().any(protocol_violated), answers)
}

#[test]
fn what_the_server_takes_for_messages_the_gateway_does_too() {
    let (postgres, bastion) = crate::dba();
    postgres.query("ledger", DIRECT).success();
    let rounds = std::env::var("SALLYPORT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut moments = Moments(0x5a11_9006);
    let (mut refused, mut clean) = (0, 0);
    for round in 0..rounds.unwrap_or(120) {
        let bytes = if round == 0 { conversation().concat() } else { spoiled(&mut moments) };
        if is_too_long_for_us(&bytes) {
            continue;
        }
        let logged = postgres.log().len();
        let (told, answers) = accepted(directly(&postgres), &bytes);
        let log = postgres.log();
        let proxied = Wire::session(&bastion, "alice", "ledger-dev").0;
        let (found, ours) = accepted(proxied, &bytes);
        if answers.iter().any(|(tag, body)| *tag == b'E' && field(body, b'C') == "08006") {
            // What the client sent ended amid a message of a COPY: nothing was wrong with it so far.
            continue;
        }
        let case = || format!("round {round}: {}\n{answers:?}\n{ours:?}", bytes.escape_ascii());
        if !told || UNSAID.iter().any(|unsaid| log[logged..].contains(unsaid)) {
            assert!(!found, "{}", case());
            refused += 1;
        } else if answers.iter().all(|(tag, _)| *tag != b'E') {
            assert!(found, "{}", case());
            clean += 1;
        }
        // Else the server found another error first, and may not have looked at what is wrong with the message.
    }
    assert!(refused > 5 && clean > 5, "some of each: {refused} refused, {clean} clean");
    bastion.verify().success();
}
