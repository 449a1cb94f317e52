//! The way to the target, or to that of its servers which is no standby: TLS verify-full, then SCRAM (with channel binding where the server has
//! it) with the session's credential, then the startup up to the first `ReadyForQuery`.
//!
//! A server that asks for anything weaker than SCRAM, or for nothing, is refused: the credential is
//! sent neither in clear nor as an MD5 hash, whoever asks. The credential itself says where one may ([`Sent`]): a token in
//! clear, a kept password as an MD5 hash where the operator allowed it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::audit::record::Tls;
use crate::config::{Host, PostgresTarget, Protocol};
use crate::credentials::{Credential, Sent};
use crate::crypto::certificate;
use crate::gateway::scratch::ReadAhead;
use crate::gateway::stream::prepare;

use super::TargetStream;
use super::codec::backend::{self, Authentication, BackendKey, Report, Startup};
use super::codec::frame::{self, Frame, HEADER};
use super::codec::startup::{
    CancelRequest, ProtocolVersion, StartupParameters, accepts_tls, startup_message,
};
use super::codec::{CodecError, encode};
use super::negotiate::describe;

/// So often a password is hashed at most without another thread.
const HASHED_HERE: u32 = 64;

/// How long the whole way may take.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// How long a way that was begun ahead of the credential is waited for, and of use: servers give up those who do not log
/// in, after a minute unless they are told otherwise.
const AHEAD_WITHIN: Duration = Duration::from_secs(5);
/// How often the server looks whether the connection is still there while it works, in milliseconds.
const NOTICING: (&[u8], &[u8]) = (b"client_connection_check_interval", b"1000");
/// PostgreSQL's own bound for messages of the handshake.
const LONGEST_MESSAGE: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("cannot connect to {address}: {source}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{address} does not offer TLS: set `ssl = on` there")]
    NoTls { address: String },
    #[error("{address} does not prove who it is: {source}")]
    Untrusted {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the target broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the target closed the connection during startup")]
    Closed,
    #[error("the target violates the protocol: {0}")]
    Protocol(#[from] CodecError),
    #[error("the target asks for {asked}, which is not accepted: have it ask for scram-sha-256")]
    WeakAuthentication { asked: &'static str },
    #[error("authentication at the target failed: {0}")]
    Scram(io::Error),
    /// The target's own refusal, passed on to the client.
    #[error("{}", String::from_utf8_lossy(&.0.message))]
    Refused(Box<Report>),
    #[error("the target does not answer within {} s", within.as_secs())]
    TimedOut { within: Duration },
    #[error("it is a standby")]
    Standby,
    #[error("none of the target's servers is of use: {}", listed(tried))]
    Nowhere { tried: Vec<(String, UpstreamError)> },
}

fn listed(tried: &[(String, UpstreamError)]) -> String {
    tried.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

/// A connection to the target, ready for its first query.
#[derive(Debug)]
pub(super) struct Upstream {
    pub stream: TargetStream,
    /// What the client still has to be told: parameters and notices, as they came.
    pub greeting: Vec<Bytes>,
    /// `ReadyForQuery` as it came.
    pub ready: Bytes,
    /// Bytes that came after it.
    pub rest: BytesMut,
    pub canceller: Canceller,
    pub tls: Tls,
}

/// What it takes to cancel the upstream connection's statement.
#[derive(Debug, Clone)]
pub(super) struct Canceller {
    target: Arc<PostgresTarget>,
    /// Where the connection is.
    host: Host,
    key: Option<BackendKey>,
}

impl Upstream {
    /// The settings that the target reported.
    pub(super) fn parameters(&self) -> Vec<(Bytes, Bytes)> {
        self.greeting
            .iter()
            .filter(|raw| raw.first() == Some(&b'S'))
            .filter_map(|raw| backend::parameter_status(raw.slice(HEADER.min(raw.len())..)).ok())
            .collect()
    }
}

impl Canceller {
    /// Sends the target a cancel request, on a connection of its own. The target never answers.
    pub(super) async fn cancel(&self) -> Result<(), UpstreamError> {
        let Some(key) = &self.key else { return Ok(()) };
        let mut stream = secure(&self.target, &self.host).await?;
        let request = CancelRequest { process: key.process, key: key.key.clone() };
        stream.write_all(&encode::cancel_request(&request)).await?;
        stream.flush().await?;
        // The target closes once it has sent the signal: what follows cannot overtake it.
        let mut end = [0];
        let _closed = stream.read(&mut end).await;
        Ok(())
    }
}

/// A way to one of the target's servers, begun before there is a credential: while that is made the server starts a
/// process and TLS is agreed upon. Nobody logs in on it. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Ahead {
    host: Host,
    begun: Instant,
    /// One task; given up when this is dropped.
    dialling: JoinSet<Option<TargetStream>>,
}

impl Ahead {
    /// To the server that worked last.
    pub(super) fn dial(target: &Arc<PostgresTarget>) -> Self {
        let host = target.hosts.preferred().clone();
        let dial = {
            let (target, host) = (Arc::clone(target), host.clone());
            // What fails is tried again, and told, when there is a credential.
            async move { tokio::time::timeout(AHEAD_WITHIN, secure(&target, &host)).await.ok()?.ok() }
        };
        let mut dialling = JoinSet::new();
        dialling.spawn(dial);
        Self { host, begun: Instant::now(), dialling }
    }

    /// The way to `host`, if it is that one and still of use.
    async fn to(mut self, host: &Host) -> Option<TargetStream> {
        let is_it = self.host.address == host.address && self.begun.elapsed() < AHEAD_WITHIN;
        if is_it { self.dialling.join_next().await?.ok()? } else { None }
    }
}

/// Logs in at the first server that is of use, on the way that was begun `ahead` if that leads there.
pub(super) async fn connect(
    target: &Arc<PostgresTarget>,
    credential: &Credential,
    database: &str,
    parameters: &StartupParameters,
    ahead: Ahead,
) -> Result<Upstream, UpstreamError> {
    let within = target.hosts.share_of(CONNECT_WITHIN);
    let mut ahead = Some(ahead);
    let mut tried = Vec::new();
    for host in target.hosts.in_order() {
        let connecting = async {
            if let Some(ahead) = ahead.take()
                && let Some(stream) = ahead.to(host).await
            {
                match log_in(target, host, stream, credential, database, parameters).await {
                    // It was given up there meanwhile.
                    Err(UpstreamError::Broken(_) | UpstreamError::Closed) => {}
                    outcome => return outcome,
                }
            }
            let stream = secure(target, host).await?;
            log_in(target, host, stream, credential, database, parameters).await
        };
        let connected = tokio::time::timeout(within, connecting).await;
        match connected.unwrap_or(Err(UpstreamError::TimedOut { within })) {
            Ok(upstream) => {
                target.hosts.worked(host);
                return Ok(upstream);
            }
            Err(error) if target.hosts.is_one() => return Err(error),
            Err(error) => tried.push((host.address.to_string(), error)),
        }
    }
    Err(UpstreamError::Nowhere { tried })
}

async fn log_in(
    target: &Arc<PostgresTarget>,
    host: &Host,
    stream: TargetStream,
    credential: &Credential,
    database: &str,
    parameters: &StartupParameters,
) -> Result<Upstream, UpstreamError> {
    let mut wire = Wire { stream, buffer: BytesMut::new() };
    let own = [("user", credential.user.as_str()), ("database", database)];
    let replication = parameters.replication().map(|value| (b"replication".as_slice(), value.as_ref()));
    let own = own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let settings = parameters.settings().map(|(name, value)| (name.as_ref(), value.as_ref()));
    // Nobody ends server processes of a user whom sessions share: they have to see for themselves that we are gone.
    let noticing = target.source.admin().is_none().then_some(NOTICING);
    let version = match target.protocol {
        Protocol::V3_0 => ProtocolVersion::V3_0,
        Protocol::V3_2 => ProtocolVersion::V3_2,
    };
    let startup = startup_message(version, own.chain(replication).chain(settings).chain(noticing))?;
    wire.send(&startup).await?;
    authenticate(&mut wire, credential, target.shown.is_some()).await?;
    let mut greeting = greet(&mut wire).await?;
    if !target.hosts.is_one() && is_standby(&mut wire, &mut greeting, parameters).await? {
        return Err(UpstreamError::Standby);
    }
    let connection = wire.stream.get_ref().1;
    let tls = describe(connection.protocol_version(), connection.negotiated_cipher_suite());
    Ok(Upstream {
        greeting: greeting.messages,
        ready: greeting.ready,
        rest: wire.buffer,
        canceller: Canceller { target: Arc::clone(target), host: host.clone(), key: greeting.key },
        tls,
        stream: wire.stream,
    })
}

/// TCP, then TLS with the target's certificate and name verified.
async fn secure(target: &PostgresTarget, host: &Host) -> Result<TargetStream, UpstreamError> {
    let address = host.address.to_string();
    let failed = |source| UpstreamError::Connect { address: address.clone(), source };
    let stream = match target.connect_to {
        Some(ip) => TcpStream::connect(SocketAddr::new(ip, host.address.port)).await,
        None => TcpStream::connect((host.address.host.as_str(), host.address.port)).await,
    };
    let mut stream = stream.map_err(failed)?;
    prepare(&stream);
    stream.write_all(&encode::ssl_request()).await?;
    // Exactly one byte: anything more must be TLS.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    let [answer] = answer;
    if !accepts_tls(answer)? {
        return Err(UpstreamError::NoTls { address });
    }
    TlsConnector::from(Arc::clone(&target.tls))
        .connect(host.server_name.clone(), ReadAhead::new(stream))
        .await
        .map(Box::new)
        .map_err(|source| UpstreamError::Untrusted { address, source })
}

struct Wire {
    stream: TargetStream,
    buffer: BytesMut,
}

impl Wire {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<Frame, UpstreamError> {
        loop {
            if let Some(frame) = frame::whole(&mut self.buffer, LONGEST_MESSAGE)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(UpstreamError::Closed);
            }
        }
    }

    /// The next message, with the target's refusal as an error and its notices dropped: nobody is
    /// there yet to be told.
    async fn authentication(&mut self) -> Result<Authentication, UpstreamError> {
        loop {
            match Startup::read(&self.receive().await?)? {
                Startup::Authentication(message) => return Ok(message),
                Startup::Notice(_) | Startup::NegotiateVersion { .. } => {}
                Startup::Error(report) => return Err(UpstreamError::Refused(Box::new(report))),
                Startup::Parameter { .. } | Startup::Key(_) | Startup::Ready(_) => {
                    return Err(UpstreamError::WeakAuthentication { asked: "nothing" });
                }
            }
        }
    }
}

/// `shows`: a certificate was there to be shown, which may be all that the server asks for.
async fn authenticate(wire: &mut Wire, credential: &Credential, shows: bool) -> Result<(), UpstreamError> {
    let mechanisms = match wire.authentication().await? {
        Authentication::Sasl(mechanisms) => mechanisms,
        Authentication::Ok if shows => return Ok(()),
        Authentication::CleartextPassword if credential.sent == Sent::AsItIs => {
            wire.send(&encode::password(credential.password.expose().as_bytes())).await?;
            return accepted(wire).await;
        }
        Authentication::Md5Password { salt } if credential.sent == Sent::ProvedOrHashed => {
            let (user, password) = (credential.user.as_bytes(), credential.password.expose().as_bytes());
            wire.send(&encode::password(md5_hash(user, password, salt).as_bytes())).await?;
            return accepted(wire).await;
        }
        other => return Err(UpstreamError::WeakAuthentication { asked: name_of(&other) }),
    };
    let offers = |name: &str| mechanisms.iter().any(|offered| offered.as_ref() == name.as_bytes());
    let end_point = wire
        .stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| certificate::server_end_point(certificate).ok());
    let (mechanism, binding) = match end_point {
        Some(end_point) if offers(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point))
        }
        Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => return Err(UpstreamError::WeakAuthentication { asked: "an unknown SASL mechanism" }),
    };
    let scram = ScramSha256::new(credential.password.expose().as_bytes(), binding);
    wire.send(&encode::sasl_initial_response(mechanism, scram.message())).await?;
    let Authentication::SaslContinue(data) = wire.authentication().await? else {
        return Err(UpstreamError::WeakAuthentication { asked: "something else halfway" });
    };
    let mut scram = answered(scram, data).await.map_err(UpstreamError::Scram)?;
    wire.send(&encode::sasl_response(scram.message())).await?;
    let Authentication::SaslFinal(data) = wire.authentication().await? else {
        return Err(UpstreamError::WeakAuthentication { asked: "something else halfway" });
    };
    scram.finish(&data).map_err(UpstreamError::Scram)?;
    accepted(wire).await
}

/// Takes the server's challenge, which says how often the password is to be hashed: often where it is one that people may
/// guess, and then not on this thread, which others wait for.
async fn answered(mut scram: ScramSha256, challenge: Bytes) -> io::Result<ScramSha256> {
    let iterations = challenge.split(|byte| *byte == b',').find_map(|field| field.strip_prefix(b"i="));
    let iterations = iterations.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    let answer = move || {
        scram.update(&challenge)?;
        Ok(scram)
    };
    if iterations.is_some_and(|iterations| iterations <= HASHED_HERE) {
        return answer();
    }
    tokio::task::spawn_blocking(answer).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn accepted(wire: &mut Wire) -> Result<(), UpstreamError> {
    match wire.authentication().await? {
        Authentication::Ok => Ok(()),
        other => Err(UpstreamError::WeakAuthentication { asked: name_of(&other) }),
    }
}

fn name_of(message: &Authentication) -> &'static str {
    match message {
        Authentication::Ok => "nothing",
        Authentication::CleartextPassword => "a password in clear",
        Authentication::Md5Password { .. } => "an MD5 password",
        Authentication::Sasl(_) | Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
            "a second SASL exchange"
        }
        Authentication::Other(_) => "Kerberos or another unsupported method",
    }
}

/// What a server says until it is ready.
struct Greeting {
    messages: Vec<Bytes>,
    key: Option<BackendKey>,
    ready: Bytes,
}

async fn greet(wire: &mut Wire) -> Result<Greeting, UpstreamError> {
    let mut messages = Vec::new();
    let mut key = None;
    loop {
        let frame = wire.receive().await?;
        match Startup::read(&frame)? {
            Startup::Parameter { .. } | Startup::Notice(_) => messages.push(frame.raw),
            Startup::Key(found) => key = Some(found),
            Startup::NegotiateVersion { .. } => {}
            Startup::Error(report) => return Err(UpstreamError::Refused(Box::new(report))),
            Startup::Authentication(other) => {
                return Err(UpstreamError::WeakAuthentication { asked: name_of(&other) });
            }
            Startup::Ready(_) => return Ok(Greeting { messages, key, ready: frame.raw }),
        }
    }
}

/// Unless the server has said so itself, as it does since version 14, it is asked.
async fn is_standby(
    wire: &mut Wire,
    greeting: &mut Greeting,
    parameters: &StartupParameters,
) -> Result<bool, UpstreamError> {
    if let Some(said) = greeting
        .messages
        .iter()
        .find_map(|message| message.strip_prefix(b"S")?.get(4..)?.strip_prefix(b"in_hot_standby\0"))
    {
        return Ok(said == b"on\0");
    }
    let is_sql = !parameters.wants_replication() || parameters.replicates_database();
    // Physical replication knows no SQL; a standby's transactions are read-only.
    let question: &[u8] =
        if is_sql { b"SELECT pg_catalog.pg_is_in_recovery()" } else { b"SHOW transaction_read_only" };
    wire.send(&encode::query(question)).await?;
    let mut is_primary = false;
    loop {
        let frame = wire.receive().await?;
        match frame.tag {
            // One column: `t` or `f`, `on` or `off`.
            b'D' => is_primary = frame.body().ends_with(b"f"),
            b'Z' => {
                greeting.ready = frame.raw;
                return Ok(!is_primary);
            }
            b'S' => greeting.messages.push(frame.raw),
            b'E' => return Err(UpstreamError::Refused(Box::new(Report::read(frame.body())?))),
            _ => {}
        }
    }
}
