//! From a principal and the target that they named to a permit, or to a refusal that says what to
//! do. Asked once before a connection begins, again once it is registered, and again whenever
//! something changes while it is up.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use crate::audit::ControlEntry;
use crate::domain::deny::{Deny, EndReason};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{PrincipalId, SessionId};
use crate::domain::name::{AccessName, TargetName};
use crate::domain::principal::Principal;
use crate::domain::session::{Permit, Session, SessionStatus};
use crate::policy::{self, Facts, Query};
use crate::store::{Filter, StoreError};

use super::Access;
use super::refusal::deny_from_store;

/// What a client asked to be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub target: TargetName,
    /// Named only where several sessions fit.
    pub access: Option<AccessName>,
}

/// A client that was not let in, for the record.
#[derive(Debug, Clone, Copy)]
pub struct RefusedConnection<'a> {
    /// `None` while it is not proved who it is.
    pub principal: Option<&'a Principal>,
    pub client: SocketAddr,
    pub wanted: Option<&'a Wanted>,
    /// Who the client says it is.
    pub claimed: &'a str,
    /// A stable word for why.
    pub code: &'a str,
    pub why: &'a str,
}

impl Access {
    /// Finds the caller's session for what they want and has it permit a connection.
    pub async fn admit(&self, principal: &Principal, wanted: &Wanted) -> Result<Permit, Deny> {
        // Reads may still be answered when nothing can be confirmed any more.
        if !self.confirmed.load(Ordering::Acquire) {
            let detail = "the latest look at the store failed".to_owned();
            return Err(Deny::StoreUnavailable { detail });
        }
        let rules = self.rules();
        let target = &rules.targets.find(&wanted.target)?.target;
        let filter = Filter { principal: Some(principal.id.clone()), ..Filter::default() };
        let sessions = self.store.sessions(&filter).await.map_err(|error| deny_from_store(&error))?;
        let now = self.now();
        let mut fitting: Vec<Session> = sessions
            .into_iter()
            .filter(|session| session.target == wanted.target)
            .filter(|session| wanted.access.as_ref().is_none_or(|access| *access == session.access))
            .collect();
        // The one to use is the active one that lasts longest; failing that, the one that most
        // recently stopped being one explains the refusal best.
        fitting.sort_by_key(|session| {
            let over = session.revoked.as_ref().map_or(session.ends_at, |revocation| revocation.at);
            (session.status(now) == SessionStatus::Active, over)
        });
        let Some(best) = fitting.last() else {
            return Err(Deny::NoSession {
                target: target.name.clone(),
                accesses: target.accesses.iter().cloned().collect(),
            });
        };
        let mut active: Vec<&AccessName> = fitting
            .iter()
            .filter(|session| session.status(now) == SessionStatus::Active)
            .map(|session| &session.access)
            .collect();
        active.sort_unstable();
        active.dedup();
        if active.len() > 1 {
            let accesses = active.into_iter().cloned().collect();
            return Err(Deny::Ambiguous { target: target.name.clone(), accesses });
        }
        self.permit(&principal.id, best).await
    }

    /// Asks everything anew: the account, the session, the blocklist, the policy, the clock.
    pub async fn recheck(&self, permit: &Permit) -> Result<Permit, Deny> {
        self.recheck_session(&permit.principal().id, &permit.session().id).await
    }

    pub(super) async fn recheck_session(
        &self,
        principal: &PrincipalId,
        session: &SessionId,
    ) -> Result<Permit, Deny> {
        let stored = self.store.session(session).await.map_err(|error| deny_from_store(&error))?;
        let Some(session) = stored else {
            return Err(Deny::SessionGone { session: session.clone() });
        };
        self.permit(principal, &session).await
    }

    async fn permit(&self, principal: &PrincipalId, session: &Session) -> Result<Permit, Deny> {
        let account = self.store.user_by_id(principal).await.map_err(|error| deny_from_store(&error))?;
        let Some(account) = account.filter(|account| !account.disabled) else {
            return Err(Deny::PrincipalGone);
        };
        let filter = Filter { principal: Some(principal.clone()), open_only: true, ..Filter::default() };
        let blocks = self.store.blocks(&filter).await.map_err(|error| deny_from_store(&error))?;
        let rules = self.rules();
        let target = &rules.targets.find(&session.target)?.target;
        let facts = Facts { own: true, break_glass: session.break_glass, ..Facts::default() };
        let query = Query::new(policy::Action::Connect, &account.principal)
            .on(target)
            .access(&session.access)
            .facts(facts);
        let decision = rules.policy.decide(&query);
        session.permit(&account.principal, target, &decision, &blocks, self.now())
    }

    /// Checks everything that is live on this node and ends what is no longer permitted. Fails when
    /// the store does not answer; what was confirmed by then stays.
    pub async fn recheck_live(&self) -> Result<(), StoreError> {
        let mut sessions: Vec<(PrincipalId, SessionId)> =
            self.hub.live().into_iter().map(|live| (live.principal, live.session)).collect();
        sessions.sort_unstable();
        sessions.dedup();
        for (principal, session) in sessions {
            match self.recheck_session(&principal, &session).await {
                Ok(permit) => {
                    // All of them: the role that they share keeps the right until it is opened anew.
                    if self.hub.has_replicated(&session)
                        && let Err(deny) = self.may_replicate(&permit)
                    {
                        self.hub.tell(|live| live.session == session, &end_reason(&deny));
                    }
                    self.hub.renew(permit);
                }
                Err(Deny::StoreUnavailable { detail }) => return Err(StoreError::Unavailable { detail }),
                Err(deny) => {
                    tracing::info!(%session, reason = %deny, "connections are no longer permitted");
                    // Told, not waited for: one that does not end must not keep the others.
                    self.hub.tell(|live| live.session == session, &end_reason(&deny));
                }
            }
        }
        Ok(())
    }

    /// Records that a client was not let in. When the store cannot take the event, the journal
    /// gets it directly.
    pub async fn record_refused_connection(&self, refused: RefusedConnection<'_>) {
        let RefusedConnection { principal, client, wanted, claimed, code, why } = refused;
        let mut event = Event::new(Action::ConnectionRefused, Outcome::Refused)
            .from(Some(client))
            .with("claimed", claimed.chars().take(200).collect::<String>())
            .with("code", code)
            .with("why", why);
        if let Some(principal) = principal {
            event = event.by(principal);
        }
        if let Some(wanted) = wanted {
            event.target = Some(wanted.target.clone());
            event.access.clone_from(&wanted.access);
            if let Ok(entry) = self.rules().targets.find(&wanted.target) {
                event = event.on(&entry.target);
            }
        }
        metrics::counter!("sallyport_connections_refused_total", "code" => code.to_owned()).increment(1);
        self.record_even_so(event).await;
    }

    /// Records what has happened and cannot be kept from happening. When the store cannot take the event, the journal
    /// gets it directly.
    pub(super) async fn record_even_so(&self, event: Event) {
        if self.record(event.clone()).await.is_err() {
            let entry = ControlEntry { outbox: None, at: self.now(), event };
            if let Err(error) = self.journal.control(&[entry]).await {
                tracing::error!(%error, "what happened could not be recorded");
            }
        }
    }
}

/// How a refusal reads for a connection that is already up.
pub fn end_reason(deny: &Deny) -> EndReason {
    match deny {
        Deny::Revoked { by, why, .. } => EndReason::Revoked { by: by.clone(), why: why.clone() },
        Deny::Expired { .. } => EndReason::Expired,
        Deny::Blocked { by, why, .. } => EndReason::Blocked { by: by.clone(), why: why.clone() },
        Deny::StoreUnavailable { .. } => EndReason::Unconfirmed,
        Deny::Unrecordable { detail } => EndReason::Unrecordable { detail: detail.clone() },
        Deny::ShuttingDown => EndReason::Shutdown,
        other => EndReason::NoLongerPermitted { why: other.to_string() },
    }
}
