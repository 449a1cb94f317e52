//! What goes over a channel, in our own words: the same in both directions and on both legs
//! (RFC 4254, section 6), so that only [`server`](super::server) and [`client`](super::client) know
//! the library underneath.

use bytes::Bytes;

use super::modes;

/// Names of terminals, variables, subsystems and signals, in bytes.
const LONGEST_NAME: usize = 255;
/// A variable's value, in bytes; a record keeps no more of one.
const LONGEST_VALUE: usize = 16 * 1024;
/// A command, in bytes; a record keeps no more of one, and no system runs a longer one.
const LONGEST_COMMAND: usize = 128 * 1024;

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
    /// How many bytes it makes us keep, of messages that a peer may send without waiting for us.
    pub(super) const fn len(&self) -> Option<usize> {
        match self {
            Self::Data(bytes) | Self::Stderr(bytes) => Some(bytes.len()),
            Self::Request(Request::Signal(name)) => Some(name.len()),
            Self::Request(Request::Resize(_)) => Some(0),
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

    /// Whether it is longer than what a record keeps whole: nothing goes to a target that is not kept.
    pub(super) const fn is_too_long(&self) -> bool {
        match self {
            Self::Pty(pty) => pty.term.len() > LONGEST_NAME,
            Self::Env { name, value } => name.len() > LONGEST_NAME || value.len() > LONGEST_VALUE,
            Self::Exec(command) => command.len() > LONGEST_COMMAND,
            Self::Subsystem(name) | Self::Signal(name) => name.len() > LONGEST_NAME,
            Self::Shell | Self::Resize(_) | Self::Agent | Self::X11 => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Pty {
    pub term: String,
    pub window: Window,
    /// Opcode and argument (RFC 4254, section 8), as the client sent them.
    pub modes: Vec<(u8, u32)>,
}

impl Pty {
    /// Whether the terminal is to show what is typed, as far as the client says.
    pub(super) fn echoes(&self) -> bool {
        self.modes.iter().rev().find(|(code, _)| *code == modes::ECHO).is_none_or(|(_, value)| *value != 0)
    }
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
