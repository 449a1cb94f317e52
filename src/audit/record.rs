//! What a record says. Field by field: `docs/audit-record.md`.
//!
//! A record is the envelope, the recording's context (once serialised, then copied as bytes), and a
//! body. Nothing here holds a secret: credentials appear by handle and fingerprint.

use std::net::SocketAddr;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::crypto::{hex, sha256};
use crate::domain::approval::Approval;
use crate::domain::deny::EndReason;
use crate::domain::event::Event;
use crate::domain::id::{ConnectionId, RequestId, SessionId};
use crate::domain::name::{AccessName, DomainName, TargetName};
use crate::domain::principal::Actor;
use crate::domain::session::Permit;
use crate::domain::target::Environment;
use crate::domain::time::Timestamp;

pub use super::ssh::{
    ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, Data, Env, Eof, File, FilePhase, Input, Listen,
    Output, Program, ProgramKind, Pty, Resize, Signal, SshClient, StreamSum,
};

/// Longest parameter value that is kept whole, in bytes; of a longer one its head, length and hash.
pub const LONGEST_PARAMETER: usize = 64 << 10;

/// Who, under what, where: in every record of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub principal: Actor,
    pub session: SessionId,
    pub request: RequestId,
    pub connection: ConnectionId,
    pub target: TargetName,
    pub access: AccessName,
    pub environment: Environment,
    pub domain: DomainName,
    pub client: SocketAddr,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

/// How a recording starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub context: Context,
    pub opened: Opened,
}

impl Opening {
    /// Takes what the permit knows; the rest of [`Opened`] is for the caller to fill in.
    pub fn new(permit: &Permit, connection: ConnectionId, client: SocketAddr, policy_hash: &str) -> Self {
        let (session, target) = (permit.session(), permit.target());
        Self {
            context: Context {
                principal: session.principal.clone(),
                session: session.id.clone(),
                request: session.request.clone(),
                connection,
                target: target.name.clone(),
                access: session.access.clone(),
                environment: target.environment,
                domain: target.domain.clone(),
                client,
                break_glass: session.break_glass,
            },
            opened: Opened {
                reason: session.reason.clone(),
                ticket: session.ticket.clone(),
                approvals: session.approvals.clone(),
                granted_at: session.granted_at,
                ends_at: session.ends_at,
                policy_hash: policy_hash.to_owned(),
                application: None,
                database: None,
                credential: None,
                client_tls: None,
                client_ssh: None,
                target_tls: None,
            },
        }
    }
}

/// Record 0 of a recording: why this connection may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub approvals: Vec<Approval>,
    /// The session's window.
    pub granted_at: Timestamp,
    pub ends_at: Timestamp,
    /// SHA-256 of the policies in force, in hexadecimal.
    pub policy_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<Tls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ssh: Option<SshClient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_tls: Option<Tls>,
}

/// A credential as a record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialMark {
    /// What it is called at the source: for Postgres, the role.
    pub handle: String,
    /// HMAC over the secret, in hexadecimal: two uses of one credential can be matched, the secret
    /// cannot be found from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    pub version: String,
    pub cipher: String,
    /// SHA-256 of the certificate by which the other side proved who it is, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What a connection records between its opening and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Part of an SQL text too long for one record; written by the journal before its `statement`.
    SqlPart(SqlPart),
    /// Parameters too many for one record; written by the journal before their `statement`.
    ParameterPart(ParameterPart),
    Statement(Statement),
    StatementEnd(StatementEnd),
    CopyEnd(CopyEnd),
    Cancel(Cancel),
    Notice(Notice),
    Credential(Credential),
    ChannelOpened(ChannelOpened),
    ChannelRefused(ChannelRefused),
    Pty(Pty),
    Env(Env),
    Program(Program),
    Input(Input),
    Output(Output),
    Resize(Resize),
    Signal(Signal),
    Eof(Eof),
    StreamEnd(StreamSum),
    /// As [`Self::StreamEnd`], while it goes on.
    StreamSoFar(StreamSum),
    File(File),
    Listen(Listen),
    ChannelEnded(ChannelEnded),
}

impl Body {
    /// The `kind` field.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SqlPart(_) => "sql_part",
            Self::ParameterPart(_) => "parameter_part",
            Self::Statement(_) => "statement",
            Self::StatementEnd(_) => "statement_end",
            Self::CopyEnd(_) => "copy_end",
            Self::Cancel(_) => "cancel",
            Self::Notice(_) => "notice",
            Self::Credential(_) => "credential",
            Self::ChannelOpened(_) => "channel_opened",
            Self::ChannelRefused(_) => "channel_refused",
            Self::Pty(_) => "pty",
            Self::Env(_) => "env",
            Self::Program(_) => "program",
            Self::Input(_) => "input",
            Self::Output(_) => "output",
            Self::Resize(_) => "resize",
            Self::Signal(_) => "signal",
            Self::Eof(_) => "eof",
            Self::StreamEnd(_) => "stream_end",
            Self::StreamSoFar(_) => "stream_so_far",
            Self::File(_) => "file",
            Self::Listen(_) => "listen",
            Self::ChannelEnded(_) => "channel_ended",
        }
    }
}

/// Bytes that are text, or else base64, so that nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sql {
    Text { sql: String },
    Bytes { b64: String },
}

impl Sql {
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text { sql: text.to_owned() },
            Err(_) => Self::Bytes { b64: BASE64.encode(bytes) },
        }
    }

    /// The bytes as they were sent. A text that is not base64 where it should be gives none.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text { sql } => sql.as_bytes().to_vec(),
            Self::Bytes { b64 } => BASE64.decode(b64.as_bytes()).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlPart {
    /// The statement it belongs to.
    pub n: u64,
    /// Its place among the parts, from 0.
    pub part: u32,
    #[serde(flatten)]
    pub sql: Sql,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterPart {
    pub n: u64,
    pub part: u32,
    pub params: Vec<Parameter>,
}

/// How a statement reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Simple,
    Extended,
    /// A `FunctionCall` message.
    Function,
    /// Parsed, not (yet) executed.
    Prepare,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Number of the statement in its recording, from 1.
    pub n: u64,
    pub how: How,
    /// Name of the prepared statement; empty is the unnamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portal: Option<String>,
    /// The text, or what follows its `sql_part`s.
    #[serde(flatten)]
    pub sql: Sql,
    /// The same for all texts that differ in their values alone; 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How many `sql_part`s come before this record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sql_parts: u32,
    /// SHA-256 of the whole text in hexadecimal, when it was split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Parameter>,
    /// How many `parameter_part`s come before this record; `params` is then empty.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parameter_parts: u32,
    /// Whether this is known to be what the target will execute; `false` when it could not be told
    /// which prepared statement a name stands for.
    pub certain: bool,
    /// How many secrets were masked in the text and the parameters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub masked: u32,
    /// Of an execution that goes on where an earlier one of the same portal stopped: the number of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<u64>,
}

fn is_zero(count: &(impl Copy + Into<u64>)) -> bool {
    (*count).into() == 0
}

impl Statement {
    pub fn new(n: u64, how: How, sql: &[u8]) -> Self {
        Self {
            n,
            how,
            name: None,
            portal: None,
            sql: Sql::new(sql),
            fingerprint: None,
            sql_parts: 0,
            sql_sha256: None,
            params: Vec::new(),
            parameter_parts: 0,
            certain: true,
            masked: 0,
            resumes: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Binary,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Text {
        text: String,
    },
    Bytes {
        b64: String,
    },
    /// Always `true`.
    Null {
        null: bool,
    },
}

/// One bound value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    #[serde(flatten)]
    pub value: Value,
    pub format: Format,
    /// The type's oid; 0 when the client left it to the server.
    pub oid: u32,
    /// Length of the whole value in bytes, when only its head is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// SHA-256 of the whole value in hexadecimal, when only its head is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Parameter {
    /// `None` is NULL.
    pub fn new(value: Option<&[u8]>, format: Format, oid: u32) -> Self {
        let Some(whole) = value else {
            return Self { value: Value::Null { null: true }, format, oid, length: None, sha256: None };
        };
        let head = whole.get(..LONGEST_PARAMETER).unwrap_or(whole);
        let cut = head.len() < whole.len();
        Self {
            value: match std::str::from_utf8(head) {
                Ok(text) => Value::Text { text: text.to_owned() },
                Err(_) => Value::Bytes { b64: BASE64.encode(head) },
            },
            format,
            oid,
            length: cut.then(|| u64::try_from(whole.len()).unwrap_or(u64::MAX)),
            sha256: cut.then(|| hex(&sha256(&[whole]))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatementOutcome {
    Done,
    Failed,
    /// Not executed: an earlier statement of the pipeline failed.
    Skipped,
    Cancelled,
    /// The connection or the node ended first.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementEnd {
    pub n: u64,
    pub outcome: StatementOutcome,
    /// The server's command tag (`UPDATE 3`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a skipped one: the number of the statement that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The transaction's state, if the server told it right after this statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Transaction>,
    /// From forwarding the statement to the first row or copied data, or else to the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_us: Option<u64>,
    /// From forwarding the statement to its result's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// Bytes that the result took on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// It stopped after as many rows as were asked for: there may be more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
}

/// Whether a transaction is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transaction {
    Idle,
    Open,
    /// Until it is rolled back, nothing else is done in it.
    Failed,
}

impl StatementEnd {
    pub fn new(n: u64, outcome: StatementOutcome) -> Self {
        Self {
            n,
            outcome,
            tag: None,
            rows: None,
            sqlstate: None,
            message: None,
            after: None,
            tx: None,
            first_us: None,
            duration_us: None,
            bytes: None,
            suspended: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the target.
    In,
    /// From the target to the client.
    Out,
}

/// A COPY's data, by size and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyEnd {
    pub n: u64,
    pub direction: Direction,
    /// As the statement has it; `None` when it is a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// As the statement has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    pub bytes: u64,
    /// SHA-256 over the concatenated contents of the `CopyData` messages, in hexadecimal.
    pub sha256: String,
}

/// Somebody asked to cancel what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The statement that ran then, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Where the cancel request came from; `None` is the gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    pub why: String,
}

/// Anything else worth a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub text: String,
    /// The statement that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The settings that the statement changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
}

impl Notice {
    pub fn new(text: String) -> Self {
        Self { text, n: None, sets: Vec::new() }
    }
}

/// What happened to the connection's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `issued`, `destroyed`, `destruction_failed`.
    pub step: String,
    #[serde(flatten)]
    pub mark: CredentialMark,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What went over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub statements: u64,
    pub bytes_from_client: u64,
    pub bytes_from_target: u64,
    /// Of an SSH connection: channels that were opened.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub channels: u64,
}

/// The last record of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub reason: EndReason,
    /// `None` when the recording was ended for the connection, not by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// The recording's chain before this record, in hexadecimal.
    pub chain: String,
}

/// In the control recording: what was found when the journal was opened after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Bytes of an unfinished write that were discarded. They were never acknowledged.
    pub discarded: u64,
    /// Their SHA-256, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_sha256: Option<String>,
    /// Recordings that were open and are now ended as crashed.
    pub recordings: Vec<ConnectionId>,
}

/// One event for the control recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEntry {
    /// Its id in the store's outbox, when it came from there.
    pub outbox: Option<i64>,
    pub at: Timestamp,
    pub event: Event,
}
