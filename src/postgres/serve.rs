//! A client's connection from its first byte to its last, phase by phase:
//!
//! 1. [`negotiate`]: TLS or a cancel request
//! 2. [`authenticate`]: SCRAM → principal
//! 3. `access::admit`: principal and target's name → permit, or the reason why not
//! 4. `gateway::live::begin`: registered, checked once more, its beginning durable; the target is dialled meanwhile
//! 5. credential issued, [`upstream::connect`]
//! 6. the target's greeting passed on, with a cancel key of ours, while the credential is shut
//! 7. [`pump`]: bytes both ways until something ends
//! 8. goodbye, both sockets closed, the target's statement cancelled, the end written down

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access::Access;
use crate::access::connect::{RefusedConnection, Wanted, end_reason};
use crate::access::credential::Shutting;
use crate::access::refusal::Refusal;
use crate::audit::record::{Body, Credential as CredentialRecord, CredentialMark, Notice};
use crate::audit::{Totals, Unrecordable};
use crate::config::PostgresTarget;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::session::Permit;
use crate::gateway::accept::{HandshakeSlot, NotPromoted};
use crate::gateway::live::{self, Arrival, LiveConnection};
use crate::gateway::login::{self, Login, MalformedLogin};
use crate::gateway::scratch;

use super::ClientStream;
use super::authenticate::{AuthenticateError, authenticate};
use super::cancel::{CancelKeys, CancelTarget, IssuedKey};
use super::codec::encode::{self, ErrorReport, Severity};
use super::codec::startup::StartupParameters;
use super::guard;
use super::negotiate::{Hello, NegotiateError, Start, Stream, negotiate};
use super::pump::{self, Pumped};
use super::record;
use super::scram::ScramError;
use super::sqlstate::{self, Goodbye, INVALID_AUTHORIZATION};
use super::upstream::{self, Ahead, Upstream, UpstreamError};

/// How long a goodbye may take; the peer may not be reading.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// How long we wait for a peer to close its side, so that what we said last reaches it.
const LINGER: Duration = Duration::from_millis(200);
/// How long a peer may go on sending what is not wanted before it is told so.
const HEAR_OUT_WITHIN: Duration = Duration::from_secs(2);

/// What the gateway was configured with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tls: Arc<rustls::ServerConfig>,
    /// Our certificate's `tls-server-end-point`, where it has one.
    pub end_point: Option<Arc<[u8]>>,
    /// What people call the gateway's host, in lower case: a client that connects to `TARGET.HOST` names the target.
    pub host: String,
    /// From accept to authenticated.
    pub handshake_timeout: Duration,
    /// Without a byte either way; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// The longest message that a client may send, in bytes.
    pub max_message: usize,
}

/// The PostgreSQL gateway.
#[derive(Debug)]
pub struct PostgresGateway {
    access: Arc<Access>,
    settings: Settings,
    keys: CancelKeys,
}

/// The way to a target, made with a credential that may not be shut yet.
struct Reached {
    upstream: Upstream,
    shutting: Shutting,
}

/// A client, and the way to its target.
struct Connected {
    known: Known,
    live: LiveConnection,
    reached: Reached,
}

/// A client that has proved who it is.
struct Known {
    stream: ClientStream,
    /// Bytes that came after its last authentication message.
    buffer: BytesMut,
    start: StartupParameters,
    version: super::codec::startup::ProtocolVersion,
    wanted: Wanted,
    principal: Principal,
    arrival: Arrival,
}

impl PostgresGateway {
    pub fn new(access: Arc<Access>, settings: Settings) -> Self {
        Self { access, settings, keys: CancelKeys::default() }
    }

    /// Serves one connection. Errors are told to the client and recorded; nothing is left to return.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, slot: HandshakeSlot) {
        // Each phase in a box of its own: what it needed goes with it, and a connection that carries bytes, perhaps for
        // days, keeps only what that takes.
        let recognising = Box::pin(self.recognise(stream, client));
        let known = tokio::time::timeout(self.settings.handshake_timeout, recognising).await;
        match known {
            Ok(Some(known)) => self.settle(known, slot).await,
            Ok(None) => {}
            Err(_) => {
                metrics::counter!("sallyport_handshakes_timed_out_total").increment(1);
                tracing::debug!(%client, "a client did not authenticate in time");
            }
        }
    }

    /// From a stranger to a known client, if there is a place.
    async fn settle(&self, mut known: Known, slot: HandshakeSlot) {
        match slot.promote() {
            Ok(_place) => {
                drop(slot);
                let connected = Box::pin(self.connect(known)).await;
                if let Some(connected) = connected {
                    Box::pin(self.carry(connected)).await;
                }
            }
            Err(NotPromoted::Full { limit }) => {
                Box::pin(self.refuse(&mut known, &Deny::TooManyConnections { limit })).await;
            }
            Err(NotPromoted::Evicted) => {}
        }
    }

    /// Phases 1 and 2.
    async fn recognise(&self, stream: TcpStream, client: SocketAddr) -> Option<Known> {
        let start = match negotiate(stream, &self.settings.tls).await {
            Ok(Hello::Startup(start)) => start,
            Ok(Hello::Cancel { request, stream }) => {
                self.keys.serve(&request, client).await;
                close_stream(*stream, None).await;
                return None;
            }
            Err(error) => {
                self.refuse_stranger(error, client).await;
                return None;
            }
        };
        let Start { mut stream, version, parameters, tls, host } = *start;
        let named = host.as_deref().and_then(|host| login::below(host, &self.settings.host));
        let login = Login::parse(parameters.user()).and_then(|login| login.on_host(named));
        let (user, wanted) = match login.and_then(Login::with_target) {
            Ok(login) => login,
            Err(error) => {
                // Counted like a failed attempt: a stranger must not fill the log.
                if self.access.admit_token_attempt("", client.ip()).is_ok() {
                    self.access
                        .record_refused_connection(RefusedConnection {
                            principal: None,
                            client,
                            wanted: None,
                            claimed: parameters.user(),
                            code: "malformed_login",
                            why: &error.to_string(),
                        })
                        .await;
                }
                close(&mut stream, Some(malformed_login(&error))).await;
                return None;
            }
        };
        let mut buffer = BytesMut::new();
        let end_point = self.settings.end_point.as_deref();
        let proved = authenticate(&self.access, &mut stream, &mut buffer, &user, end_point, client).await;
        match proved {
            Ok(principal) => {
                let text =
                    |name| parameters.value(name).map(|value| String::from_utf8_lossy(value).into_owned());
                let arrival = Arrival {
                    client,
                    application: text("application_name"),
                    database: parameters.database().map(str::to_owned),
                    tls: Some(tls),
                    ssh: None,
                };
                Some(Known { stream, buffer, start: parameters, version, wanted, principal, arrival })
            }
            Err(error) => {
                self.refuse_unproved(&user, &wanted, client, &error).await;
                close(&mut stream, error.goodbye(&user)).await;
                None
            }
        }
    }

    async fn refuse_stranger(&self, error: NegotiateError, client: SocketAddr) {
        tracing::debug!(%client, %error, "a client was refused before it said who it is");
        metrics::counter!("sallyport_handshakes_refused_total").increment(1);
        if let Some((stream, goodbye)) = error.goodbye() {
            close_stream(stream, Some(goodbye)).await;
        }
    }

    async fn refuse_unproved(
        &self,
        user: &UserName,
        wanted: &Wanted,
        client: SocketAddr,
        error: &AuthenticateError,
    ) {
        let code = match error {
            // Counted, not recorded each: a stranger could fill the log with them.
            AuthenticateError::Io(_) | AuthenticateError::Refused(Refusal::TooManyAttempts { .. }) => {
                metrics::counter!("sallyport_handshakes_refused_total").increment(1);
                return;
            }
            AuthenticateError::Scram(ScramError::Refused) => "wrong_token",
            AuthenticateError::Certificate(_) => "wrong_certificate",
            AuthenticateError::Refused(refusal) => refusal.code(),
            AuthenticateError::Codec(_) | AuthenticateError::Scram(_) => "malformed",
        };
        self.access
            .record_refused_connection(RefusedConnection {
                principal: None,
                client,
                wanted: Some(wanted),
                claimed: user.as_str(),
                code,
                why: &error.to_string(),
            })
            .await;
    }

    /// Phases 3 to 5; `None` where they led nowhere, which has been told.
    async fn connect(&self, mut known: Known) -> Option<Box<Connected>> {
        let (permit, target, database) = match self.admit(&known).await {
            Ok(admitted) => admitted,
            Err(deny) => {
                self.refuse(&mut known, &deny).await;
                return None;
            }
        };
        known.arrival.database = Some(database.clone());
        let ahead = Ahead::dial(&target);
        let live = match live::begin(&self.access, &permit, &known.arrival).await {
            Ok(live) => live,
            Err(deny) => {
                self.refuse(&mut known, &deny).await;
                return None;
            }
        };
        let mut stop = live.stop_signal();
        let reach = async {
            if known.start.wants_replication() {
                live.replicates();
                // From here on a reload finds it; one that came before shows in this look.
                self.access
                    .may_replicate(&live.current_permit().get())
                    .map_err(|deny| (Goodbye::from(&deny), end_reason(&deny)))?;
            }
            self.reach(&live, &target, ahead, &database, &known.start).await
        };
        let reached = tokio::select! {
            biased;
            reason = stop.stopped() => Err((Goodbye::from(&reason), reason)),
            reached = Box::pin(reach) => reached,
        };
        match reached {
            Ok(reached) => Some(Box::new(Connected { known, live, reached })),
            Err(why) => {
                end_unused(&mut known, live, why).await;
                None
            }
        }
    }

    async fn admit(&self, known: &Known) -> Result<(Permit, Arc<PostgresTarget>, String), Deny> {
        let wanted = &known.wanted;
        let find = || -> Result<_, Deny> {
            Ok(Arc::clone(self.access.rules().targets.find(&wanted.target)?.route.postgres()?))
        };
        // Nobody is told to ask for a session that psql could not use.
        find()?;
        if known.start.wants_delay() {
            return Err(Deny::SlowsLogin);
        }
        let permit = self.access.admit(&known.principal, wanted).await?;
        let target = find()?;
        if known.start.wants_replication() {
            self.access.may_replicate(&permit)?;
        }
        let is_physical = known.start.wants_replication() && !known.start.replicates_database();
        // The server ignores it then; PostgreSQL's tools write `replication` there.
        let asked = known.start.database().filter(|_| !is_physical);
        let database = database(&target, asked, known.start.user())?;
        Ok((permit, target, database))
    }

    async fn refuse(&self, known: &mut Known, deny: &Deny) {
        self.access
            .record_refused_connection(RefusedConnection {
                principal: Some(&known.principal),
                client: known.arrival.client,
                wanted: Some(&known.wanted),
                claimed: known.start.user(),
                code: deny.code(),
                why: &deny.to_string(),
            })
            .await;
        close(&mut known.stream, Some(Goodbye::from(deny))).await;
    }

    /// Phase 5: a credential, and the way to the target.
    async fn reach(
        &self,
        live: &LiveConnection,
        target: &Arc<PostgresTarget>,
        ahead: Ahead,
        database: &str,
        start: &StartupParameters,
    ) -> Result<Reached, (Goodbye, EndReason)> {
        let unrecordable = |error: Unrecordable| {
            let reason = EndReason::Unrecordable { detail: error.to_string() };
            (Goodbye::from(&reason), reason)
        };
        let replicates = start.wants_replication();
        let open =
            self.access.open_credential(live.permit(), replicates).await.map_err(|deny| denied(&deny))?;
        let Some(credential) = open.credential() else { return Err(denied(&Deny::ShuttingDown)) };
        let mark = CredentialMark {
            handle: credential.user.clone(),
            fingerprint: Some(open.fingerprint().to_owned()),
        };
        let issued = Body::Credential(CredentialRecord { step: "issued".to_owned(), mark, detail: None });
        // Durable with what comes next; the log has it of the credential itself already.
        live.recorder().note_wait(&[issued]).await.map_err(unrecordable)?;
        let connected = upstream::connect(target, credential, database, start, ahead).await;
        let user = credential.user.clone();
        let upstream = match connected {
            Ok(upstream) => upstream,
            Err(error) => {
                let _told_by_its_log = open.shut().done().await;
                tracing::warn!(connection = %live.id(), target = %live.permit().target().name, %error, "target not reached");
                let detail = error.to_string();
                return Err((unreachable(error), EndReason::TargetUnreachable { detail }));
            }
        };
        let text = format!(
            "connected to the target as {user} over {} {}",
            upstream.tls.version, upstream.tls.cipher
        );
        let mut notes = vec![Body::Notice(Notice::new(text))];
        notes.extend(record::asked_for(start));
        notes.extend(record::settings(&upstream.parameters()));
        let shutting = open.shut();
        live.recorder().record(&notes).await.map_err(unrecordable)?;
        Ok(Reached { upstream, shutting })
    }

    /// Phases 6 to 8.
    async fn carry(&self, connected: Box<Connected>) {
        // Without the braces the box would stay until the end.
        let Connected { mut known, live, reached: Reached { upstream, shutting } } = *{ connected };
        let canceller = upstream.canceller.clone();
        let target = CancelTarget { canceller: canceller.clone(), recorder: live.recorder().clone() };
        let key = self.keys.issue(known.version, target);
        if let Err(error) = Box::pin(greet(&mut known, &upstream, &key)).await {
            tracing::debug!(connection = %live.id(), %error, "the client went away before it was greeted");
            drop((key, upstream, known));
            return Box::pin(live.finish(EndReason::ClientClosed, Totals::default())).await;
        }
        // Nothing that the client says is read before: a crash of the target could forget a credential that is being
        // shut but not one that is, and whoever works there could have given it a password of their own.
        let mut stop = live.stop_signal();
        let shut = tokio::select! {
            biased;
            reason = stop.stopped() => Err((Goodbye::from(&reason), reason)),
            shut = Box::pin(shutting.done()) => shut.map_err(|deny| (Goodbye::from(&deny), end_reason(&deny))),
        };
        if let Err(why) = shut {
            drop(upstream);
            return Box::pin(end_unused(&mut known, live, why)).await;
        }
        let limits =
            pump::Limits { max_message: self.settings.max_message, idle: self.settings.idle_timeout };
        let sides = pump::Sides {
            settings: guard::Settings::told(&upstream.parameters()),
            client: known.stream,
            from_client: known.buffer,
            target: upstream.stream,
            from_target: upstream.rest,
        };
        // What only the startup needed goes before the connection settles down.
        drop((known.start, known.wanted, known.principal, known.arrival, upstream.greeting, upstream.ready));
        let Pumped { reason, totals, amid_a_statement } =
            Box::pin(pump::run(&self.access, &live, sides, &canceller, limits)).await;
        drop(key);
        if amid_a_statement || reason.ends_the_right() {
            self.access.cut_amid_a_session(&live.permit().session().id, &reason);
        }
        Box::pin(live.finish(reason, totals)).await;
    }
}

/// What a connection ends with whose credential is not to be had.
fn denied(deny: &Deny) -> (Goodbye, EndReason) {
    let reason = match end_reason(deny) {
        EndReason::NoLongerPermitted { why } => EndReason::TargetUnreachable { detail: why },
        // It is over, be it seen here first.
        other => other,
    };
    (Goodbye::from(deny), reason)
}

/// Ends a connection that was recorded and never carried anything.
async fn end_unused(known: &mut Known, live: LiveConnection, (goodbye, reason): (Goodbye, EndReason)) {
    close(&mut known.stream, Some(goodbye)).await;
    live.finish(reason, Totals::default()).await;
}

/// Phase 6: what the target said when it was ready, with a cancel key of ours.
async fn greet(known: &mut Known, upstream: &Upstream, key: &IssuedKey) -> std::io::Result<()> {
    let mut greeting = BytesMut::new();
    greeting.extend_from_slice(&encode::authentication_ok());
    for message in &upstream.greeting {
        greeting.extend_from_slice(message);
    }
    greeting.extend_from_slice(&encode::backend_key_data(key.key.process, &key.key.key));
    greeting.extend_from_slice(&upstream.ready);
    let telling = async {
        known.stream.write_all(&greeting).await?;
        known.stream.flush().await
    };
    // Short enough for the kernel to take it at once: who does not is not reading at all, and must
    // not keep a revocation waiting.
    tokio::time::timeout(GOODBYE_WITHIN, telling).await?
}

/// Resolves the database *before* anything is decided on it. libpq sends the user's name when
/// nobody named a database.
fn database(target: &PostgresTarget, asked: Option<&str>, user: &str) -> Result<String, Deny> {
    let known = &target.databases;
    let unknown = |database: &str| Deny::UnknownDatabase {
        target: target.target.name.clone(),
        database: database.to_owned(),
        known: known.clone(),
    };
    match asked.filter(|asked| *asked != user) {
        Some(asked) if known.iter().any(|database| database == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(unknown(asked)),
        None => known.first().cloned().ok_or_else(|| unknown("")),
    }
}

fn malformed_login(error: &MalformedLogin) -> Goodbye {
    Goodbye::new(INVALID_AUTHORIZATION, error.to_string())
        .hint("Connect as USER+TARGET, for example alice+ledger-prod; `sallyport targets` lists the targets.")
}

/// What the client is told when the target cannot be reached; the target's own refusal as it is.
fn unreachable(error: UpstreamError) -> Goodbye {
    match error {
        UpstreamError::Refused(report) => Goodbye {
            sqlstate: sqlstate::known(&report.sqlstate),
            message: String::from_utf8_lossy(&report.message).into_owned(),
            detail: Some(String::from_utf8_lossy(&report.detail).into_owned()),
            hint: Some(String::from_utf8_lossy(&report.hint).into_owned()),
        },
        other => Goodbye::from(&Deny::TargetUnavailable { detail: other.to_string() }),
    }
}

/// Reads what the peer still has to say, which is dropped, until it pauses, [`HEAR_OUT_WITHIN`] at most.
///
/// libpq reads while it writes to notice an end, and then tells nobody what was said before that end.
pub(super) async fn hear_out<S: AsyncRead + Unpin>(stream: &mut S) {
    let listening = async {
        let mut next = async || tokio::time::timeout(LINGER, scratch::read(stream)).await;
        while matches!(next().await, Ok(Ok(chunk)) if !chunk.is_empty()) {}
    };
    let _paused = tokio::time::timeout(HEAR_OUT_WITHIN, listening).await;
}

/// As [`close`], before it is known who the client is.
async fn close_stream(stream: Stream, goodbye: Option<Goodbye>) {
    let _taken = match stream {
        Stream::Plain(mut stream) => close(&mut stream, goodbye).await,
        Stream::Tls(mut stream) => close(&mut stream, goodbye).await,
    };
}

/// Says goodbye and closes, within [`GOODBYE_WITHIN`], whether or not the peer reads.
///
/// Returns whether the peer took it; otherwise bytes that it has not taken are left over.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    goodbye: Option<Goodbye>,
) -> bool {
    let closing = async {
        if let Some(goodbye) = goodbye {
            let report = ErrorReport {
                severity: Severity::Fatal,
                sqlstate: goodbye.sqlstate,
                message: &goodbye.message,
                detail: goodbye.detail.as_deref().unwrap_or_default(),
                hint: goodbye.hint.as_deref().unwrap_or_default(),
            };
            stream.write_all(&report.encode()).await?;
        }
        stream.shutdown().await
    };
    let taken =
        matches!(tokio::time::timeout(GOODBYE_WITHIN, closing).await, Ok(Ok::<_, std::io::Error>(())));
    if taken {
        // Closing with unread bytes makes the kernel reset the connection, and the peer might lose
        // what it was told.
        let mut rest = [0; 512];
        let drained = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        let _gone = tokio::time::timeout(LINGER, drained).await;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// They live as long as the connection does, beside its buffers and its two TLS connections.
    #[test]
    fn what_carries_a_connection_is_small() {
        type Gateway = &'static PostgresGateway;
        let serves = size_of_future(|(gateway, stream, client, slot): (Arc<PostgresGateway>, _, _, _)| {
            gateway.serve(stream, client, slot)
        });
        let carries = size_of_future(|(gateway, connected): (Gateway, _)| gateway.carry(connected));
        let pumps = size_of_future(
            |(access, live, sides, canceller, limits): (&'static Access, &'static _, _, &'static _, _)| {
                pump::run(access, live, sides, canceller, limits)
            },
        );
        assert!(serves + carries + pumps <= 10 << 10, "{serves} + {carries} + {pumps} bytes");
    }
}
