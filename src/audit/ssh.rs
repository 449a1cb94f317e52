//! What an SSH connection records. One recording per client connection; `ch` says which of its
//! channels a record belongs to: numbered from 1 as they are asked for, 0 is the connection itself.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::record::{CredentialMark, Direction};

/// How the client's side of the connection came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshClient {
    /// The software version that the client announced.
    pub software: String,
    /// `publickey`, `certificate`, `keyboard-interactive`.
    pub auth: String,
    /// Fingerprint of the key that was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The connection that this one came through, for a client that jumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Box<SshClient>>,
}

/// Bytes that are text, or else base64, so that nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Data {
    Text { txt: String },
    Bytes { b64: String },
}

impl Data {
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text { txt: text.to_owned() },
            Err(_) => Self::Bytes { b64: BASE64.encode(bytes) },
        }
    }

    /// What stands for bytes that are not kept.
    pub const fn none() -> Self {
        Self::Text { txt: String::new() }
    }

    /// The bytes as they were sent. A text that is not base64 where it should be gives none.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text { txt } => txt.as_bytes().to_vec(),
            Self::Bytes { b64 } => BASE64.decode(b64.as_bytes()).unwrap_or_default(),
        }
    }
}

/// What a channel was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    Session,
    DirectTcpip,
    ForwardedTcpip,
    DirectStreamlocal,
    ForwardedStreamlocal,
    Agent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelOpened {
    pub ch: u32,
    pub channel: ChannelKind,
    /// Where a forward leads to, `host:port` or a socket's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Where the forwarded connection came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator: Option<String>,
    /// What the gateway logged in with for this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialMark>,
}

/// Something was asked for and refused. The record's `outcome` is always `refused`: serde writes a
/// container's tag and name like a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename = "refused")]
pub struct ChannelRefused {
    pub ch: u32,
    /// A channel type, channel request or global request: `x11`, `direct_tcpip`.
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The rule that refused.
    pub rule: String,
    /// What it would have taken.
    pub needs: String,
}

/// A terminal was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    pub ch: u32,
    pub term: String,
    pub cols: u32,
    pub rows: u32,
    /// Terminal modes by their names in RFC 4254, section 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Env {
    pub ch: u32,
    pub name: String,
    #[serde(flatten)]
    pub value: Data,
    /// Whether it went on to the target.
    pub passed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramKind {
    Shell,
    Exec,
    Subsystem,
}

/// What a session channel runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub ch: u32,
    pub how: ProgramKind,
    /// The command line, or the subsystem's name.
    #[serde(flatten)]
    pub command: Option<Data>,
    /// What the channel's bytes turn out to be: `sftp`, `scp`, `rsync`, `git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Bytes from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub ch: u32,
    #[serde(flatten)]
    pub data: Data,
    /// So many characters were typed here that are not kept; the data is then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<u64>,
}

/// Bytes from the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub ch: u32,
    #[serde(flatten)]
    pub data: Data,
    /// Whether they came as standard error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub err: bool,
}

/// The terminal's new size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    pub ch: u32,
    pub cols: u32,
    pub rows: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    pub ch: u32,
    /// Without `SIG`: `INT`, `TERM`.
    pub name: String,
}

/// One side said that it sends no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eof {
    pub ch: u32,
    pub from: Direction,
}

/// A byte stream of which only the head is kept, by size and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSum {
    pub ch: u32,
    pub direction: Direction,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub err: bool,
    pub bytes: u64,
    /// How many of them, from the first, are in `input` or `output` records.
    pub head: u64,
    /// SHA-256 of all of them, in hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilePhase {
    /// Before the target learns of it.
    Asked,
    /// With the target's answer.
    Answered,
}

/// An operation on a file of the target's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub ch: u32,
    /// Number of the operation in its channel; the same in both phases.
    pub n: u64,
    pub phase: FilePhase,
    /// `sftp`, `scp`.
    pub tool: String,
    /// `open`, `remove`, `rename`, …
    pub op: String,
    #[serde(flatten, with = "path")]
    pub path: Data,
    /// The other path of a rename or a link.
    #[serde(flatten, with = "to")]
    pub to: Option<Data>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<String>,
    /// Bytes read from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Bytes written to the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
    /// SHA-256 of what was read or written, in hexadecimal, when it was the whole file in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `done`, `failed`, `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A listening socket on the target's side was asked for, or given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    pub ch: u32,
    /// An address, or a socket's path.
    pub address: String,
    pub port: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streamlocal: bool,
    pub granted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelEnded {
    pub ch: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// [`Data`] in fields of another name: a record with two paths keeps them apart.
macro_rules! data_as {
    ($text:ident, $bytes:ident) => {
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Named {
            Text { $text: String },
            Bytes { $bytes: String },
        }

        impl From<&Data> for Named {
            fn from(data: &Data) -> Self {
                match data {
                    Data::Text { txt } => Self::Text { $text: txt.clone() },
                    Data::Bytes { b64 } => Self::Bytes { $bytes: b64.clone() },
                }
            }
        }

        impl From<Named> for Data {
            fn from(named: Named) -> Self {
                match named {
                    Named::Text { $text: txt } => Self::Text { txt },
                    Named::Bytes { $bytes: b64 } => Self::Bytes { b64 },
                }
            }
        }
    };
}

mod path {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Data;

    data_as!(path, path_b64);

    pub(super) fn serialize<S: Serializer>(data: &Data, serializer: S) -> Result<S::Ok, S::Error> {
        Named::from(data).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        Named::deserialize(deserializer).map(Data::from)
    }
}

mod to {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Data;

    data_as!(to, to_b64);

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(data: &Option<Data>, serializer: S) -> Result<S::Ok, S::Error> {
        data.as_ref().map(Named::from).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data>, D::Error> {
        Option::<Named>::deserialize(deserializer).map(|named| named.map(Data::from))
    }
}
