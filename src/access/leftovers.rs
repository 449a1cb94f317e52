//! What the janitors found, kept until it is seen to be ended: so the record tells what became of it, whenever the
//! process dies, and somebody is told of what cannot be ended.

use crate::domain::event::{Action, Event, Outcome};
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::store::StoreError;

use super::Access;
use super::refusal::Refusal;
use super::targets::Route;

/// Why a credential was shut, as the record tells: it was in use by what no gateway carried.
pub(super) const LEFT_RUNNING: &str = "left_running";

impl Access {
    pub(super) async fn keep_leftover(
        &self,
        leftover: &Leftover,
        event: Option<Event>,
    ) -> Result<(), Refusal> {
        self.store.keep_leftover(leftover, self.now(), event.as_slice()).await?;
        self.publish().await
    }

    /// It is ended. Told once, whoever saw it as well.
    pub(super) async fn end_leftover(&self, kept: &Leftover, event: Option<Event>) -> Result<(), Refusal> {
        match self.store.end_leftover(&kept.place, &kept.handle, self.now(), event.as_slice()).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => self.publish().await,
            Err(error) => Err(error.into()),
        }
    }

    /// It could not be ended, and is tried again. Retries of the same failure are not worth a record each.
    pub(super) async fn leftover_stays(&self, kept: &Leftover, error: String) -> Result<(), Refusal> {
        metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
        let (kind, place, handle) = (kept.kind.as_str(), &kept.place, &kept.handle);
        tracing::error!(kind, place, handle, error, "what was left at a target cannot be ended, will retry");
        if kept.last_error.as_ref() == Some(&error) {
            return Ok(());
        }
        let event = match kept.kind {
            LeftoverKind::Open | LeftoverKind::Running => self.shut_event(kept).await?,
            LeftoverKind::Orphan | LeftoverKind::Deny => {
                self.leftover_event(Action::CredentialDestructionFailed, kept).await?
            }
        };
        let event = Event { outcome: Outcome::Failed, ..event.with("error", error.as_str()) };
        self.keep_leftover(&Leftover { last_error: Some(error), ..kept.clone() }, Some(event)).await
    }

    /// Nobody looks any more for what is at a place that the configuration does not name.
    pub(super) async fn look_after_places(&self) -> Result<(), Refusal> {
        for kept in self.leftovers(|kept| !self.is_configured(kept)).await? {
            let error = format!(
                "no target is at {} any more: put `{}` back, so that `{}` can be ended, or end it there by hand",
                kept.place, kept.target, kept.handle
            );
            self.leftover_stays(&kept, error).await?;
        }
        self.count_leftovers().await;
        Ok(())
    }

    fn is_configured(&self, kept: &Leftover) -> bool {
        let rules = self.rules();
        rules.targets.all().any(|entry| match (&entry.route, kept.kind) {
            (Route::Postgres(target), LeftoverKind::Orphan | LeftoverKind::Open | LeftoverKind::Running) => {
                target.source.admin().is_some() && target.hosts.include(&kept.place)
            }
            (Route::Aws(target), LeftoverKind::Deny) => target.roles.values().any(|role| *role == kept.place),
            _ => false,
        })
    }

    pub(super) async fn leftovers(
        &self,
        is_wanted: impl Fn(&Leftover) -> bool,
    ) -> Result<Vec<Leftover>, Refusal> {
        let mut leftovers = self.store.leftovers().await?;
        leftovers.retain(is_wanted);
        Ok(leftovers)
    }

    /// Tells by the metric how much is left that could not be ended.
    pub(super) async fn count_leftovers(&self) {
        if let Ok(stuck) = self.leftovers(|kept| kept.last_error.is_some()).await {
            let count = u32::try_from(stuck.len()).unwrap_or(u32::MAX);
            metrics::gauge!("sallyport_credentials_orphaned").set(f64::from(count));
        }
    }

    /// That a session's credential that was found open, or in use, is shut.
    pub(super) async fn shut_event(&self, kept: &Leftover) -> Result<Event, Refusal> {
        let event = self.leftover_event(Action::CredentialShut, kept).await?;
        let lease = self.store.lease_of_session(&kept.session).await?;
        let why = if kept.kind == LeftoverKind::Running { LEFT_RUNNING } else { "found_open" };
        Ok(event.with("lease", lease.map(|lease| lease.id.to_string())).with("why", why))
    }

    pub(super) async fn leftover_event(&self, action: Action, kept: &Leftover) -> Result<Event, Refusal> {
        let mut event = Event::done(action);
        if let Some(session) = self.store.session(&kept.session).await? {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        (event.session, event.target) = (Some(kept.session.clone()), Some(kept.target.clone()));
        if let Ok(entry) = self.rules().targets.find(&kept.target) {
            event = event.on(&entry.target);
        }
        event = event.with("handle", kept.handle.as_str());
        Ok(match kept.kind {
            LeftoverKind::Open | LeftoverKind::Running => event,
            LeftoverKind::Orphan => event.with("orphan", true),
            LeftoverKind::Deny => event
                .with("policy", kept.handle.as_str())
                .with("role", kept.place.as_str())
                .with("orphan", true),
        })
    }
}
