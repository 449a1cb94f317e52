//! The codec against an independent peer, `pgwire`: what it writes we read, and what we write it
//! reads. `pgwire` is no part of the program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

use bytes::{Bytes, BytesMut};
use pgwire::messages::response::{CommandComplete, ErrorResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, ParameterStatus, SASLInitialResponse, SASLResponse, SecretKey, Startup,
};
use pgwire::messages::{
    DecodeContext, Message, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion, copy,
    extendedquery, simplequery,
};
use proptest::prelude::*;
use sallyport::postgres::codec::backend::{self, BackendKey, Report};
use sallyport::postgres::codec::encode::{self, ErrorReport, Severity};
use sallyport::postgres::codec::frame::{self, Frame, Piece, Splitter};
use sallyport::postgres::codec::frontend::{self, ClientMessage, Format, SaslInitialResponse, Subject};
use sallyport::postgres::codec::startup::{self, First, StartupParameters};
use sallyport::postgres::codec::walker::{ServerMessage, Walker};

fn encoded(message: &impl Message) -> BytesMut {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).unwrap();
    buffer
}

/// What we read of a client's message that they wrote.
fn read(message: &impl Message) -> ClientMessage {
    let mut buffer = encoded(message);
    let Some(Piece::Frame(frame)) = Splitter::new(1 << 24).next(&mut buffer).unwrap() else {
        panic!("not one whole message")
    };
    assert!(buffer.is_empty());
    ClientMessage::read(&frame).unwrap()
}

fn frame_of(message: &impl Message) -> Frame {
    frame::whole(&mut encoded(message), 1 << 20).unwrap().unwrap()
}

fn name() -> impl Strategy<Value = String> {
    "[a-z_]{0,12}"
}

fn option(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

proptest! {
    #[test]
    fn we_read_the_queries_they_write(
        sql in "[^\0]{0,80}",
        name in name(),
        types in prop::collection::vec(any::<u32>(), 0..9),
    ) {
        let query = read(&simplequery::Query::new(sql.clone()));
        prop_assert_eq!(query, ClientMessage::Query { sql: Bytes::from(sql.clone()) });
        let parse = read(&extendedquery::Parse::new(option(&name), sql.clone(), types.clone()));
        let expected = frontend::Parse { name: Bytes::from(name), sql: Bytes::from(sql), types };
        prop_assert_eq!(parse, ClientMessage::Parse(expected));
    }

    #[test]
    fn we_read_the_values_they_bind(
        portal in name(),
        statement in name(),
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..9),
        binary in any::<bool>(),
    ) {
        let values: Vec<Option<Bytes>> = values.into_iter().map(|value| value.map(Bytes::from)).collect();
        let formats = vec![i16::from(binary)];
        let theirs =
            extendedquery::Bind::new(option(&portal), option(&statement), formats, values.clone(), vec![1]);
        let ClientMessage::Bind(ours) = read(&theirs) else { panic!("not a Bind") };
        prop_assert_eq!(ours.portal, portal);
        prop_assert_eq!(ours.statement, statement);
        prop_assert_eq!(ours.values, values);
        prop_assert_eq!(ours.formats.of(0), if binary { Format::Binary } else { Format::Text });
    }

    #[test]
    fn we_read_the_other_requests_they_write(
        name in name(),
        max_rows in any::<i32>(),
        data in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = Bytes::from(name.clone());
        let described = ClientMessage::Describe { subject: Subject::Statement, name: bytes.clone() };
        prop_assert_eq!(read(&extendedquery::Describe::new(b'S', option(&name))), described);
        let closed = ClientMessage::Close { subject: Subject::Portal, name: bytes.clone() };
        prop_assert_eq!(read(&extendedquery::Close::new(b'P', option(&name))), closed);
        let executed = ClientMessage::Execute { portal: bytes.clone(), max_rows };
        prop_assert_eq!(read(&extendedquery::Execute::new(option(&name), max_rows)), executed);
        let data = Bytes::from(data);
        prop_assert_eq!(read(&copy::CopyData::new(data.clone())), ClientMessage::CopyData(data));
        prop_assert_eq!(read(&copy::CopyFail::new(name)), ClientMessage::CopyFail { reason: bytes });
        prop_assert_eq!(read(&extendedquery::Sync::new()), ClientMessage::Sync);
        prop_assert_eq!(read(&extendedquery::Flush::new()), ClientMessage::Flush);
    }

    #[test]
    fn we_read_the_startup_they_write(user in "[a-z+-]{1,20}", database in "[a-z]{1,20}") {
        let mut theirs = Startup::new();
        theirs.parameters.insert("user".to_owned(), user.clone());
        theirs.parameters.insert("database".to_owned(), database.clone());
        let packet = encoded(&theirs).freeze();
        let First::Startup { body, .. } = First::read(packet[..8].try_into().unwrap()).unwrap() else {
            panic!("not a startup message")
        };
        prop_assert_eq!(body, packet.len() - 8);
        let ours = StartupParameters::parse(packet.slice(8..)).unwrap();
        prop_assert_eq!((ours.user(), ours.database()), (user.as_str(), Some(database.as_str())));
    }
}

#[test]
fn they_read_the_startup_we_write() {
    let pairs: [(&[u8], &[u8]); 2] = [(b"user", b"sp_1"), (b"application_name", b"psql")];
    let packet = startup::startup_message(startup::ProtocolVersion::V3_0, pairs).unwrap();
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    let read = PgWireFrontendMessage::decode(&mut BytesMut::from(&packet[..]), &context).unwrap();
    let Some(PgWireFrontendMessage::Startup(read)) = read else { panic!("{read:?}") };
    assert_eq!(read.parameters["user"], "sp_1");
    assert_eq!(read.parameters["application_name"], "psql");
}

#[test]
fn sasl_messages_are_the_same_to_both() {
    let initial =
        SASLInitialResponse::new("SCRAM-SHA-256".to_owned(), Some(Bytes::from_static(b"n,,n=,r=x")));
    let ours = SaslInitialResponse::read(&frame_of(&initial)).unwrap();
    assert_eq!(ours.mechanism, initial.auth_method);
    assert_eq!(ours.data, initial.data);
    assert_eq!(encode::sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=x"), encoded(&initial));
    let response = SASLResponse::new(Bytes::from_static(b"c=biws"));
    assert_eq!(frontend::sasl_response(&frame_of(&response)).unwrap(), response.data);
    assert_eq!(encode::sasl_response(b"c=biws"), encoded(&response));
}

#[test]
fn what_we_write_while_logging_in_is_what_they_write() {
    let key = BackendKeyData::new(7, SecretKey::Bytes(Bytes::from_static(b"0123456789abcdef")));
    let mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    let sasl = Authentication::SASL(mechanisms.map(str::to_owned).to_vec());
    for (ours, theirs) in [
        (encode::authentication_ok(), encoded(&Authentication::Ok)),
        (encode::authentication_sasl(&mechanisms), encoded(&sasl)),
        (encode::authentication_sasl_continue(b"r=x"), encoded(&Authentication::SASLContinue("r=x".into()))),
        (encode::authentication_sasl_final(b"v=x"), encoded(&Authentication::SASLFinal("v=x".into()))),
        (
            encode::parameter_status(b"a", b"b"),
            encoded(&ParameterStatus::new("a".to_owned(), "b".to_owned())),
        ),
        (encode::backend_key_data(7, b"0123456789abcdef"), encoded(&key)),
        (
            encode::ready_for_query(backend::TransactionStatus::Idle),
            encoded(&ReadyForQuery::new(TransactionStatus::Idle)),
        ),
    ] {
        assert_eq!(ours, theirs);
    }
    let read = BackendKey::read(frame_of(&key).body()).unwrap();
    assert_eq!((read.process, &read.key[..]), (7, &b"0123456789abcdef"[..]));
}

#[test]
fn an_error_of_ours_they_read_and_theirs_we_do() {
    let report = ErrorReport {
        severity: Severity::Fatal,
        sqlstate: "57P01",
        message: "the session was revoked",
        detail: "",
        hint: "ask for a new one",
    };
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_2);
    let mut buffer = BytesMut::from(&report.encode()[..]);
    let read = PgWireBackendMessage::decode(&mut buffer, &context).unwrap();
    let Some(PgWireBackendMessage::ErrorResponse(read)) = read else { panic!("{read:?}") };
    for (code, text) in
        [(b'V', "FATAL"), (b'C', "57P01"), (b'M', "the session was revoked"), (b'H', "ask for a new one")]
    {
        assert!(read.fields.contains(&(code, text.to_owned())), "{text}");
    }
    let fields = [(b'S', "ERROR"), (b'C', "42P01"), (b'M', "no such table")];
    let theirs = ErrorResponse::new(fields.map(|(code, text)| (code, text.to_owned())).to_vec());
    let ours = Report::read(frame_of(&theirs).body()).unwrap();
    assert_eq!((&ours.severity[..], &ours.sqlstate[..]), (&b"ERROR"[..], &b"42P01"[..]));
}

#[test]
fn their_answers_are_walked() {
    let mut stream = encoded(&extendedquery::ParseComplete::new());
    stream.extend(encoded(&extendedquery::BindComplete::new()));
    stream.extend(encoded(&CommandComplete::new("INSERT 0 5".to_owned())));
    stream.extend(encoded(&ReadyForQuery::new(TransactionStatus::Error)));
    let (mut walker, mut at, mut tags) = (Walker::new(), 0, Vec::new());
    while let Some(message) = walker.next(&stream, &mut at).unwrap() {
        if let ServerMessage::CommandComplete(tag) = &message {
            assert_eq!(tag.rows(), Some(5));
        }
        tags.push(message.tag());
    }
    assert_eq!((tags.as_slice(), walker.at_boundary()), (&b"12CZ"[..], true));
}

#[path = "../fuzz/entries.rs"]
mod entries;

#[test]
fn the_fuzzing_corpus_holds() {
    type Entry = (&'static str, fn(&[u8]));
    let entries: [Entry; 7] = [
        ("startup", entries::startup),
        ("frames", entries::frames),
        ("observer", entries::observer),
        ("observer_model", entries::observer_model),
        ("parameters", entries::parameters),
        ("scram", entries::scram),
        ("statements", entries::statements),
    ];
    for (name, entry) in entries {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            // Every prefix too: what is cut off anywhere must hold as well.
            (0..=bytes.len()).for_each(|end| entry(&bytes[..end]));
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {name} is empty");
    }
}

proptest! {
    #[test]
    fn bent_corpus_inputs_hold(at in any::<prop::sample::Index>(), byte in any::<u8>(), more in any::<u8>()) {
        let mut bytes = include_bytes!("../fuzz/corpus/observer/copy_swallows_sync").to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        bytes.push(more);
        entries::observer(&bytes);
        entries::frames(&bytes);
    }
}
