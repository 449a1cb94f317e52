//! Cutting a stream into messages. Nothing is allocated for what was only announced, and a
//! message of unknown kind is refused by its first byte.

use bytes::{Buf, Bytes, BytesMut};

use super::{CodecError, Peer};

/// Tag and length word.
pub const HEADER: usize = 5;

/// PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`, for messages that carry a name at most.
const SMALL: usize = 10_000;
/// PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`.
const AUTHENTICATION: usize = 65_535;
/// `MaxAllocSize`: the longest `CopyData` that PostgreSQL takes.
const COPY_DATA: usize = 0x3fff_fffe;
/// A `CopyData` up to this length is handed on whole; a longer one in pieces.
const WHOLE_COPY_DATA: usize = 64 * 1024;

/// One whole message as it came: tag, length word, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub raw: Bytes,
}

impl Frame {
    /// Without tag and length word.
    pub fn body(&self) -> Bytes {
        self.raw.slice(HEADER.min(self.raw.len())..)
    }
}

/// What the client's stream is cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Frame(Frame),
    /// The header of a `CopyData` whose `body` bytes come as [`Piece::CopyBody`].
    CopyStart {
        header: Bytes,
        body: usize,
    },
    /// Some of the body, and how much of it is still to come.
    CopyBody {
        bytes: Bytes,
        left: usize,
    },
}

impl Piece {
    /// The bytes to forward.
    pub fn raw(&self) -> &Bytes {
        match self {
            Self::Frame(frame) => &frame.raw,
            Self::CopyStart { header, .. } => header,
            Self::CopyBody { bytes, .. } => bytes,
        }
    }
}

/// Cuts the client's stream.
#[derive(Debug)]
pub struct Splitter {
    maximum: usize,
    copy_left: usize,
}

impl Splitter {
    /// `maximum` bounds a message's length word, but not that of `CopyData`, which is not held.
    pub fn new(maximum: usize) -> Self {
        Self { maximum, copy_left: 0 }
    }

    /// Whether the pieces handed out so far end where a message ends: only then may a message of
    /// our own follow them to the target.
    pub fn at_boundary(&self) -> bool {
        self.copy_left == 0
    }

    /// The next piece, or `None` until more bytes have come. After an error the stream is of no
    /// further use.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, CodecError> {
        if self.copy_left > 0 {
            return Ok(self.copy_body(buffer));
        }
        let Some((tag, length)) = header(buffer) else {
            return match buffer.first() {
                Some(tag) => client_limit(*tag, self.maximum).map(|_| None),
                None => Ok(None),
            };
        };
        let total = checked_length(tag, length, client_limit(tag, self.maximum)?)?;
        if buffer.len() >= total {
            return Ok(Some(Piece::Frame(Frame { tag, raw: buffer.split_to(total).freeze() })));
        }
        if tag == b'd' && total > WHOLE_COPY_DATA {
            self.copy_left = total - HEADER;
            let header = buffer.split_to(HEADER).freeze();
            return Ok(Some(Piece::CopyStart { header, body: self.copy_left }));
        }
        Ok(None)
    }

    fn copy_body(&mut self, buffer: &mut BytesMut) -> Option<Piece> {
        if buffer.is_empty() {
            return None;
        }
        let bytes = buffer.split_to(self.copy_left.min(buffer.len())).freeze();
        self.copy_left -= bytes.len();
        Some(Piece::CopyBody { bytes, left: self.copy_left })
    }
}

/// The next whole message of a handshake, from either side; `maximum` bounds its length word.
pub fn whole(buffer: &mut BytesMut, maximum: usize) -> Result<Option<Frame>, CodecError> {
    let Some((tag, length)) = header(buffer) else { return Ok(None) };
    let total = checked_length(tag, length, maximum)?;
    if buffer.len() < total {
        return Ok(None);
    }
    Ok(Some(Frame { tag, raw: buffer.split_to(total).freeze() }))
}

fn header(buffer: &BytesMut) -> Option<(u8, u32)> {
    let mut head = buffer.get(..HEADER)?;
    Some((head.get_u8(), head.get_u32()))
}

/// The message's whole length, tag included, when its length word is one that can be.
fn checked_length(tag: u8, length: u32, maximum: usize) -> Result<usize, CodecError> {
    if length < 4 || length > i32::MAX.unsigned_abs() {
        return Err(CodecError::InvalidLength { tag, length });
    }
    let announced = length as usize;
    if announced > maximum {
        return Err(CodecError::TooLong { tag, length, maximum });
    }
    Ok(announced + 1)
}

/// How long a client's message of this kind may be; an error for a kind that does not exist.
fn client_limit(tag: u8, maximum: usize) -> Result<usize, CodecError> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'f' => Ok(maximum),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' => Ok(maximum.min(SMALL)),
        b'p' => Ok(maximum.min(AUTHENTICATION)),
        b'd' => Ok(COPY_DATA),
        tag => Err(CodecError::UnknownTag { peer: Peer::Client, tag }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8], maximum: usize) -> Result<Vec<Piece>, CodecError> {
        let (mut splitter, mut buffer) = (Splitter::new(maximum), BytesMut::from(bytes));
        let mut pieces = Vec::new();
        while let Some(piece) = splitter.next(&mut buffer)? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_its_bytes_are_there() {
        for length in [0u32, 1, 3, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(split(&bytes, 1 << 20), Err(CodecError::InvalidLength { tag: b'Q', length }));
        }
    }

    #[test]
    fn a_length_over_the_maximum_is_refused_by_the_header_alone() {
        let refused = CodecError::TooLong { tag: b'Q', length: 1025, maximum: 1024 };
        assert_eq!(split(b"Q\0\0\x04\x01", 1024), Err(refused));
        assert_eq!(split(b"Q\0\0\x04\0", 1024), Ok(vec![]));
        // Sync carries nothing: PostgreSQL's small limit holds for it.
        assert!(split(b"S\0\x10\0\0", 1 << 24).is_err());
    }

    #[test]
    fn a_smuggled_length_overflow_is_one_long_message_not_two() {
        // CVE-2024-27304: a length that wraps at 32 bits must not make the rest a new message.
        let mut bytes = b"B\x00\x00\x00\x04".to_vec();
        bytes[1..5].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
        bytes.extend(b"Q\0\0\0\x0dDROP X\0\0\0");
        assert!(matches!(split(&bytes, 1 << 20), Err(CodecError::TooLong { tag: b'B', .. })));
    }

    #[test]
    fn an_unknown_tag_is_refused_by_its_first_byte() {
        for tag in (0..=255u8).filter(|tag| !b"QPBFfCDEHSXcpd".contains(tag)) {
            assert_eq!(split(&[tag], 1024), Err(CodecError::UnknownTag { peer: Peer::Client, tag }));
        }
    }

    #[test]
    fn a_message_inside_another_is_part_of_it() {
        let inner = b"Q\0\0\0\x0dSELECT 1\0";
        let mut outer = b"Q".to_vec();
        outer.extend(u32::try_from(4 + inner.len()).unwrap().to_be_bytes());
        outer.extend(inner);
        let pieces = split(&outer, 1024).unwrap();
        let [Piece::Frame(frame)] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(frame.raw, outer);
    }

    #[test]
    fn long_copy_data_passes_in_pieces_and_the_boundary_is_known() {
        let mut bytes = b"d".to_vec();
        bytes.extend((4 + 100_000u32).to_be_bytes());
        let (mut splitter, mut buffer) = (Splitter::new(1024), BytesMut::from(&bytes[..]));
        let start = splitter.next(&mut buffer).unwrap();
        assert!(matches!(start, Some(Piece::CopyStart { body: 100_000, .. })));
        assert!(!splitter.at_boundary());
        assert_eq!(splitter.next(&mut buffer), Ok(None));
        buffer.extend_from_slice(&vec![b'x'; 100_000]);
        buffer.extend_from_slice(b"c\0\0\0\x04");
        let Ok(Some(Piece::CopyBody { bytes, left: 0 })) = splitter.next(&mut buffer) else { panic!() };
        assert_eq!(bytes.len(), 100_000);
        assert!(splitter.at_boundary());
        assert!(matches!(splitter.next(&mut buffer), Ok(Some(Piece::Frame(Frame { tag: b'c', .. })))));
    }
}
