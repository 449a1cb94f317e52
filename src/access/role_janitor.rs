//! Looks for denies of ours that were left on roles at AWS: the store was restored from a copy that does not know them, or
//! the answer to their removal was lost. One that the store knows nothing of stays for as long as any credential that it
//! denies may be good; what is found is recorded, and so is its removal.

use super::Access;
use super::refusal::Refusal;
use super::role_end::LIFT_AFTER;
use crate::config::AwsTarget;
use crate::credentials::aws_role::Deny as RoleDeny;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::SessionId;
use crate::domain::role_session::RoleState;
use crate::domain::time::Timestamp;

impl Access {
    /// Looks at all roles that targets name.
    pub(super) async fn look_after_roles(&self) -> Result<(), Refusal> {
        let rules = self.rules();
        let mut seen = std::collections::BTreeSet::new();
        for target in rules.targets.all().filter_map(|entry| entry.route.aws().ok()) {
            for role in target.roles.values().filter(|role| seen.insert((*role).clone())) {
                self.look_after_role(target, role).await?;
            }
        }
        Ok(())
    }

    async fn look_after_role(&self, target: &AwsTarget, role: &str) -> Result<(), Refusal> {
        let prefix = format!("{}-", self.roles.policy_prefix);
        let names = match self.roles.aws.policies(&deny(target, role, ""), &prefix).await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(target = %target.target.name, %error, "cannot look for denies left on a role");
                metrics::counter!("sallyport_janitor_failures_total").increment(1);
                return Ok(());
            }
        };
        for policy in names {
            let Some(session) = policy.strip_prefix(&prefix).and_then(|rest| rest.parse::<SessionId>().ok())
            else {
                continue;
            };
            let stored = self.store.role_session(&session).await?;
            let is_over = match &stored {
                // The clean-up removes it when it is time.
                Some(known) if known.state != RoleState::Over => continue,
                Some(_) => true,
                None => false,
            };
            let (since, is_new) = self.roles.found_left(role, &policy, self.now());
            // What was removed while we looked is not there the next time.
            if is_over && is_new {
                continue;
            }
            if is_new || is_over {
                tracing::error!(role, policy, "found a deny that no session has");
                self.record(left(Action::CredentialOrphaned, target, role, &policy, &session)).await?;
            }
            let good_until = since.plus(target.maximum).plus(LIFT_AFTER);
            if is_over || good_until <= self.now() {
                self.lift_left(target, role, &policy, &session, since).await?;
            }
        }
        Ok(())
    }

    async fn lift_left(
        &self,
        target: &AwsTarget,
        role: &str,
        policy: &str,
        session: &SessionId,
        since: Timestamp,
    ) -> Result<(), Refusal> {
        match self.roles.aws.lift(&deny(target, role, policy)).await {
            Ok(()) => {
                self.roles.forget_left(role, policy);
                let event = left(Action::CredentialDestroyed, target, role, policy, session);
                self.record(event.with("why", format!("no session has it, found {since}"))).await
            }
            Err(error) => {
                tracing::error!(role, policy, %error, "a deny that no session has cannot be removed, will retry");
                Ok(())
            }
        }
    }
}

fn deny<'a>(target: &'a AwsTarget, role: &'a str, policy: &'a str) -> RoleDeny<'a> {
    RoleDeny {
        region: &target.region,
        endpoint: target.endpoint.as_deref(),
        iam_endpoint: target.iam_endpoint.as_deref(),
        put_as: target.deny_as.as_deref(),
        role,
        policy,
        identity: "",
    }
}

fn left(action: Action, target: &AwsTarget, role: &str, policy: &str, session: &SessionId) -> Event {
    let mut event = Event::new(action, Outcome::Done).on(&target.target);
    event.session = Some(session.clone());
    event.with("handle", policy).with("policy", policy).with("role", role).with("orphan", true)
}
