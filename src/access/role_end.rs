//! The end of what was handed out of an AWS role: `open → denying → denied → over`.
//!
//! 1. What has expired by itself is over. Else it is marked denying before a deny for it is put on the role, and denied
//!    when IAM has accepted that.
//! 2. AWS applies a deny after some seconds, and does not say when. As long as a credential of the session is still in
//!    memory, it is tried until it is denied; what came of that is recorded. Otherwise nobody knows.
//! 3. When the last credential has expired, the deny is removed and all is over.
//!
//! Every step can be repeated, so after a crash [`Access::release_role`] finishes whatever was begun.

use std::time::Duration;

use futures_util::StreamExt as _;

use crate::credentials::aws_role::{Deny as RoleDeny, Probe};
use crate::domain::deny::Deny;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::SessionId;
use crate::domain::role_session::{RoleSession, RoleState};
use crate::domain::session::SessionStatus;
use crate::failpoint;

use super::Access;
use super::refusal::Refusal;
use super::release::{InForce, Released};
use super::role::is_moved;
use super::roles::Held;
use super::rounds::AT_A_TIME;

/// How long a deny stays once nothing is left to be denied: AWS's clock may be behind ours.
pub(super) const LIFT_AFTER: Duration = Duration::from_mins(5);
/// How long what failed waits for its next try.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long, and how often, a revocation tries whether a deny is in force before it answers.
const TRY_FOR: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(500);
/// How long a deny waits to hear what a call came to before it.
const FIRST_TRY_WITHIN: Duration = Duration::from_secs(1);
/// After so long without one it is said that no deny came into force.
const GIVE_UP_AFTER: Duration = Duration::from_mins(5);

impl Access {
    /// Ends what was handed out in the session. Safe to repeat; what fails is retried by the sweep.
    pub async fn release_role(&self, session: &SessionId) -> Released {
        let slot = self.roles.slots.of(session);
        let released = {
            let _held = slot.lock().await;
            self.end_role_of(session).await
        };
        if matches!(released, Released::None | Released::Destroyed { .. }) {
            self.roles.slots.forget(session, slot);
        }
        released
    }

    async fn end_role_of(&self, session: &SessionId) -> Released {
        let stored = match self.store.role_session(session).await {
            Ok(stored) => stored,
            Err(error) => {
                return Released::Pending { handle: session.to_string(), error: error.to_string() };
            }
        };
        let released = match stored {
            Some(stored) => match self.end_role(&stored).await {
                Ok(released) => released,
                Err(error) => Released::Pending { handle: stored.identity, error },
            },
            None => Released::None,
        };
        if matches!(released, Released::None | Released::Destroyed { .. }) {
            self.roles.let_go(session);
        }
        released
    }

    /// What a revocation does: ends it, and looks for a while whether that is in force.
    pub(super) async fn revoke_role(&self, session: &SessionId) -> Released {
        let mut released = self.release_role(session).await;
        let begun = self.now();
        while let Released::Denied { in_force, .. } = &mut released {
            if let Some(confirmed) = self.try_denied(session).await {
                *in_force = confirmed;
                break;
            }
            if self.roles.held(session).is_none() || self.now().since(begun) >= TRY_FOR {
                break;
            }
            self.clock.sleep(TRY_EVERY).await;
        }
        released
    }

    async fn end_role(&self, role: &RoleSession) -> Result<Released, String> {
        let now = self.now();
        match role.state {
            RoleState::Over => Ok(Released::None),
            RoleState::Open if role.expires_at <= now => {
                self.conclude_role(role, "nothing that was handed out is good any more").await
            }
            RoleState::Open => {
                let denying = RoleSession { state: RoleState::Denying, changed_at: now, ..role.clone() };
                let stepped = self.store.step_role_session(role.state, &denying, &[]).await;
                stepped.map_err(|error| error.to_string())?;
                failpoint::reached("deny_intended");
                self.deny_role(&denying).await
            }
            // It may be there: an answer can be lost.
            RoleState::Denying | RoleState::Denied if role.expires_at.plus(LIFT_AFTER) <= now => {
                self.lift_role(role).await
            }
            RoleState::Denying => self.deny_role(role).await,
            RoleState::Denied => Ok(denied(role)),
        }
    }

    async fn deny_role(&self, role: &RoleSession) -> Result<Released, String> {
        let held = self.roles.held(&role.session);
        // Where another policy denies the same call already, the call tells nothing of ours.
        let tells = match &held {
            Some(held) => {
                let probe = tokio::time::timeout(FIRST_TRY_WITHIN, self.probe(role, held)).await;
                probe.is_ok_and(|probe| probe == Probe::NotDenied)
            }
            None => false,
        };
        let at = self.now();
        if let Err(error) = self.roles.aws.deny(&role_deny(&self.as_configured(role))).await {
            return self.role_failed(role, error.to_string()).await;
        }
        failpoint::reached("deny_put");
        let next = RoleSession {
            state: RoleState::Denied,
            last_error: None,
            changed_at: self.now(),
            ..role.clone()
        };
        let event = self.role_end_event(Action::CredentialDenied, role).await?;
        let event = event.with("policy", role.policy.as_str()).with("in_force", InForce::Unknown.as_str());
        let event = event.with("expires_at", role.expires_at.to_string());
        self.store.step_role_session(role.state, &next, &[event]).await.map_err(|error| error.to_string())?;
        failpoint::reached("deny_recorded");
        self.publish_role_end().await;
        match held {
            Some(held) if tells => {
                self.roles.hold(&role.session, Held { denied_at: Some(at), ..held });
            }
            _ => drop(self.roles.let_go(&role.session)),
        }
        tracing::info!(session = %role.session, policy = role.policy, role = role.role, "denied what was handed out");
        Ok(denied(&next))
    }

    /// With what the configuration says now of how the role is reached, as long as it is the same role: what was wrong
    /// there can be put right.
    fn as_configured(&self, role: &RoleSession) -> RoleSession {
        let rules = self.rules();
        let target = rules.targets.find(&role.target).and_then(|entry| entry.route.aws());
        match target {
            Ok(target) if !is_moved(target, role) => RoleSession {
                region: target.region.clone(),
                endpoint: target.endpoint.clone(),
                iam_endpoint: target.iam_endpoint.clone(),
                deny_as: target.deny_as.clone(),
                ..role.clone()
            },
            _ => role.clone(),
        }
    }

    async fn lift_role(&self, role: &RoleSession) -> Result<Released, String> {
        if let Err(error) = self.roles.aws.lift(&role_deny(&self.as_configured(role))).await {
            return self.role_failed(role, error.to_string()).await;
        }
        failpoint::reached("deny_removed");
        self.conclude_role(role, "expired, and the deny is removed").await
    }

    async fn conclude_role(&self, role: &RoleSession, why: &str) -> Result<Released, String> {
        let over =
            RoleSession { state: RoleState::Over, last_error: None, changed_at: self.now(), ..role.clone() };
        let event = self.role_end_event(Action::CredentialDestroyed, role).await?.with("why", why);
        self.store.step_role_session(role.state, &over, &[event]).await.map_err(|error| error.to_string())?;
        self.publish_role_end().await;
        Ok(Released::Destroyed { handle: role.identity.clone(), how: "expired".to_owned() })
    }

    async fn role_failed(&self, role: &RoleSession, error: String) -> Result<Released, String> {
        // Retries of the same failure are not worth a record each.
        let news = role.last_error.as_ref() != Some(&error);
        let next = RoleSession { last_error: Some(error.clone()), changed_at: self.now(), ..role.clone() };
        let event = self.role_end_event(Action::CredentialDestructionFailed, role).await?;
        let event = Event { outcome: Outcome::Failed, ..event.with("error", error.as_str()) };
        let events = news.then_some(event);
        let stepped = self.store.step_role_session(role.state, &next, events.as_slice()).await;
        stepped.map_err(|error| error.to_string())?;
        self.publish_role_end().await;
        metrics::counter!("sallyport_credential_destruction_failures_total").increment(1);
        tracing::error!(session = %role.session, role = role.role, %error, "what was handed out could not be ended, will retry");
        Ok(Released::Pending { handle: role.identity.clone(), error })
    }

    async fn publish_role_end(&self) {
        if let Err(error) = self.publish().await {
            tracing::error!(%error, "the end of what was handed out waits in the outbox to be recorded");
        }
    }

    async fn role_end_event(&self, action: Action, role: &RoleSession) -> Result<Event, String> {
        let mut event = Event::done(action);
        event.session = Some(role.session.clone());
        event.target = Some(role.target.clone());
        event.access = Some(role.access.clone());
        let session = self.store.session(&role.session).await.map_err(|error| error.to_string())?;
        if let Some(session) = session {
            event = event.about_session(&session).with("holder", session.principal.name.as_str());
        }
        if let Ok(entry) = self.rules().targets.find(&role.target) {
            event = event.on(&entry.target);
        }
        Ok(event.with("handle", role.identity.as_str()).with("role", role.role.as_str()))
    }

    async fn probe(&self, role: &RoleSession, held: &Held) -> Probe {
        self.roles.aws.probe(&role.region, role.endpoint.as_deref(), &held.credential).await
    }

    /// Tries once whether the deny is in force, where a credential is left to try with. `Some` once, when it is.
    async fn try_denied(&self, session: &SessionId) -> Option<InForce> {
        let held = self.roles.held(session)?;
        let put = held.denied_at?;
        let role = self.store.role_session(session).await.ok()??;
        let is_denied = self.probe(&role, &held).await == Probe::Denied;
        let window = self.now().since(put);
        if !is_denied && window < GIVE_UP_AFTER {
            return None;
        }
        // Somebody else may have tried at the same time.
        self.roles.let_go(session)?;
        let outcome = if is_denied { Outcome::Done } else { Outcome::Failed };
        let in_force = if is_denied { InForce::Confirmed { after: window } } else { InForce::Unknown };
        if !is_denied {
            tracing::warn!(session = %session, role = role.role, "a deny was put and is not seen to be in force");
        }
        match self.role_end_event(Action::CredentialDenied, &role).await {
            Ok(event) => {
                let event = Event { outcome, ..event.with("policy", role.policy.as_str()) };
                let event =
                    event.with("in_force", in_force.as_str()).with("window_ms", in_force.milliseconds());
                if let Err(error) = self.record(event).await {
                    tracing::error!(%error, "that a deny is in force is not recorded");
                }
            }
            Err(error) => tracing::error!(error, "that a deny is in force is not recorded"),
        }
        is_denied.then_some(in_force)
    }

    /// One round of [`Self::end_what_is_due`], with so many at a time.
    pub(super) async fn clean_up_roles(&self) -> Result<(), Refusal> {
        futures_util::stream::iter(self.due_roles().await?)
            .for_each_concurrent(AT_A_TIME, async |role| self.end_what_is_due(&role.session).await)
            .await;
        Ok(())
    }

    /// What was handed out in sessions that are over or no longer permit it, or is no longer needed.
    pub(super) async fn due_roles(&self) -> Result<Vec<RoleSession>, Refusal> {
        let mut due = Vec::new();
        for role in self.store.open_role_sessions().await? {
            let tried_just_now = role.last_error.is_some() && self.now().since(role.changed_at) < RETRY_AFTER;
            if !tried_just_now && self.is_due(&role).await? {
                due.push(role);
            }
        }
        Ok(due)
    }

    /// Ends what was handed out in the session, and removes what is no longer needed. Safe to repeat.
    pub(super) async fn end_what_is_due(&self, session: &SessionId) {
        self.release_role(session).await;
        self.try_denied(session).await;
    }

    async fn is_due(&self, role: &RoleSession) -> Result<bool, Refusal> {
        if role.state != RoleState::Open {
            return Ok(true);
        }
        let Some(session) = self.store.session(&role.session).await? else { return Ok(true) };
        if session.status(self.now()) != SessionStatus::Active {
            return Ok(true);
        }
        let rules = self.rules();
        let target = rules.targets.find(&role.target).and_then(|entry| entry.route.aws());
        if !target.is_ok_and(|target| !is_moved(target, role)) {
            return Ok(true);
        }
        // As a connection would be cut: blocked, the account disabled, the rules changed.
        match self.recheck_session(&session.principal.id, &session.id).await {
            Ok(_) | Err(Deny::StoreUnavailable { .. }) => Ok(false),
            Err(deny) => {
                tracing::info!(session = %role.session, reason = %deny, "what was handed out is no longer permitted");
                Ok(true)
            }
        }
    }
}

fn denied(role: &RoleSession) -> Released {
    let (handle, expires_at) = (role.identity.clone(), role.expires_at);
    Released::Denied { handle, expires_at, in_force: InForce::Unknown }
}

fn role_deny(role: &RoleSession) -> RoleDeny<'_> {
    RoleDeny {
        region: &role.region,
        endpoint: role.endpoint.as_deref(),
        iam_endpoint: role.iam_endpoint.as_deref(),
        put_as: role.deny_as.as_deref(),
        role: &role.role,
        policy: &role.policy,
        identity: &role.identity,
    }
}
