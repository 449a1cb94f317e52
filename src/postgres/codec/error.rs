//! What a peer did that its protocol does not allow.

use std::fmt;

/// Which side of the gateway misbehaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Client,
    Target,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client",
            Self::Target => "the target",
        })
    }
}

/// Every one of these ends the connection before the offending bytes are forwarded (08P01).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a first packet announced {length} bytes: 8 to 10004 are allowed")]
    StartupLength { length: u32 },
    #[error("protocol {major}.{minor} is not spoken here: use PostgreSQL protocol 3")]
    UnsupportedProtocol { major: u16, minor: u16 },
    #[error("a cancel request had a key of {length} bytes: 4 to 256 are allowed")]
    CancelKeyLength { length: usize },
    #[error("the startup packet does not end with a terminator as its last byte")]
    StartupLayout,
    #[error("the startup packet names `{name}` twice")]
    DuplicateParameter { name: &'static str },
    #[error("the startup packet names no user")]
    NoUser,
    #[error("the startup packet's `{name}` is not UTF-8 text")]
    NotText { name: &'static str },
    #[error("message {} announced a length of {length}, which cannot be", Tag(*tag))]
    InvalidLength { tag: u8, length: u32 },
    #[error("message {} announced {length} bytes, more than the {maximum} allowed", Tag(*tag))]
    TooLong { tag: u8, length: u32, maximum: usize },
    #[error("{peer} sent a message with the unknown tag {}", Tag(*tag))]
    UnknownTag { peer: Peer, tag: u8 },
    #[error("{peer} sent message {} {state}", Tag(*tag))]
    Unexpected { peer: Peer, tag: u8, state: &'static str },
    #[error("a field of {message} runs past the end of the message")]
    Truncated { message: &'static str },
    #[error("a text in {message} has no end")]
    Unterminated { message: &'static str },
    #[error("{message} goes on for {count} bytes after its last field")]
    TrailingBytes { message: &'static str, count: usize },
    #[error("{message} has an invalid {field}: {value}")]
    InvalidField { message: &'static str, field: &'static str, value: i64 },
    #[error("a text to be sent as {field} contains a zero byte")]
    ZeroByte { field: &'static str },
    #[error("{message} would be longer than the protocol allows")]
    Oversized { message: &'static str },
    #[error("the client keeps more {what} than the {maximum} allowed: close what is no longer used")]
    TooMuchKept { what: &'static str, maximum: usize },
}

/// A tag as people read it: its letter, or its number when it has none.
struct Tag(u8);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "`{}`", char::from(self.0))
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}
