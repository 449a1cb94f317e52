//! The client's leg: the library's server, in our own words. One of the two files that name it.
//!
//! A callback blocks everything that the client sends, so it only hands on what came: channels and
//! global requests to the connection's task by [`Arrival`], what a channel carries to the channel's
//! task by its [`FromClient`]. A request that wants an answer is answered before the client's next
//! message is looked at (`Answers`): the library remembers one unanswered request a channel, and the
//! client counts on the order. The channel's task never waits on this loop to give it.
//!
//! Every callback is overridden; what is not offered is refused. An *offer* of a key changes
//! nothing: who somebody is, only the callbacks after a verified signature say.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::GexParams;
use russh::kex::dh::groups::DhGroup;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::Certificate;
use russh::keys::ssh_key::{Algorithm, EcdsaCurve, HashAlg};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Disconnect,
    MethodKind, MethodSet, Preferred, Sig, SshId, cipher, kex, mac,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use super::authenticate::{Authenticator, Interactive};
use super::flow::{Backlog, Flow, Paced, QUEUE, WINDOW};
use super::message::{ExitSignal, Gone, Message, Pty, Request, Window};
use super::strict::{Asserted, FirstPacket, Peer};
use crate::domain::secret::Secret;
use crate::gateway::boxed;

/// What a client may know of the software.
pub(super) const SOFTWARE: &str = "SSH-2.0-Sallyport";
/// How long a rejected attempt takes at least, so that its length says little.
const REJECT_AFTER: Duration = Duration::from_millis(50);
/// Rejected attempts before the connection is closed; each key that is offered and not taken counts.
const ATTEMPTS: usize = 10;
/// How long a client's messages are kept back for the answer to a channel's request.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Arrivals that are read ahead of the connection's task.
pub(super) const ARRIVALS: usize = 16;
/// Types of extended data (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// Strict key exchange is asserted beside: see [`strict`](super::strict).
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];
/// Their names, in the same order.
pub(super) const CIPHER_NAMES: &[&str] = &[
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
];
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
/// No RSA with SHA-1.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// The algorithms of both legs.
pub(super) const ALGORITHMS: Preferred = Preferred {
    kex: Cow::Borrowed(KEX),
    key: Cow::Borrowed(KEYS),
    host_key_certificates: Cow::Borrowed(&[]),
    cipher: Cow::Borrowed(CIPHERS),
    mac: Cow::Borrowed(MACS),
    compression: Cow::Borrowed(&[russh::compression::NONE]),
};

/// How the server presents itself: prepared once, shared by its connections.
#[derive(Debug, Clone)]
pub(super) struct Presence(Arc<russh::server::Config>);

impl Presence {
    /// With `certificates`, a client that trusts their authority needs not know the key.
    pub(super) fn new(keys: Vec<PrivateKey>, certificates: Vec<Certificate>) -> Self {
        Self(Arc::new(russh::server::Config {
            server_id: SshId::Standard(Cow::Borrowed(SOFTWARE)),
            methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
            auth_rejection_time: REJECT_AFTER,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys,
            certificates,
            window_size: WINDOW,
            channel_buffer_size: QUEUE,
            preferred: ALGORITHMS,
            max_auth_attempts: ATTEMPTS,
            // Both are the connection's task's to decide.
            inactivity_timeout: None,
            keepalive_interval: None,
            nodelay: false,
            ..russh::server::Config::default()
        }))
    }
}

/// What a client opens or asks for, as it comes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a channel is what nearly all of them are")]
pub(super) enum Arrival {
    /// The client has proved who it is; what it says of its software.
    Authenticated {
        software: String,
    },
    Opened(Opening, ClientChannel, OpenReply),
    /// `tcpip-forward`: answered with the port that is listened on, or not granted.
    Listen {
        address: String,
        port: u32,
        answer: oneshot::Sender<Option<u32>>,
    },
    Unlisten {
        address: String,
        port: u32,
        answer: oneshot::Sender<bool>,
    },
    ListenPath {
        path: String,
        answer: oneshot::Sender<bool>,
    },
    UnlistenPath {
        path: String,
        answer: oneshot::Sender<bool>,
    },
    /// A kind of channel that is never offered was refused.
    Refused(&'static str),
}

/// What a channel is for.
#[derive(Debug, Clone)]
pub(super) enum Opening {
    Session,
    Tcp { host: String, port: u32, originator: String },
    Path { path: String },
}

/// Accepts or refuses a channel; dropped, it refuses.
pub(super) struct OpenReply(ChannelOpenHandle);

impl std::fmt::Debug for OpenReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenReply")
    }
}

impl OpenReply {
    pub(super) async fn accept(self) {
        self.0.accept().await;
    }

    /// As a policy's refusal; the client shows `why`.
    pub(super) async fn prohibit(self, why: String) {
        self.0.reject(ChannelOpenFailure::Other { code: 1, reason: why }).await;
    }

    /// As a destination that cannot be reached; the client shows `why`.
    pub(super) async fn fail(self, why: String) {
        self.0.reject(ChannelOpenFailure::Other { code: 2, reason: why }).await;
    }
}

/// A channel to the client.
#[derive(Debug)]
pub(super) struct ClientChannel {
    pub from: FromClient,
    pub to: ToClient,
}

impl ClientChannel {
    fn new(
        channel: Channel<Msg>,
        handle: russh::server::Handle,
        flow: &Arc<Flow>,
        answers: Option<mpsc::Sender<bool>>,
    ) -> Self {
        let backlog = flow.channel(channel.id().into());
        let (read, write) = channel.split();
        Self { from: FromClient { read, backlog, answers }, to: ToClient { write, handle } }
    }

    /// As a stream of bytes, for a protocol inside of it.
    pub(super) fn into_halves(self) -> (FromClient, ToClient) {
        (self.from, self.to)
    }
}

/// The receiving half of a channel.
pub(super) struct FromClient {
    read: ChannelReadHalf,
    backlog: Arc<Backlog>,
    answers: Option<mpsc::Sender<bool>>,
}

impl std::fmt::Debug for FromClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromClient")
    }
}

impl FromClient {
    /// The next message; `None` when the channel or the connection is gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = from_library(self.read.wait().await?) {
                self.backlog.taken(message.len());
                return Some(message);
            }
        }
    }

    /// Answers the request that came last ([`Request::is_answered`]). Never waits.
    pub(super) fn answer(&self, granted: bool) {
        if let Some(answers) = &self.answers {
            // Full or closed: the client's loop has given up waiting and answered by itself.
            let _late = answers.try_send(granted);
        }
    }
}

/// A channel's message in our words; `None` for what only informs.
pub(super) fn from_library(message: ChannelMsg) -> Option<Message> {
    Some(match message {
        ChannelMsg::Data { data } => Message::Data(data),
        // The one type that there is (RFC 4254, section 5.2); bytes of another are not lost at least.
        ChannelMsg::ExtendedData { data, .. } => Message::Stderr(data),
        ChannelMsg::Eof => Message::Eof,
        ChannelMsg::Close => Message::Close,
        ChannelMsg::RequestPty {
            term, col_width, row_height, pix_width, pix_height, terminal_modes, ..
        } => {
            let window = Window { cols: col_width, rows: row_height, width: pix_width, height: pix_height };
            let modes = terminal_modes.into_iter().map(|(code, value)| (code as u8, value)).collect();
            Message::Request(Request::Pty(Pty { term, window, modes }))
        }
        ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
            Message::Request(Request::Env { name: variable_name, value: variable_value })
        }
        ChannelMsg::RequestShell { .. } => Message::Request(Request::Shell),
        ChannelMsg::Exec { command, .. } => Message::Request(Request::Exec(command.into())),
        ChannelMsg::RequestSubsystem { name, .. } => Message::Request(Request::Subsystem(name)),
        ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
            let window = Window { cols: col_width, rows: row_height, width: pix_width, height: pix_height };
            Message::Request(Request::Resize(window))
        }
        ChannelMsg::Signal { signal } => Message::Request(Request::Signal(signal_name(signal))),
        ChannelMsg::AgentForward { .. } => Message::Request(Request::Agent),
        ChannelMsg::RequestX11 { .. } => Message::Request(Request::X11),
        ChannelMsg::Success => Message::Answer(true),
        ChannelMsg::Failure => Message::Answer(false),
        ChannelMsg::ExitStatus { exit_status } => Message::ExitStatus(exit_status),
        ChannelMsg::ExitSignal { signal_name: name, core_dumped, error_message, .. } => {
            Message::ExitSignal(ExitSignal { name: signal_name(name), core_dumped, message: error_message })
        }
        _ => return None,
    })
}

fn signal_name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        known => format!("{known:?}"),
    }
}

/// A signal as the library names it (RFC 4254, section 6.10).
pub(super) fn signal(name: &str) -> Sig {
    let known = [
        Sig::ABRT,
        Sig::ALRM,
        Sig::FPE,
        Sig::HUP,
        Sig::ILL,
        Sig::INT,
        Sig::KILL,
        Sig::PIPE,
        Sig::QUIT,
        Sig::SEGV,
        Sig::TERM,
        Sig::USR1,
    ];
    let found = known.into_iter().find(|signal| format!("{signal:?}") == name);
    found.unwrap_or_else(|| Sig::Custom(name.to_owned()))
}

/// The sending half of a channel. Data wait for the client's window and nothing else, so that one
/// channel that is not read stalls no other.
pub(super) struct ToClient {
    write: ChannelWriteHalf<Msg>,
    handle: russh::server::Handle,
}

impl std::fmt::Debug for ToClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToClient")
    }
}

impl ToClient {
    /// Not cancel-safe: dropped, part of the bytes may have been sent.
    pub(super) async fn data(&self, bytes: Bytes) -> Result<(), Gone> {
        self.write.data_bytes(bytes).await.map_err(|_| Gone)
    }

    /// Not cancel-safe: dropped, part of the bytes may have been sent.
    pub(super) async fn stderr(&self, bytes: Bytes) -> Result<(), Gone> {
        self.write.extended_data_bytes(STDERR, bytes).await.map_err(|_| Gone)
    }

    pub(super) async fn eof(&self) -> Result<(), Gone> {
        self.write.eof().await.map_err(|_| Gone)
    }

    pub(super) async fn exit_status(&self, status: u32) -> Result<(), Gone> {
        self.write.exit_status(status).await.map_err(|_| Gone)
    }

    pub(super) async fn exit_signal(&self, signal: ExitSignal) -> Result<(), Gone> {
        let ExitSignal { name, core_dumped, message } = signal;
        let sent = self.handle.exit_signal_request(
            self.write.id(),
            self::signal(&name),
            core_dumped,
            message,
            String::new(),
        );
        sent.await.map_err(|()| Gone)
    }

    pub(super) async fn close(&self) -> Result<(), Gone> {
        self.write.close().await.map_err(|_| Gone)
    }
}

/// A handle on the client's whole connection.
#[derive(Debug, Clone)]
pub(super) struct ClientHandle {
    handle: russh::server::Handle,
    flow: Arc<Flow>,
}

impl ClientHandle {
    /// Tells the client why it is let go. Waits behind what is on the way to it: give it a budget.
    pub(super) async fn disconnect(&self, why: &str) {
        let _gone = self.handle.disconnect(Disconnect::ByApplication, why.to_owned(), String::new()).await;
    }

    pub(super) async fn open_forwarded_tcp(
        &self,
        connected: (String, u32),
        originator: (String, u32),
    ) -> Result<ClientChannel, Gone> {
        let ((address, port), (from, from_port)) = (connected, originator);
        self.channel(self.handle.channel_open_forwarded_tcpip(address, port, from, from_port).await)
    }

    pub(super) async fn open_forwarded_path(&self, path: String) -> Result<ClientChannel, Gone> {
        self.channel(self.handle.channel_open_forwarded_streamlocal(path).await)
    }

    pub(super) async fn open_agent(&self) -> Result<ClientChannel, Gone> {
        self.channel(self.handle.channel_open_agent().await)
    }

    fn channel(&self, opened: Result<Channel<Msg>, russh::Error>) -> Result<ClientChannel, Gone> {
        let channel = opened.map_err(|_| Gone)?;
        Ok(ClientChannel::new(channel, self.handle.clone(), &self.flow, None))
    }
}

/// The client's connection as it runs; resolves when it is over.
pub(super) struct Running {
    session: russh::server::RunningSession<Callbacks>,
    flow: Arc<Flow>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Running {
    pub(super) fn handle(&self) -> ClientHandle {
        ClientHandle { handle: self.session.handle(), flow: Arc::clone(&self.flow) }
    }

    /// Why it ended, when not by itself. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<String> {
        (&mut self.session).await.err().map(|error| error.to_string())
    }
}

/// Begins to speak with a client: version exchanged, the rest goes on by itself.
pub(super) async fn run<S>(
    presence: &Presence,
    stream: S,
    authenticator: Authenticator,
    arrivals: boxed::Sender<Arrival>,
) -> Result<Running, russh::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let flow = Flow::with_clients();
    let stream = Asserted::new(stream, FirstPacket::new(Peer::Client, CIPHER_NAMES));
    let stream = Paced::new(stream, Arc::clone(&flow));
    let callbacks = Callbacks { authenticator, arrivals, answers: HashMap::new(), flow: Arc::clone(&flow) };
    let session = russh::server::run_stream(Arc::clone(&presence.0), stream, callbacks).await?;
    Ok(Running { session, flow })
}

struct Callbacks {
    authenticator: Authenticator,
    arrivals: boxed::Sender<Arrival>,
    /// Where each session channel's task leaves its answers.
    answers: HashMap<ChannelId, mpsc::Receiver<bool>>,
    flow: Arc<Flow>,
}

impl Callbacks {
    async fn arrived(&self, arrival: Arrival) -> Result<(), russh::Error> {
        self.arrivals.send(arrival).await.map_err(|_| russh::Error::Disconnect)
    }

    /// Hands a global request on and waits for what the connection's task says.
    async fn ask<T>(
        &self,
        arrival: impl FnOnce(oneshot::Sender<T>) -> Arrival,
    ) -> Result<Option<T>, russh::Error> {
        let (answer, answered) = oneshot::channel();
        self.arrived(arrival(answer)).await?;
        Ok(tokio::time::timeout(ANSWER_WITHIN, answered).await.ok().and_then(Result::ok))
    }

    /// What the channel's task says to the request that it was just given.
    async fn granted(&mut self, channel: ChannelId) -> bool {
        let Some(answers) = self.answers.get_mut(&channel) else { return false };
        if let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, answers.recv()).await {
            // None: its task is over, and the channel as good as closed. A refusal would be read as the
            // reason for that, by a client that has been told the real one.
            return answer.unwrap_or(true);
        }
        // An answer that came late would be taken for that of the next request.
        self.answers.remove(&channel);
        false
    }

    async fn answer(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if self.granted(channel).await {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }
}

fn verdict(accepted: bool) -> Auth {
    if accepted { Auth::Accept } else { Auth::reject() }
}

/// RSA with SHA-1 proves nothing.
fn is_weak(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Handler for Callbacks {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        if is_weak(offer.algorithm) {
            return Ok(Auth::reject());
        }
        Ok(verdict(self.authenticator.may_be_proved(user, offer.public_key).await))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if is_weak(key.algorithm) {
            return Ok(Auth::reject());
        }
        Ok(verdict(self.authenticator.key_proved(user, key.public_key).await))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(verdict(self.authenticator.certificate_proved(user, certificate).await))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        // An answer without a word is one as well.
        let said = response.map(|mut response| response.next().unwrap_or_default());
        let said = said.map(|bytes| Secret::new(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(match self.authenticator.interactive(user, said).await {
            Interactive::Accept => Auth::Accept,
            Interactive::Reject => Auth::reject(),
            Interactive::Ask { prompt, told } => Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Owned(told),
                prompts: Cow::Owned(vec![(Cow::Borrowed(prompt), false)]),
            },
        })
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(None)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let software = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        self.arrived(Arrival::Authenticated { software }).await
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (answers, given) = mpsc::channel(1);
        // Of channels that were refused nobody tells us.
        self.answers.retain(|_, answers| !answers.is_closed());
        self.answers.insert(channel.id(), given);
        let channel = ClientChannel::new(channel, session.handle(), &self.flow, Some(answers));
        self.arrived(Arrival::Opened(Opening::Session, channel, OpenReply(reply))).await
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(Arrival::Refused("x11")).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let channel = ClientChannel::new(channel, session.handle(), &self.flow, None);
        let opening = Opening::Tcp {
            host: host_to_connect.to_owned(),
            port: port_to_connect,
            originator: format!("{originator_address}:{originator_port}"),
        };
        self.arrived(Arrival::Opened(opening, channel, OpenReply(reply))).await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(Arrival::Refused("forwarded_tcpip")).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let channel = ClientChannel::new(channel, session.handle(), &self.flow, None);
        let opening = Opening::Path { path: socket_path.to_owned() };
        self.arrived(Arrival::Opened(opening, channel, OpenReply(reply))).await
    }

    async fn channel_open_confirmation(
        &mut self,
        _id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    // What a channel carries reaches its task by its receiving half.
    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.answers.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, _channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
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

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.flow.window()
    }

    async fn window_adjusted(
        &mut self,
        _channel: ChannelId,
        _new_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn lookup_dh_gex_group(&mut self, _wanted: &GexParams) -> Result<Option<DhGroup>, Self::Error> {
        // Not among the key exchanges that are offered.
        Ok(None)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _variable_name: &str,
        _variable_value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.answer(channel, session).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.flow.arrived(channel.into(), 0);
        Ok(())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.granted(channel).await)
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.flow.arrived(channel.into(), signal_name(signal).len());
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let (address, asked) = (address.to_owned(), *port);
        let granted = self.ask(|answer| Arrival::Listen { address, port: asked, answer }).await?.flatten();
        if let Some(granted) = granted {
            *port = granted;
        }
        Ok(granted.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let address = address.to_owned();
        Ok(self.ask(|answer| Arrival::Unlisten { address, port, answer }).await?.unwrap_or(false))
    }

    async fn streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let path = socket_path.to_owned();
        Ok(self.ask(|answer| Arrival::ListenPath { path, answer }).await?.unwrap_or(false))
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let path = socket_path.to_owned();
        Ok(self.ask(|answer| Arrival::UnlistenPath { path, answer }).await?.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_named_as_the_library_names_them() {
        let named: Vec<&str> = CIPHERS.iter().map(AsRef::as_ref).collect();
        assert_eq!(named, CIPHER_NAMES);
    }
}
