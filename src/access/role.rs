//! Credentials of AWS roles, handed out to the person: the one credential that its user sees.
//!
//! 1. The session permits it, as it would a connection.
//! 2. Until when it may be good is durable before STS is asked.
//! 3. That it was issued, and to whom, is recorded before it is handed out.
//!
//! Who asks again while the latest credential is as good as a new one would be gets that one, on record as well.
//!
//! It ends with the session; what AWS does not issue so short is denied from then on ([`super::role_end`]). Handing out
//! and ending one session's credentials exclude each other, and before one is issued the session is looked at once
//! more: nothing is issued for a session that has ended.

use std::sync::Arc;
use std::time::Duration;

use crate::amazon::REQUEST_TIMEOUT;
use crate::config::AwsTarget;
use crate::credentials::aws_role::{AssumeOrder, RoleCredential, RoleError, SHORTEST, identity, tags};
use crate::domain::deny::Deny;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::role_session::{RoleSession, RoleState};
use crate::domain::session::{Permit, Session};
use crate::domain::time::Timestamp;
use crate::failpoint;

use super::connect::Wanted;
use super::credential::refusal_to_deny;
use super::refusal::{Refusal, deny_from_store};
use super::roles::Held;
use super::{Access, Caller};

/// What AWS issues at most to who is in a role itself.
const LONGEST_IN_A_ROLE: Duration = Duration::from_hours(1);
/// A credential ends so much before its session, so that it is over by then however long STS took to answer.
const BEFORE_THE_END: Duration = Duration::from_secs(15);
/// What is added where it is not known when, or whether, STS issued a credential.
const UNANSWERED: Duration = REQUEST_TIMEOUT.saturating_mul(3);
/// What ends so soon is not handed out again.
const HARDLY_GOOD: Duration = Duration::from_secs(30);
/// What would be good for so little longer is not issued.
const HARDLY_LONGER: Duration = Duration::from_mins(1);

/// A credential for the person, with what it is for.
#[derive(Debug)]
pub struct HandedOut {
    pub credential: Arc<RoleCredential>,
    pub session: Session,
    pub role: String,
    pub region: String,
}

impl Access {
    /// Issues a credential under the caller's session for what they want.
    pub async fn hand_out_role(
        self: &Arc<Self>,
        caller: &Caller,
        wanted: &Wanted,
    ) -> Result<HandedOut, Refusal> {
        match self.try_hand_out(caller, wanted).await {
            Ok(handed_out) => Ok(handed_out),
            Err(deny) => {
                self.record_refused_role(caller, wanted, &deny).await?;
                Err(deny.into())
            }
        }
    }

    async fn record_refused_role(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        deny: &Deny,
    ) -> Result<(), Refusal> {
        let mut event = Event::new(Action::ConnectionRefused, Outcome::Refused)
            .by(&caller.principal)
            .from(caller.client)
            .with("claimed", caller.principal.name.as_str())
            .with("code", deny.code())
            .with("why", deny.to_string());
        event.target = Some(wanted.target.clone());
        event.access.clone_from(&wanted.access);
        if let Ok(entry) = self.rules().targets.find(&wanted.target) {
            event = event.on(&entry.target);
        }
        metrics::counter!("sallyport_connections_refused_total", "code" => deny.code()).increment(1);
        self.record(event).await
    }

    async fn try_hand_out(self: &Arc<Self>, caller: &Caller, wanted: &Wanted) -> Result<HandedOut, Deny> {
        // What can never be had this way is said before a session is asked for.
        self.rules().targets.find(&wanted.target)?.route.aws()?;
        let permit = self.admit(&caller.principal, wanted).await?;
        // Goes on to its end even if the caller gives up: what was issued must be on record.
        let (access, caller) = (Arc::clone(self), caller.clone());
        let issuing = self.roles.tasks.spawn(async move { access.issue_role(&caller, &permit).await });
        issuing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "handing out a credential failed");
            Err(Deny::CredentialUnavailable { detail: "internal error in the gateway".to_owned() })
        })
    }

    async fn issue_role(&self, caller: &Caller, permit: &Permit) -> Result<HandedOut, Deny> {
        let session = permit.session();
        let slot = self.roles.slots.of(&session.id);
        let held = slot.lock().await;
        // A revocation that came first has marked the session by now; one that comes later waits for the slot and
        // denies what is issued here.
        if let Err(deny) = self.recheck(permit).await {
            drop(held);
            self.roles.slots.forget(&session.id, slot);
            return Err(deny);
        }
        let target = Arc::clone(self.rules().targets.find(&session.target)?.route.aws()?);
        let before = self.role_session_of(permit, &target).await?;
        let duration = self.duration(&target, session).await?;
        let (role, credential) = match self.as_good(session, &target, duration) {
            // Another one would add nothing but, near the session's end, something to deny.
            Some(credential) => (before, credential),
            None => self.issue_anew(caller, permit, &target, before, duration).await?,
        };
        let event = role_event(Action::CredentialIssued, Outcome::Done, permit, &role)
            .from(caller.client)
            .with("fingerprint", self.roles.fingerprint(&credential))
            .with("access_key_id", credential.access_key_id.as_str())
            .with("valid_until", credential.expires_at.to_string());
        self.step_role(RoleState::Open, &role, &[event]).await?;
        self.publish().await.map_err(refusal_to_deny)?;
        failpoint::reached("handout_recorded");
        let (role, region) = (role.role, target.region.clone());
        Ok(HandedOut { credential, session: session.clone(), role, region })
    }

    /// The session's latest credential, where a new one would not be good for longer, or for nothing but longer than
    /// the session.
    fn as_good(
        &self,
        session: &Session,
        target: &AwsTarget,
        duration: Duration,
    ) -> Option<Arc<RoleCredential>> {
        let held = self.roles.held(&session.id)?;
        let now = self.now();
        let wanted = now.plus(duration).min(session.ends_at);
        let end = held.credential.expires_at;
        let is_as_good = end > now.plus(HARDLY_GOOD) && end.plus(HARDLY_LONGER) >= wanted;
        let is_as_narrow = held.session_policy.as_ref() == target.session_policies.get(&session.access);
        (is_as_good && is_as_narrow).then_some(held.credential)
    }

    async fn issue_anew(
        &self,
        caller: &Caller,
        permit: &Permit,
        target: &AwsTarget,
        before: RoleSession,
        duration: Duration,
    ) -> Result<(RoleSession, Arc<RoleCredential>), Deny> {
        let session = permit.session();
        let is_renewal = before.expires_at > session.granted_at;
        let until = self.now().plus(duration).plus(UNANSWERED).max(before.expires_at);
        let intended = RoleSession { expires_at: until, changed_at: self.now(), ..before.clone() };
        let event = role_event(Action::CredentialIntended, Outcome::Done, permit, &intended)
            .from(caller.client)
            .with("renewed", is_renewal);
        self.step_role(RoleState::Open, &intended, &[event]).await?;
        self.publish().await.map_err(refusal_to_deny)?;
        failpoint::reached("handout_intended");
        let credential = match self.assume(permit, target, &before, duration).await {
            Ok(credential) => Arc::new(credential),
            Err(error) => return Err(self.not_issued(permit, &before, until, error).await),
        };
        failpoint::reached("handout_issued");
        let session_policy = target.session_policies.get(&session.access).cloned();
        let held = Held { credential: Arc::clone(&credential), session_policy, denied_at: None };
        self.roles.hold(&session.id, held);
        // By our own clock it was issued before now. Should AWS's be ahead of ours, ours may yet follow.
        let bound = self.now().plus(duration).max(credential.expires_at);
        let expires_at = bound.max(before.expires_at);
        Ok((RoleSession { expires_at, changed_at: self.now(), ..before }, credential))
    }

    /// What was handed out in the session before, or that nothing was.
    async fn role_session_of(&self, permit: &Permit, target: &AwsTarget) -> Result<RoleSession, Deny> {
        let session = permit.session();
        let stored = self.store.role_session(&session.id).await.map_err(|error| deny_from_store(&error))?;
        let unavailable = |detail: &str| Err(Deny::CredentialUnavailable { detail: detail.to_owned() });
        match stored {
            Some(before) if before.state != RoleState::Open => {
                unavailable("what was handed out in this session is denied at AWS: ask anew")
            }
            Some(before) if is_moved(target, &before) => {
                unavailable("the role that this session is for was changed in the configuration: ask anew")
            }
            Some(before) => Ok(before),
            None => {
                let Some(role) = target.roles.get(&session.access) else {
                    let (target, access) = (session.target.clone(), session.access.clone());
                    return Err(Deny::AccessGone { target, access });
                };
                let fresh = self.fresh_role_session(session, target, role);
                let stored = self.store.create_role_session(&fresh, &[]).await;
                stored.map(|()| fresh).map_err(|error| deny_from_store(&error))
            }
        }
    }

    fn fresh_role_session(&self, session: &Session, target: &AwsTarget, role: &str) -> RoleSession {
        RoleSession {
            session: session.id.clone(),
            target: session.target.clone(),
            access: session.access.clone(),
            role: role.to_owned(),
            region: target.region.clone(),
            endpoint: target.endpoint.clone(),
            iam_endpoint: target.iam_endpoint.clone(),
            deny_as: target.deny_as.clone(),
            identity: identity(session.principal.name.as_str(), &session.id),
            policy: format!("{}-{}", self.roles.policy_prefix, session.id),
            // Nothing yet.
            expires_at: session.granted_at,
            state: RoleState::Open,
            changed_at: self.now(),
            last_error: None,
        }
    }

    /// How long the next credential is to be good.
    async fn duration(&self, target: &AwsTarget, session: &Session) -> Result<Duration, Deny> {
        let left = session.ends_at.since(self.now());
        let wanted = duration(left, target.maximum);
        if wanted <= LONGEST_IN_A_ROLE {
            return Ok(wanted);
        }
        let asked = self.roles.aws.is_in_a_role(&target.region, target.endpoint.as_deref()).await;
        match asked {
            Ok(true) => Ok(duration(left, LONGEST_IN_A_ROLE)),
            Ok(false) => Ok(wanted),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn assume(
        &self,
        permit: &Permit,
        target: &AwsTarget,
        role: &RoleSession,
        duration: Duration,
    ) -> Result<RoleCredential, RoleError> {
        let session = permit.session();
        let tags = tags(&session.id, Some((&session.request, &permit.principal().name)));
        let order = AssumeOrder {
            region: &target.region,
            endpoint: target.endpoint.as_deref(),
            role: &role.role,
            identity: &role.identity,
            tags: &tags,
            session_policy: target.session_policies.get(&session.access).map(String::as_str),
            not_after: session.ends_at,
            duration,
        };
        self.roles.aws.assume(&order).await
    }

    /// Records that nothing was issued. Where AWS did not answer, a credential may be there that nobody has: it counts
    /// as handed out.
    async fn not_issued(
        &self,
        permit: &Permit,
        before: &RoleSession,
        until: Timestamp,
        error: RoleError,
    ) -> Deny {
        let expires_at = if matches!(error, RoleError::Refused { .. } | RoleError::NotNarrowed { .. }) {
            before.expires_at
        } else {
            until
        };
        let now = RoleSession { expires_at, changed_at: self.now(), ..before.clone() };
        let event = role_event(Action::CredentialIssued, Outcome::Failed, permit, &now);
        let event = event.with("error", error.to_string());
        tracing::error!(session = %now.session, target = %now.target, %error, "credential could not be issued");
        let recorded = match self.step_role(RoleState::Open, &now, &[event]).await {
            Ok(()) => self.publish().await.map_err(refusal_to_deny),
            Err(deny) => Err(deny),
        };
        recorded.err().unwrap_or_else(|| unavailable(&error))
    }

    pub(super) async fn step_role(
        &self,
        from: RoleState,
        role: &RoleSession,
        events: &[Event],
    ) -> Result<(), Deny> {
        self.store.step_role_session(from, role, events).await.map_err(|error| deny_from_store(&error))
    }
}

/// The rest of the session, as far as AWS issues that.
fn duration(left: Duration, most: Duration) -> Duration {
    left.saturating_sub(BEFORE_THE_END).min(most).max(SHORTEST)
}

/// Whether the configuration has come to say something else of the role.
pub(super) fn is_moved(target: &AwsTarget, role: &RoleSession) -> bool {
    target.roles.get(&role.access) != Some(&role.role)
}

fn unavailable(error: &RoleError) -> Deny {
    let detail = error.to_string();
    match error {
        RoleError::Unreachable { .. } => Deny::TargetUnavailable { detail },
        RoleError::Refused { .. } | RoleError::NotNarrowed { .. } | RoleError::Unusable { .. } => {
            Deny::CredentialUnavailable { detail }
        }
    }
}

fn role_event(action: Action, outcome: Outcome, permit: &Permit, role: &RoleSession) -> Event {
    Event::new(action, outcome)
        .by(permit.principal())
        .on(permit.target())
        .about_session(permit.session())
        .with("handle", role.identity.as_str())
        .with("role", role.role.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_ends_with_its_session_or_as_soon_as_aws_lets_it() {
        let minutes = Duration::from_mins;
        let just_before = |end| minutes(end).saturating_sub(BEFORE_THE_END);
        for (left, most, expected) in [
            (minutes(60), minutes(60), just_before(60)),
            (minutes(240), minutes(60), minutes(60)),
            (minutes(240), minutes(720), just_before(240)),
            (minutes(20), minutes(60), just_before(20)),
            // From here on it outlives the session.
            (minutes(15), minutes(60), minutes(15)),
            (minutes(1), minutes(60), minutes(15)),
            (Duration::ZERO, minutes(60), minutes(15)),
        ] {
            assert_eq!(duration(left, most), expected, "{left:?} {most:?}");
        }
    }
}
