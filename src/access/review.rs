//! Deciding on a request: approve, deny, cancel.

use crate::crypto;
use crate::domain::decision::{Decision, Rule};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{RequestId, SessionId};
use crate::domain::principal::Principal;
use crate::domain::request::Request;
use crate::domain::session::{Consent, Session};
use crate::policy::{self, Facts, Query};

use super::refusal::Refusal;
use super::request::{activated, hash, missing, verdict};
use super::targets::TargetEntry;
use super::{Access, Caller, Rules};

/// What came of an approval.
#[derive(Debug, Clone)]
pub struct Reviewed {
    pub request: Request,
    /// There when this approval was the last that was missing.
    pub session: Option<Session>,
    /// What is still missing, by rule.
    pub missing: Vec<Rule>,
}

/// How often a step is taken anew because somebody else stepped in between.
const TRIES: u32 = 8;

impl Access {
    /// Adds the caller's approval; turns the request into a session when the policy is satisfied.
    /// Approving again changes nothing.
    pub async fn approve(&self, caller: &Caller, id: &RequestId, comment: &str) -> Result<Reviewed, Refusal> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_approve(caller, id, comment).await {
                // Two approvals at once: the later one counts on what the earlier one left.
                Err(Refusal::Conflict { .. }) if tries < TRIES => {}
                Err(refusal) => return Err(self.refused(caller, Action::RequestApproved, id, refusal).await),
                Ok(reviewed) => return Ok(reviewed),
            }
        }
    }

    async fn try_approve(&self, caller: &Caller, id: &RequestId, comment: &str) -> Result<Reviewed, Refusal> {
        // A right that cannot be recorded is not given.
        self.recordable()?;
        let rules = self.rules();
        let request = self.request_by_id(id).await?;
        let entry = rules.targets.find(&request.ask.target)?;
        may_review(&rules, policy::Action::Approve, caller, entry, &request)?;
        let now = self.now();
        let from_version = request.version;
        let approved = request.approve(&caller.principal, comment.to_owned(), now)?;
        let policy = rules.policy.as_ref();
        let requester = self.requester(&approved).await?;
        self.refuse_blocked(&requester, &entry.target).await?;
        let event = Event::done(Action::RequestApproved)
            .by(&caller.principal)
            .from(caller.client)
            .on(&entry.target)
            .about_request(&approved)
            .with("comment", comment)
            .with("ask", approved.ask_hash.0.as_str())
            .with("approver_domain", caller.principal.domain.as_str());
        let mut events = if approved.version == from_version { Vec::new() } else { vec![event] };
        // What counts is what would be given today: an approver who was disabled, or has lost the
        // right since, does not.
        let standing = self.standing(&rules, entry, &approved).await?;
        let consent =
            Consent::from_decision(verdict(policy, &requester, &entry.target, &standing), &approved);
        let reviewed = if let Ok(consent) = consent {
            let asked = hash(&approved.ask, &approved.requester.id);
            let (request, session) =
                approved.activate(SessionId::from_random(crypto::random()), &asked, &consent, now)?;
            events
                .push(activated(&session, &entry.target, &consent).by(&caller.principal).from(caller.client));
            Reviewed { request, session: Some(session), missing: Vec::new() }
        } else {
            let missing = missing(policy, &requester, &entry.target, &standing);
            Reviewed { request: approved, session: None, missing }
        };
        if reviewed.request.version != from_version {
            self.store
                .step_request(from_version, &reviewed.request, reviewed.session.as_ref(), now, &events)
                .await?;
            self.publish().await?;
        }
        Ok(reviewed)
    }

    /// The request with those approvals alone whose givers may still approve it.
    async fn standing(
        &self,
        rules: &Rules,
        entry: &TargetEntry,
        request: &Request,
    ) -> Result<Request, Refusal> {
        let mut standing = request.clone();
        standing.approvals.clear();
        for approval in &request.approvals {
            let account = self.store.user_by_id(&approval.by.id).await?;
            let Some(account) = account.filter(|account| !account.disabled) else { continue };
            let approver = Caller { principal: account.principal, client: None };
            if may_review(rules, policy::Action::Approve, &approver, entry, request).is_ok() {
                standing.approvals.push(approval.clone());
            }
        }
        Ok(standing)
    }

    pub async fn deny(&self, caller: &Caller, id: &RequestId, why: &str) -> Result<Request, Refusal> {
        let outcome = self
            .decide(caller, id, policy::Action::Deny, Action::RequestDenied, Some(why), |request, now| {
                request.deny(&caller.principal, why.to_owned(), now)
            })
            .await;
        match outcome {
            Ok(request) => Ok(request),
            Err(refusal) => Err(self.refused(caller, Action::RequestDenied, id, refusal).await),
        }
    }

    pub async fn cancel(&self, caller: &Caller, id: &RequestId) -> Result<Request, Refusal> {
        let outcome = self
            .decide(caller, id, policy::Action::Cancel, Action::RequestCancelled, None, |request, now| {
                request.cancel(&caller.principal, now)
            })
            .await;
        match outcome {
            Ok(request) => Ok(request),
            Err(refusal) => Err(self.refused(caller, Action::RequestCancelled, id, refusal).await),
        }
    }

    async fn decide(
        &self,
        caller: &Caller,
        id: &RequestId,
        right: policy::Action,
        action: Action,
        why: Option<&str>,
        step: impl FnOnce(
            Request,
            crate::domain::time::Timestamp,
        ) -> Result<Request, crate::domain::request::RefusedStep>,
    ) -> Result<Request, Refusal> {
        let rules = self.rules();
        let request = self.request_by_id(id).await?;
        let entry = rules.targets.find(&request.ask.target)?;
        may_review(&rules, right, caller, entry, &request)?;
        let now = self.now();
        let from_version = request.version;
        let decided = step(request, now)?;
        let event = Event::done(action)
            .by(&caller.principal)
            .from(caller.client)
            .on(&entry.target)
            .about_request(&decided)
            .with("why", why);
        self.store.step_request(from_version, &decided, None, now, &[event]).await?;
        self.publish().await?;
        Ok(decided)
    }

    pub(super) async fn request_by_id(&self, id: &RequestId) -> Result<Request, Refusal> {
        self.store.request(id).await?.ok_or_else(|| Refusal::NotFound { what: format!("request `{id}`") })
    }

    /// The requester as they are now: groups may have changed since they asked.
    async fn requester(&self, request: &Request) -> Result<Principal, Refusal> {
        match self.store.user_by_id(&request.requester.id).await? {
            Some(account) if !account.disabled => Ok(account.principal),
            _ => Err(Refusal::Deny(crate::domain::deny::Deny::PrincipalGone)),
        }
    }

    /// Records that a review was refused; gives the refusal back, or that it cannot be recorded.
    async fn refused(&self, caller: &Caller, action: Action, id: &RequestId, refusal: Refusal) -> Refusal {
        let event = Event::new(action, Outcome::Refused)
            .by(&caller.principal)
            .from(caller.client)
            .with("request", id.as_str())
            .with("refusal", refusal.to_string())
            .with("code", refusal.code());
        match self.record(event).await {
            Ok(()) => refusal,
            Err(unrecorded) => unrecorded,
        }
    }
}

fn may_review(
    rules: &Rules,
    right: policy::Action,
    caller: &Caller,
    entry: &TargetEntry,
    request: &Request,
) -> Result<(), Refusal> {
    let own = caller.principal.id == request.requester.id;
    let facts = Facts { own, break_glass: request.ask.break_glass, ..Facts::default() };
    let query =
        Query::new(right, &caller.principal).on(&entry.target).access(&request.ask.access).facts(facts);
    match rules.policy.decide(&query) {
        Decision::Allow { .. } => Ok(()),
        Decision::Refuse { rules } => Err(Refusal::Policy { rules }),
    }
}
