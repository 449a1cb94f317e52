//! The first packet of a connection, which has no tag: a request for encryption, a cancel
//! request, or the startup message.
//!
//! The caller reads exactly [`FIRST_BYTES`] bytes, asks [`First::read`] what they are, and reads
//! exactly the bytes that [`First`] says follow. Reading no more is what keeps clear-text bytes
//! from being taken for encrypted ones (CVE-2021-23214).

use bytes::{BufMut, Bytes, BytesMut};

use super::cursor::Cursor;
use super::{CodecError, Peer};

/// How many bytes to read before anything is decided: length and code.
pub const FIRST_BYTES: usize = 8;
/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, which does not count the length word.
const MAXIMUM_LENGTH: u32 = 10_000 + 4;
/// The first byte of a TLS record with a handshake in it: direct TLS, without `SSLRequest`.
const TLS_HANDSHAKE: u8 = 0x16;

pub const CANCEL_CODE: u32 = 80_877_102;
pub const SSL_CODE: u32 = 80_877_103;
pub const GSSENC_CODE: u32 = 80_877_104;

/// What a packet for options of the protocol itself starts with.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// Whether a connection's first byte begins a TLS handshake.
pub fn is_direct_tls(first: u8) -> bool {
    first == TLS_HANDSHAKE
}

/// A minor version of protocol 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    pub minor: u16,
}

impl ProtocolVersion {
    pub const V3_0: Self = Self { minor: 0 };
    pub const V3_2: Self = Self { minor: 2 };
    /// The newest that is spoken here.
    pub const LATEST: Self = Self::V3_2;

    /// As in the startup message: major in the upper half.
    pub fn code(self) -> u32 {
        (3 << 16) | u32::from(self.minor)
    }

    /// What is spoken with a client that asks for `self`.
    pub fn negotiated(self) -> Self {
        self.min(Self::LATEST)
    }
}

/// What the first eight bytes announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Ssl,
    Gssenc,
    /// `body` more bytes follow: read them and call [`CancelRequest::parse`].
    Cancel {
        body: usize,
    },
    /// `body` more bytes follow: read them and call [`StartupParameters::parse`].
    Startup {
        version: ProtocolVersion,
        body: usize,
    },
}

impl First {
    pub fn read(bytes: [u8; FIRST_BYTES]) -> Result<Self, CodecError> {
        let [length @ .., _, _, _, _] = bytes;
        let [_, _, _, _, code @ ..] = bytes;
        let [_, _, _, _, major @ .., _, _] = bytes;
        let [_, _, _, _, _, _, minor @ ..] = bytes;
        let (length, code) = (u32::from_be_bytes(length), u32::from_be_bytes(code));
        let (major, minor) = (u16::from_be_bytes(major), u16::from_be_bytes(minor));
        let body = match length {
            8..=MAXIMUM_LENGTH => length as usize - FIRST_BYTES,
            _ => return Err(CodecError::StartupLength { length }),
        };
        match (code, major) {
            (SSL_CODE | GSSENC_CODE, _) if body != 0 => Err(CodecError::StartupLength { length }),
            (SSL_CODE, _) => Ok(Self::Ssl),
            (GSSENC_CODE, _) => Ok(Self::Gssenc),
            (CANCEL_CODE, _) => CancelRequest::check_length(body).map(|()| Self::Cancel { body }),
            (_, 3) => Ok(Self::Startup { version: ProtocolVersion { minor }, body }),
            _ => Err(CodecError::UnsupportedProtocol { major, minor }),
        }
    }
}

/// A request to cancel what the connection with this key is doing. Its key is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelRequest {
    pub process: u32,
    /// Four bytes in protocol 3.0, up to 256 since 3.2.
    pub key: Bytes,
}

impl std::fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelRequest").field("process", &self.process).finish_non_exhaustive()
    }
}

impl CancelRequest {
    pub const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 4..=256;

    pub fn parse(body: Bytes) -> Result<Self, CodecError> {
        Self::check_length(body.len())?;
        let mut cursor = Cursor::new("CancelRequest", body);
        Ok(Self { process: cursor.u32()?, key: cursor.rest() })
    }

    fn check_length(body: usize) -> Result<(), CodecError> {
        let length = body.saturating_sub(4);
        if Self::KEY_LENGTHS.contains(&length) { Ok(()) } else { Err(CodecError::CancelKeyLength { length }) }
    }
}

/// What a client asked for: names and values in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupParameters {
    pairs: Vec<(Bytes, Bytes)>,
    user: String,
    database: Option<String>,
}

/// Names whose second mention PostgreSQL would let win after the first was looked at.
const ONCE: [&str; 4] = ["user", "database", "replication", "options"];

impl StartupParameters {
    /// Reads the body that [`First::Startup`] announced: pairs, then one NUL as the last byte.
    pub fn parse(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("StartupMessage", body);
        let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let name = cursor.text().map_err(|_| CodecError::StartupLayout)?;
            if name.is_empty() {
                break;
            }
            let value = cursor.text().map_err(|_| CodecError::StartupLayout)?;
            let known = ONCE.into_iter().find(|once| once.as_bytes() == name);
            if let Some(once) = known
                && pairs.iter().any(|(other, _)| *other == name)
            {
                return Err(CodecError::DuplicateParameter { name: once });
            }
            pairs.push((name, value));
        }
        cursor.finish().map_err(|_| CodecError::StartupLayout)?;
        let user = named(&pairs, "user")?.ok_or(CodecError::NoUser)?;
        let database = named(&pairs, "database")?;
        Ok(Self { pairs, user, database })
    }

    /// Never empty.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Never empty: PostgreSQL takes an empty name for an absent one, and then uses the user's.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// A parameter's value; of several with one name, the last, which PostgreSQL lets win.
    pub fn value(&self, name: &str) -> Option<&Bytes> {
        self.pairs.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Whether a replication connection is asked for: any value but PostgreSQL's words for "off".
    pub fn wants_replication(&self) -> bool {
        self.replication().is_some()
    }

    /// What kind of replication connection is asked for, as the client wrote it.
    pub fn replication(&self) -> Option<&Bytes> {
        let written = self.value("replication")?;
        let value = written.to_ascii_lowercase();
        let abbreviates = |word: &[u8], shortest: usize| value.len() >= shortest && word.starts_with(&value);
        let is_off =
            abbreviates(b"false", 1) || abbreviates(b"no", 1) || abbreviates(b"off", 2) || value == b"0";
        (!is_off).then_some(written)
    }

    /// Whether it is bound to a database, where SQL is run too; else the server ignores the database.
    pub fn replicates_database(&self) -> bool {
        self.replication().is_some_and(|value| value.eq_ignore_ascii_case(b"database"))
    }

    /// Whether the server is asked to rest before it lets the client in (PostgreSQL documentation, section 20.17), by the
    /// setting's name or by the server's switch `-W`.
    ///
    /// The server reads `options` without backslashes, and a dash in a setting's name as an underscore. Rather too much is
    /// taken for that switch: others than `-c` are given by nobody but who tries something.
    pub fn wants_delay(&self) -> bool {
        const DELAY: &[u8] = b"post_auth_delay";
        let is_delay = |name: &[u8]| name.eq_ignore_ascii_case(DELAY);
        let is_switch = |word: &[u8]| match word {
            [b'-', b'c' | b'-', ..] => false,
            [b'-', letters @ ..] => letters.contains(&b'W'),
            _ => false,
        };
        let asks = |options: &[u8]| {
            let plain: Vec<u8> = options.iter().copied().filter(|byte| *byte != b'\\').collect();
            let name: Vec<u8> = plain.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
            let mut words = plain.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b);
            name.windows(DELAY.len()).any(is_delay) || words.any(is_switch)
        };
        self.pairs.iter().any(|(name, value)| is_delay(name) || (name == "options" && asks(value)))
    }

    /// Everything but `user`, `database`, `replication` and options of the protocol itself.
    pub fn settings(&self) -> impl Iterator<Item = &(Bytes, Bytes)> {
        self.pairs.iter().filter(|(name, _)| {
            !matches!(name.as_ref(), b"user" | b"database" | b"replication")
                && !name.starts_with(PROTOCOL_OPTION)
        })
    }

    /// Options of the protocol, none of which is known here: named in `NegotiateProtocolVersion`.
    pub fn protocol_options(&self) -> impl Iterator<Item = &Bytes> {
        self.pairs.iter().map(|(name, _)| name).filter(|name| name.starts_with(PROTOCOL_OPTION))
    }

    /// The answer that a client needs when it asked for more than is spoken here.
    pub fn negotiation(&self, asked: ProtocolVersion) -> Option<Bytes> {
        let options: Vec<&[u8]> = self.protocol_options().map(AsRef::as_ref).collect();
        (asked > ProtocolVersion::LATEST || !options.is_empty())
            .then(|| super::encode::negotiate_protocol_version(asked.negotiated(), &options))
    }
}

/// The text of a parameter; `None` when absent or empty.
fn named(pairs: &[(Bytes, Bytes)], name: &'static str) -> Result<Option<String>, CodecError> {
    let Some((_, value)) = pairs.iter().find(|(other, _)| other == name) else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| CodecError::NotText { name })?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A startup message for a target.
pub fn startup_message<'a>(
    version: ProtocolVersion,
    pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Bytes, CodecError> {
    let mut body = BytesMut::new();
    body.put_u32(version.code());
    for (name, value) in pairs {
        if name.is_empty() || name.contains(&0) || value.contains(&0) {
            return Err(CodecError::ZeroByte { field: "a startup parameter" });
        }
        body.extend_from_slice(name);
        body.put_u8(0);
        body.extend_from_slice(value);
        body.put_u8(0);
    }
    body.put_u8(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    if length > MAXIMUM_LENGTH {
        return Err(CodecError::Oversized { message: "StartupMessage" });
    }
    let mut packet = BytesMut::with_capacity(body.len() + 4);
    packet.put_u32(length);
    packet.extend_from_slice(&body);
    Ok(packet.freeze())
}

/// A server's one-byte answer to `SSLRequest`: whether it goes on in TLS.
pub fn accepts_tls(answer: u8) -> Result<bool, CodecError> {
    match answer {
        b'S' => Ok(true),
        b'N' => Ok(false),
        tag => {
            Err(CodecError::Unexpected { peer: Peer::Target, tag, state: "in answer to a request for TLS" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(length: u32, code: u32) -> Result<First, CodecError> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[4..].copy_from_slice(&code.to_be_bytes());
        First::read(bytes)
    }

    fn parse(body: &'static [u8]) -> Result<StartupParameters, CodecError> {
        StartupParameters::parse(Bytes::from_static(body))
    }

    #[test]
    fn the_first_eight_bytes_decide_what_follows() {
        assert_eq!(first(8, SSL_CODE), Ok(First::Ssl));
        assert_eq!(first(8, GSSENC_CODE), Ok(First::Gssenc));
        assert_eq!(first(16, CANCEL_CODE), Ok(First::Cancel { body: 8 }));
        assert_eq!(first(268, CANCEL_CODE), Ok(First::Cancel { body: 260 }));
        let startup = First::Startup { version: ProtocolVersion::V3_2, body: 10_004 - 8 };
        assert_eq!(first(10_004, 0x0003_0002), Ok(startup));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_is_read() {
        for length in [0, 4, 7, 10_005, i32::MAX as u32, u32::MAX] {
            assert_eq!(first(length, 0x0003_0000), Err(CodecError::StartupLength { length }));
        }
        assert!(first(9, SSL_CODE).is_err());
        assert!(first(12, GSSENC_CODE).is_err());
        assert_eq!(first(15, CANCEL_CODE), Err(CodecError::CancelKeyLength { length: 3 }));
        assert_eq!(first(269, CANCEL_CODE), Err(CodecError::CancelKeyLength { length: 257 }));
    }

    #[test]
    fn other_protocols_are_refused() {
        for (code, major, minor) in
            [(0x0002_0000, 2, 0), (0x0004_0000, 4, 0), (0, 0, 0), (80_877_105, 1234, 5681)]
        {
            assert_eq!(first(8, code), Err(CodecError::UnsupportedProtocol { major, minor }));
        }
    }

    #[test]
    fn parameters_are_read_in_order() {
        let read = parse(b"user\0alice+ledger\0database\0books\0application_name\0psql\0\0").unwrap();
        assert_eq!((read.user(), read.database()), ("alice+ledger", Some("books")));
        let settings: Vec<_> = read.settings().map(|(name, _)| name.clone()).collect();
        assert_eq!(settings, [&b"application_name"[..]]);
        assert!(!read.wants_replication());
        assert_eq!(read.negotiation(ProtocolVersion::V3_2), None);
    }

    #[test]
    fn an_empty_or_absent_user_is_refused_and_an_empty_database_is_none() {
        assert_eq!(parse(b"\0"), Err(CodecError::NoUser));
        assert_eq!(parse(b"user\0\0\0"), Err(CodecError::NoUser));
        assert_eq!(parse(b"user\0a\0database\0\0\0").unwrap().database(), None);
        assert_eq!(parse(b"user\0\xff\0\0"), Err(CodecError::NotText { name: "user" }));
    }

    #[test]
    fn a_second_user_or_database_is_refused() {
        for name in ONCE {
            let body = format!("user\0a\0{name}\0b\0{name}\0c\0\0");
            assert_eq!(
                StartupParameters::parse(Bytes::from(body)),
                Err(CodecError::DuplicateParameter { name })
            );
        }
    }

    #[test]
    fn the_terminator_is_the_last_byte() {
        for body in [&b""[..], b"user\0a", b"user\0a\0", b"user", b"user\0a\0\0x", b"user\0a\0\0\0"] {
            assert_eq!(StartupParameters::parse(Bytes::from(body)), Err(CodecError::StartupLayout));
        }
    }

    #[test]
    fn replication_is_wanted_unless_it_is_off() {
        for (value, wanted) in [
            ("1", true),
            ("database", true),
            ("on", true),
            ("o", true),
            ("OFF", false),
            ("f", false),
            ("0", false),
        ] {
            let body = format!("user\0a\0replication\0{value}\0\0");
            let read = StartupParameters::parse(Bytes::from(body)).unwrap();
            assert_eq!(read.wants_replication(), wanted, "{value}");
        }
    }

    #[test]
    fn newer_minors_and_unknown_options_are_negotiated_down() {
        let read = parse(b"user\0a\0_pq_.wings\x001\0TimeZone\0UTC\0\0").unwrap();
        assert_eq!(read.settings().count(), 1);
        let answer = read.negotiation(ProtocolVersion { minor: 9999 }).unwrap();
        assert_eq!(&answer[..], b"v\0\0\0\x17\0\x03\0\x02\0\0\0\x01_pq_.wings\0");
        let plain = parse(b"user\0a\0\0").unwrap();
        assert!(plain.negotiation(ProtocolVersion { minor: 3 }).is_some());
        assert!(plain.negotiation(ProtocolVersion::V3_0).is_none());
    }

    #[test]
    fn a_startup_message_reads_back_as_it_was_written() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"user", b"sp_1"), (b"database", b"books")];
        let packet = startup_message(ProtocolVersion::V3_0, pairs).unwrap();
        let header: [u8; 8] = packet[..8].try_into().unwrap();
        let First::Startup { body, .. } = First::read(header).unwrap() else { panic!("not a startup") };
        assert_eq!(body, packet.len() - 8);
        let read = StartupParameters::parse(packet.slice(8..)).unwrap();
        assert_eq!((read.user(), read.database()), ("sp_1", Some("books")));
        assert!(startup_message(ProtocolVersion::V3_0, [(&b"user"[..], &b"a\0b"[..])]).is_err());
    }
}
