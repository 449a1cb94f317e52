//! What goes on at a database though no gateway carries it: after a crash, where somebody came in past us, or where a
//! statement is deaf to being cancelled. The session goes on, it is ended.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::config::PostgresTarget;
use crate::credentials::{SourceError, SourceRequest};
use crate::domain::deny::EndReason;
use crate::domain::id::SessionId;
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::leftover::LeftoverKind;
use crate::domain::session::SessionStatus;
use crate::domain::time::Timestamp;

use super::Access;
use super::credential::{Slot, error_chain, moved, source_request};
use super::leftovers::LEFT_RUNNING;
use super::refusal::Refusal;

/// How many sessions are looked after at a time, after a crash.
const AT_A_TIME: usize = 16;
/// How soon those are looked after again where that failed.
const QUIET_AGAIN: Duration = Duration::from_secs(30);

impl Access {
    /// After a start: a crash may have left credentials open, or statements running as them. Shuts
    /// the ones and ends the others, for sessions that go on. What fails is tried again until it is done.
    pub async fn quiet_after_crash(&self) {
        let began = self.now();
        let mut done = BTreeSet::new();
        loop {
            match self.left_by_a_crash(began).await {
                Ok(left) => {
                    let left = left.into_iter().filter(|lease| !done.contains(&lease.session));
                    let looks = futures_util::stream::iter(left.collect::<Vec<_>>())
                        .map(|lease| async move { (self.quiet_lease(&lease).await, lease.session) })
                        .buffer_unordered(AT_A_TIME)
                        .collect::<Vec<_>>()
                        .await;
                    let is_all = looks.iter().all(|(is_quiet, _)| *is_quiet);
                    done.extend(
                        looks.into_iter().filter_map(|(is_quiet, session)| is_quiet.then_some(session)),
                    );
                    if is_all {
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, "cannot look for what a crash left at the targets"),
            }
            self.clock.sleep(QUIET_AGAIN).await;
        }
    }

    /// Credentials of sessions that go on, as they were before the start. The clean-up destroys the others.
    async fn left_by_a_crash(&self, began: Timestamp) -> Result<Vec<LeaseRecord>, Refusal> {
        let mut left = Vec::new();
        for lease in self.store.open_leases().await? {
            let session = self.store.session(&lease.session).await?;
            let goes_on = session.is_some_and(|session| session.status(self.now()) == SessionStatus::Active);
            if goes_on && lease.state == LeaseState::Issued && lease.changed_at <= began {
                left.push(lease);
            }
        }
        Ok(left)
    }

    /// Whether nothing is left to be done.
    async fn quiet_lease(&self, lease: &LeaseRecord) -> bool {
        let rules = self.rules();
        let target = rules.targets.find(&lease.target).and_then(|entry| entry.route.postgres());
        let Ok(target) = target else { return true };
        if target.source.admin().is_none() || moved(target, lease).is_some() {
            return true;
        }
        let slot = self.credentials.slots.of(&lease.session);
        let _held = slot.work.lock().await;
        // Whoever has connected meanwhile has seen to it.
        slot.quiet.load(Ordering::Acquire) || self.quiet_held(target, lease, &slot).await
    }

    /// As [`Self::quiet_lease`], for who holds the slot.
    pub(super) async fn quiet_held(&self, target: &PostgresTarget, lease: &LeaseRecord, slot: &Slot) -> bool {
        let outcome = self.quiet_now(lease, &source_request(target, lease)).await;
        slot.quiet.store(outcome.is_ok(), Ordering::Release);
        let Err(why) = &outcome else { return true };
        let error = error_chain(why);
        tracing::error!(session = %lease.session, handle = %lease.handle, error, "cannot look for what goes on at the target: trying again");
        if says_nothing(why) {
            return false;
        }
        let kept = match self.kept_of(lease).await {
            Ok(kept) => {
                let kept = kept.unwrap_or_else(|| self.left_of(LeftoverKind::Running, lease));
                self.leftover_stays(&kept, error).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::error!(%error, handle = lease.handle, "that a credential is in use cannot be kept");
        }
        false
    }

    /// Ends what an earlier process left running at the target, or may have come in past us.
    pub(super) async fn quiet_now(
        &self,
        lease: &LeaseRecord,
        request: &SourceRequest<'_>,
    ) -> Result<(), SourceError> {
        let terminated = self.credentials.source(request.target).quiet(request).await?;
        if self.is_shut_again(lease, terminated).await {
            return Ok(());
        }
        if terminated > 0 {
            tracing::warn!(session = %lease.session, handle = %lease.handle, terminated, "ended what went on at the target though no gateway carried it");
            self.record_shut(lease, LEFT_RUNNING, Some(terminated)).await;
        }
        Ok(())
    }

    /// A connection ended amid a statement, or was cut though its session goes on (a block, an account that is disabled, a
    /// policy that has changed): has [`Self::look_at_what_was_cut`] see to it.
    pub fn cut_amid_a_session(&self, session: &SessionId, why: &EndReason) {
        // Else its credential is destroyed, and that ends everything.
        if !matches!(why, EndReason::Revoked { .. } | EndReason::Expired) {
            self.cut().insert(session.clone());
        }
    }

    fn cut(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.credentials.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the janitor look whether anything at the targets was deaf to being cancelled, and end it, where nobody of a
    /// session is connected any more. What cannot be looked into is looked into the next time.
    pub(super) async fn look_at_what_was_cut(&self) {
        let sessions: Vec<SessionId> = self.cut().iter().cloned().collect();
        for session in sessions {
            let slot = self.credentials.slots.of(&session);
            // Under way: the next time.
            let Ok(held) = Arc::clone(&slot.work).try_lock_owned() else { continue };
            // Nobody opens the credential now. Others that live are there by right, or end soon.
            if self.hub.is_connected(&session) {
                continue;
            }
            // Whoever comes next sees to it first, whatever fails from here on.
            slot.quiet.store(false, Ordering::Release);
            let lease = match self.store.lease_of_session(&session).await {
                Ok(lease) => lease.filter(|lease| lease.state != LeaseState::Released),
                Err(error) => {
                    tracing::warn!(%error, %session, "cannot look for what goes on at the target: trying again");
                    continue;
                }
            };
            let Some(lease) = lease else {
                self.cut().remove(&session);
                self.credentials.slots.forget(&session, slot);
                drop(held);
                continue;
            };
            if let Some(target) = self.database_of(&lease) {
                self.look_soon(&target);
                self.cut().remove(&session);
            }
        }
    }
}

/// Whether the target could not be asked, rather than that something does not end there.
fn says_nothing(error: &SourceError) -> bool {
    match error {
        SourceError::TimedOut => true,
        SourceError::Admin(error) => error.is_unreachable() || error.is_unready(),
        _ => false,
    }
}
