//! The life of a session's credential: `intended → issued → releasing → released`.
//!
//! 1. The intent is durable before anything is made at the source.
//! 2. It is made there, then marked issued.
//! 3. It is marked releasing before it is destroyed, and released when the source confirms.
//!
//! Every step can be repeated, so after a crash [`Access::release_credential`] finishes whatever
//! was begun. Making and destroying one session's credential exclude each other, and before it is
//! made the session is looked at once more: nothing is made for a session that has ended.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::credentials::{Credential, CredentialSource, SourceRequest};
use crate::crypto;
use crate::domain::deny::Deny;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{LeaseId, SessionId};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::secret::Secret;
use crate::domain::session::Permit;

use super::Access;
use super::refusal::{Refusal, deny_from_store};
use super::targets::TargetEntry;

/// The credentials that this process holds, one per session.
pub struct Credentials {
    source: Arc<dyn CredentialSource>,
    /// Key of the fingerprints by which records name a credential without telling it.
    fingerprint_key: Secret<Vec<u8>>,
    held: std::sync::Mutex<HashMap<SessionId, Slot>>,
    /// Owns what must come to its end once begun.
    tasks: TaskTracker,
}

type Slot = Arc<Mutex<Option<Arc<Credential>>>>;

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What became of a session's credential when its end was asked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "credential", rename_all = "lowercase")]
pub enum Released {
    /// None had been issued, or it was gone already.
    None,
    /// The source confirmed that it is gone.
    Destroyed { handle: String },
    /// It may still exist; destruction is retried until it is gone.
    Pending { handle: String, error: String },
}

impl Credentials {
    pub fn new(source: Arc<dyn CredentialSource>, fingerprint_key: Secret<Vec<u8>>) -> Self {
        Self { source, fingerprint_key, held: std::sync::Mutex::default(), tasks: TaskTracker::new() }
    }

    fn slot(&self, session: &SessionId) -> Slot {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(session.clone()).or_default())
    }

    fn forget(&self, session: &SessionId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
    }

    /// Waits for what has been begun; nothing new may begin any more.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// An HMAC of the secret: tells two credentials apart, tells nothing of either.
    pub fn fingerprint(&self, credential: &Credential) -> String {
        let mac = crypto::hmac_sha256(self.fingerprint_key.expose(), credential.password.expose().as_bytes());
        crypto::hex(&mac)
    }
}

impl Access {
    /// The credential for a connection under `permit`, issued now if this is the session's first.
    ///
    /// Issuing goes on to its end even if the caller gives up: abandoned halfway, the source might
    /// make the credential after its destruction was confirmed.
    pub async fn credential(self: &Arc<Self>, permit: &Permit) -> Result<Arc<Credential>, Deny> {
        let (access, permit) = (Arc::clone(self), permit.clone());
        let issuing = self.credentials.tasks.spawn(async move { access.credential_of(&permit).await });
        issuing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "issuing a credential failed");
            Err(Deny::CredentialUnavailable { detail: "internal error in the gateway".to_owned() })
        })
    }

    async fn credential_of(&self, permit: &Permit) -> Result<Arc<Credential>, Deny> {
        let session = permit.session().id.clone();
        let slot = self.credentials.slot(&session);
        let mut held = slot.lock().await;
        if let Some(credential) = held.as_ref() {
            return Ok(Arc::clone(credential));
        }
        // A revocation that came first has marked the session by now; one that comes later waits
        // for the slot and destroys what is made here.
        self.recheck(permit).await?;
        let credential = Arc::new(self.issue(permit).await?);
        *held = Some(Arc::clone(&credential));
        Ok(credential)
    }

    async fn issue(&self, permit: &Permit) -> Result<Credential, Deny> {
        let session = permit.session();
        let lease = match self.store.lease_of_session(&session.id).await.map_err(|e| deny_from_store(&e))? {
            Some(lease) if lease.state == LeaseState::Releasing => {
                let detail = "the session's credential is being destroyed".to_owned();
                return Err(Deny::CredentialUnavailable { detail });
            }
            Some(lease) => lease,
            None => self.intend(permit).await?,
        };
        let rules = self.rules();
        let entry = rules.targets.find(&session.target)?;
        let made = self.credentials.source.create(&source_request(entry, &lease)?).await;
        let credential = match made {
            Ok(credential) => credential,
            Err(error) => {
                let detail = error_chain(&error);
                tracing::error!(session = %session.id, target = %session.target, error = detail, "credential could not be issued");
                return Err(Deny::CredentialUnavailable { detail });
            }
        };
        let issued = LeaseRecord { state: LeaseState::Issued, changed_at: self.now(), ..lease.clone() };
        let event = lease_event(Action::CredentialIssued, Outcome::Done, permit, &lease)
            .with("fingerprint", self.credentials.fingerprint(&credential))
            .with("valid_until", lease.ends_at.to_string());
        let stepped = self.store.step_lease(lease.state, &issued, &[event]).await;
        stepped.map_err(|error| deny_from_store(&error))?;
        self.publish().await.map_err(refusal_to_deny)?;
        Ok(credential)
    }

    async fn intend(&self, permit: &Permit) -> Result<LeaseRecord, Deny> {
        let session = permit.session();
        let id = LeaseId::from_random(crypto::random());
        let lease = LeaseRecord {
            handle: self.credentials.source.handle(&session.id),
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
        self.store.create_lease(&lease, &[event]).await.map_err(|error| deny_from_store(&error))?;
        self.publish().await.map_err(refusal_to_deny)?;
        Ok(lease)
    }

    /// Destroys the session's credential at its source. Safe to repeat; what fails is retried by
    /// the sweep.
    pub async fn release_credential(&self, session: &SessionId) -> Released {
        let slot = self.credentials.slot(session);
        let mut held = slot.lock().await;
        *held = None;
        let released = match self.destroy(session).await {
            Ok(released) => released,
            Err(error) => Released::Pending { handle: self.credentials.source.handle(session), error },
        };
        if !matches!(released, Released::Pending { .. }) {
            self.credentials.forget(session);
        }
        released
    }

    async fn destroy(&self, session: &SessionId) -> Result<Released, String> {
        let lease = self.store.lease_of_session(session).await.map_err(|error| error.to_string())?;
        let Some(lease) = lease else { return Ok(Released::None) };
        let releasing = LeaseRecord { state: LeaseState::Releasing, changed_at: self.now(), ..lease.clone() };
        if lease.state != LeaseState::Releasing {
            self.store.step_lease(lease.state, &releasing, &[]).await.map_err(|error| error.to_string())?;
        }
        let attempt = self.destroy_at_source(&releasing).await;
        let mut event = self.destruction_event(&lease).await?;
        let (next, event) = match &attempt {
            Ok(terminated) => {
                let next = LeaseRecord { state: LeaseState::Released, last_error: None, ..releasing };
                (next, Some(event.with("backends_terminated", *terminated)))
            }
            Err(error) => {
                event.action = Action::CredentialDestructionFailed;
                event.outcome = Outcome::Failed;
                // Retries of the same failure are not worth a record each.
                let news = releasing.last_error.as_ref() != Some(error);
                let next = LeaseRecord { last_error: Some(error.clone()), ..releasing };
                (next, news.then(|| event.with("error", error.as_str())))
            }
        };
        self.store
            .step_lease(LeaseState::Releasing, &next, event.as_slice())
            .await
            .map_err(|error| error.to_string())?;
        if let Err(error) = self.publish().await {
            tracing::error!(%error, "a credential's end waits in the outbox to be recorded");
        }
        match attempt {
            Ok(_) => Ok(Released::Destroyed { handle: lease.handle }),
            Err(error) => {
                metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
                tracing::error!(session = %lease.session, handle = %lease.handle, %error, "credential could not be destroyed, will retry");
                Ok(Released::Pending { handle: lease.handle, error })
            }
        }
    }

    async fn destruction_event(&self, lease: &LeaseRecord) -> Result<Event, String> {
        let mut event = Event::new(Action::CredentialDestroyed, Outcome::Done);
        event.session = Some(lease.session.clone());
        event.target = Some(lease.target.clone());
        event.access = Some(lease.access.clone());
        let session = self.store.session(&lease.session).await.map_err(|error| error.to_string())?;
        if let Some(session) = session {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        if let Ok(entry) = self.rules().targets.find(&lease.target) {
            event = event.on(&entry.target);
        }
        Ok(event.with("lease", lease.id.as_str()).with("handle", lease.handle.as_str()))
    }

    async fn destroy_at_source(&self, lease: &LeaseRecord) -> Result<u64, String> {
        let rules = self.rules();
        let entry = rules.targets.find(&lease.target).map_err(|_| {
            format!(
                "target `{}` is no longer configured: put it back so that `{}` can be dropped",
                lease.target, lease.handle
            )
        })?;
        let request = source_request(entry, lease).map_err(|deny| deny.to_string())?;
        self.credentials.source.destroy(&request).await.map_err(|error| error_chain(&error))
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

fn source_request<'a>(entry: &'a TargetEntry, lease: &'a LeaseRecord) -> Result<SourceRequest<'a>, Deny> {
    let Some(access_role) = entry.postgres.roles.get(&lease.access) else {
        return Err(Deny::AccessGone { target: lease.target.clone(), access: lease.access.clone() });
    };
    Ok(SourceRequest { target: &entry.postgres, access_role, handle: &lease.handle, ends_at: lease.ends_at })
}

fn refusal_to_deny(refusal: Refusal) -> Deny {
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
