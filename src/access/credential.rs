//! The life of a session's credential at a database, `intended → issued → releasing → released`, to its issue;
//! [`super::release`] has its end.
//!
//! 1. The intent is durable before anything is made at the source.
//! 2. It is made there, then marked issued. It opens the target only while a connection is being
//!    made ([`OpenCredential`]), each time with a new secret.
//! 3. It is marked releasing before it is destroyed, and released when the source confirms.
//!
//! Every step can be repeated, so after a crash [`Access::release_credential`] finishes whatever
//! was begun. Opening and destroying one session's credential exclude each other, and before it is
//! opened the session is looked at once more: nothing is made for a session that has ended.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::PostgresTarget;
use crate::credentials::sources::Sources;
use crate::credentials::{
    AssumedRole, Credential, CredentialSource, Holder, Opened, Replication, SourceError, SourceRequest,
};
use crate::crypto;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{LeaseId, SessionId};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::secret::Secret;
use crate::domain::session::{Permit, Session};
use crate::failpoint;

use super::Access;
use super::janitor::Janitor;
use super::refusal::{Refusal, deny_from_store};
use super::slots::Slots;
use super::targets::Route;

/// Where credentials are made, and who is at work on which.
pub struct Credentials {
    sources: Sources,
    /// Key of the fingerprints by which records name a credential without telling it.
    fingerprint_key: Secret<Vec<u8>>,
    pub(super) slots: Slots<Slot>,
    pub(super) janitor: Janitor,
    /// Of these a connection ended amid a statement, or was cut: something may go on at the target that was deaf to being
    /// cancelled.
    pub(super) cut: std::sync::Mutex<HashSet<SessionId>>,
    /// Owns what must come to its end once begun.
    pub(super) tasks: TaskTracker,
}

/// One session's credential.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Held by whoever changes it.
    pub(super) work: Arc<Mutex<()>>,
    /// Cancelled when it is to be destroyed: what is still being made is not waited for.
    pub(super) ended: CancellationToken,
    /// Whether nothing runs at the target that an earlier process left there, or that may have come in past us.
    pub(super) quiet: AtomicBool,
}

/// A credential that opens the target until it is shut. Dropped unshut, it is shut all the same, by
/// a task of its own.
#[derive(Debug)]
pub struct OpenCredential {
    open: Option<OpenState>,
    fingerprint: String,
}

#[derive(Debug)]
struct OpenState {
    access: Arc<Access>,
    opened: Opened,
    target: Arc<PostgresTarget>,
    lease: LeaseRecord,
    /// Nobody else touches the credential until it is shut.
    held: Arc<OwnedMutexGuard<()>>,
    /// Last: it is not forgotten before.
    slot: Arc<Slot>,
}

impl OpenCredential {
    /// `None` once it is shut.
    pub fn credential(&self) -> Option<&Credential> {
        self.open.as_ref().map(|open| &open.opened.credential)
    }

    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Begins to make it open nothing any more; connections that it has opened go on.
    pub fn shut(mut self) -> Shutting {
        Shutting(self.open.take().map(|open| {
            let (access, target) = (Arc::clone(&open.access), Arc::clone(&open.target));
            let lease = open.lease.clone();
            let task = access.credentials.tasks.spawn(open.shut());
            Underway { access, target, lease, task }
        }))
    }
}

/// A credential that is being shut, which goes on to its end whether or not that is waited for.
#[derive(Debug)]
#[must_use = "nobody may work at the target before it is known that the credential opens nothing any more"]
pub struct Shutting(Option<Underway>);

#[derive(Debug)]
struct Underway {
    access: Arc<Access>,
    target: Arc<PostgresTarget>,
    lease: LeaseRecord,
    task: JoinHandle<Result<(), Deny>>,
}

impl Shutting {
    /// Returns when the source has confirmed that the credential opens nothing any more.
    pub async fn done(self) -> Result<(), Deny> {
        let Some(Underway { access, target, lease, task }) = self.0 else { return Ok(()) };
        match task.await {
            Ok(shut) => shut,
            Err(error) => {
                let detail = format!("shutting it failed: {error}");
                let slot = access.credentials.slots.of(&lease.session);
                access.left_open(&target, &lease, &slot, Some(&detail)).await;
                Err(Deny::CredentialLeftOpen { detail })
            }
        }
    }
}

impl Drop for OpenCredential {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let tasks = open.access.credentials.tasks.clone();
            tasks.spawn(open.shut());
        }
    }
}

impl OpenState {
    async fn shut(self) -> Result<(), Deny> {
        let Self { access, opened, target, lease, held, slot } = self;
        // Begun, it goes on to its end, waited for or not.
        let mut shutting = {
            let (access, target, lease) = (Arc::clone(&access), Arc::clone(&target), lease.clone());
            let tasks = access.credentials.tasks.clone();
            tasks.spawn(async move {
                let request = source_request(&target, &lease);
                access
                    .credentials
                    .source(&target)
                    .shut(&request, opened)
                    .await
                    .map_err(|error| error_chain(&error))
            })
        };
        let shut = tokio::select! {
            biased;
            shut = &mut shutting => Some(shut.unwrap_or_else(|error| Err(error.to_string()))),
            // Who destroys it waits for us, shuts it too, and is not held up by whoever holds us up.
            () = async { slot.ended.cancelled().await; tokio::time::sleep(GIVEN_UP_AFTER).await } => None,
        };
        let shut = match shut {
            Some(Ok(())) => Ok(()),
            None => Err(Deny::CredentialUnavailable { detail: "it is being destroyed".to_owned() }),
            Some(Err(detail)) => {
                metrics::counter!("sallyport_credentials_left_open_total").increment(1);
                tracing::error!(session = %lease.session, handle = %lease.handle, error = detail, "credential could not be shut: it opens the target until the target can be looked at again");
                access.left_open(&target, &lease, &slot, Some(&detail)).await;
                Err(Deny::CredentialLeftOpen { detail })
            }
        };
        drop((held, slot));
        shut
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How long a stop waits for operations at sources.
const SETTLE_WITHIN: Duration = Duration::from_secs(25);
/// So long it takes at most to shut what is to be destroyed: the destruction does it as well.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(300);
/// So long a credential stays open for its issue to be recorded.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);

impl Credentials {
    pub fn new(sources: Sources, fingerprint_key: Secret<Vec<u8>>) -> Self {
        let (slots, janitor) = (Slots::default(), Janitor::default());
        let (cut, tasks) = Default::default();
        Self { sources, fingerprint_key, slots, janitor, cut, tasks }
    }

    pub(super) fn source(&self, target: &PostgresTarget) -> &dyn CredentialSource {
        self.sources.of(target)
    }

    /// Whether the target still has credentials of the kind that was made; only there can it be destroyed.
    pub(super) fn same_kind(&self, target: &PostgresTarget, lease: &LeaseRecord) -> Result<(), String> {
        if self.source(target).handle(&lease.session, &lease.access_role) == lease.handle {
            return Ok(());
        }
        Err(format!(
            "target `{}` has credentials of another kind now than `{}`: put the old `credential` back until it is destroyed",
            lease.target, lease.handle
        ))
    }

    /// Waits for what has been begun, as long as one operation may take; nothing new may begin.
    pub async fn settle(&self) {
        self.tasks.close();
        if tokio::time::timeout(SETTLE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::error!(
                left = self.tasks.len(),
                "operations on credentials are left unfinished: the next start goes on with them"
            );
        }
    }

    /// `event`, with the roles that were assumed to reach the target and are on no record yet.
    pub(super) fn with_assumed(&self, event: Event, target: &PostgresTarget, lease: &LeaseRecord) -> Event {
        let assumed = self.source(target).unrecorded(lease.id.as_str());
        if assumed.is_empty() {
            return event;
        }
        event.with("assumed", assumed.iter().map(|one| self.marks_of(one)).collect::<Vec<_>>())
    }

    fn marks_of(&self, assumed: &AssumedRole) -> serde_json::Value {
        let AssumedRole { role, credential } = assumed;
        let secret = credential.secret_access_key.expose();
        serde_json::json!({
            "role": role,
            "access_key_id": credential.access_key_id,
            "fingerprint": crypto::hex(&crypto::hmac_sha256(self.fingerprint_key.expose(), secret.as_bytes())),
            "valid_until": credential.expires_at.to_string(),
        })
    }

    /// An HMAC of the secret: tells two credentials apart, tells nothing of either.
    pub fn fingerprint(&self, credential: &Credential) -> String {
        let mac = crypto::hmac_sha256(self.fingerprint_key.expose(), credential.password.expose().as_bytes());
        crypto::hex(&mac)
    }
}

impl Access {
    /// Opens the session's credential for one connection, and makes it if this is the first.
    ///
    /// `replicates`: the connection is for replication.
    ///
    /// Goes on to its end even if the caller gives up: abandoned halfway, the source might make the
    /// credential after its destruction was confirmed.
    pub async fn open_credential(
        self: &Arc<Self>,
        permit: &Permit,
        replicates: bool,
    ) -> Result<OpenCredential, Deny> {
        let (access, permit) = (Arc::clone(self), permit.clone());
        let opening = self.credentials.tasks.spawn(async move { access.open_now(&permit, replicates).await });
        opening.await.unwrap_or_else(|error| {
            tracing::error!(%error, "opening a credential failed");
            Err(Deny::CredentialUnavailable { detail: "internal error in the gateway".to_owned() })
        })
    }

    async fn open_now(self: Arc<Self>, permit: &Permit, replicates: bool) -> Result<OpenCredential, Deny> {
        let session = permit.session();
        let slot = self.credentials.slots.of(&session.id);
        let held = Arc::new(Arc::clone(&slot.work).lock_owned().await);
        // A revocation that came first has marked the session by now; one that comes later waits
        // for the slot and destroys what is made here.
        if let Err(deny) = self.recheck(permit).await {
            // What is known of a session that goes on is not forgotten: its connections would be taken for a crash's.
            let is_over = matches!(deny, Deny::Revoked { .. } | Deny::Expired { .. });
            if is_over || matches!(self.store.lease_of_session(&session.id).await, Ok(None)) {
                self.credentials.slots.forget(&session.id, slot);
            }
            drop(held);
            return Err(deny);
        }
        let (target, lease) = self.lease_for(permit).await?;
        let is_issued = lease.state == LeaseState::Issued;
        let source = self.credentials.source(&target);
        let replication = match self.may_replicate(permit) {
            Ok(()) if replicates => Replication::Now,
            // Should it be withdrawn, these are cut: no others may have what was given for one that is gone.
            Ok(()) if self.hub.has_replicated(&session.id) => Replication::May,
            Err(deny) if replicates => return Err(deny),
            Ok(()) | Err(_) => Replication::No,
        };
        let holder = Some(Holder { principal: &permit.principal().name, request: &session.request });
        let request = SourceRequest { holder, replication, ..source_request(&target, &lease) };
        // What a crash left running, or may have come in past us, ends before the session goes on.
        if !slot.quiet.load(Ordering::Acquire) {
            if is_issued {
                self.quiet_now(&lease, &request).await.map_err(|error| not_issued(session, error))?;
            }
            slot.quiet.store(true, Ordering::Release);
        }
        let opened = source.open(&request, is_issued, &slot.ended).await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if may_be_open(&error) {
                    self.left_open(&target, &lease, &slot, None).await;
                }
                return Err(not_issued(session, error));
            }
        };
        failpoint::reached("credential_opened");
        let fingerprint = self.credentials.fingerprint(&opened.credential);
        let at = Arc::clone(&target);
        // Nobody opens or destroys it before what is being recorded is on record.
        let until_recorded = Arc::clone(&held);
        let state = OpenState { access: Arc::clone(&self), opened, target, lease: lease.clone(), held, slot };
        // From here on it is shut whatever happens.
        let open = OpenCredential { open: Some(state), fingerprint };
        let valid_until = open.credential().and_then(|credential| credential.valid_until);
        let event = lease_event(Action::CredentialIssued, Outcome::Done, permit, &lease)
            .with("fingerprint", open.fingerprint.as_str())
            .with("renewed", is_issued)
            .with("valid_until", valid_until.map(|until| until.to_string()));
        let event = self.credentials.with_assumed(event, &at, &lease);
        self.record_issue(at, lease, event, until_recorded).await?;
        Ok(open)
    }

    /// Begun, it goes on to its end: what is recorded halfway would be recorded twice. Not waited for without end: the
    /// credential is open meanwhile, and nobody else can shut it.
    async fn record_issue(
        self: &Arc<Self>,
        target: Arc<PostgresTarget>,
        lease: LeaseRecord,
        event: Event,
        held: Arc<OwnedMutexGuard<()>>,
    ) -> Result<(), Deny> {
        let access = Arc::clone(self);
        let recording = self.credentials.tasks.spawn(async move {
            let issued = LeaseRecord { state: LeaseState::Issued, changed_at: access.now(), ..lease.clone() };
            let stepped = access.store.step_lease(lease.state, &issued, &[event]).await;
            if let Err(error) = &stepped {
                tracing::error!(%error, session = %lease.session, handle = lease.handle, "that a credential was issued is not on record");
            }
            stepped.map_err(|error| deny_from_store(&error))?;
            access.credentials.source(&target).recorded(lease.id.as_str());
            drop(held);
            failpoint::reached("credential_issued");
            access.publish().await.map_err(refusal_to_deny)
        });
        if let Ok(Ok(recorded)) = tokio::time::timeout(RECORDED_WITHIN, recording).await {
            return recorded;
        }
        let within = RECORDED_WITHIN.as_secs();
        let detail = format!("that a credential was issued could not be recorded within {within} s");
        Err(Deny::Unrecordable { detail })
    }

    /// What the session's credential is or is to be, and where.
    async fn lease_for(&self, permit: &Permit) -> Result<(Arc<PostgresTarget>, LeaseRecord), Deny> {
        let session = permit.session();
        let rules = self.rules();
        let target = Arc::clone(rules.targets.find(&session.target)?.route.postgres()?);
        let lease = match self.store.lease_of_session(&session.id).await.map_err(|e| deny_from_store(&e))? {
            Some(lease) => lease,
            None => self.intend(permit, &target).await?,
        };
        if lease.state == LeaseState::Releasing {
            let detail = "the session's credential is being destroyed".to_owned();
            return Err(Deny::CredentialUnavailable { detail });
        }
        if let Some(detail) = moved(&target, &lease) {
            return Err(Deny::CredentialUnavailable { detail });
        }
        self.credentials
            .same_kind(&target, &lease)
            .map_err(|detail| Deny::CredentialUnavailable { detail })?;
        Ok((target, lease))
    }

    async fn intend(&self, permit: &Permit, target: &PostgresTarget) -> Result<LeaseRecord, Deny> {
        let session = permit.session();
        let id = LeaseId::from_random(crypto::random());
        let Some(access_role) = target.roles.get(&session.access) else {
            return Err(Deny::AccessGone { target: session.target.clone(), access: session.access.clone() });
        };
        let lease = LeaseRecord {
            address: target.hosts.to_string(),
            access_role: access_role.clone(),
            handle: self.credentials.source(target).handle(&session.id, access_role),
            id,
            session: session.id.clone(),
            target: session.target.clone(),
            access: session.access.clone(),
            ends_at: session.ends_at,
            state: LeaseState::Intended,
            changed_at: self.now(),
            last_error: None,
        };
        let event = lease_event(Action::CredentialIntended, Outcome::Done, permit, &lease);
        failpoint::reached("credential_intending");
        self.store.create_lease(&lease, &[event]).await.map_err(|error| deny_from_store(&error))?;
        failpoint::reached("credential_intended");
        self.publish().await.map_err(refusal_to_deny)?;
        Ok(lease)
    }

    /// Ends connections whose access has come to stand for something else in the configuration.
    pub(super) async fn recheck_leases(&self) -> Result<(), Refusal> {
        let rules = self.rules();
        for lease in self.store.open_leases().await? {
            let Ok(entry) = rules.targets.find(&lease.target) else { continue };
            let why = match &entry.route {
                Route::Postgres(target) => moved(target, &lease),
                Route::Ssh(_) | Route::Aws(_) => {
                    Some(format!("target `{}` is no database any more", lease.target))
                }
            };
            if let Some(why) = why {
                let reason = EndReason::NoLongerPermitted { why };
                self.hub.tell(|live| live.session == lease.session, &reason);
            }
        }
        Ok(())
    }
}

/// Why a credential that was made earlier does not fit the configuration any more.
pub(super) fn moved(target: &PostgresTarget, lease: &LeaseRecord) -> Option<String> {
    let hosts = &target.hosts;
    if !hosts.include(&lease.address) {
        return Some(format!("target `{}` moved to {hosts} during this session: ask anew", lease.target));
    }
    (target.roles.get(&lease.access) != Some(&lease.access_role)).then(|| {
        format!(
            "what `{}` on `{}` stands for was changed during this session: ask anew",
            lease.access, lease.target
        )
    })
}

/// Whether the credential may have been opened though that failed.
fn may_be_open(error: &SourceError) -> bool {
    matches!(error, SourceError::MaybeOpened(_))
}

fn not_issued(session: &Session, error: SourceError) -> Deny {
    let detail = error_chain(&error);
    tracing::error!(session = %session.id, target = %session.target, error = detail, "credential could not be issued");
    match error {
        SourceError::Admin(error) if error.is_unreachable() => Deny::TargetUnavailable { detail },
        _ => Deny::CredentialUnavailable { detail },
    }
}

fn lease_event(action: Action, outcome: Outcome, permit: &Permit, lease: &LeaseRecord) -> Event {
    Event::new(action, outcome)
        .by(permit.principal())
        .on(permit.target())
        .about_session(permit.session())
        .with("lease", lease.id.as_str())
        .with("handle", lease.handle.as_str())
}

pub(super) fn source_request<'a>(target: &'a PostgresTarget, lease: &'a LeaseRecord) -> SourceRequest<'a> {
    SourceRequest {
        target,
        access_role: &lease.access_role,
        session: &lease.session,
        holder: None,
        lease: lease.id.as_str(),
        handle: &lease.handle,
        ends_at: lease.ends_at,
        replication: Replication::No,
    }
}

pub(super) fn refusal_to_deny(refusal: Refusal) -> Deny {
    match refusal {
        Refusal::Unrecordable { detail } => Deny::Unrecordable { detail },
        other => Deny::StoreUnavailable { detail: other.to_string() },
    }
}

/// An error with its causes, for logs and records.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
