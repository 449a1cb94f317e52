//! Looks for denies of ours that were left on roles at AWS: the store was restored from a copy that does not know them, or
//! the answer to their removal was lost. One that the store knows nothing of stays for as long as any credential that it
//! denies may be good; what is found is recorded, and so is its removal.

use std::time::Duration;

use super::Access;
use super::refusal::Refusal;
use super::role_end::LIFT_AFTER;
use crate::config::{AwsTarget, LONGEST_CREDENTIAL};
use crate::credentials::aws_role::Deny as RoleDeny;
use crate::domain::event::Action;
use crate::domain::id::SessionId;
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::domain::role_session::RoleState;
use crate::domain::time::Timestamp;
use crate::failpoint;

/// So long after a change IAM may still tell what was before it.
const TOLD_WITHIN: Duration = Duration::from_mins(5);

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
        // Read before AWS is asked: what is not there any more is gone.
        let kept = self.leftovers(|kept| kept.kind == LeftoverKind::Deny && kept.place == role).await?;
        let policies = match self.policies_left(target, role).await {
            Ok(policies) => policies,
            Err(error) => {
                for kept in kept.iter().filter(|kept| good_until(kept) <= self.now()) {
                    self.leftover_stays(kept, error.clone()).await?;
                }
                return Ok(());
            }
        };
        for gone in kept.iter().filter(|kept| !policies.contains(&kept.handle)) {
            if gone.found_at.plus(TOLD_WITHIN) <= self.now() {
                self.deny_is_gone(gone, "it is not there any more").await?;
            }
        }
        for policy in policies {
            let Some(session) = self.session_of(&policy) else { continue };
            let slot = self.roles.slots.of(&session);
            let held = slot.lock().await;
            let done = self.reconcile_deny(target, role, &policy, &session, &kept).await;
            drop(held);
            if matches!(done, Ok(RoleState::Over)) {
                self.roles.slots.forget(&session, slot);
            }
            done?;
        }
        Ok(())
    }

    /// Our policies on the role, whatever they are for.
    async fn policies_left(&self, target: &AwsTarget, role: &str) -> Result<Vec<String>, String> {
        let prefix = format!("{}-", self.roles.policy_prefix);
        self.roles.aws.policies(&deny(target, role, ""), &prefix).await.map_err(|error| {
            tracing::warn!(target = %target.target.name, %error, "cannot look for denies left on a role");
            metrics::counter!("sallyport_janitor_failures_total").increment(1);
            error.to_string()
        })
    }

    /// The session that a policy of ours is named after.
    fn session_of(&self, policy: &str) -> Option<SessionId> {
        policy.strip_prefix(&self.roles.policy_prefix)?.strip_prefix('-')?.parse().ok()
    }

    /// Under the session's slot. Gives how far the session's own end is.
    async fn reconcile_deny(
        &self,
        target: &AwsTarget,
        role: &str,
        policy: &str,
        session: &SessionId,
        kept: &[Leftover],
    ) -> Result<RoleState, Refusal> {
        let stored = self.store.role_session(session).await?;
        let is_over = match &stored {
            // The clean-up removes it when it is time.
            Some(known) if known.state != RoleState::Over => return Ok(known.state),
            // It may have, and IAM not have said so everywhere yet.
            Some(known) if known.changed_at.plus(TOLD_WITHIN) > self.now() => return Ok(RoleState::Over),
            Some(_) => true,
            None => false,
        };
        let known = kept.iter().find(|kept| kept.handle == policy);
        let leftover = if let Some(kept) = known {
            kept.clone()
        } else {
            tracing::error!(role, policy, "found a deny that no session has");
            let leftover = Leftover {
                kind: LeftoverKind::Deny,
                place: role.to_owned(),
                handle: policy.to_owned(),
                session: session.clone(),
                target: target.target.name.clone(),
                found_at: self.now(),
                last_error: None,
            };
            let event = self.leftover_event(Action::CredentialOrphaned, &leftover).await?;
            self.keep_leftover(&leftover, Some(event)).await?;
            failpoint::reached("deny_kept");
            leftover
        };
        if is_over || good_until(&leftover) <= self.now() {
            self.lift_left(target, &leftover).await?;
        }
        Ok(RoleState::Over)
    }

    async fn lift_left(&self, target: &AwsTarget, leftover: &Leftover) -> Result<(), Refusal> {
        let (role, policy) = (leftover.place.as_str(), leftover.handle.as_str());
        match self.roles.aws.lift(&deny(target, role, policy)).await {
            Ok(()) => {
                failpoint::reached("deny_lifted");
                let why = format!("no session has it, found {}", leftover.found_at);
                self.deny_is_gone(leftover, &why).await
            }
            Err(error) => self.leftover_stays(leftover, error.to_string()).await,
        }
    }

    async fn deny_is_gone(&self, leftover: &Leftover, why: &str) -> Result<(), Refusal> {
        let event = self.leftover_event(Action::CredentialDestroyed, leftover).await?;
        self.end_leftover(leftover, Some(event.with("why", why))).await
    }
}

/// Until when what a deny denies may be good. Nobody knows any more by which target it was handed out, and what that said
/// of it then: the longest there is.
fn good_until(kept: &Leftover) -> Timestamp {
    kept.found_at.plus(LONGEST_CREDENTIAL).plus(LIFT_AFTER)
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
