//! The target's leg: the library's client, in our own words. One of the two files that name it.
//!
//! 1. [`meet`]: connect, exchange keys, verify the host's.
//! 2. [`Met::prove`]: log in with the one-connection certificate.
//! 3. [`Upstream::open_session`] and its siblings open what the client opened.
//!
//! A target may open nothing towards us but what was asked for: forwarded connections while there
//! is a listener, the client's agent where its forwarding was granted. They come as [`Incoming`].

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handle, Handler, Msg, Session};
use russh::keys::ssh_key::{Algorithm, HashAlg};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::flow::{Backlog, Flow, Paced, QUEUE, WINDOW};
use super::message::{Gone, Message, Pty, Window};
use super::server::{ALGORITHMS, CIPHER_NAMES, SOFTWARE, from_library, signal};
use super::strict::{Asserted, FirstPacket, Peer};
use crate::config::SshTarget;
use crate::credentials::ssh_certificate::OneConnection;
use crate::crypto::ssh;
use crate::crypto::ssh::certificate::check_host_certificate;
use crate::domain::time::Timestamp;
use crate::gateway::boxed;
use crate::gateway::stream::{Revocable, prepare};

/// For each of: name looked up and connected; keys exchanged; the credential taken.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// Channels that the target opened and nobody has looked at yet.
const INCOMING: usize = 8;

/// Why a target was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{address} cannot be reached")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} does not answer within {} s", DIAL_WITHIN.as_secs())]
    TimedOut { address: String },
    #[error("{address} {why}")]
    HostKey { address: String, why: UntrustedHost },
    #[error("{address} does not speak SSH as expected")]
    Protocol {
        address: String,
        #[source]
        source: russh::Error,
    },
    #[error(
        "{address} does not accept our certificate for `{login}`: has it the line `TrustedUserCAKeys` \
         (`sallyport target bootstrap ssh`), and an account of that name? Where addresses are translated \
         between here and there, the target's `source_address` has to say which it sees"
    )]
    Refused { address: String, login: String },
}

/// Why a host is not the one that was configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UntrustedHost {
    #[error(
        "has the host key {found}, and {expected} is expected: if it was changed on purpose, correct the target's `host_keys`"
    )]
    OtherKey { found: String, expected: String },
    #[error("has a host certificate that does not hold: {0}")]
    Certificate(String),
}

/// A connection to a target; closed when everything that came from it is dropped or cut.
pub(super) struct Upstream {
    handle: Handle<Callbacks>,
    flow: Reading,
    incoming: Option<boxed::Receiver<Incoming>>,
}

/// How a target is read, and that it is again once nobody needs the connection: only who reads sees that it
/// is cut.
struct Reading(Arc<Flow>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upstream")
    }
}

/// What a target opened towards the client.
#[derive(Debug)]
pub(super) enum Incoming {
    Tcp { connected: (String, u32), originator: (String, u32), channel: TargetChannel, reply: IncomingReply },
    Path { path: String, channel: TargetChannel, reply: IncomingReply },
    Agent { channel: TargetChannel, reply: IncomingReply },
}

/// Accepts or refuses; dropped, it refuses.
pub(super) struct IncomingReply(ChannelOpenHandle);

impl std::fmt::Debug for IncomingReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IncomingReply")
    }
}

impl IncomingReply {
    pub(super) async fn accept(self) {
        self.0.accept().await;
    }
}

/// A channel to the target.
#[derive(Debug)]
pub(super) struct TargetChannel {
    pub from: FromTarget,
    pub to: ToTarget,
}

impl TargetChannel {
    fn new(channel: Channel<Msg>, flow: &Arc<Flow>) -> Self {
        let backlog = flow.channel(channel.id().into());
        let (read, write) = channel.split();
        Self { from: FromTarget { read, backlog }, to: ToTarget(write) }
    }
}

pub(super) struct FromTarget {
    read: ChannelReadHalf,
    backlog: Arc<Backlog>,
}

impl std::fmt::Debug for FromTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromTarget")
    }
}

impl FromTarget {
    /// The next message; `None` when the channel or the connection is gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = from_library(self.read.wait().await?) {
                self.backlog.taken(message.len());
                return Some(message);
            }
        }
    }
}

pub(super) struct ToTarget(ChannelWriteHalf<Msg>);

impl std::fmt::Debug for ToTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToTarget")
    }
}

impl ToTarget {
    /// Not cancel-safe: dropped, part of the bytes may have been sent.
    pub(super) async fn data(&self, bytes: Bytes) -> Result<(), Gone> {
        self.0.data_bytes(bytes).await.map_err(|_| Gone)
    }

    pub(super) async fn eof(&self) -> Result<(), Gone> {
        self.0.eof().await.map_err(|_| Gone)
    }

    pub(super) async fn close(&self) -> Result<(), Gone> {
        self.0.close().await.map_err(|_| Gone)
    }

    /// The answer comes as [`Message::Answer`], as that of every request here but the last three.
    pub(super) async fn pty(&self, pty: &Pty) -> Result<(), Gone> {
        let Pty { term, window, modes } = pty;
        let known = |&(code, value): &(u8, u32)| russh::Pty::from_u8(code).map(|code| (code, value));
        let modes: Vec<_> = modes.iter().filter_map(known).collect();
        let Window { cols, rows, width, height } = *window;
        self.0.request_pty(true, term, cols, rows, width, height, &modes).await.map_err(|_| Gone)
    }

    pub(super) async fn agent(&self) -> Result<(), Gone> {
        self.0.agent_forward(true).await.map_err(|_| Gone)
    }

    pub(super) async fn shell(&self) -> Result<(), Gone> {
        self.0.request_shell(true).await.map_err(|_| Gone)
    }

    pub(super) async fn exec(&self, command: &[u8]) -> Result<(), Gone> {
        self.0.exec(true, command).await.map_err(|_| Gone)
    }

    pub(super) async fn subsystem(&self, name: &str) -> Result<(), Gone> {
        self.0.request_subsystem(true, name).await.map_err(|_| Gone)
    }

    pub(super) async fn env(&self, name: &str, value: &str) -> Result<(), Gone> {
        self.0.set_env(false, name, value).await.map_err(|_| Gone)
    }

    pub(super) async fn resize(&self, window: Window) -> Result<(), Gone> {
        let Window { cols, rows, width, height } = window;
        self.0.window_change(cols, rows, width, height).await.map_err(|_| Gone)
    }

    pub(super) async fn signal(&self, name: &str) -> Result<(), Gone> {
        self.0.signal(signal(name)).await.map_err(|_| Gone)
    }
}

/// Why the target did not open a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotOpened(String);

impl From<russh::Error> for NotOpened {
    fn from(error: russh::Error) -> Self {
        Self(match error {
            russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
                "the target prohibits it".to_owned()
            }
            russh::Error::ChannelOpenFailure(failure) => failure.description().to_lowercase(),
            other => other.to_string(),
        })
    }
}

impl Upstream {
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    pub(super) async fn open_session(&self) -> Result<TargetChannel, NotOpened> {
        Ok(TargetChannel::new(self.handle.channel_open_session().await?, &self.flow.0))
    }

    pub(super) async fn open_tcp(&self, host: &str, port: u32) -> Result<TargetChannel, NotOpened> {
        // Who connected where on the client's machine is nothing for the target to know.
        let channel = self.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await?;
        Ok(TargetChannel::new(channel, &self.flow.0))
    }

    pub(super) async fn open_path(&self, path: &str) -> Result<TargetChannel, NotOpened> {
        Ok(TargetChannel::new(self.handle.channel_open_direct_streamlocal(path).await?, &self.flow.0))
    }

    /// Gives the port that the target listens on.
    pub(super) async fn listen(&self, address: &str, port: u32) -> Result<u32, NotOpened> {
        let bound = self.handle.tcpip_forward(address, port).await?;
        Ok(if bound == 0 { port } else { bound })
    }

    pub(super) async fn unlisten(&self, address: &str, port: u32) -> Result<(), NotOpened> {
        Ok(self.handle.cancel_tcpip_forward(address, port).await?)
    }

    pub(super) async fn listen_path(&self, path: &str) -> Result<(), NotOpened> {
        Ok(self.handle.streamlocal_forward(path).await?)
    }

    pub(super) async fn unlisten_path(&self, path: &str) -> Result<(), NotOpened> {
        Ok(self.handle.cancel_streamlocal_forward(path).await?)
    }

    /// Takes nothing more of the target's.
    pub(super) fn stop_reading(&self) {
        self.flow.0.stop();
    }

    /// Closes the connection once what was sent before is on its way, or it is `cut`.
    pub(super) async fn leave(self, cut: &CancellationToken) {
        let Self { handle, flow, .. } = self;
        let leaving = async {
            let _gone = handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
            let _ended = handle.await;
        };
        tokio::select! {
            () = leaving => {}
            () = cut.cancelled() => {}
        }
        drop(flow);
    }

    /// What the target opens; given once.
    pub(super) fn incoming(&mut self) -> Option<boxed::Receiver<Incoming>> {
        self.incoming.take()
    }
}

/// A host that is who it should be, and does not know us yet.
pub(super) struct Met {
    handle: Handle<Callbacks>,
    flow: Arc<Flow>,
    incoming: boxed::Receiver<Incoming>,
    address: String,
}

impl std::fmt::Debug for Met {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Met")
    }
}

/// Connects to `target`, says where `from`, exchanges keys and verifies the host's. Everything ends when
/// `cut` is cancelled.
pub(super) async fn meet(
    target: &SshTarget,
    now: Timestamp,
    cut: &CancellationToken,
    from: watch::Sender<Option<IpAddr>>,
) -> Result<Met, DialError> {
    let address = || target.address.to_string();
    let connecting = async {
        match target.connect_to {
            Some(ip) => TcpStream::connect((ip, target.address.port)).await,
            None => TcpStream::connect((target.address.host.as_str(), target.address.port)).await,
        }
    };
    let stream = tokio::time::timeout(DIAL_WITHIN, connecting)
        .await
        .map_err(|_| DialError::TimedOut { address: address() })?
        .map_err(|source| DialError::Connect { address: address(), source })?;
    prepare(&stream);
    from.send_replace(stream.local_addr().ok().map(|local| local.ip().to_canonical()));
    drop(from);
    let stream = Revocable::new(stream, cut.clone());
    let exchanging = Box::pin(exchange_keys(target, now, stream));
    match tokio::time::timeout(DIAL_WITHIN, exchanging).await {
        Ok(met) => met,
        Err(_) => Err(DialError::TimedOut { address: address() }),
    }
}

async fn exchange_keys(
    target: &SshTarget,
    now: Timestamp,
    stream: Revocable<TcpStream>,
) -> Result<Met, DialError> {
    let address = target.address.to_string();
    let (arrived, incoming) = boxed::channel(INCOMING);
    let untrusted = Arc::new(Mutex::new(None));
    let flow = Flow::with_targets();
    let stream = Asserted::new(stream, FirstPacket::new(Peer::Server, CIPHER_NAMES));
    let stream = Paced::new(stream, Arc::clone(&flow));
    let callbacks = Callbacks {
        flow: Arc::clone(&flow),
        trusted: Trusted {
            keys: target.host_keys.clone(),
            authorities: target.host_cas.clone(),
            host: target.address.host.clone(),
            now: u64::try_from(now.as_micros() / 1_000_000).unwrap_or(0),
        },
        untrusted: Arc::clone(&untrusted),
        incoming: arrived,
    };
    let config = Arc::new(russh::client::Config {
        client_id: SshId::Standard(SOFTWARE.into()),
        window_size: WINDOW,
        channel_buffer_size: QUEUE,
        preferred: preferred(target),
        ..russh::client::Config::default()
    });
    match russh::client::connect_stream(config, stream, callbacks).await {
        Ok(handle) => Ok(Met { handle, flow, incoming, address }),
        Err(source) => Err(match untrusted.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => DialError::HostKey { address, why },
            None => DialError::Protocol { address, source },
        }),
    }
}

impl Met {
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Logs in with the one-connection certificate.
    pub(super) async fn prove(self, login: &str, credential: &OneConnection) -> Result<Upstream, DialError> {
        let Self { mut handle, flow, incoming, address } = self;
        let key = Arc::new(credential.key.clone());
        let proving = handle.authenticate_openssh_cert(login, key, credential.certificate.clone());
        match tokio::time::timeout(DIAL_WITHIN, Box::pin(proving)).await {
            Ok(Ok(proved)) if proved.success() => {
                Ok(Upstream { handle, flow: Reading(flow), incoming: Some(incoming) })
            }
            Ok(Ok(_)) => Err(DialError::Refused { address, login: login.to_owned() }),
            Ok(Err(source)) => Err(DialError::Protocol { address, source }),
            Err(_) => Err(DialError::TimedOut { address }),
        }
    }
}

/// A host with several keys shows the first that both sides like: only those are asked for that
/// can be verified.
fn preferred(target: &SshTarget) -> Preferred {
    let of = |keys: &[PublicKey]| {
        let mut algorithms: Vec<Algorithm> = Vec::new();
        for key in keys {
            match key.algorithm() {
                Algorithm::Rsa { .. } => algorithms.extend(
                    [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }),
                ),
                other => algorithms.push(other),
            }
        }
        algorithms
    };
    let certificates = if target.host_cas.is_empty() { Vec::new() } else { ALGORITHMS.key.to_vec() };
    // Without a pinned key only certificates will do; a plain key is then refused by what it is.
    let keys = if target.host_keys.is_empty() { ALGORITHMS.key.to_vec() } else { of(&target.host_keys) };
    Preferred { key: keys.into(), host_key_certificates: certificates.into(), ..ALGORITHMS }
}

/// How the host is known.
struct Trusted {
    keys: Vec<PublicKey>,
    authorities: Vec<PublicKey>,
    host: String,
    /// Seconds since the epoch.
    now: u64,
}

impl Trusted {
    fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), UntrustedHost> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check_key(key),
            PublicKeyOrCertificate::Certificate(certificate) => {
                check_host_certificate(certificate, &self.authorities, &self.host, self.now)
                    .map(|_| ())
                    .map_err(|error| UntrustedHost::Certificate(error.to_string()))
            }
        }
    }

    fn check_key(&self, key: &PublicKey) -> Result<(), UntrustedHost> {
        if self.keys.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(());
        }
        let expected: Vec<String> = self.keys.iter().map(ssh::fingerprint).collect();
        let expected =
            if expected.is_empty() { "a host certificate".to_owned() } else { expected.join(" or ") };
        Err(UntrustedHost::OtherKey { found: ssh::fingerprint(key), expected })
    }
}

struct Callbacks {
    flow: Arc<Flow>,
    trusted: Trusted,
    untrusted: Arc<Mutex<Option<UntrustedHost>>>,
    incoming: boxed::Sender<Incoming>,
}

impl Callbacks {
    /// A target that opens more than is looked at is refused: waiting would stall what is open.
    fn arrived(&self, incoming: Incoming) {
        let _refused_when_full = self.incoming.try_send(incoming);
    }
}

impl Handler for Callbacks {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        match self.trusted.check(shown) {
            Ok(()) => Ok(true),
            Err(why) => {
                *self.untrusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                Ok(false)
            }
        }
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(Incoming::Tcp {
            connected: (connected_address.to_owned(), connected_port),
            originator: (originator_address.to_owned(), originator_port),
            channel: TargetChannel::new(channel, &self.flow),
            reply: IncomingReply(reply),
        });
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (path, channel) = (socket_path.to_owned(), TargetChannel::new(channel, &self.flow));
        self.arrived(Incoming::Path { path, channel, reply: IncomingReply(reply) });
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(Incoming::Agent {
            channel: TargetChannel::new(channel, &self.flow),
            reply: IncomingReply(reply),
        });
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.flow.arrived(channel.into(), data.len());
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.flow.arrived(channel.into(), data.len());
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, current: u32) -> u32 {
        // Not heeded by the library.
        current
    }

    async fn should_accept_unknown_server_channel(&mut self, _id: ChannelId, _channel_type: &str) -> bool {
        false
    }

    // Dropped replies refuse: a target has no business opening any of these.
    async fn server_channel_open_unknown(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn openssh_ext_host_keys_announced(
        &mut self,
        _keys: Vec<PublicKey>,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // What a target says of its own keys changes nothing: they are configured.
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}
