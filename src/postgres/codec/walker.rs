//! Walks over what the target sends while those bytes are forwarded untouched: reads the messages
//! that matter, counts the others, and knows where a message of our own may be put in.

use bytes::{Bytes, BytesMut};

use super::backend::{self, CommandTag, Report, TransactionStatus};
use super::frame::HEADER;
use super::{CodecError, Peer};

/// The longest body that is gathered. A longer report or notification is read as far as this; a
/// longer message of another kind that must be understood is an error.
pub const GATHERED: usize = 1024 * 1024;

/// What a stretch of the target's stream was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    ParseComplete,
    BindComplete,
    CloseComplete,
    /// Part of the rows: how many ended in this stretch, and its bytes.
    Rows {
        ended: u64,
        bytes: u64,
    },
    RowDescription,
    NoData,
    ParameterDescription(Vec<u32>),
    CommandComplete(CommandTag),
    EmptyQuery,
    PortalSuspended,
    Error(Report),
    Notice(Report),
    Notification,
    Parameter {
        name: Bytes,
        value: Bytes,
    },
    Ready(TransactionStatus),
    CopyIn,
    CopyOut,
    CopyBoth,
    /// Part of a `CopyData`'s body; `ended` when it is the last.
    CopyData {
        bytes: &'a [u8],
        ended: bool,
    },
    CopyDone,
    FunctionResult,
}

impl ServerMessage<'_> {
    pub fn tag(&self) -> u8 {
        match self {
            Self::ParseComplete => b'1',
            Self::BindComplete => b'2',
            Self::CloseComplete => b'3',
            Self::Rows { .. } => b'D',
            Self::RowDescription => b'T',
            Self::NoData => b'n',
            Self::ParameterDescription(_) => b't',
            Self::CommandComplete(_) => b'C',
            Self::EmptyQuery => b'I',
            Self::PortalSuspended => b's',
            Self::Error(_) => b'E',
            Self::Notice(_) => b'N',
            Self::Notification => b'A',
            Self::Parameter { .. } => b'S',
            Self::Ready(_) => b'Z',
            Self::CopyIn => b'G',
            Self::CopyOut => b'H',
            Self::CopyBoth => b'W',
            Self::CopyData { .. } => b'd',
            Self::CopyDone => b'c',
            Self::FunctionResult => b'V',
        }
    }
}

/// The message that the walk is inside of.
#[derive(Debug)]
struct Current {
    tag: u8,
    left: usize,
    body: Option<BytesMut>,
    cut: bool,
}

#[derive(Debug, Default)]
pub struct Walker {
    header: [u8; HEADER],
    have: usize,
    current: Option<Current>,
}

impl Walker {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the bytes walked over so far end where a message ends.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.current.is_none()
    }

    /// Whether the bytes walked over so far end within an `ErrorResponse`.
    pub fn is_within_error(&self) -> bool {
        match &self.current {
            Some(current) => current.tag == b'E',
            None => self.have > 0 && self.header.first() == Some(&b'E'),
        }
    }

    /// Walks on in `chunk` from `*at` to the end of the next message that is told of, and moves
    /// `*at` there; `None` when the chunk is used up. Whatever lies before `*at` has been looked
    /// at and may be forwarded.
    pub fn next<'a>(
        &mut self,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<ServerMessage<'a>>, CodecError> {
        let (mut rows, mut row_bytes) = (0, 0);
        loop {
            let Some(current) = &mut self.current else {
                let rows_end = row_bytes > 0 && self.have == 0 && chunk.get(*at) != Some(&b'D');
                if rows_end || !self.read_header(chunk, at)? {
                    let told = ServerMessage::Rows { ended: rows, bytes: row_bytes };
                    return Ok((row_bytes > 0).then_some(told));
                }
                if self.current.as_ref().is_some_and(|current| current.tag == b'D') {
                    row_bytes += HEADER as u64;
                }
                continue;
            };
            let part = take(chunk, at, current.left);
            current.left -= part.len();
            let ended = current.left == 0;
            if current.tag == b'D' {
                row_bytes += part.len() as u64;
                if !ended {
                    let told = ServerMessage::Rows { ended: rows, bytes: row_bytes };
                    return Ok((row_bytes > 0).then_some(told));
                }
                rows += 1;
                self.current = None;
                continue;
            }
            if current.tag == b'd' {
                if ended {
                    self.current = None;
                } else if part.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(ServerMessage::CopyData { bytes: part, ended }));
            }
            current.gather(part);
            if !ended {
                return Ok(None);
            }
            if let Some(current) = self.current.take() {
                return current.read().map(Some);
            }
        }
    }

    /// Reads on in a header; true when it is whole and [`Self::current`] is set.
    fn read_header(&mut self, chunk: &[u8], at: &mut usize) -> Result<bool, CodecError> {
        let part = take(chunk, at, HEADER - self.have);
        for (slot, byte) in self.header.iter_mut().skip(self.have).zip(part) {
            *slot = *byte;
        }
        self.have += part.len();
        if self.have < HEADER {
            return Ok(false);
        }
        self.have = 0;
        let [tag, a, b, c, d] = self.header;
        self.current = Some(Current::begin(tag, u32::from_be_bytes([a, b, c, d]))?);
        Ok(true)
    }
}

impl Current {
    fn begin(tag: u8, length: u32) -> Result<Self, CodecError> {
        if length < 4 || length > i32::MAX.unsigned_abs() {
            return Err(CodecError::InvalidLength { tag, length });
        }
        let left = length as usize - 4;
        let body = match tag {
            b'C' | b'Z' | b'S' | b't' | b'G' | b'H' | b'W' if left > GATHERED => {
                return Err(CodecError::TooLong { tag, length, maximum: GATHERED + 4 });
            }
            b'C' | b'Z' | b'E' | b'N' | b'S' | b't' | b'G' | b'H' | b'W' => Some(BytesMut::new()),
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' if left > 0 => {
                return Err(CodecError::InvalidLength { tag, length });
            }
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' | b'D' | b'd' | b'T' | b'A' | b'V' => None,
            b'R' | b'K' | b'v' => {
                return Err(CodecError::Unexpected { peer: Peer::Target, tag, state: "after login" });
            }
            tag => return Err(CodecError::UnknownTag { peer: Peer::Target, tag }),
        };
        Ok(Self { tag, left, body, cut: false })
    }

    fn gather(&mut self, part: &[u8]) {
        let Some(body) = &mut self.body else { return };
        let room = GATHERED - body.len();
        self.cut |= part.len() > room;
        body.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn read(self) -> Result<ServerMessage<'static>, CodecError> {
        let body = self.body.map(BytesMut::freeze).unwrap_or_default();
        let report = |body| if self.cut { Ok(Report::read_cut(body)) } else { Report::read(body) };
        Ok(match self.tag {
            b'1' => ServerMessage::ParseComplete,
            b'2' => ServerMessage::BindComplete,
            b'3' => ServerMessage::CloseComplete,
            b'n' => ServerMessage::NoData,
            b's' => ServerMessage::PortalSuspended,
            b'I' => ServerMessage::EmptyQuery,
            b'c' => ServerMessage::CopyDone,
            b'T' => ServerMessage::RowDescription,
            b'A' => ServerMessage::Notification,
            b'V' => ServerMessage::FunctionResult,
            b'C' => ServerMessage::CommandComplete(CommandTag::read(body)?),
            b'Z' => ServerMessage::Ready(TransactionStatus::read(body)?),
            b't' => ServerMessage::ParameterDescription(backend::parameter_description(body)?),
            b'E' => ServerMessage::Error(report(body)?),
            b'N' => ServerMessage::Notice(report(body)?),
            b'S' => {
                let (name, value) = backend::parameter_status(body)?;
                ServerMessage::Parameter { name, value }
            }
            b'G' => backend::copy_response(body).map(|_| ServerMessage::CopyIn)?,
            b'H' => backend::copy_response(body).map(|_| ServerMessage::CopyOut)?,
            b'W' => backend::copy_response(body).map(|_| ServerMessage::CopyBoth)?,
            tag => return Err(CodecError::UnknownTag { peer: Peer::Target, tag }),
        })
    }
}

/// Up to `most` bytes of `chunk` from `*at`, which moves past them.
fn take<'a>(chunk: &'a [u8], at: &mut usize, most: usize) -> &'a [u8] {
    let rest = chunk.get(*at..).unwrap_or_default();
    let part = rest.get(..most).unwrap_or(rest);
    *at += part.len();
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(4 + body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// What a walk tells, with stretches of rows and copy data joined.
    fn walk(chunks: &[&[u8]]) -> Result<Vec<String>, CodecError> {
        let (mut walker, mut told) = (Walker::new(), Vec::new());
        let (mut rows, mut row_bytes, mut copied) = (0, 0, Vec::new());
        for chunk in chunks {
            let mut at = 0;
            while let Some(message) = walker.next(chunk, &mut at)? {
                match message {
                    ServerMessage::Rows { ended, bytes } => {
                        (rows, row_bytes) = (rows + ended, row_bytes + bytes);
                    }
                    ServerMessage::CopyData { bytes, ended } => {
                        copied.extend_from_slice(bytes);
                        if ended {
                            told.push(format!("copy {copied:?}"));
                            copied.clear();
                        }
                    }
                    other => told.push(format!("{other:?}")),
                }
            }
            assert_eq!(at, chunk.len());
        }
        told.push(format!("{rows} rows of {row_bytes} bytes, boundary {}", walker.at_boundary()));
        Ok(told)
    }

    fn stream() -> Vec<u8> {
        [
            message(b'1', b""),
            message(b'T', b"anything"),
            message(b'D', b"row one"),
            message(b'D', b""),
            message(b'D', &[7; 300]),
            message(b'C', b"SELECT 3\0"),
            message(b'H', b"\0\0\0"),
            message(b'd', b"copied"),
            message(b'd', b""),
            message(b'c', b""),
            message(b'E', b"VERROR\0C57014\0Mcancelled\0\0"),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn messages_that_matter_are_told_and_rows_counted() {
        let stream = stream();
        let told = walk(&[&stream]).unwrap();
        assert!(told.contains(&"3 rows of 322 bytes, boundary true".to_owned()), "{told:?}");
        assert!(told.contains(&"copy []".to_owned()), "{told:?}");
        assert_eq!(told.len(), 10);
    }

    #[test]
    fn a_walk_split_anywhere_tells_the_same() {
        let stream = stream();
        let whole = walk(&[&stream]).unwrap();
        for at in 0..=stream.len() {
            assert_eq!(walk(&[&stream[..at], &stream[at..]]).unwrap(), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(walk(&single).unwrap(), whole);
    }

    #[test]
    fn the_boundary_is_known_at_every_byte() {
        let stream = [message(b'Z', b"I"), message(b'D', b"xy"), message(b'n', b"")].concat();
        let mut walker = Walker::new();
        let boundaries: Vec<usize> = (0..stream.len())
            .filter(|at| {
                let mut from = 0;
                while walker.next(&stream[*at..=*at], &mut from).unwrap().is_some() {}
                walker.at_boundary()
            })
            .map(|at| at + 1)
            .collect();
        assert_eq!(boundaries, [6, 13, 18]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(walk(&[b"D\0\0\0\x03"]).is_err());
        assert!(walk(&[b"D\xff\xff\xff\xff"]).is_err());
        assert!(walk(&[b"1\0\0\0\x05x"]).is_err());
        assert!(walk(&[b"C\0\x20\0\0"]).is_err());
        assert!(walk(&[b"?\0\0\0\x04"]).is_err());
        assert!(walk(&[b"K\0\0\0\x0c"]).is_err(), "a key after login");
        assert!(walk(&[b"Z\0\0\0\x05?"]).is_err());
    }

    #[test]
    fn a_notice_longer_than_what_is_gathered_is_passed_and_cut() {
        let body = [b"SNOTICE\0C00000\0M".to_vec(), vec![b'x'; GATHERED], b"\0\0".to_vec()].concat();
        let stream = message(b'N', &body);
        let mut at = 0;
        let told = Walker::new().next(&stream, &mut at).unwrap();
        let Some(ServerMessage::Notice(report)) = told else { panic!() };
        assert_eq!((&report.sqlstate[..], at), (&b"00000"[..], stream.len()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut walker = Walker::new();
            let mut at = 0;
            while let Ok(Some(_)) = walker.next(&bytes, &mut at) {}
            prop_assert!(at <= bytes.len());
        }
    }
}
