//! What is fuzzed: each function takes any bytes, and may neither panic nor break a rule that it
//! asserts. The fuzz targets and the test that replays the corpus call these.
#![cfg_attr(not(test), expect(dead_code, reason = "each fuzz target calls one of them"))]

mod observer_model;

use bytes::{Bytes, BytesMut};
use sallyport::crypto::scram::ITERATIONS;
use sallyport::postgres::classify::classify;
use sallyport::postgres::codec::frame::{self, Piece, Splitter};
use sallyport::postgres::codec::frontend::{ClientMessage, SaslInitialResponse};
use sallyport::postgres::codec::startup::{CancelRequest, First, StartupParameters};
use sallyport::postgres::codec::walker::Walker;
use sallyport::postgres::codec::{backend, frontend};
use sallyport::postgres::decode;
use sallyport::postgres::fingerprint::normalised;
use sallyport::postgres::lexer::{Lexer, Strings};
use sallyport::postgres::mask::masked;
use sallyport::postgres::observe::{Event, Observed, Observer};
use sallyport::postgres::scram::{Exchange, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

/// The first packet of a connection.
pub(crate) fn startup(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk() else { return };
    let body = Bytes::copy_from_slice(rest);
    match First::read(*first) {
        Ok(First::Cancel { .. }) => drop(CancelRequest::parse(body)),
        Ok(First::Startup { version, .. }) => {
            let Ok(parameters) = StartupParameters::parse(body) else { return };
            assert!(!parameters.user().is_empty());
            assert_ne!(parameters.database(), Some(""));
            drop(parameters.negotiation(version));
        }
        _ => {}
    }
}

/// Streams of messages, and each message's reader. The first byte tells where the stream is split: what comes out may not
/// depend on that.
pub(crate) fn frames(bytes: &[u8]) {
    let at = bytes.first().map_or(0, |first| usize::from(*first).min(bytes.len()));
    let (one, other) = bytes.split_at(at);
    assert_eq!(cut(&[bytes]), cut(&[one, other]));
    let (mut splitter, mut buffer) = (Splitter::new(1 << 16), BytesMut::from(bytes));
    let mut cut = 0;
    while let Ok(Some(piece)) = splitter.next(&mut buffer) {
        cut += piece.raw().len();
        if let Piece::Frame(frame) = piece {
            drop(ClientMessage::read(&frame));
            drop(SaslInitialResponse::read(&frame));
            drop(frontend::password(&frame));
        }
    }
    assert!(cut <= bytes.len());
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = frame::whole(&mut buffer, 1 << 16) {
        drop(backend::Startup::read(&frame));
    }
    let (mut walker, mut at) = (Walker::new(), 0);
    while let Ok(Some(_)) = walker.next(bytes, &mut at) {}
    assert!(at <= bytes.len());
}

/// The bytes of whole messages in a stream that comes in pieces, and whether it goes on.
fn cut(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let (mut splitter, mut buffer) = (Splitter::new(1 << 16), BytesMut::new());
    let mut out = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match splitter.next(&mut buffer) {
                Ok(Some(piece)) => out.extend_from_slice(piece.raw()),
                Ok(None) => break,
                Err(_) => return (out, false),
            }
        }
    }
    (out, true)
}

/// Both directions of a connection, in turns: a byte for the direction, a byte for the length,
/// that many bytes. Everything that begins must end, once.
pub(crate) fn observer(mut bytes: &[u8]) {
    let (mut observer, mut events) = (Observer::new(1 << 16), Vec::new());
    let (mut splitter, mut buffer, mut walker) = (Splitter::new(1 << 16), BytesMut::new(), Walker::new());
    let mut now = 0;
    'connection: while let [direction, length, rest @ ..] = bytes {
        let (turn, after) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = after;
        now += 1;
        if direction % 2 == 0 {
            buffer.extend_from_slice(turn);
            loop {
                let Ok(piece) = splitter.next(&mut buffer) else { break 'connection };
                let Some(piece) = piece else { break };
                match observer.piece(&piece, now, &mut events) {
                    Ok(Observed::Forward) => {}
                    Ok(Observed::Hold { .. }) | Err(_) => break 'connection,
                }
            }
            observer.flush(now, &mut events);
            continue;
        }
        let mut at = 0;
        loop {
            let Ok(message) = walker.next(turn, &mut at) else { break 'connection };
            let Some(message) = message else { break };
            if observer.server(&message, now, &mut events).is_err() {
                break 'connection;
            }
        }
    }
    observer.finish(now, &mut events);
    let begun = |event: &Event| match event {
        Event::StatementBegun(begun) => Some(begun.n),
        _ => None,
    };
    let ended = |event: &Event| match event {
        Event::StatementEnded(ended) => Some(ended.n),
        _ => None,
    };
    let mut begun: Vec<u64> = events.iter().filter_map(begun).collect();
    let mut ended: Vec<u64> = events.iter().filter_map(ended).collect();
    begun.sort_unstable();
    ended.sort_unstable();
    assert_eq!(begun, ended);
}

/// A client of any two bytes a step, against a model of a server.
pub(crate) fn observer_model(bytes: &[u8]) {
    let steps: Vec<_> =
        bytes.as_chunks().0.iter().copied().map(observer_model::Step::read).take(200).collect();
    let _what_came_of_it = observer_model::World::run(&steps);
}

/// Client-first and client-final, divided by the first zero byte. No proof is right for nobody.
pub(crate) fn scram(bytes: &[u8]) {
    let (first, last) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default()),
        None => (bytes, bytes),
    };
    for (mechanism, binding) in [(SCRAM_SHA_256, None), (SCRAM_SHA_256_PLUS, Some(&b"binding"[..]))] {
        let started = Exchange::start(mechanism.as_bytes(), first, binding, [7; 18], &[7; 16], ITERATIONS);
        if let Ok((exchange, server_first)) = started {
            assert!(server_first.starts_with(b"r="));
            assert!(exchange.finish::<()>(last, []).is_err());
        }
    }
}

/// Values of every type: four bytes for the type, one for whether all of it is there.
pub(crate) fn parameters(bytes: &[u8]) {
    let Some((oid, [is_whole, value @ ..])) = bytes.split_first_chunk() else { return };
    // Most numbers are no type's.
    for oid in [u32::from_be_bytes(*oid), u32::from_be_bytes(*oid) % 4096] {
        if let Some(text) = decode::text(oid, value, is_whole % 2 == 0) {
            assert!(text.len() <= 40_000 + 2 * value.len(), "no text is much longer than its value");
        }
    }
}

/// What is recorded of a statement is what it was but for what is masked, and each mask stands for something. A comment
/// before it changes nothing of what it is.
pub(crate) fn statements(bytes: &[u8]) {
    for strings in [Strings::Standard, Strings::Escaped] {
        let mut at = 0;
        for token in Lexer::new(bytes, strings) {
            assert!(at <= token.start && token.start < token.end);
            at = token.end;
        }
        assert!(at <= bytes.len());
        assert!(normalised(bytes, strings).len() <= 2 * bytes.len());
        let commented = [b"/* ' */", bytes].concat();
        assert_eq!(classify(&commented, strings), classify(bytes, strings));
        let Some((text, count)) = masked(bytes, strings) else { continue };
        assert!(count > 0 && text.windows(3).any(|window| window == b"***"));
        let kept: usize = text.len() - 3 * usize::try_from(count).unwrap();
        assert!(kept < bytes.len());
    }
}
