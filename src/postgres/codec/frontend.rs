//! What a client's messages say. Every field is read inside its frame, and the frame must end
//! with its last field, except where the server does not care.

use bytes::Bytes;

use super::cursor::Cursor;
use super::frame::Frame;
use super::{CodecError, Peer};

/// What `Describe` and `Close` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Statement,
    Portal,
}

/// How a value is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// The formats of a row of values: none given (all text), one for all, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(Vec<Format>);

impl Formats {
    pub fn of(&self, index: usize) -> Format {
        match self.0.as_slice() {
            [] => Format::Text,
            [all] => *all,
            each => each.get(index).copied().unwrap_or(Format::Text),
        }
    }

    fn read(cursor: &mut Cursor) -> Result<Self, CodecError> {
        let count = cursor.count(2)?;
        (0..count).map(|_| Format::read(cursor)).collect::<Result<_, _>>().map(Self)
    }

    /// PostgreSQL refuses more than one format unless there is one for each value.
    fn fit(&self, cursor: &Cursor, values: usize) -> Result<(), CodecError> {
        match self.0.len() {
            0 | 1 => Ok(()),
            count if count == values => Ok(()),
            count => Err(cursor.invalid("count of formats", i64::try_from(count).unwrap_or(i64::MAX))),
        }
    }
}

impl Format {
    fn read(cursor: &mut Cursor) -> Result<Self, CodecError> {
        match cursor.u16()? {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            code => Err(cursor.invalid("format", code.into())),
        }
    }
}

/// PostgreSQL's `NAMEDATALEN` less one: names of statements and portals are the same if so many bytes of them are.
pub const LONGEST_NAME: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse {
    /// Empty for the unnamed statement.
    pub name: Bytes,
    pub sql: Bytes,
    /// Type OIDs of the first parameters; 0 leaves the choice to the server.
    pub types: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub portal: Bytes,
    pub statement: Bytes,
    pub formats: Formats,
    /// `None` is NULL.
    pub values: Vec<Option<Bytes>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall {
    pub function: u32,
    pub formats: Formats,
    pub arguments: Vec<Option<Bytes>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    Query {
        sql: Bytes,
    },
    Parse(Parse),
    Bind(Bind),
    Describe {
        subject: Subject,
        name: Bytes,
    },
    /// `max_rows` of zero or less is without limit.
    Execute {
        portal: Bytes,
        max_rows: i32,
    },
    Close {
        subject: Subject,
        name: Bytes,
    },
    Flush,
    Sync,
    FunctionCall(FunctionCall),
    CopyData(Bytes),
    CopyDone,
    CopyFail {
        reason: Bytes,
    },
    Terminate,
}

impl ClientMessage {
    /// Reads a message of the time after login; a password message is refused then.
    pub fn read(frame: &Frame) -> Result<Self, CodecError> {
        let body = frame.body();
        match frame.tag {
            b'Q' => read_all("Query", body, |cursor| Ok(Self::Query { sql: cursor.text()? })),
            b'P' => read_all("Parse", body, parse),
            b'B' => read_all("Bind", body, bind),
            b'D' => read_all("Describe", body, |cursor| {
                Ok(Self::Describe { subject: subject(cursor)?, name: name(cursor)? })
            }),
            b'E' => read_all("Execute", body, |cursor| {
                Ok(Self::Execute { portal: name(cursor)?, max_rows: cursor.i32()? })
            }),
            b'C' => read_all("Close", body, |cursor| {
                Ok(Self::Close { subject: subject(cursor)?, name: name(cursor)? })
            }),
            b'H' => read_all("Flush", body, |_| Ok(Self::Flush)),
            b'S' => read_all("Sync", body, |_| Ok(Self::Sync)),
            b'F' => read_all("FunctionCall", body, function_call),
            b'd' => Ok(Self::CopyData(body)),
            // The server does not look at what is in these, but for the reason in the middle of a COPY.
            b'c' => Ok(Self::CopyDone),
            b'f' => {
                let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
                Ok(Self::CopyFail { reason: body.slice(..end) })
            }
            b'X' => Ok(Self::Terminate),
            tag @ b'p' => Err(CodecError::Unexpected { peer: Peer::Client, tag, state: "after login" }),
            tag => Err(CodecError::UnknownTag { peer: Peer::Client, tag }),
        }
    }
}

/// What a client says in a `SASLInitialResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslInitialResponse {
    pub mechanism: Bytes,
    /// `None` when the client sent no data with its choice.
    pub data: Option<Bytes>,
}

impl SaslInitialResponse {
    pub fn read(frame: &Frame) -> Result<Self, CodecError> {
        expect_password_tag(frame)?;
        read_all("SASLInitialResponse", frame.body(), |cursor| {
            Ok(Self { mechanism: cursor.text()?, data: cursor.value()? })
        })
    }
}

/// The data of a `SASLResponse`: the whole body.
pub fn sasl_response(frame: &Frame) -> Result<Bytes, CodecError> {
    expect_password_tag(frame)?;
    Ok(frame.body())
}

/// The text of a `PasswordMessage`. It is a secret.
pub fn password(frame: &Frame) -> Result<Bytes, CodecError> {
    expect_password_tag(frame)?;
    read_all("PasswordMessage", frame.body(), Cursor::text)
}

fn expect_password_tag(frame: &Frame) -> Result<(), CodecError> {
    match frame.tag {
        b'p' => Ok(()),
        tag => Err(CodecError::Unexpected { peer: Peer::Client, tag, state: "before login" }),
    }
}

fn read_all<T>(
    message: &'static str,
    body: Bytes,
    read: impl FnOnce(&mut Cursor) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    let mut cursor = Cursor::new(message, body);
    let value = read(&mut cursor)?;
    cursor.finish()?;
    Ok(value)
}

fn subject(cursor: &mut Cursor) -> Result<Subject, CodecError> {
    match cursor.u8()? {
        b'S' => Ok(Subject::Statement),
        b'P' => Ok(Subject::Portal),
        other => Err(cursor.invalid("subject", other.into())),
    }
}

/// The name of a statement or portal: as much of it as the server looks at.
fn name(cursor: &mut Cursor) -> Result<Bytes, CodecError> {
    let mut name = cursor.text()?;
    name.truncate(LONGEST_NAME);
    Ok(name)
}

fn parse(cursor: &mut Cursor) -> Result<ClientMessage, CodecError> {
    let (name, sql) = (name(cursor)?, cursor.text()?);
    let count = cursor.count(4)?;
    let types = (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>()?;
    Ok(ClientMessage::Parse(Parse { name, sql, types }))
}

fn bind(cursor: &mut Cursor) -> Result<ClientMessage, CodecError> {
    let (portal, statement) = (name(cursor)?, name(cursor)?);
    let formats = Formats::read(cursor)?;
    let values = values(cursor)?;
    formats.fit(cursor, values.len())?;
    Formats::read(cursor)?; // of the results: the server's business
    Ok(ClientMessage::Bind(Bind { portal, statement, formats, values }))
}

fn function_call(cursor: &mut Cursor) -> Result<ClientMessage, CodecError> {
    let function = cursor.u32()?;
    let formats = Formats::read(cursor)?;
    let arguments = values(cursor)?;
    formats.fit(cursor, arguments.len())?;
    Format::read(cursor)?;
    Ok(ClientMessage::FunctionCall(FunctionCall { function, formats, arguments }))
}

fn values(cursor: &mut Cursor) -> Result<Vec<Option<Bytes>>, CodecError> {
    let count = cursor.count(4)?;
    (0..count).map(|_| cursor.value()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, body: &[u8]) -> Result<ClientMessage, CodecError> {
        let mut raw = vec![tag];
        raw.extend(u32::try_from(4 + body.len()).unwrap().to_be_bytes());
        raw.extend(body);
        ClientMessage::read(&Frame { tag, raw: Bytes::from(raw) })
    }

    #[test]
    fn a_query_ends_with_its_text() {
        let sql = Bytes::from_static(b"SELECT 1");
        assert_eq!(read(b'Q', b"SELECT 1\0"), Ok(ClientMessage::Query { sql }));
        assert_eq!(read(b'Q', b"SELECT 1"), Err(CodecError::Unterminated { message: "Query" }));
        let second = read(b'Q', b"SELECT 1\0Q\0\0\0\x0dSELECT 2\0");
        assert_eq!(second, Err(CodecError::TrailingBytes { message: "Query", count: 14 }));
    }

    #[test]
    fn parse_and_bind_are_read_field_by_field() {
        let Ok(ClientMessage::Parse(parse)) = read(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17") else { panic!() };
        assert_eq!(
            (&parse.name[..], &parse.sql[..], &parse.types[..]),
            (&b"s"[..], &b"SELECT $1"[..], &[23][..])
        );
        let body = b"p\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x01x\0\0";
        let Ok(ClientMessage::Bind(bind)) = read(b'B', body) else { panic!() };
        assert_eq!(bind.values, [None, Some(Bytes::from_static(b"x"))]);
        assert_eq!(bind.formats.of(1), Format::Binary);
    }

    #[test]
    fn counts_and_codes_that_cannot_be_are_refused() {
        assert!(read(b'P', b"\0\0\xff\xff").is_err());
        assert!(read(b'B', b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\0\0\0").is_err(), "two formats, one value");
        assert!(read(b'B', b"\0\0\0\x01\0\x02\0\0\0\0").is_err(), "format 2");
        assert!(read(b'D', b"X\0").is_err(), "neither statement nor portal");
        assert!(read(b'S', b"\0").is_err(), "Sync with a body");
        assert!(read(b'E', b"p\0\0\0\0").is_err(), "half a row count");
    }

    #[test]
    fn a_password_after_login_is_refused() {
        let refused = CodecError::Unexpected { peer: Peer::Client, tag: b'p', state: "after login" };
        assert_eq!(read(b'p', b"secret\0"), Err(refused));
    }

    #[test]
    fn every_prefix_of_a_message_is_refused() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x01x\0\x01\0\0";
        assert!(read(b'B', body).is_ok());
        for end in 0..body.len() {
            assert!(read(b'B', &body[..end]).is_err(), "{end}");
        }
    }
}
