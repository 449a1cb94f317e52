//! The end of a session's credential at a database: `releasing → released`, until the source confirms it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::PostgresTarget;
use crate::credentials::{Destroyed, Destruction};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::SessionId;
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::time::Timestamp;
use crate::failpoint;

use super::Access;
use super::credential::{error_chain, source_request};

/// So many roles that were assumed are recorded though nothing else has come of it.
const MANY_ASSUMED: usize = 32;

/// What became of a session's credential when its end was asked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "credential", rename_all = "lowercase")]
pub enum Released {
    /// None had been issued, or it was gone already.
    None,
    /// The source confirmed it; `how` says what (as [`crate::credentials::How`], and `earlier`, `expired`).
    Destroyed { handle: String, how: String },
    /// It cannot be destroyed: its source denies it everything until it has expired.
    Denied { handle: String, expires_at: Timestamp, in_force: InForce },
    /// It may still exist; destruction is retried until it is gone.
    Pending { handle: String, error: String },
}

/// Whether a source was seen to apply a deny that it has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InForce {
    Unknown,
    /// So long after it was put.
    Confirmed {
        after: Duration,
    },
}

impl InForce {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Confirmed { .. } => "confirmed",
        }
    }

    /// How long it took, where that is known.
    pub fn milliseconds(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Confirmed { after } => Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Access {
    /// Destroys the session's credential at its source. Safe to repeat; what fails is retried by
    /// the sweep.
    pub async fn release_credential(&self, session: &SessionId) -> Released {
        let slot = self.credentials.slots.of(session);
        slot.ended.cancel();
        let released = {
            let _held = slot.work.lock().await;
            self.destroy(session).await
        };
        let released =
            released.unwrap_or_else(|error| Released::Pending { handle: session.to_string(), error });
        if !matches!(released, Released::Pending { .. }) {
            self.credentials.slots.forget(session, slot);
        }
        released
    }

    async fn destroy(&self, session: &SessionId) -> Result<Released, String> {
        let lease = self.store.lease_of_session(session).await.map_err(|error| error.to_string())?;
        let Some(lease) = lease else { return Ok(Released::None) };
        let releasing = LeaseRecord { state: LeaseState::Releasing, changed_at: self.now(), ..lease.clone() };
        failpoint::reached("credential_ending");
        if lease.state != LeaseState::Releasing {
            self.store.step_lease(lease.state, &releasing, &[]).await.map_err(|error| error.to_string())?;
        }
        failpoint::reached("credential_releasing");
        let attempt = self.destroy_at_source(&releasing).await;
        failpoint::reached("credential_gone");
        let mut event = self.destruction_event(&lease).await?;
        let is_news = match &attempt {
            Ok(Destruction::Done(_)) => true,
            Ok(Destruction::UnderWay { .. }) => false,
            // Retries of the same failure are not worth a record each.
            Err(error) => lease.last_error.as_ref() != Some(error) || self.have_many_been_assumed(&lease),
        };
        if is_news && let Some(target) = self.database_of(&lease) {
            event = self.credentials.with_assumed(event, &target, &lease);
        }
        let (next, event) = match &attempt {
            Ok(Destruction::UnderWay { what }) => {
                let last_error = Some(what.clone());
                (LeaseRecord { last_error, changed_at: self.now(), ..releasing }, None)
            }
            Ok(Destruction::Done(Destroyed { how, terminated })) => {
                let next = LeaseRecord { state: LeaseState::Released, last_error: None, ..releasing };
                (next, Some(event.with("how", how.as_str()).with("backends_terminated", *terminated)))
            }
            Err(error) => {
                event.action = Action::CredentialDestructionFailed;
                event.outcome = Outcome::Failed;
                // Retries count from the end of an attempt, which may have taken long.
                let next =
                    LeaseRecord { last_error: Some(error.clone()), changed_at: self.now(), ..releasing };
                (next, is_news.then(|| event.with("error", error.as_str())))
            }
        };
        self.store
            .step_lease(LeaseState::Releasing, &next, event.as_slice())
            .await
            .map_err(|error| error.to_string())?;
        if is_news && let Some(target) = self.database_of(&lease) {
            self.credentials.source(&target).recorded(lease.id.as_str());
        }
        failpoint::reached("credential_released");
        if let Err(error) = self.publish().await {
            tracing::error!(%error, "a credential's end waits in the outbox to be recorded");
        }
        match attempt {
            Ok(Destruction::Done(Destroyed { how, .. })) => {
                Ok(Released::Destroyed { handle: lease.handle, how: how.as_str().to_owned() })
            }
            Ok(Destruction::UnderWay { what }) => Ok(Released::Pending { handle: lease.handle, error: what }),
            Err(error) => {
                metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
                tracing::error!(session = %lease.session, handle = %lease.handle, %error, "credential could not be destroyed, will retry");
                Ok(Released::Pending { handle: lease.handle, error })
            }
        }
    }

    /// Whether so many roles were assumed to destroy it that they are worth a record.
    fn have_many_been_assumed(&self, lease: &LeaseRecord) -> bool {
        let target = self.database_of(lease);
        target.is_some_and(|target| {
            self.credentials.source(&target).unrecorded(lease.id.as_str()).len() >= MANY_ASSUMED
        })
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

    pub(super) fn database_of(&self, lease: &LeaseRecord) -> Option<Arc<PostgresTarget>> {
        let rules = self.rules();
        let entry = rules.targets.find(&lease.target).ok()?;
        entry.route.postgres().ok().cloned()
    }

    async fn destroy_at_source(&self, lease: &LeaseRecord) -> Result<Destruction, String> {
        let rules = self.rules();
        let target = rules.targets.find(&lease.target).and_then(|entry| entry.route.postgres());
        let target = target.map_err(|_| {
            format!(
                "target `{}` is no longer configured as a database: put it back so that `{}` can be dropped",
                lease.target, lease.handle
            )
        })?;
        let hosts = &target.hosts;
        if !hosts.include(&lease.address) {
            return Err(format!(
                "`{}` was made at {}, and target `{}` is now at {hosts}: configure the old address once more, or drop the role there by hand",
                lease.handle, lease.address, lease.target
            ));
        }
        self.credentials.same_kind(target, lease)?;
        let request = source_request(target, lease);
        self.credentials.source(target).destroy(&request).await.map_err(|error| error_chain(&error))
    }
}
