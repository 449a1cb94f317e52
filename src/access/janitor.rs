//! The janitor: compares what the targets hold of ours with what there should be, at the start and every
//! [`EVERY`], and soon after a credential was not seen to be shut. What no session has is destroyed; what was left open
//! is shut. It goes by names and marks at the source alone, so it also finds what the store has forgotten (restored
//! from a backup, say). Credentials that the store knows to be over are the sweep's; what another installation has made
//! at the same target is left alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::config::PostgresTarget;
use crate::credentials::{Destroyed, Destruction, Found, Replication, SourceRequest};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::session::SessionStatus;
use crate::domain::time::Timestamp;

use super::Access;
use super::credential::{error_chain, source_request};
use super::refusal::Refusal;

/// How often it asks itself whether it is time to.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it looks.
const EVERY: Duration = Duration::from_mins(5);
/// How soon it looks again where something is wrong.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon it looks where a credential may have been left open.
const SOON: Duration = Duration::from_secs(5);

/// How many targets it looks at at a time.
const AT_A_TIME: usize = 4;

/// What it remembers from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Janitor {
    /// One look at a time: what one has found, another would find as well.
    at_work: tokio::sync::Mutex<()>,
    next: Mutex<Next>,
    /// What could not be destroyed, by handle: where, and why. Said once each.
    undead: Mutex<HashMap<String, Undead>>,
    /// Of another installation, by where and handle: said once each.
    foreign: Mutex<BTreeSet<(String, String)>>,
}

/// When it looks next: at once where nothing is said.
#[derive(Debug, Default)]
struct Next(Option<Timestamp>);

impl Next {
    /// Whether it is time for a look; the next one is in a while then.
    fn begins(&mut self, now: Timestamp) -> bool {
        let is_due = self.0.is_none_or(|next| next <= now);
        if is_due {
            self.0 = Some(now.plus(EVERY));
        }
        is_due
    }

    /// The next look is after `pause`, unless it is to be sooner.
    fn after(&mut self, pause: Duration, now: Timestamp) {
        let then = now.plus(pause);
        self.0 = self.0.map(|next| next.min(then));
    }
}

#[derive(Debug)]
struct Undead {
    address: String,
    error: String,
}

/// What a look at one target came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Clean,
    /// Something could not be seen or destroyed.
    Trouble,
}

impl Access {
    /// Looks whenever it is time to; runs until dropped.
    pub async fn look_after_targets_forever(&self) {
        loop {
            if let Err(error) = self.look_after_targets().await {
                tracing::error!(%error, "cannot look for credentials that were left at targets");
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at all targets, if it is time to.
    pub(super) async fn look_after_targets(&self) -> Result<(), Refusal> {
        let _at_work = self.credentials.janitor.at_work.lock().await;
        if !lock(&self.credentials.janitor.next).begins(self.now()) {
            return Ok(());
        }
        let look = self.look().await;
        if !matches!(look, Ok(Look::Clean)) {
            lock(&self.credentials.janitor.next).after(AGAIN, self.now());
        }
        metrics::gauge!("sallyport_credentials_orphaned").set(count(&lock(&self.credentials.janitor.undead)));
        look.map(drop)
    }

    async fn look(&self) -> Result<Look, Refusal> {
        let looks = futures_util::stream::iter(self.servers())
            .map(|target| async move { self.look_after(&target).await })
            .buffer_unordered(AT_A_TIME)
            .collect::<Vec<_>>()
            .await;
        self.look_after_roles().await?;
        let mut look = Look::Clean;
        for outcome in looks {
            look = if outcome? == Look::Clean { look } else { Look::Trouble };
        }
        Ok(look)
    }

    /// A credential may have been left open at its target: looks soon.
    pub(super) fn look_soon(&self) {
        lock(&self.credentials.janitor.next).after(SOON, self.now());
    }

    /// A credential may have been made and not confirmed, or not: looks as where something is wrong.
    pub(super) fn look_again(&self) {
        lock(&self.credentials.janitor.next).after(AGAIN, self.now());
    }

    /// One target of each server: several may be databases of one.
    fn servers(&self) -> Vec<Arc<PostgresTarget>> {
        let rules = self.rules();
        let mut seen = BTreeSet::new();
        let targets = rules.targets.all().filter_map(|entry| entry.route.postgres().ok());
        // Of other kinds there is nothing to be found at the server.
        let targets = targets.filter(|target| target.source.admin().is_some());
        targets.filter(|target| seen.insert(target.hosts.to_string())).cloned().collect()
    }

    /// The target at the same server that a credential was made for, as its access's role tells; else `target`.
    fn made_for(&self, target: &Arc<PostgresTarget>, found: &Found) -> (Arc<PostgresTarget>, Option<String>) {
        let (rules, servers) = (self.rules(), target.hosts.to_string());
        let mut beside = rules
            .targets
            .all()
            .filter_map(|entry| entry.route.postgres().ok())
            .filter(|other| other.hosts.include(&servers) && other.source.admin().is_some());
        let role_of = |other: &PostgresTarget| {
            found.member_of.iter().find(|role| other.roles.values().any(|own| own == *role)).cloned()
        };
        beside
            .find_map(|other| role_of(other).map(|role| (Arc::clone(other), Some(role))))
            .unwrap_or_else(|| (Arc::clone(target), None))
    }

    async fn look_after(&self, target: &Arc<PostgresTarget>) -> Result<Look, Refusal> {
        let all = match self.credentials.source(target).list(target).await {
            Ok(all) => all,
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(target = %target.target.name, error, "cannot look for credentials left at the target");
                metrics::counter!("sallyport_janitor_failures_total").increment(1);
                return Ok(Look::Trouble);
            }
        };
        // What is not there any more was dropped by somebody else.
        let address = target.hosts.to_string();
        let is_left = |handle: &str| all.iter().any(|found| found.handle == handle);
        lock(&self.credentials.janitor.undead)
            .retain(|handle, undead| undead.address != address || is_left(handle));
        lock(&self.credentials.janitor.foreign).retain(|(at, handle)| *at != address || is_left(handle));
        let mut look = Look::Clean;
        for found in all {
            // Seen before the store was asked, so what is made meanwhile has its intent there.
            if self.reconcile(target, &found).await? == Look::Trouble {
                look = Look::Trouble;
            }
        }
        Ok(look)
    }

    async fn reconcile(&self, target: &Arc<PostgresTarget>, found: &Found) -> Result<Look, Refusal> {
        let session = self.store.session(&found.session).await?;
        if !found.ours && session.is_none() {
            let which = (target.hosts.to_string(), found.handle.clone());
            if lock(&self.credentials.janitor.foreign).insert(which) {
                tracing::info!(target = %target.target.name, handle = found.handle, "another installation's credential is left alone");
            }
            return Ok(Look::Clean);
        }
        let slot = self.credentials.slot(&found.session);
        let held = slot.work.lock().await;
        let Some(lease) = self.store.lease_of_session(&found.session).await? else {
            let look = match self.credentials.source(target).list(target).await {
                // A release that was under way while we looked.
                Ok(now) if !now.iter().any(|one| one.handle == found.handle) => Ok(Look::Clean),
                _ => self.destroy_orphan(target, found).await,
            };
            drop(held);
            self.credentials.forget(&found.session);
            return look;
        };
        let is_active = session.is_some_and(|session| session.status(self.now()) == SessionStatus::Active);
        if !found.open || lease.state == LeaseState::Releasing || !is_active {
            // The sweep destroys it.
            return Ok(Look::Clean);
        }
        // Whoever opened it while we looked has shut it by now: it is done under the slot.
        tracing::warn!(target = %target.target.name, handle = found.handle, "shutting a credential that was found open");
        match self.credentials.source(target).lock(&source_request(target, &lease)).await {
            Ok(()) => {
                self.record_shut(&lease, "found_open", None).await;
                Ok(Look::Clean)
            }
            Err(error) => {
                tracing::error!(
                    handle = found.handle,
                    error = error_chain(&error),
                    "a credential that is open cannot be shut"
                );
                Ok(Look::Trouble)
            }
        }
    }

    async fn destroy_orphan(&self, target: &Arc<PostgresTarget>, found: &Found) -> Result<Look, Refusal> {
        let undead = |error: Option<&str>| {
            let mut undead = lock(&self.credentials.janitor.undead);
            match error {
                Some(error) => {
                    let (address, error) = (target.hosts.to_string(), error.to_owned());
                    undead.insert(found.handle.clone(), Undead { address, error })
                }
                None => undead.remove(&found.handle),
            }
            .map(|before| before.error)
        };
        let known = lock(&self.credentials.janitor.undead).contains_key(&found.handle);
        if !known {
            tracing::error!(target = %target.target.name, handle = found.handle, "found a credential that no session has: destroying it");
            self.record(self.orphan(Action::CredentialOrphaned, Outcome::Done, target, found).await?).await?;
        }
        // Without a trace of what it was for, what it owns goes to whom we are there.
        let (target, access_role) = self.made_for(target, found);
        let (target, admin) = (&target, target.source.admin().map_or("", |admin| admin.user.as_str()));
        let access_role = access_role.as_deref().unwrap_or(admin);
        let (handle, ends_at) = (found.handle.as_str(), self.now());
        let request = SourceRequest {
            target,
            access_role,
            lease: handle,
            handle,
            ends_at,
            replication: Replication::No,
        };
        match self.credentials.source(target).destroy(&request).await {
            Ok(Destruction::UnderWay { .. }) => Ok(Look::Trouble),
            Ok(Destruction::Done(Destroyed { how, terminated })) => {
                undead(None);
                let event = self.orphan(Action::CredentialDestroyed, Outcome::Done, target, found).await?;
                let event = event.with("how", how.as_str()).with("backends_terminated", terminated);
                self.record(event).await?;
                Ok(Look::Clean)
            }
            Err(error) => {
                let error = error_chain(&error);
                metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
                tracing::error!(
                    handle = found.handle,
                    error,
                    "an orphaned credential could not be destroyed, will retry"
                );
                if undead(Some(&error)).as_ref() != Some(&error) {
                    let action = Action::CredentialDestructionFailed;
                    let event = self.orphan(action, Outcome::Failed, target, found).await?;
                    self.record(event.with("error", error)).await?;
                }
                Ok(Look::Trouble)
            }
        }
    }

    /// Records that a credential of a session that goes on was shut, because of `why`. It is done and cannot be found
    /// again: a store that does not answer must not keep it from the record.
    pub(super) async fn record_shut(&self, lease: &LeaseRecord, why: &str, terminated: Option<u64>) {
        let mut event = Event::done(Action::CredentialShut);
        event.session = Some(lease.session.clone());
        if let Ok(Some(session)) = self.store.session(&lease.session).await {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        event.target = Some(lease.target.clone());
        let event = event.with("lease", lease.id.as_str()).with("handle", lease.handle.as_str());
        self.record_even_so(event.with("why", why).with("backends_terminated", terminated)).await;
    }

    async fn orphan(
        &self,
        action: Action,
        outcome: Outcome,
        target: &PostgresTarget,
        found: &Found,
    ) -> Result<Event, Refusal> {
        let mut event = Event::new(action, outcome);
        event.session = Some(found.session.clone());
        if let Some(session) = self.store.session(&found.session).await? {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        Ok(event.on(&target.target).with("handle", found.handle.as_str()).with("orphan", true))
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(undead: &HashMap<String, Undead>) -> f64 {
    f64::from(u32::try_from(undead.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_looked_at_soon_is_whatever_goes_on_meanwhile() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds| start.plus(Duration::from_secs(seconds));
        let mut next = Next::default();
        // The first look is at once all the same.
        next.after(SOON, at(0));
        assert!(next.begins(at(0)));
        // While that look is under way, something is left open, and the look itself finds trouble.
        next.after(SOON, at(1));
        next.after(AGAIN, at(2));
        assert!(!next.begins(at(5)));
        assert!(next.begins(at(6)));
        assert!(!next.begins(at(305)));
        assert!(next.begins(at(306)));
    }
}
