//! What time brings, once a second.
//!
//! - **Watch** ([`Access::watch_forever`]): the node makes sure that its store still answers, requests
//!   lapse, sessions end, what is live is checked anew, strays are closed. A store that does not
//!   answer for [`LEASE`] ends every connection.
//! - **Clean up** ([`Access::clean_up_forever`]): credentials of ended sessions are destroyed, and destroyed again until
//!   they are gone. Apart from the watch and from each other, so that a target or an AWS role that does not answer
//!   delays nothing but its own.
//! - **Look after the targets** ([`Access::look_after_targets_forever`]): what they hold of ours and should not.
//!
//! Nothing waits for either to be refused: lapses and expiries are derived from the clock wherever
//! they matter.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::domain::connection::Ended;
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event};
use crate::domain::id::SessionId;
use crate::domain::lease::LeaseRecord;
use crate::domain::request::RequestState;
use crate::domain::session::SessionStatus;
use crate::domain::time::Timestamp;
use crate::store::{Filter, StoreError};

use super::Access;
use super::refusal::Refusal;
use super::rounds::{AT_A_TIME, as_they_come};

/// How often it looks.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long connections live on when the store does not answer.
pub const LEASE: Duration = Duration::from_secs(5);
/// How long a destruction that failed waits for its next try.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Access {
    /// Watches once a second; runs until dropped.
    pub async fn watch_forever(&self) {
        let mut confirmed = self.now();
        loop {
            // A store that hangs is a store that does not answer.
            let outcome = match tokio::time::timeout(LEASE, self.watch()).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {} s", LEASE.as_secs())),
            };
            self.confirmed.store(outcome.is_ok(), Ordering::Release);
            match outcome {
                Ok(()) => confirmed = self.now(),
                Err(error) => {
                    tracing::error!(error, "sessions cannot be confirmed");
                    if self.now().since(confirmed) >= LEASE && self.hub.count() > 0 {
                        tracing::error!("ending all connections: their sessions cannot be confirmed");
                        self.end_all(EndReason::Unconfirmed).await;
                    }
                }
            }
            self.clock.sleep(EVERY).await;
        }
    }

    /// Cleans up once a second; runs until dropped. What is slow at databases holds up nothing at AWS, nor the other way
    /// round.
    pub async fn clean_up_forever(&self) {
        let leases = || async {
            let ended = self.ended_leases().await?;
            Ok(ended.into_iter().map(|lease| (lease.session, lease.address)).collect())
        };
        let release = |session: SessionId| async move { _ = self.release_credential(&session).await };
        let roles = || async {
            let due = self.due_roles().await?;
            Ok(due.into_iter().map(|role| (role.session, role.role)).collect())
        };
        let end = |session: SessionId| async move { self.end_what_is_due(&session).await };
        tokio::join!(as_they_come(&self.clock, leases, release), as_they_come(&self.clock, roles, end));
    }

    /// One round of all, in order: what a test calls after it has moved the clock.
    pub async fn sweep(&self) -> Result<(), Refusal> {
        self.watch().await?;
        self.clean_up().await?;
        self.look_after_targets().await
    }

    /// One look at everything. Safe to repeat. Fails when what is live cannot be confirmed; what else
    /// goes wrong is logged and tried again the next time.
    async fn watch(&self) -> Result<(), Refusal> {
        let now = self.now();
        // Reads may still be answered when nothing can be written any more.
        self.store.check().await?;
        self.store.high_water(now).await?;
        self.recheck_live().await?;
        let rest = [
            ("lapse requests", self.lapse_requests(now).await),
            ("conclude sessions", self.conclude_sessions(now).await),
            ("close strays", self.close_strays(&EndReason::Internal).await),
            ("record what waits", self.publish().await),
        ];
        self.look_at_what_was_cut().await;
        for (what, outcome) in rest {
            if let Err(error) = outcome {
                tracing::error!(%error, "cannot {what}");
            }
        }
        metrics::gauge!("sallyport_connections").set(precise(self.hub.count()));
        Ok(())
    }

    /// Destroys the credentials of sessions that have ended. Safe to repeat.
    async fn clean_up(&self) -> Result<(), Refusal> {
        let (leases, roles) = tokio::join!(self.clean_up_leases(), self.clean_up_roles());
        leases.and(roles)
    }

    /// One round, with so many at a time of all targets.
    async fn clean_up_leases(&self) -> Result<(), Refusal> {
        futures_util::stream::iter(self.ended_leases().await?)
            .for_each_concurrent(AT_A_TIME, async |lease| {
                self.release_credential(&lease.session).await;
            })
            .await;
        Ok(())
    }

    /// Credentials of sessions that have ended, but for what has just been tried.
    async fn ended_leases(&self) -> Result<Vec<LeaseRecord>, Refusal> {
        let now = self.now();
        let mut over = Vec::new();
        for lease in self.store.open_leases().await? {
            let session = self.store.session(&lease.session).await?;
            let ended = session.is_none_or(|session| session.status(now) != SessionStatus::Active);
            let tried_just_now = lease.last_error.is_some() && now.since(lease.changed_at) < RETRY_AFTER;
            if ended && !tried_just_now {
                over.push(lease);
            }
        }
        Ok(over)
    }

    async fn lapse_requests(&self, now: Timestamp) -> Result<(), Refusal> {
        let open = Filter { open_only: true, limit: Some(u32::MAX), ..Filter::default() };
        for request in self.store.requests(&open).await? {
            let from_version = request.version;
            let Some(lapsed) = request.lapse(now) else { continue };
            debug_assert!(matches!(lapsed.state, RequestState::Lapsed { .. }));
            let mut event = Event::done(Action::RequestLapsed).about_request(&lapsed);
            if let Ok(entry) = self.rules().targets.find(&lapsed.ask.target) {
                event = event.on(&entry.target);
            }
            ignore_conflict(self.store.step_request(from_version, &lapsed, None, now, &[event]).await)?;
        }
        Ok(())
    }

    /// Writes down, once each, that sessions ran out.
    async fn conclude_sessions(&self, now: Timestamp) -> Result<(), Refusal> {
        let open = Filter { open_only: true, limit: Some(u32::MAX), ..Filter::default() };
        for session in self.store.sessions(&open).await? {
            if session.status(now) == SessionStatus::Expired {
                let mut event = Event::done(Action::SessionEnded)
                    .about_session(&session)
                    .with("holder", session.principal.name.as_str())
                    .with("ended_at", session.ends_at.to_string())
                    .with("why", "expired");
                if let Ok(entry) = self.rules().targets.find(&session.target) {
                    event = event.on(&entry.target);
                }
                ignore_conflict(self.store.conclude_session(&session.id, now, &[event]).await)?;
            }
        }
        Ok(())
    }

    /// Closes connections that the store thinks are open here and that are not. Called at the start, before
    /// anyone can ask what is open, and at every look.
    pub async fn close_strays(&self, reason: &EndReason) -> Result<(), Refusal> {
        for connection in self.store.open_connections_of(&self.node).await? {
            // A connection registers in the hub before the store hears of it and leaves the hub
            // after, so one that is not in the hub is over.
            if self.hub.is_live(&connection.id) {
                continue;
            }
            let ended = Ended { at: self.now(), reason: reason.clone() };
            let mut event = Event::done(Action::ConnectionEnded).with("end", ended.reason.code());
            event.connection = Some(connection.id.clone());
            event.session = Some(connection.session.clone());
            event.principal = Some(connection.principal.clone());
            event.target = Some(connection.target.clone());
            if let Some(session) = self.store.session(&connection.session).await? {
                event = event.about_session(&session);
            }
            if let Ok(entry) = self.rules().targets.find(&connection.target) {
                event = event.on(&entry.target);
            }
            ignore_conflict(self.store.close_connection(&connection.id, &ended, &[event]).await)?;
        }
        self.publish().await
    }
}

/// Somebody else was quicker: nothing to do.
fn ignore_conflict(result: Result<(), StoreError>) -> Result<(), Refusal> {
    match result {
        Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn precise(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
