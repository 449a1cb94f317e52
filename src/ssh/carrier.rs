//! What the channels of one live connection share: the permit, the recorder, the way to the target,
//! and what ends them all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{self, DialError, Upstream};
use super::server::ClientHandle;
use super::settings::Settings;
use crate::access::Access;
use crate::access::credential::error_chain;
use crate::access::usage::Use;
use crate::audit::record::{Body, Credential, CredentialMark};
use crate::audit::ssh::{ChannelKind, ChannelOpened, ChannelRefused};
use crate::audit::{Recorder, Totals, Unrecordable};
use crate::config::SshTarget;
use crate::credentials::ssh_certificate::CertificateFor;
use crate::domain::decision::Rule;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::session::Permit;
use crate::domain::time::Timestamp;

/// The channel number of what concerns the connection as a whole.
pub(super) const CONNECTION: u32 = 0;

#[derive(Debug)]
pub(super) struct Carrier {
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub permit: Permit,
    pub recorder: Recorder,
    pub target: Arc<SshTarget>,
    /// The account on the host.
    pub login: String,
    pub client: ClientHandle,
    pub ending: Ending,
    /// Closes every connection to the target.
    pub cut: CancellationToken,
    /// The tasks of its channels.
    pub tasks: TaskTracker,
    /// Held by each channel that has something to say to its client at the end, until it is said.
    pub telling: TaskTracker,
    /// Upstream connections that carry no channel at the moment.
    idle_upstreams: Mutex<Vec<Upstream>>,
    channels: AtomicU32,
    last_byte: AtomicU64,
    from_client: AtomicU64,
    from_target: AtomicU64,
}

/// Why the connection is to end: said once, and from then on.
#[derive(Debug, Default)]
pub(super) struct Ending {
    reason: OnceLock<EndReason>,
    begun: CancellationToken,
}

impl Ending {
    /// The first reason stays.
    pub(super) fn begin(&self, reason: EndReason) {
        let _first_stays = self.reason.set(reason);
        self.begun.cancel();
    }

    /// Resolves when the connection is to end. Cancel-safe.
    pub(super) async fn begun(&self) -> EndReason {
        self.begun.cancelled().await;
        self.reason.get().cloned().unwrap_or(EndReason::Internal)
    }
}

/// Why a target's connection is not there for a channel.
#[derive(Debug)]
pub(super) enum NotReached {
    Unreachable(String),
    Unrecordable,
}

impl From<Unrecordable> for NotReached {
    fn from(_: Unrecordable) -> Self {
        Self::Unrecordable
    }
}

/// The parts of a [`Carrier`] that are the connection's own.
#[derive(Debug)]
pub(super) struct Parts {
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub permit: Permit,
    pub recorder: Recorder,
    pub target: Arc<SshTarget>,
    pub login: String,
    pub client: ClientHandle,
}

impl Carrier {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { access, settings, permit, recorder, target, login, client } = parts;
        let now = micros(access.now());
        Self {
            access,
            settings,
            permit,
            recorder,
            target,
            login,
            client,
            ending: Ending::default(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            telling: TaskTracker::new(),
            idle_upstreams: Mutex::default(),
            channels: AtomicU32::new(CONNECTION),
            last_byte: AtomicU64::new(now),
            from_client: AtomicU64::new(0),
            from_target: AtomicU64::new(0),
        }
    }

    /// The next channel's number in the recording.
    pub(super) fn number(&self) -> u32 {
        self.channels.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            channels: u64::from(self.channels.load(Ordering::Relaxed)),
            bytes_from_client: self.from_client.load(Ordering::Relaxed),
            bytes_from_target: self.from_target.load(Ordering::Relaxed),
            ..Totals::default()
        }
    }

    pub(super) fn count_from_client(&self, bytes: usize) {
        self.seen(&self.from_client, bytes);
    }

    pub(super) fn count_from_target(&self, bytes: usize) {
        self.seen(&self.from_target, bytes);
    }

    fn seen(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.last_byte.store(micros(self.access.now()), Ordering::Relaxed);
    }

    /// Resolves when no byte has gone either way for `limit`; never without one.
    pub(super) async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = i64::try_from(self.last_byte.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            let until = Timestamp::from_micros(last).plus(limit);
            if self.access.now() >= until {
                return;
            }
            self.access.clock.sleep_until(until).await;
        }
    }

    /// Makes `bodies` durable, or ends the connection: what cannot be recorded must not happen.
    pub(super) async fn record(&self, bodies: &[Body]) -> Result<(), Unrecordable> {
        self.recorder.record(bodies).await.inspect_err(|error| self.unrecordable(error))
    }

    /// As [`Self::record`], waiting for room in the queue only. Cancel-safe.
    pub(super) async fn note(&self, body: Body) -> Result<(), Unrecordable> {
        self.recorder.note_wait(body).await.inspect_err(|error| self.unrecordable(error))
    }

    pub(super) fn unrecordable(&self, error: &Unrecordable) {
        self.ending.begin(EndReason::Unrecordable { detail: error.to_string() });
    }

    /// Puts a use to the policy; a refusal is recorded and comes back as what to tell the client.
    pub(super) async fn may(&self, ch: u32, what: &str, usage: &Use<'_>) -> Result<(), String> {
        let Err(deny) = self.access.may_use(&self.permit, usage) else { return Ok(()) };
        self.refused(ch, what, destination(usage), &deny).await;
        Err(deny.to_string())
    }

    /// Records that something was refused.
    pub(super) async fn refused(&self, ch: u32, what: &str, destination: Option<String>, deny: &Deny) {
        let (rule, needs) = match deny {
            Deny::PolicyRefused { rules } => {
                let join =
                    |part: &dyn Fn(&Rule) -> String| rules.iter().map(part).collect::<Vec<_>>().join("; ");
                (join(&|rule| rule.id.clone()), join(&|rule| rule.needs.clone()))
            }
            other => (other.code().to_owned(), other.to_string()),
        };
        let refused = ChannelRefused { ch, what: what.to_owned(), destination, rule, needs };
        // Should it fail, the connection has been told to end.
        let _ended = self.record(&[Body::ChannelRefused(refused)]).await;
    }

    /// As [`Self::refused`], for what no policy has a say in.
    pub(super) async fn refused_as(&self, ch: u32, what: &str, destination: Option<String>, why: &str) {
        let rule = Rule { id: what.to_owned(), needs: why.to_owned() };
        self.refused(ch, what, destination, &Deny::PolicyRefused { rules: vec![rule] }).await;
    }

    /// A connection to the target that is this caller's alone. Its credential is on record before the
    /// target sees it.
    pub(super) async fn reach(&self, ch: u32) -> Result<Upstream, NotReached> {
        let session = self.permit.session();
        let id = format!("sallyport {}/{}/{ch}", session.id, self.recorder.connection());
        let order = CertificateFor {
            id: &id,
            login: &self.login,
            source_address: self.target.source_address.as_deref(),
            now: self.access.now(),
            ends_at: session.ends_at,
        };
        let issued = self.settings.certificates.issue(&order);
        let credential = issued.map_err(|error| NotReached::Unreachable(error.to_string()))?;
        let mark = CredentialMark { handle: id.clone(), fingerprint: Some(credential.fingerprint.clone()) };
        let step = |step: &str, detail: Option<String>| {
            Body::Credential(Credential { step: step.to_owned(), mark: mark.clone(), detail })
        };
        self.record(&[step("issued", Some(format!("a certificate for `{}`", self.login)))]).await?;
        // Also when this is dropped while it waits.
        let destroyed = Destroyed { recorder: &self.recorder, body: Some(step("destroyed", None)) };
        let dialling = client::dial(&self.target, &self.login, &credential, self.access.now(), &self.cut);
        let dialled = tokio::select! {
            biased;
            reason = self.ending.begun() => Err(NotReached::Unreachable(reason.to_string())),
            dialled = dialling => dialled.map_err(|error| self.not_reached(&error)),
        };
        // The key is wiped here; without it the certificate opens nothing.
        drop(credential);
        destroyed.note().await.inspect_err(|error| self.unrecordable(error))?;
        dialled
    }

    fn not_reached(&self, error: &DialError) -> NotReached {
        let detail = error_chain(error);
        tracing::warn!(connection = %self.recorder.connection(), target = %self.target.target.name, error = detail, "target not reached");
        NotReached::Unreachable(detail)
    }

    /// An upstream connection for a forward: one that is idle, or a new one.
    pub(super) async fn borrow_upstream(&self, ch: u32) -> Result<Upstream, NotReached> {
        let idle = self.idle_upstreams().pop();
        match idle {
            Some(upstream) if !upstream.is_closed() => Ok(upstream),
            _ => self.reach(ch).await,
        }
    }

    /// Keeps an upstream connection for the next forward.
    pub(super) fn give_back(&self, upstream: Upstream) {
        let mut idle = self.idle_upstreams();
        if idle.len() < self.settings.idle_upstreams && !upstream.is_closed() {
            idle.push(upstream);
        }
    }

    fn idle_upstreams(&self) -> std::sync::MutexGuard<'_, Vec<Upstream>> {
        self.idle_upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn opened(
        ch: u32,
        channel: ChannelKind,
        destination: Option<String>,
        originator: Option<String>,
    ) -> Body {
        Body::ChannelOpened(ChannelOpened { ch, channel, destination, originator, credential: None })
    }
}

/// Records that a credential is no more.
struct Destroyed<'a> {
    recorder: &'a Recorder,
    body: Option<Body>,
}

impl Destroyed<'_> {
    async fn note(mut self) -> Result<(), Unrecordable> {
        if let Some(body) = self.body.clone() {
            let noted = self.recorder.note_wait(body).await;
            self.body = None;
            noted?;
        }
        Ok(())
    }
}

impl Drop for Destroyed<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && let Err(error) = self.recorder.note(body)
        {
            tracing::warn!(connection = %self.recorder.connection(), %error, "a credential's destruction is not on record");
        }
    }
}

fn destination(usage: &Use<'_>) -> Option<String> {
    match *usage {
        Use::Forward { host, port } | Use::Listen { host, port } => Some(format!("{host}:{port}")),
        Use::ForwardStreamlocal { path } | Use::ListenStreamlocal { path } => Some(path.to_owned()),
        Use::Exec { command } => Some(String::from_utf8_lossy(command).chars().take(1024).collect()),
        Use::Subsystem { name } => Some(name.to_owned()),
        Use::Shell | Use::Sftp | Use::Agent => None,
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(0)
}
