//! What the target's messages say: those that the gateway looks at.

use bytes::Bytes;

use super::cursor::Cursor;
use super::frame::Frame;
use super::{CodecError, Peer};

/// The byte of `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

impl TransactionStatus {
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }

    pub fn read(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("ReadyForQuery", body);
        let status = match cursor.u8()? {
            b'I' => Self::Idle,
            b'T' => Self::InTransaction,
            b'E' => Self::Failed,
            other => return Err(cursor.invalid("transaction status", other.into())),
        };
        cursor.finish()?;
        Ok(status)
    }
}

/// What a target asks for, or says, while it checks who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// The mechanisms offered.
    Sasl(Vec<Bytes>),
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    /// Kerberos, GSSAPI, SSPI or one that does not exist.
    Other(u32),
}

impl Authentication {
    pub fn read(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("Authentication", body);
        let read = match cursor.u32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password { salt: cursor.u32()?.to_be_bytes() },
            10 => Self::Sasl(texts_to_empty(&mut cursor)?),
            11 => Self::SaslContinue(cursor.rest()),
            12 => Self::SaslFinal(cursor.rest()),
            other => return Ok(Self::Other(other)),
        };
        cursor.finish()?;
        Ok(read)
    }
}

fn texts_to_empty(cursor: &mut Cursor) -> Result<Vec<Bytes>, CodecError> {
    let mut texts = Vec::new();
    loop {
        let text = cursor.text()?;
        if text.is_empty() {
            return Ok(texts);
        }
        texts.push(text);
    }
}

/// The key that cancels a connection's statements. It is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKey {
    pub process: u32,
    pub key: Bytes,
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendKey").field("process", &self.process).finish_non_exhaustive()
    }
}

impl BackendKey {
    pub fn read(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("BackendKeyData", body);
        let process = cursor.u32()?;
        if !super::startup::CancelRequest::KEY_LENGTHS.contains(&cursor.remaining()) {
            let length = i64::try_from(cursor.remaining()).unwrap_or(i64::MAX);
            return Err(cursor.invalid("key length", length));
        }
        Ok(Self { process, key: cursor.rest() })
    }
}

/// Name and value of a `ParameterStatus`.
pub fn parameter_status(body: Bytes) -> Result<(Bytes, Bytes), CodecError> {
    let mut cursor = Cursor::new("ParameterStatus", body);
    let pair = (cursor.text()?, cursor.text()?);
    cursor.finish()?;
    Ok(pair)
}

/// The newest protocol the target speaks (as its version code) and the options it does not know.
pub fn negotiate_protocol_version(body: Bytes) -> Result<(u32, Vec<Bytes>), CodecError> {
    let mut cursor = Cursor::new("NegotiateProtocolVersion", body);
    let (version, count) = (cursor.u32()?, cursor.u32()? as usize);
    if count > cursor.remaining() {
        return Err(CodecError::Truncated { message: "NegotiateProtocolVersion" });
    }
    let options = (0..count).map(|_| cursor.text()).collect::<Result<_, _>>()?;
    cursor.finish()?;
    Ok((version, options))
}

/// The text of a `CommandComplete`, such as `INSERT 0 5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTag(pub Bytes);

impl CommandTag {
    pub fn read(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("CommandComplete", body);
        let tag = cursor.text()?;
        cursor.finish()?;
        Ok(Self(tag))
    }

    /// The row count at the tag's end, when it has one.
    pub fn rows(&self) -> Option<u64> {
        let last = self.0.rsplit(|byte| *byte == b' ').next()?;
        std::str::from_utf8(last).ok()?.parse().ok()
    }
}

/// Type OIDs of a statement's parameters.
pub fn parameter_description(body: Bytes) -> Result<Vec<u32>, CodecError> {
    let mut cursor = Cursor::new("ParameterDescription", body);
    let count = cursor.count(4)?;
    let types = (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>()?;
    cursor.finish()?;
    Ok(types)
}

/// Reads `CopyInResponse`, `CopyOutResponse` or `CopyBothResponse`; true when the data is binary.
pub fn copy_response(body: Bytes) -> Result<bool, CodecError> {
    let mut cursor = Cursor::new("CopyResponse", body);
    let binary = match cursor.u8()? {
        0 => false,
        1 => true,
        other => return Err(cursor.invalid("format", other.into())),
    };
    let columns = cursor.count(2)?;
    cursor.bytes(columns * 2)?;
    cursor.finish()?;
    Ok(binary)
}

/// The fields of an `ErrorResponse` or `NoticeResponse` that are of use here. Texts are in the
/// client's encoding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`…, never translated.
    pub severity: Bytes,
    pub sqlstate: Bytes,
    pub message: Bytes,
    pub detail: Bytes,
    pub hint: Bytes,
}

impl Report {
    pub fn read(body: Bytes) -> Result<Self, CodecError> {
        let mut cursor = Cursor::new("ErrorResponse", body);
        let mut report = Self::default();
        while report.field(&mut cursor)? {}
        cursor.finish()?;
        Ok(report)
    }

    /// Reads what there is of a report whose end was cut off.
    pub fn read_cut(body: Bytes) -> Self {
        let mut cursor = Cursor::new("ErrorResponse", body);
        let mut report = Self::default();
        while matches!(report.field(&mut cursor), Ok(true)) {}
        report
    }

    /// Whether the server ends the connection after this.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_ref(), b"FATAL" | b"PANIC")
    }

    /// Reads one field; false at the end of the list.
    fn field(&mut self, cursor: &mut Cursor) -> Result<bool, CodecError> {
        let code = cursor.u8()?;
        if code == 0 {
            return Ok(false);
        }
        let text = cursor.text()?;
        match code {
            b'V' => self.severity = text,
            b'S' if self.severity.is_empty() => self.severity = text,
            b'C' => self.sqlstate = text,
            b'M' => self.message = text,
            b'D' => self.detail = text,
            b'H' => self.hint = text,
            _ => {}
        }
        Ok(true)
    }
}

/// A message of the handshake with a target, up to the first `ReadyForQuery`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    Authentication(Authentication),
    Parameter { name: Bytes, value: Bytes },
    Key(BackendKey),
    Ready(TransactionStatus),
    Error(Report),
    Notice(Report),
    NegotiateVersion { version: u32, options: Vec<Bytes> },
}

impl Startup {
    pub fn read(frame: &Frame) -> Result<Self, CodecError> {
        let body = frame.body();
        match frame.tag {
            b'R' => Authentication::read(body).map(Self::Authentication),
            b'S' => parameter_status(body).map(|(name, value)| Self::Parameter { name, value }),
            b'K' => BackendKey::read(body).map(Self::Key),
            b'Z' => TransactionStatus::read(body).map(Self::Ready),
            b'E' => Report::read(body).map(Self::Error),
            b'N' => Report::read(body).map(Self::Notice),
            b'v' => negotiate_protocol_version(body)
                .map(|(version, options)| Self::NegotiateVersion { version, options }),
            tag => Err(CodecError::Unexpected { peer: Peer::Target, tag, state: "before it was ready" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_by_field_codes() {
        let body = b"SFEHLER\0VERROR\0C42P01\0Mno such table\0Hlook\0X?\0\0";
        let report = Report::read(Bytes::from_static(body)).unwrap();
        assert_eq!((&report.severity[..], &report.sqlstate[..]), (&b"ERROR"[..], &b"42P01"[..]));
        assert_eq!((&report.message[..], &report.hint[..]), (&b"no such table"[..], &b"look"[..]));
        for end in 0..body.len() {
            assert!(Report::read(Bytes::from_static(&body[..end])).is_err(), "{end}");
        }
        assert_eq!(&Report::read_cut(Bytes::from_static(&body[..23])).sqlstate[..], b"42P01");
    }

    #[test]
    fn a_key_may_be_longer_since_3_2_but_not_beyond_256_bytes() {
        for (length, accepted) in [(3, false), (4, true), (256, true), (257, false)] {
            assert_eq!(BackendKey::read(Bytes::from(vec![7; 4 + length])).is_ok(), accepted, "{length}");
        }
    }

    #[test]
    fn a_command_tag_gives_its_rows() {
        for (text, rows) in [("INSERT 0 5", Some(5)), ("COPY 7", Some(7)), ("BEGIN", None)] {
            let tag = CommandTag::read(Bytes::from(format!("{text}\0"))).unwrap();
            assert_eq!(tag.rows(), rows);
        }
        assert!(CommandTag::read(Bytes::from_static(b"BEGIN")).is_err());
    }

    #[test]
    fn counts_beyond_the_message_are_refused() {
        assert!(parameter_description(Bytes::from_static(b"\xff\xff\0\0\0\x17")).is_err());
        assert!(copy_response(Bytes::from_static(b"\0\0\x02\0\0")).is_err());
        assert!(negotiate_protocol_version(Bytes::from_static(b"\0\x03\0\0\xff\xff\xff\xffx\0")).is_err());
        assert!(Authentication::read(Bytes::from_static(b"\0\0\0\x0aSCRAM-SHA-256\0")).is_err());
    }

    #[test]
    fn authentication_requests_are_told_apart() {
        let sasl = Authentication::read(Bytes::from_static(b"\0\0\0\x0aSCRAM-SHA-256\0\0")).unwrap();
        assert_eq!(sasl, Authentication::Sasl(vec![Bytes::from_static(b"SCRAM-SHA-256")]));
        assert_eq!(Authentication::read(Bytes::from_static(b"\0\0\0\0")), Ok(Authentication::Ok));
        assert_eq!(Authentication::read(Bytes::from_static(b"\0\0\0\x07")), Ok(Authentication::Other(7)));
        assert!(Authentication::read(Bytes::from_static(b"\0\0\0\0x")).is_err());
    }
}
