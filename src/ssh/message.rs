//! What goes over a channel, in our own words: the same in both directions and on both legs
//! (RFC 4254, section 6), so that only [`server`](super::server) and [`client`](super::client) know
//! the library underneath.

use bytes::Bytes;

/// A message of a channel, in the order in which it came.
#[derive(Debug)]
pub(super) enum Message {
    Data(Bytes),
    /// Extended data of type 1.
    Stderr(Bytes),
    Eof,
    Close,
    Request(Request),
    /// The target's answer to the oldest request that wanted one.
    Answer(bool),
    ExitStatus(u32),
    ExitSignal(ExitSignal),
}

impl Message {
    /// How many bytes of a channel's window it took.
    pub(super) const fn len(&self) -> Option<usize> {
        match self {
            Self::Data(bytes) | Self::Stderr(bytes) => Some(bytes.len()),
            _ => None,
        }
    }
}

/// What a client asks of a session channel.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Pty(Pty),
    Env { name: String, value: String },
    Shell,
    Exec(Bytes),
    Subsystem(String),
    Resize(Window),
    Signal(String),
    Agent,
    X11,
}

impl Request {
    /// Whether the client's session waits until it is answered: [`server`](super::server) keeps
    /// the client's next message back so long, which is what keeps answers in order.
    pub(super) const fn is_answered(&self) -> bool {
        !matches!(self, Self::Resize(_) | Self::Signal(_))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Pty {
    pub term: String,
    pub window: Window,
    /// Opcode and argument (RFC 4254, section 8), as the client sent them.
    pub modes: Vec<(u8, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub cols: u32,
    pub rows: u32,
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone)]
pub(super) struct ExitSignal {
    pub name: String,
    pub core_dumped: bool,
    pub message: String,
}

/// The other side of a channel, or of the whole connection, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone")]
pub(super) struct Gone;
