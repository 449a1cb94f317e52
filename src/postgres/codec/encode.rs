//! The messages that the gateway writes itself. Texts with a zero byte in them are cut there:
//! they are ours, or were read from a message that could not contain one.

use bytes::{BufMut, Bytes, BytesMut};

use super::backend::TransactionStatus;
use super::startup::{CANCEL_CODE, CancelRequest, ProtocolVersion, SSL_CODE};

/// `SSLRequest`.
pub fn ssl_request() -> Bytes {
    untagged(|body| body.put_u32(SSL_CODE))
}

pub fn cancel_request(request: &CancelRequest) -> Bytes {
    untagged(|body| {
        body.put_u32(CANCEL_CODE);
        body.put_u32(request.process);
        body.extend_from_slice(&request.key);
    })
}

pub fn sasl_initial_response(mechanism: &str, data: &[u8]) -> Bytes {
    tagged(b'p', |body| {
        text(body, mechanism.as_bytes());
        body.put_u32(length_word(data.len()));
        body.extend_from_slice(data);
    })
}

pub fn sasl_response(data: &[u8]) -> Bytes {
    tagged(b'p', |body| body.extend_from_slice(data))
}

/// `PasswordMessage`: a clear password or an IAM token, for a target over verified TLS only.
pub fn password(password: &[u8]) -> Bytes {
    tagged(b'p', |body| text(body, password))
}

pub fn query(sql: &[u8]) -> Bytes {
    tagged(b'Q', |body| text(body, sql))
}

/// `Parse` without types.
pub fn parse(name: &[u8], sql: &[u8]) -> Bytes {
    tagged(b'P', |body| {
        text(body, name);
        text(body, sql);
        body.put_u16(0);
    })
}

pub fn terminate() -> Bytes {
    Bytes::from_static(b"X\0\0\0\x04")
}

/// Makes the server send what it holds back. It answers nothing of its own, in any state.
pub fn flush() -> Bytes {
    Bytes::from_static(b"H\0\0\0\x04")
}

pub fn authentication_ok() -> Bytes {
    Bytes::from_static(b"R\0\0\0\x08\0\0\0\0")
}

pub fn authentication_sasl(mechanisms: &[&str]) -> Bytes {
    tagged(b'R', |body| {
        body.put_u32(10);
        for mechanism in mechanisms {
            text(body, mechanism.as_bytes());
        }
        body.put_u8(0);
    })
}

pub fn authentication_sasl_continue(data: &[u8]) -> Bytes {
    tagged(b'R', |body| {
        body.put_u32(11);
        body.extend_from_slice(data);
    })
}

pub fn authentication_sasl_final(data: &[u8]) -> Bytes {
    tagged(b'R', |body| {
        body.put_u32(12);
        body.extend_from_slice(data);
    })
}

pub fn parameter_status(name: &[u8], value: &[u8]) -> Bytes {
    tagged(b'S', |body| {
        text(body, name);
        text(body, value);
    })
}

/// `key` of 4 bytes for protocol 3.0, up to 256 for 3.2.
pub fn backend_key_data(process: u32, key: &[u8]) -> Bytes {
    tagged(b'K', |body| {
        body.put_u32(process);
        body.extend_from_slice(key);
    })
}

pub fn ready_for_query(status: TransactionStatus) -> Bytes {
    tagged(b'Z', |body| body.put_u8(status.byte()))
}

pub fn negotiate_protocol_version(newest: ProtocolVersion, unknown_options: &[&[u8]]) -> Bytes {
    tagged(b'v', |body| {
        body.put_u32(newest.code());
        body.put_u32(length_word(unknown_options.len()));
        for option in unknown_options {
            text(body, option);
        }
    })
}

/// How bad what a report tells of is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Something to know.
    Notice,
}

/// A report of ours to a client; empty `detail` and `hint` are left out.
#[derive(Debug, Clone, Copy)]
pub struct ErrorReport<'a> {
    pub severity: Severity,
    /// Five characters.
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: &'a str,
    pub hint: &'a str,
}

impl ErrorReport<'_> {
    /// `ErrorResponse`, or `NoticeResponse` when it is but a notice.
    pub fn encode(&self) -> Bytes {
        let (tag, severity) = match self.severity {
            Severity::Error => (b'E', "ERROR"),
            Severity::Fatal => (b'E', "FATAL"),
            Severity::Notice => (b'N', "NOTICE"),
        };
        tagged(tag, |body| {
            let fields = [
                (b'S', severity),
                (b'V', severity),
                (b'C', self.sqlstate),
                (b'M', self.message),
                (b'D', self.detail),
                (b'H', self.hint),
            ];
            // The message is required; others are left out when empty.
            for (code, value) in fields.into_iter().filter(|(code, value)| *code == b'M' || !value.is_empty())
            {
                body.put_u8(code);
                text(body, value.as_bytes());
            }
            body.put_u8(0);
        })
    }
}

fn text(body: &mut BytesMut, text: &[u8]) {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    body.extend(text.iter().take(end));
    body.put_u8(0);
}

fn tagged(tag: u8, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let body = untagged(write);
    let mut message = BytesMut::with_capacity(body.len() + 1);
    message.put_u8(tag);
    message.extend_from_slice(&body);
    message.freeze()
}

fn untagged(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut body = BytesMut::new();
    write(&mut body);
    let mut message = BytesMut::with_capacity(body.len() + 4);
    message.put_u32(length_word(body.len() + 4));
    message.extend_from_slice(&body);
    message.freeze()
}

fn length_word(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::backend::{Authentication, BackendKey, Report, Startup};
    use super::super::frame::{self, Frame};
    use super::super::frontend::{self, SaslInitialResponse};
    use super::super::startup::First;
    use super::*;

    fn frame(bytes: &Bytes) -> Frame {
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = frame::whole(&mut buffer, 1 << 20).unwrap().unwrap();
        assert!(buffer.is_empty());
        frame
    }

    #[test]
    fn what_we_write_reads_back() {
        let report = ErrorReport {
            severity: Severity::Fatal,
            sqlstate: "28000",
            message: "no session",
            detail: "",
            hint: "ask for one",
        };
        let Startup::Error(read) = Startup::read(&frame(&report.encode())).unwrap() else { panic!() };
        let expected = Report {
            severity: Bytes::from_static(b"FATAL"),
            sqlstate: Bytes::from_static(b"28000"),
            message: Bytes::from_static(b"no session"),
            detail: Bytes::new(),
            hint: Bytes::from_static(b"ask for one"),
        };
        assert_eq!(read, expected);
        for (bytes, expected) in [
            (authentication_ok(), Startup::Authentication(Authentication::Ok)),
            (
                authentication_sasl(&["A", "B"]),
                Startup::Authentication(Authentication::Sasl(vec!["A".into(), "B".into()])),
            ),
            (
                authentication_sasl_continue(b"x"),
                Startup::Authentication(Authentication::SaslContinue("x".into())),
            ),
            (authentication_sasl_final(b"y"), Startup::Authentication(Authentication::SaslFinal("y".into()))),
            (parameter_status(b"a", b"b"), Startup::Parameter { name: "a".into(), value: "b".into() }),
            (backend_key_data(7, b"abcd"), Startup::Key(BackendKey { process: 7, key: "abcd".into() })),
            (ready_for_query(TransactionStatus::Failed), Startup::Ready(TransactionStatus::Failed)),
        ] {
            assert_eq!(Startup::read(&frame(&bytes)), Ok(expected));
        }
    }

    #[test]
    fn what_we_write_to_a_target_reads_back() {
        let request = CancelRequest { process: 9, key: Bytes::from_static(b"0123456789abcdef") };
        let packet = cancel_request(&request);
        let body = packet.len() - 8;
        assert_eq!(First::read(packet[..8].try_into().unwrap()), Ok(First::Cancel { body }));
        assert_eq!(CancelRequest::parse(packet.slice(8..)), Ok(request));
        assert_eq!(First::read(ssl_request()[..].try_into().unwrap()), Ok(First::Ssl));
        let initial =
            SaslInitialResponse::read(&frame(&sasl_initial_response("SCRAM-SHA-256", b"n,,"))).unwrap();
        assert_eq!((&initial.mechanism[..], initial.data), (&b"SCRAM-SHA-256"[..], Some("n,,".into())));
        assert_eq!(frontend::sasl_response(&frame(&sasl_response(b"c="))), Ok("c=".into()));
        assert_eq!(frontend::password(&frame(&password(b"pw"))), Ok("pw".into()));
    }

    #[test]
    fn a_zero_byte_cannot_smuggle_a_second_field() {
        let read = backend_parameter(&parameter_status(b"a\0evil", b"b"));
        assert_eq!(read, Ok(("a".into(), "b".into())));
    }

    fn backend_parameter(bytes: &Bytes) -> Result<(Bytes, Bytes), super::super::CodecError> {
        super::super::backend::parameter_status(frame(bytes).body())
    }
}
