//! The janitor: compares what the targets hold of ours with what there should be, at the start, every five minutes, and
//! soon after a credential was not seen to be shut ([`super::looks`]). What no session has is destroyed; what was left open
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
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::domain::session::SessionStatus;
use crate::failpoint;

use super::Access;
use super::credential::{error_chain, source_request};
use super::looks::{Look, Looks};
use super::refusal::Refusal;

/// How often it asks itself whether it is time to.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many targets it looks at at a time.
const AT_A_TIME: usize = 4;

/// What it remembers from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Janitor {
    looks: Mutex<Looks>,
    /// One look at everything at a time.
    round: tokio::sync::Mutex<()>,
    /// One look at a server at a time: what one has found, another would find as well.
    at_work: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Of another installation, by where and handle: said once each.
    foreign: Mutex<BTreeSet<(String, String)>>,
}

impl Access {
    /// Looks whenever it is time to; runs until dropped.
    pub async fn look_after_targets_forever(&self) {
        // What one server is looked at for waits for no look at all the others.
        tokio::join!(self.again(|| self.look_everywhere()), self.again(|| self.look_where_asked()));
    }

    async fn again<W: Future<Output = Result<(), Refusal>>>(&self, look: impl Fn() -> W) {
        loop {
            if let Err(error) = look().await {
                tracing::error!(%error, "cannot look for credentials that were left at targets");
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Looks wherever it is time to.
    pub(super) async fn look_after_targets(&self) -> Result<(), Refusal> {
        self.look_everywhere().await?;
        self.look_where_asked().await
    }

    async fn look_everywhere(&self) -> Result<(), Refusal> {
        let janitor = &self.credentials.janitor;
        let _round = janitor.round.lock().await;
        if !lock(&janitor.looks).is_round_due(self.now()) {
            return Ok(());
        }
        let (targets, roles) = tokio::join!(self.look_at(self.servers(), |_| true), self.look_after_roles());
        let looked = targets.and(roles);
        lock(&janitor.looks).went_round(looked.is_ok(), self.now());
        looked
    }

    async fn look_where_asked(&self) -> Result<(), Refusal> {
        let due = lock(&self.credentials.janitor.looks).due(self.now());
        if due.is_empty() {
            return Ok(());
        }
        let mut servers = self.servers();
        servers.retain(|target| due.contains(&target.hosts.to_string()));
        for gone in
            due.iter().filter(|server| !servers.iter().any(|target| target.hosts.to_string() == **server))
        {
            lock(&self.credentials.janitor.looks).forget(gone);
        }
        let is_due = |server: &str| lock(&self.credentials.janitor.looks).is_due(server, self.now());
        self.look_at(servers, is_due).await
    }

    /// `is_due`: asked when it comes to the server's turn; somebody else may have looked meanwhile.
    async fn look_at(
        &self,
        targets: Vec<Arc<PostgresTarget>>,
        is_due: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        let is_due = &is_due;
        let looks = futures_util::stream::iter(targets)
            .map(|target| async move { self.look_at_one(&target, is_due).await })
            .buffer_unordered(AT_A_TIME)
            .collect::<Vec<_>>()
            .await;
        looks.into_iter().collect()
    }

    async fn look_at_one(
        &self,
        target: &Arc<PostgresTarget>,
        is_due: impl Fn(&str) -> bool,
    ) -> Result<(), Refusal> {
        let (janitor, server) = (&self.credentials.janitor, target.hosts.to_string());
        let at_work = Arc::clone(lock(&janitor.at_work).entry(server.clone()).or_default());
        let _at_work = at_work.lock().await;
        if !is_due(&server) {
            return Ok(());
        }
        let began = self.now();
        let look = self.look_after(target).await;
        let came_to = *look.as_ref().unwrap_or(&Look::Trouble);
        lock(&janitor.looks).looked(&server, began, came_to, self.now());
        self.count_orphans().await;
        look.map(drop)
    }

    /// A credential may have been left open at the target: looks there soon.
    pub(super) fn look_soon(&self, target: &PostgresTarget) {
        // Of other kinds there is nothing to be found at the server.
        if target.source.admin().is_some() {
            lock(&self.credentials.janitor.looks).ask(&target.hosts.to_string(), self.now());
        }
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
        // Read before the target is asked: what that does not have any more is gone.
        let is_here = |kept: &Leftover| kept.kind != LeftoverKind::Deny && target.hosts.include(&kept.place);
        let kept = self.leftovers(is_here).await?;
        let Some(all) = self.list(target).await else { return Ok(Look::Trouble) };
        let address = target.hosts.to_string();
        let now = |handle: &str| all.iter().find(|found| found.handle == handle);
        lock(&self.credentials.janitor.foreign)
            .retain(|(at, handle)| *at != address || now(handle).is_some());
        for kept in &kept {
            let is_over = |found: &Found| kept.kind == LeftoverKind::Open && !found.open;
            if now(&kept.handle).is_none_or(is_over) {
                self.leftover_is_gone(target, kept).await?;
            }
        }
        let mut look = Look::Clean;
        for found in &all {
            let kept = kept.iter().find(|kept| kept.handle == found.handle);
            // Seen before the store was asked, so what is made meanwhile has its intent there.
            if self.reconcile(target, found, kept).await? == Look::Trouble {
                look = Look::Trouble;
            }
        }
        Ok(look)
    }

    async fn list(&self, target: &PostgresTarget) -> Option<Vec<Found>> {
        let all = self.credentials.source(target).list(target).await;
        all.inspect_err(|error| {
            let error = error_chain(error);
            tracing::warn!(target = %target.target.name, error, "cannot look for credentials left at the target");
            metrics::counter!("sallyport_janitor_failures_total").increment(1);
        })
        .ok()
    }

    /// Ended before that could be recorded, or by somebody else.
    async fn leftover_is_gone(&self, target: &PostgresTarget, kept: &Leftover) -> Result<(), Refusal> {
        let event = match kept.kind {
            LeftoverKind::Open => self.shut_event(target, kept).await?,
            LeftoverKind::Orphan | LeftoverKind::Deny => {
                self.orphan_event(Action::CredentialDestroyed, target, kept).await?.with("how", "gone")
            }
        };
        self.end_leftover(kept, event).await
    }

    async fn reconcile(
        &self,
        target: &Arc<PostgresTarget>,
        found: &Found,
        kept: Option<&Leftover>,
    ) -> Result<Look, Refusal> {
        let session = self.store.session(&found.session).await?;
        if !found.ours && session.is_none() {
            let which = (target.hosts.to_string(), found.handle.clone());
            if lock(&self.credentials.janitor.foreign).insert(which) {
                tracing::info!(target = %target.target.name, handle = found.handle, "another installation's credential is left alone");
            }
            return Ok(Look::Clean);
        }
        let slot = self.credentials.slots.of(&found.session);
        let held = slot.work.lock().await;
        let lease = self.store.lease_of_session(&found.session).await?;
        let is_active = session.is_some_and(|session| session.status(self.now()) == SessionStatus::Active);
        let look = match &lease {
            None => self.destroy_orphan(target, found, kept).await,
            Some(lease) if found.open && lease.state != LeaseState::Releasing && is_active => {
                self.shut_found_open(target, found, kept, lease).await
            }
            // As it should be, or the sweep destroys it.
            Some(_) => Ok(Look::Clean),
        };
        drop(held);
        if lease.is_none() {
            self.credentials.slots.forget(&found.session, slot);
        }
        look
    }

    /// What is still so under the slot; else somebody was at work while we looked.
    async fn still(&self, target: &PostgresTarget, found: &Found) -> Option<Result<Found, Look>> {
        let Some(all) = self.list(target).await else { return Some(Err(Look::Trouble)) };
        all.into_iter().find(|one| one.handle == found.handle).map(Ok)
    }

    async fn shut_found_open(
        &self,
        target: &PostgresTarget,
        found: &Found,
        kept: Option<&Leftover>,
        lease: &LeaseRecord,
    ) -> Result<Look, Refusal> {
        match self.still(target, found).await {
            Some(Ok(now)) if now.open => {}
            Some(Err(look)) => return Ok(look),
            // Whoever opened it has shut it.
            Some(Ok(_)) | None => return Ok(Look::Clean),
        }
        tracing::warn!(target = %target.target.name, handle = found.handle, "shutting a credential that was found open");
        let leftover = self.leftover(LeftoverKind::Open, target, found, kept);
        self.keep_leftover(&leftover, None).await?;
        failpoint::reached("open_kept");
        match self.credentials.source(target).lock(&source_request(target, lease)).await {
            Ok(()) => {
                failpoint::reached("open_shut");
                self.end_leftover(&leftover, self.shut_event(target, &leftover).await?).await?;
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

    async fn destroy_orphan(
        &self,
        target: &Arc<PostgresTarget>,
        found: &Found,
        kept: Option<&Leftover>,
    ) -> Result<Look, Refusal> {
        match self.still(target, found).await {
            Some(Ok(_)) => {}
            Some(Err(look)) => return Ok(look),
            // A release that was under way while we looked.
            None => return Ok(Look::Clean),
        }
        let leftover = self.leftover(LeftoverKind::Orphan, target, found, kept);
        if kept.is_none_or(|kept| kept.kind != LeftoverKind::Orphan) {
            tracing::error!(target = %target.target.name, handle = found.handle, "found a credential that no session has: destroying it");
            let event = self.orphan_event(Action::CredentialOrphaned, target, &leftover).await?;
            self.keep_leftover(&leftover, Some(event)).await?;
            failpoint::reached("orphan_kept");
        }
        // Without a trace of what it was for, what it owns goes to whom we are there.
        let (target, access_role) = self.made_for(target, found);
        let (target, admin) = (&target, target.source.admin().map_or("", |admin| admin.user.as_str()));
        let access_role = access_role.as_deref().unwrap_or(admin);
        let (handle, ends_at) = (found.handle.as_str(), self.now());
        let request = SourceRequest {
            target,
            access_role,
            session: &found.session,
            holder: None,
            lease: handle,
            handle,
            ends_at,
            replication: Replication::No,
        };
        match self.credentials.source(target).destroy(&request).await {
            Ok(Destruction::UnderWay { .. }) => Ok(Look::Trouble),
            Ok(Destruction::Done(Destroyed { how, terminated })) => {
                failpoint::reached("orphan_destroyed");
                let event = self.orphan_event(Action::CredentialDestroyed, target, &leftover).await?;
                let event = event.with("how", how.as_str()).with("backends_terminated", terminated);
                self.end_leftover(&leftover, event).await?;
                Ok(Look::Clean)
            }
            Err(error) => {
                self.orphan_stays(target, leftover, error_chain(&error)).await?;
                Ok(Look::Trouble)
            }
        }
    }

    async fn orphan_stays(
        &self,
        target: &PostgresTarget,
        leftover: Leftover,
        error: String,
    ) -> Result<(), Refusal> {
        metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
        let handle = leftover.handle.as_str();
        tracing::error!(handle, error, "an orphaned credential could not be destroyed, will retry");
        // Retries of the same failure are not worth a record each.
        if leftover.last_error.as_ref() == Some(&error) {
            return Ok(());
        }
        let event = self.orphan_event(Action::CredentialDestructionFailed, target, &leftover).await?;
        let event = Event { outcome: Outcome::Failed, ..event.with("error", error.as_str()) };
        self.keep_leftover(&Leftover { last_error: Some(error), ..leftover }, Some(event)).await
    }

    /// As it was kept, or as it is to be.
    fn leftover(
        &self,
        kind: LeftoverKind,
        target: &PostgresTarget,
        found: &Found,
        kept: Option<&Leftover>,
    ) -> Leftover {
        kept.filter(|kept| kept.kind == kind).cloned().unwrap_or_else(|| Leftover {
            kind,
            place: kept.map_or_else(|| target.hosts.to_string(), |kept| kept.place.clone()),
            handle: found.handle.clone(),
            session: found.session.clone(),
            target: target.target.name.clone(),
            found_at: self.now(),
            last_error: None,
        })
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

    async fn shut_event(&self, target: &PostgresTarget, kept: &Leftover) -> Result<Event, Refusal> {
        let event = self.leftover_event(Action::CredentialShut, target, kept).await?;
        let lease = self.store.lease_of_session(&kept.session).await?;
        Ok(event.with("lease", lease.map(|lease| lease.id.to_string())).with("why", "found_open"))
    }

    async fn orphan_event(
        &self,
        action: Action,
        target: &PostgresTarget,
        kept: &Leftover,
    ) -> Result<Event, Refusal> {
        Ok(self.leftover_event(action, target, kept).await?.with("orphan", true))
    }

    async fn leftover_event(
        &self,
        action: Action,
        target: &PostgresTarget,
        kept: &Leftover,
    ) -> Result<Event, Refusal> {
        let mut event = Event::done(action);
        event.session = Some(kept.session.clone());
        if let Some(session) = self.store.session(&kept.session).await? {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        Ok(event.on(&target.target).with("handle", kept.handle.as_str()))
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
