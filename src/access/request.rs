//! Asking for an access: checked against the policy at once, so that what nobody could grant is
//! refused now and not after an hour of waiting.

use crate::crypto;
use crate::domain::approval::Quorum;
use crate::domain::decision::{Decision, Rule};
use crate::domain::deny::Deny;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{PrincipalId, RequestId, SessionId};
use crate::domain::name::TargetName;
use crate::domain::principal::Principal;
use crate::domain::request::{Ask, AskHash, Request};
use crate::domain::session::{Consent, Session};
use crate::domain::target::Target;
use crate::policy::{self, Facts, Policy, Query};
use crate::store::Filter;

use super::refusal::Refusal;
use super::{Access, Caller};

/// What came of an ask.
#[derive(Debug, Clone)]
pub struct Asked {
    pub request: Request,
    /// There at once where no approval is needed.
    pub session: Option<Session>,
    /// What is still missing, by rule.
    pub missing: Vec<Rule>,
}

pub(super) fn hash(ask: &Ask, requester: &PrincipalId) -> AskHash {
    AskHash(crypto::hex(&crypto::sha256(&[ask.canonical(requester).as_bytes()])))
}

pub(super) fn facts(ask: &Ask, quorum: Quorum) -> Facts {
    Facts { own: true, break_glass: ask.break_glass, duration_seconds: ask.duration.as_secs(), quorum }
}

/// The policy's verdict on turning `request` into a session as things stand.
pub(super) fn verdict(
    policy: &dyn Policy,
    requester: &Principal,
    target: &Target,
    request: &Request,
) -> Decision {
    let query = Query::new(policy::Action::Activate, requester)
        .on(target)
        .access(&request.ask.access)
        .facts(facts(&request.ask, request.quorum(&target.domain)));
    policy.decide(&query)
}

impl Access {
    pub async fn ask(&self, caller: &Caller, ask: Ask) -> Result<Asked, Refusal> {
        match self.try_ask(caller, &ask).await {
            Ok(asked) => Ok(asked),
            Err(refusal) => {
                let event = Event::new(Action::RequestCreated, Outcome::Refused)
                    .by(&caller.principal)
                    .from(caller.client)
                    .with("target", ask.target.as_str())
                    .with("access", ask.access.as_str())
                    .with("duration_seconds", ask.duration.as_secs())
                    .with("reason", ask.reason.as_str())
                    .with("refusal", refusal.to_string())
                    .with("code", refusal.code());
                self.record(event).await?;
                Err(refusal)
            }
        }
    }

    async fn try_ask(&self, caller: &Caller, ask: &Ask) -> Result<Asked, Refusal> {
        // A right that cannot be recorded is not given.
        self.recordable()?;
        let rules = self.rules();
        let entry = rules.targets.find(&ask.target)?;
        let (target, requester, policy) = (&entry.target, &caller.principal, rules.policy.as_ref());
        ask.check(target)?;
        let now = self.now();
        self.refuse_blocked(requester, target).await?;
        let query = Query::new(policy::Action::Request, requester)
            .on(target)
            .access(&ask.access)
            .facts(facts(ask, Quorum::default()));
        if let Decision::Refuse { rules } = policy.decide(&query) {
            return Err(Refusal::Policy { rules });
        }
        let request = Request::new(
            RequestId::from_random(crypto::random()),
            requester,
            ask.clone(),
            hash(ask, &requester.id),
            now,
        );
        let created = Event::done(Action::RequestCreated)
            .by(requester)
            .from(caller.client)
            .on(target)
            .about_request(&request)
            .with("duration_seconds", ask.duration.as_secs())
            .with("reason", ask.reason.as_str())
            .with("ticket", ask.ticket.clone())
            .with("ask", request.ask_hash.0.as_str())
            .with("policy", policy.hash());
        let verdict = verdict(policy, requester, target, &request);
        if let Ok(consent) = Consent::from_decision(verdict, &request) {
            return self.grant_at_once(caller, target, request, &consent, created).await;
        }
        let candidates = self.possible_approvers(requester).await?;
        let facts = facts(ask, Quorum::default());
        policy::feasible(policy, requester, target, &ask.access, facts, &candidates)
            .map_err(|rules| Refusal::Infeasible { rules })?;
        let missing = missing(policy, requester, target, &request);
        self.store.create_request(&request, now, &[created]).await?;
        self.publish().await?;
        tracing::info!(request = %request.id, principal = %requester.name, target = %target.name, "request created");
        Ok(Asked { request, session: None, missing })
    }

    async fn grant_at_once(
        &self,
        caller: &Caller,
        target: &Target,
        request: Request,
        consent: &Consent,
        created: Event,
    ) -> Result<Asked, Refusal> {
        let now = self.now();
        let asked = hash(&request.ask, &caller.principal.id);
        let (request, session) =
            request.activate(SessionId::from_random(crypto::random()), &asked, consent, now)?;
        let activated = activated(&session, target, consent).by(&caller.principal).from(caller.client);
        self.store.create_granted(&request, &session, now, &[created, activated]).await?;
        self.publish().await?;
        if session.break_glass {
            metrics::counter!("sallyport_break_glass_total").increment(1);
            tracing::warn!(session = %session.id, principal = %caller.principal.name, target = %target.name, reason = %session.reason, "break-glass session opened");
        }
        Ok(Asked { request, session: Some(session), missing: Vec::new() })
    }

    /// Everybody but the requester whose account is in use; whether each may approve is the policy's to say.
    async fn possible_approvers(&self, requester: &Principal) -> Result<Vec<Principal>, Refusal> {
        let users = self.store.users().await?;
        Ok(users
            .into_iter()
            .filter(|user| !user.disabled && user.principal.id != requester.id)
            .map(|user| user.principal)
            .collect())
    }

    /// Refuses whoever is blocked for `target`.
    /// Whether they may wait for what they asked for.
    pub async fn refuse_blocked_from(
        &self,
        principal: &Principal,
        target: &TargetName,
    ) -> Result<(), Refusal> {
        let rules = self.rules();
        self.refuse_blocked(principal, &rules.targets.find(target)?.target).await
    }

    pub(super) async fn refuse_blocked(&self, principal: &Principal, target: &Target) -> Result<(), Refusal> {
        let now = self.now();
        let filter = Filter { principal: Some(principal.id.clone()), open_only: true, ..Filter::default() };
        let blocks = self.store.blocks(&filter).await?;
        match blocks.iter().find(|block| block.covers(&principal.id, &target.name, now)) {
            Some(block) => Err(Refusal::Deny(Deny::Blocked {
                why: block.why.clone(),
                until: block.until,
                by: block.by.name.clone(),
            })),
            None => Ok(()),
        }
    }
}

/// What the rules still want before `request` can become a session.
pub(super) fn missing(
    policy: &dyn Policy,
    requester: &Principal,
    target: &Target,
    request: &Request,
) -> Vec<Rule> {
    let query = Query::new(policy::Action::Activate, requester)
        .on(target)
        .access(&request.ask.access)
        .facts(facts(&request.ask, request.quorum(&target.domain)));
    policy::missing(policy, &query).map(|missing| missing.rules).unwrap_or_default()
}

/// The event of a session's grant.
pub(super) fn activated(session: &Session, target: &Target, consent: &Consent) -> Event {
    let approved_by: Vec<String> =
        session.approvals.iter().map(|approval| approval.by.name.to_string()).collect();
    Event::done(Action::SessionActivated)
        .on(target)
        .about_session(session)
        .with("holder", session.principal.name.as_str())
        .with("granted_at", session.granted_at.to_string())
        .with("ends_at", session.ends_at.to_string())
        .with("approved_by", approved_by)
        .with("policies", consent.policies().to_vec())
}
