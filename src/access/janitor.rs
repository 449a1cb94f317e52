//! The janitor: compares what the targets hold of ours with what there should be, at the start, every five minutes, and
//! soon after a credential was not seen to be shut ([`super::looks`]). What no session has is destroyed; what was left open
//! is shut. It goes by names and marks at the source alone, so it also finds what the store has forgotten (restored
//! from a backup, say). Credentials that the store knows to be over are the sweep's; what another installation has made
//! at the same target is left alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::PostgresTarget;
use crate::credentials::{Destroyed, Destruction, Found, Replication, SourceRequest};
use crate::domain::deny::Deny;
use crate::domain::event::{Action, Event};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::domain::name::TargetName;
use crate::domain::session::SessionStatus;
use crate::failpoint;

use super::Access;
use super::connect::end_reason;
use super::credential::{Slot, error_chain, source_request};
use super::looks::{Look, Looks};
use super::refusal::Refusal;
use super::rounds::as_they_come;

/// How often it asks itself whether it is time to.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What it remembers from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Janitor {
    looks: Mutex<Looks>,
    /// One look at everything at a time, and one at AWS.
    round: tokio::sync::Mutex<()>,
    roles: tokio::sync::Mutex<()>,
    /// One look at a server at a time: what one has found, another would find as well.
    at_work: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Of another installation, by where and handle: said once each.
    foreign: Mutex<BTreeSet<(String, String)>>,
}

impl Access {
    /// Looks whenever it is time to; runs until dropped.
    pub async fn look_after_targets_forever(&self) {
        let due = || async {
            let servers = self.servers_due().into_iter().map(|target| target.hosts.to_string());
            Ok(servers.map(|server| (server.clone(), server)).collect())
        };
        let look = |server: String| async move {
            let Some(target) = self.servers().into_iter().find(|one| one.hosts.to_string() == server) else {
                return;
            };
            log(self.look_at(&target).await);
        };
        // What is looked for at one place waits for no look at another.
        tokio::join!(
            self.again(|| self.look_everywhere()),
            self.again(|| self.look_at_aws()),
            as_they_come(&self.clock, due, look)
        );
    }

    async fn again<W: Future<Output = Result<(), Refusal>>>(&self, look: impl Fn() -> W) {
        loop {
            log(look().await);
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Looks wherever it is time to.
    pub(super) async fn look_after_targets(&self) -> Result<(), Refusal> {
        self.look_everywhere().await?;
        let looks = self.servers_due().into_iter().map(|target| async move { self.look_at(&target).await });
        let (looks, roles) = tokio::join!(futures_util::future::join_all(looks), self.look_at_aws());
        looks.into_iter().chain([roles]).collect()
    }

    /// Has all servers looked at, and looks at what is at none.
    async fn look_everywhere(&self) -> Result<(), Refusal> {
        let janitor = &self.credentials.janitor;
        let _round = janitor.round.lock().await;
        if !lock(&janitor.looks).is_round_due(self.now()) {
            return Ok(());
        }
        let servers = self.servers().into_iter().map(|target| target.hosts.to_string());
        lock(&janitor.looks).ask_all(servers, self.now());
        let looked = self.look_after_places().await;
        lock(&janitor.looks).went_round(looked.is_ok(), self.now());
        looked
    }

    async fn look_at_aws(&self) -> Result<(), Refusal> {
        let janitor = &self.credentials.janitor;
        let _roles = janitor.roles.lock().await;
        if !lock(&janitor.looks).are_roles_due(self.now()) {
            return Ok(());
        }
        let looked = self.look_after_roles().await;
        lock(&janitor.looks).went_over_roles(looked.is_ok(), self.now());
        self.count_leftovers().await;
        looked
    }

    fn servers_due(&self) -> Vec<Arc<PostgresTarget>> {
        let mut due = lock(&self.credentials.janitor.looks).due(self.now());
        if due.is_empty() {
            return Vec::new();
        }
        let mut servers = self.servers();
        servers.retain(|target| {
            let at = due.iter().position(|server| *server == target.hosts.to_string());
            at.map(|at| due.swap_remove(at)).is_some()
        });
        for gone in due {
            lock(&self.credentials.janitor.looks).forget(&gone);
        }
        servers
    }

    async fn look_at(&self, target: &Arc<PostgresTarget>) -> Result<(), Refusal> {
        let (janitor, server) = (&self.credentials.janitor, target.hosts.to_string());
        let at_work = Arc::clone(lock(&janitor.at_work).entry(server.clone()).or_default());
        let _at_work = at_work.lock().await;
        // Somebody else may have looked meanwhile.
        if !lock(&janitor.looks).is_due(&server, self.now()) {
            return Ok(());
        }
        let began = self.now();
        let look = self.look_after(target).await;
        let came_to = *look.as_ref().unwrap_or(&Look::Unseen);
        lock(&janitor.looks).looked(&server, began, came_to, self.now());
        self.count_leftovers().await;
        look.map(drop)
    }

    /// A session's credential could not be shut, or (no `error`) it is not known whether it was opened: who works there could
    /// have given it a password of their own, and come in with that. Everybody in the session is cut, and the server is
    /// looked at soon, where whatever uses the credential is ended.
    pub(super) async fn left_open(
        &self,
        target: &PostgresTarget,
        lease: &LeaseRecord,
        slot: &Slot,
        error: Option<&str>,
    ) {
        // Of other kinds there is nothing to be found at the server.
        if target.source.admin().is_none() {
            return;
        }
        slot.quiet.store(false, Ordering::Release);
        let detail = error.unwrap_or("nobody knows whether it was opened").to_owned();
        self.hub
            .tell(|live| live.session == lease.session, &end_reason(&Deny::CredentialLeftOpen { detail }));
        self.look_soon(target);
        let kept = match self.kept_of(lease).await {
            Ok(kept) => {
                let kept = kept.filter(|kept| kept.kind == LeftoverKind::Open);
                let is_new = kept.is_none();
                let leftover = kept.unwrap_or_else(|| self.left_of(LeftoverKind::Open, lease));
                match error {
                    Some(error) => self.leftover_stays(&leftover, error.to_owned()).await,
                    None if is_new => self.keep_leftover(&leftover, None).await,
                    None => Ok(()),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::error!(%error, handle = lease.handle, "that a credential was left open cannot be kept");
        }
    }

    /// Has the server looked at soon. Of other kinds there is nothing to be found at the server.
    pub(super) fn look_soon(&self, target: &PostgresTarget) {
        if target.source.admin().is_some() {
            lock(&self.credentials.janitor.looks).ask(&target.hosts.to_string(), self.now());
        }
    }

    /// That a session's credential was left open, or in use, if that is not seen to be over yet.
    pub(super) async fn kept_of(&self, lease: &LeaseRecord) -> Result<Option<Leftover>, Refusal> {
        let of = (&lease.address, &lease.handle);
        let is_it = |kept: &Leftover| kept.kind.is_of_a_session() && (&kept.place, &kept.handle) == of;
        Ok(self.leftovers(is_it).await?.pop())
    }

    /// As it is to be kept of a session's credential.
    pub(super) fn left_of(&self, kind: LeftoverKind, lease: &LeaseRecord) -> Leftover {
        Leftover {
            kind,
            place: lease.address.clone(),
            handle: lease.handle.clone(),
            session: lease.session.clone(),
            target: lease.target.clone(),
            found_at: self.now(),
            last_error: None,
        }
    }

    /// A session's credential is shut, and what used it is ended: whether that was kept to be done, and is recorded as done.
    pub(super) async fn is_shut_again(&self, lease: &LeaseRecord, terminated: u64) -> bool {
        let ended = async {
            let Some(kept) = self.kept_of(lease).await? else { return Ok(false) };
            let event = self.shut_event(&kept).await?.with("backends_terminated", terminated);
            self.end_leftover(&kept, Some(event)).await?;
            Ok::<_, Refusal>(true)
        };
        ended.await.unwrap_or_else(|error| {
            tracing::error!(%error, handle = lease.handle, terminated, "that a credential was shut again could not be recorded yet");
            false
        })
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
        let all = match self.list(target).await {
            Ok(all) => all,
            Err(error) => {
                for kept in &kept {
                    self.leftover_stays(kept, error.clone()).await?;
                }
                return Ok(Look::Unseen);
            }
        };
        let address = target.hosts.to_string();
        let now = |handle: &str| all.iter().find(|found| found.handle == handle);
        lock(&self.credentials.janitor.foreign)
            .retain(|(at, handle)| *at != address || now(handle).is_some());
        let mut look = Look::Clean;
        for kept in &kept {
            let is_over = |found: &Found| kept.kind == LeftoverKind::Open && !found.open;
            if now(&kept.handle).is_none_or(is_over) {
                look = look.max(self.leftover_is_gone(target, kept, now(&kept.handle).is_some()).await?);
            }
        }
        for found in &all {
            // Seen before the store was asked, so what is made meanwhile has its intent there.
            look = look.max(self.reconcile(target, found).await?);
        }
        Ok(look)
    }

    async fn list(&self, target: &PostgresTarget) -> Result<Vec<Found>, String> {
        self.credentials.source(target).list(target).await.map_err(|error| {
            let error = error_chain(&error);
            tracing::warn!(target = %target.target.name, error, "cannot look for credentials left at the target");
            metrics::counter!("sallyport_janitor_failures_total").increment(1);
            error
        })
    }

    /// Ended before that could be recorded, or by somebody else.
    async fn leftover_is_gone(
        &self,
        target: &PostgresTarget,
        kept: &Leftover,
        is_there: bool,
    ) -> Result<Look, Refusal> {
        if !kept.kind.is_of_a_session() {
            let event = self.leftover_event(Action::CredentialDestroyed, kept).await?;
            self.end_leftover(kept, Some(event.with("how", "gone"))).await?;
            return Ok(Look::Clean);
        }
        let slot = self.credentials.slots.of(&kept.session);
        let held = slot.work.lock().await;
        let lease = self.store.lease_of_session(&kept.session).await?;
        let is_over = lease.as_ref().is_none_or(|lease| lease.state == LeaseState::Released);
        let look = match lease.filter(|lease| is_there && lease.state == LeaseState::Issued) {
            Some(lease) if !slot.quiet.load(Ordering::Acquire) => {
                self.end_past_us(target, kept, &lease, &slot).await?
            }
            goes_on => {
                // Else it was shut with its session's end, which is on record.
                let event = if goes_on.is_some() { Some(self.shut_event(kept).await?) } else { None };
                self.end_leftover(kept, event).await?;
                Look::Clean
            }
        };
        drop(held);
        if is_over {
            self.credentials.slots.forget(&kept.session, slot);
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
        let slot = self.credentials.slots.of(&found.session);
        let held = slot.work.lock().await;
        let lease = self.store.lease_of_session(&found.session).await?;
        let is_active = session.is_some_and(|session| session.status(self.now()) == SessionStatus::Active);
        let look = match &lease {
            None => self.destroy_orphan(target, found).await,
            Some(lease) if found.open && lease.state != LeaseState::Releasing && is_active => {
                self.shut_found_open(target, found, lease, &slot).await
            }
            // After a crash, or where connections were cut.
            Some(lease)
                if lease.state == LeaseState::Issued && is_active && !slot.quiet.load(Ordering::Acquire) =>
            {
                let is_quiet = self.quiet_held(target, lease, &slot).await;
                Ok(if is_quiet { Look::Clean } else { Look::Trouble })
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

    /// What is still so under the slot, where it is; else somebody was at work while we looked.
    async fn still(&self, target: &PostgresTarget, found: &Found) -> Result<Option<Found>, String> {
        let all = self.list(target).await?;
        Ok(all.into_iter().find(|one| one.handle == found.handle))
    }

    async fn shut_found_open(
        &self,
        target: &PostgresTarget,
        found: &Found,
        lease: &LeaseRecord,
        slot: &Slot,
    ) -> Result<Look, Refusal> {
        match self.still(target, found).await {
            Ok(Some(now)) if now.open => {}
            Err(_) => return Ok(Look::Unseen),
            // Whoever opened it has shut it.
            Ok(_) => return Ok(Look::Clean),
        }
        tracing::warn!(target = %lease.target, handle = found.handle, "shutting a credential that was found open");
        let (leftover, _) = self.leftover(LeftoverKind::Open, target, &lease.target, found).await?;
        self.keep_leftover(&leftover, None).await?;
        failpoint::reached("open_kept");
        self.end_past_us(target, &leftover, lease, slot).await
    }

    /// Shuts a session's credential that was left open, and ends whatever uses it: somebody may have come in past us, with a
    /// password that a connection of the session has given it.
    async fn end_past_us(
        &self,
        target: &PostgresTarget,
        leftover: &Leftover,
        lease: &LeaseRecord,
        slot: &Slot,
    ) -> Result<Look, Refusal> {
        slot.quiet.store(false, Ordering::Release);
        let detail = "it was found open, and whatever used it is ended".to_owned();
        // Waited for, so that none of ours is taken for somebody else.
        let reason = end_reason(&Deny::CredentialLeftOpen { detail });
        self.hub.end(|live| live.session == lease.session, reason).await;
        match self.credentials.source(target).quiet(&source_request(target, lease)).await {
            Ok(terminated) => {
                failpoint::reached("open_shut");
                slot.quiet.store(true, Ordering::Release);
                let event = self.shut_event(leftover).await?.with("backends_terminated", terminated);
                self.end_leftover(leftover, Some(event)).await?;
                Ok(Look::Clean)
            }
            Err(error) => {
                self.leftover_stays(leftover, error_chain(&error)).await?;
                Ok(Look::Trouble)
            }
        }
    }

    async fn destroy_orphan(&self, target: &Arc<PostgresTarget>, found: &Found) -> Result<Look, Refusal> {
        match self.still(target, found).await {
            Ok(Some(_)) => {}
            Err(_) => return Ok(Look::Unseen),
            // A release that was under way while we looked.
            Ok(None) => return Ok(Look::Clean),
        }
        // Without a trace of what it was for, what it owns goes to whom we are there.
        let (made_for, access_role) = self.made_for(target, found);
        let name = &made_for.target.name;
        let (leftover, is_new) = self.leftover(LeftoverKind::Orphan, target, name, found).await?;
        if is_new {
            tracing::error!(target = %name, handle = found.handle, "found a credential that no session has: destroying it");
            let event = self.leftover_event(Action::CredentialOrphaned, &leftover).await?;
            self.keep_leftover(&leftover, Some(event)).await?;
            failpoint::reached("orphan_kept");
        }
        let (target, admin) = (&made_for, made_for.source.admin().map_or("", |admin| admin.user.as_str()));
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
            Ok(Destruction::Done(Destroyed { how, terminated, .. })) => {
                failpoint::reached("orphan_destroyed");
                let event = self.leftover_event(Action::CredentialDestroyed, &leftover).await?;
                let event = event.with("how", how.as_str()).with("backends_terminated", terminated);
                self.end_leftover(&leftover, Some(event)).await?;
                Ok(Look::Clean)
            }
            Err(error) => {
                self.leftover_stays(&leftover, error_chain(&error)).await?;
                Ok(Look::Trouble)
            }
        }
    }

    /// As it was kept, or as it is to be; and whether it is that.
    async fn leftover(
        &self,
        kind: LeftoverKind,
        at: &PostgresTarget,
        name: &TargetName,
        found: &Found,
    ) -> Result<(Leftover, bool), Refusal> {
        let is_it = |kept: &Leftover| {
            kept.kind != LeftoverKind::Deny && kept.handle == found.handle && at.hosts.include(&kept.place)
        };
        let before = self.leftovers(is_it).await?.pop();
        // One that was open and is an orphan now is found anew.
        if let Some(kept) = before.clone().filter(|kept| kept.kind == kind) {
            return Ok((kept, false));
        }
        let leftover = Leftover {
            kind,
            place: before.map_or_else(|| at.hosts.to_string(), |before| before.place),
            handle: found.handle.clone(),
            session: found.session.clone(),
            target: name.clone(),
            found_at: self.now(),
            last_error: None,
        };
        Ok((leftover, true))
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
}

fn log(outcome: Result<(), Refusal>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "cannot look for credentials that were left at targets");
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
