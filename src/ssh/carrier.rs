//! What the channels of one live connection share: the permit, the recorder, the way to the target,
//! and what ends them all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::goodbye::Partings;
use super::server::ClientHandle;
use super::settings::Settings;
use super::way::Way;
use crate::access::Access;
use crate::access::hub::CurrentPermit;
use crate::access::usage::Use;
use crate::audit::record::Body;
use crate::audit::ssh::{ChannelKind, ChannelOpened, ChannelRefused};
use crate::audit::{Recorder, Totals, Unrecordable};
use crate::config::SshTarget;
use crate::domain::decision::Rule;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::time::Timestamp;

/// The channel number of what concerns the connection as a whole.
pub(super) const CONNECTION: u32 = 0;

/// How long what runs on a target waits for its client to be told and gone. Nothing of the client's
/// reaches it any more; and to end the programs of many connections at once takes the processor for longer
/// than their clients should be kept.
const CLIENT_FIRST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Carrier {
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub permit: CurrentPermit,
    pub recorder: Recorder,
    pub target: Arc<SshTarget>,
    /// The account on the host.
    pub login: String,
    pub client: ClientHandle,
    pub ending: Ending,
    /// The tasks of its channels.
    pub tasks: TaskTracker,
    /// Cancelled when the client is gone.
    pub left: CancellationToken,
    /// Held by each channel that has something to say to its client at the end, until it is said.
    pub telling: TaskTracker,
    pub way: Way,
    partings: Arc<Partings>,
    /// For as many channels as one connection may have, whoever opened them.
    places: Arc<Semaphore>,
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

/// The parts of a [`Carrier`] that are the connection's own.
#[derive(Debug)]
pub(super) struct Parts {
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub permit: CurrentPermit,
    pub recorder: Recorder,
    pub target: Arc<SshTarget>,
    pub login: String,
    pub client: ClientHandle,
    pub way: Way,
    pub partings: Arc<Partings>,
}

impl Carrier {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { access, settings, permit, recorder, target, login, client, way, partings } = parts;
        let now = micros(access.now());
        let places = Arc::new(Semaphore::new(settings.max_channels));
        Self {
            access,
            settings,
            permit,
            recorder,
            target,
            login,
            client,
            ending: Ending::default(),
            tasks: TaskTracker::new(),
            left: CancellationToken::new(),
            telling: TaskTracker::new(),
            way,
            partings,
            places,
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

    /// Until the client of a connection that ends is gone, and those that go with it, within their time.
    pub(super) async fn client_first(&self) {
        let gone = async {
            self.left.cancelled().await;
            self.partings.over().await;
        };
        let _takes_its_time = tokio::time::timeout(CLIENT_FIRST, gone).await;
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
        self.recorder.note_wait(&[body]).await.inspect_err(|error| self.unrecordable(error))
    }

    pub(super) fn unrecordable(&self, error: &Unrecordable) {
        self.ending.begin(EndReason::Unrecordable { detail: error.to_string() });
    }

    /// Puts a use to the policy; a refusal is recorded and comes back as what to tell the client.
    pub(super) async fn may(&self, ch: u32, what: &str, usage: &Use<'_>) -> Result<(), String> {
        let Err(deny) = self.access.may_use(&self.permit.get(), usage) else { return Ok(()) };
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

    /// A place for one more channel, if there is one.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Records that there was none; gives what to tell.
    pub(super) async fn note_full(&self) -> String {
        let limit = self.settings.max_channels;
        let why = format!("this connection has its limit of {limit} channels open");
        self.note_refused("channel", "max_channels", why.clone()).await;
        why
    }

    /// As [`Self::refused_as`], queued and not waited for: nothing goes to the target, and a flood of them
    /// must not stop the others.
    pub(super) async fn note_refused(&self, what: &str, rule: &str, needs: String) {
        let (what, rule) = (what.to_owned(), rule.to_owned());
        let refused = ChannelRefused { ch: CONNECTION, what, destination: None, rule, needs };
        // Should it fail, the connection has been told to end.
        let _ended = self.note(Body::ChannelRefused(refused)).await;
    }

    /// As [`Self::refused`], for what no policy has a say in.
    pub(super) async fn refused_as(&self, ch: u32, what: &str, destination: Option<String>, why: &str) {
        let rule = Rule { id: what.to_owned(), needs: why.to_owned() };
        self.refused(ch, what, destination, &Deny::PolicyRefused { rules: vec![rule] }).await;
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
