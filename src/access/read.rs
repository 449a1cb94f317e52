//! Lists: one's own always, those of others with the right to watch. Every read is recorded.

use crate::domain::block::Block;
use crate::domain::connection::Connection;
use crate::domain::decision::{Decision, Rule};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{ConnectionId, PrincipalId};
use crate::domain::name::{AccessName, TargetName};
use crate::domain::principal::Principal;
use crate::domain::request::{Request, RequestState};
use crate::domain::session::{Session, SessionStatus};
use crate::domain::target::Target;
use crate::policy::{self, Facts, Query};
use crate::store::Filter;

use super::refusal::Refusal;
use super::request::missing;
use super::{Access, Caller, Rules};

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page {
    /// Only what is pending, active or open.
    pub open_only: bool,
    /// Only the caller's own.
    pub mine: bool,
    /// At most so many.
    pub limit: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct RequestView {
    pub request: Request,
    /// As of now.
    pub state: RequestState,
    /// What a pending request still wants.
    pub missing: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub struct SessionView {
    pub session: Session,
    pub status: SessionStatus,
}

/// A target with what the caller could ask for there.
#[derive(Debug, Clone)]
pub struct TargetView {
    pub target: Target,
    pub databases: Vec<String>,
    pub may_request: Vec<AccessName>,
}

impl Access {
    /// Requests: the caller's own, those that the caller may approve, and with the right to watch all.
    pub async fn requests(&self, caller: &Caller, page: Page) -> Result<Vec<RequestView>, Refusal> {
        let rules = self.rules();
        let found = self.store.requests(&filter(caller, page)).await?;
        let watches = watches(&rules, caller);
        let now = self.now();
        let mut views = Vec::new();
        for request in found {
            let own = request.requester.id == caller.principal.id;
            if !(own || watches || may_approve(&rules, caller, &request)) {
                continue;
            }
            let state = request.state_at(now);
            if page.open_only && state != RequestState::Pending {
                continue;
            }
            let missing = match state {
                RequestState::Pending => self.missing_for(&rules, &request).await?,
                _ => Vec::new(),
            };
            views.push(RequestView { request, state, missing });
        }
        self.read(caller, "requests", views.len()).await?;
        Ok(views)
    }

    /// One request, if the caller may see it.
    pub async fn request_view(
        &self,
        caller: &Caller,
        id: &crate::domain::id::RequestId,
    ) -> Result<RequestView, Refusal> {
        let rules = self.rules();
        let request = self.request_by_id(id).await?;
        let visible = request.requester.id == caller.principal.id
            || watches(&rules, caller)
            || may_approve(&rules, caller, &request);
        if !visible {
            self.read(caller, "request", 0).await?;
            return Err(Refusal::NotFound { what: format!("request `{id}`") });
        }
        let state = request.state_at(self.now());
        let missing = match state {
            RequestState::Pending => self.missing_for(&rules, &request).await?,
            _ => Vec::new(),
        };
        self.read(caller, "request", 1).await?;
        Ok(RequestView { request, state, missing })
    }

    pub async fn sessions(&self, caller: &Caller, page: Page) -> Result<Vec<SessionView>, Refusal> {
        let rules = self.rules();
        let watches = watches(&rules, caller);
        let now = self.now();
        let views: Vec<SessionView> = self
            .store
            .sessions(&filter(caller, page))
            .await?
            .into_iter()
            .filter(|session| watches || session.principal.id == caller.principal.id)
            .map(|session| SessionView { status: session.status(now), session })
            .filter(|view| !page.open_only || view.status == SessionStatus::Active)
            .collect();
        self.read(caller, "sessions", views.len()).await?;
        Ok(views)
    }

    pub async fn connections(&self, caller: &Caller, page: Page) -> Result<Vec<Connection>, Refusal> {
        let rules = self.rules();
        let watches = watches(&rules, caller);
        let found: Vec<Connection> = self
            .store
            .connections(&filter(caller, page))
            .await?
            .into_iter()
            .filter(|connection| watches || connection.principal.id == caller.principal.id)
            .collect();
        self.read(caller, "connections", found.len()).await?;
        Ok(found)
    }

    pub async fn blocks(&self, caller: &Caller, page: Page) -> Result<Vec<Block>, Refusal> {
        let rules = self.rules();
        let watches = watches(&rules, caller);
        let now = self.now();
        let found: Vec<Block> = self
            .store
            .blocks(&filter(caller, page))
            .await?
            .into_iter()
            .filter(|block| watches || block.principal.id == caller.principal.id)
            .filter(|block| !page.open_only || block.in_force(now))
            .collect();
        self.read(caller, "blocks", found.len()).await?;
        Ok(found)
    }

    pub async fn targets(&self, caller: &Caller) -> Result<Vec<TargetView>, Refusal> {
        let rules = self.rules();
        let views: Vec<TargetView> = rules
            .targets
            .all()
            .map(|entry| TargetView {
                target: entry.target.clone(),
                databases: entry.route.postgres().map(|at| at.databases.clone()).unwrap_or_default(),
                may_request: requestable(&rules, &caller.principal, &entry.target),
            })
            .collect();
        self.read(caller, "targets", views.len()).await?;
        Ok(views)
    }

    /// Whether the caller may read the recording; recorded either way. Gives the connection.
    pub async fn may_replay(&self, caller: &Caller, id: &ConnectionId) -> Result<Connection, Refusal> {
        let connection = self.store.connection(id).await?;
        let refusal = match self.replays(&caller.principal, connection.as_ref()) {
            Decision::Refuse { rules } => Some(Refusal::Policy { rules }),
            Decision::Allow { .. } if connection.is_none() => {
                Some(Refusal::NotFound { what: format!("connection `{id}`") })
            }
            Decision::Allow { .. } => None,
        };
        let outcome = if refusal.is_some() { Outcome::Refused } else { Outcome::Done };
        let mut event =
            Event::new(Action::RecordingReplayed, outcome).by(&caller.principal).from(caller.client);
        event.connection = Some(id.clone());
        self.record(event).await?;
        match (refusal, connection) {
            (None, Some(connection)) => Ok(connection),
            (Some(refusal), _) => Err(refusal),
            (None, None) => Err(Refusal::NotFound { what: format!("connection `{id}`") }),
        }
    }

    fn replays(&self, principal: &Principal, connection: Option<&Connection>) -> Decision {
        let of = connection.map(|connection| (&connection.principal.id, &connection.target));
        may_replay(&self.rules(), principal, of)
    }

    /// Whether who watches a recording that grows still may: their token and account hold, and the policy lets
    /// them. A store that does not answer confirms nothing.
    pub async fn may_watch_on(&self, bearer: &str, connection: &Connection) -> bool {
        let Ok(who) = self.authenticate(bearer, None).await else { return false };
        matches!(self.replays(&who.caller.principal, Some(connection)), Decision::Allow { .. })
    }

    /// Whether the caller may do what concerns no target, recorded when refused.
    pub async fn require(&self, caller: &Caller, action: policy::Action, what: &str) -> Result<(), Refusal> {
        match self.may(caller, action) {
            Ok(()) => self.read(caller, what, 1).await,
            Err(refusal) => {
                let event = Event::new(Action::Read, Outcome::Refused)
                    .by(&caller.principal)
                    .from(caller.client)
                    .with("what", what)
                    .with("refusal", refusal.to_string());
                self.record(event).await?;
                Err(refusal)
            }
        }
    }

    async fn missing_for(&self, rules: &Rules, request: &Request) -> Result<Vec<Rule>, Refusal> {
        let Ok(entry) = rules.targets.find(&request.ask.target) else { return Ok(Vec::new()) };
        let Some(account) = self.store.user_by_id(&request.requester.id).await? else {
            return Ok(Vec::new());
        };
        Ok(missing(rules.policy.as_ref(), &account.principal, &entry.target, request))
    }

    pub(super) async fn read(&self, caller: &Caller, what: &str, count: usize) -> Result<(), Refusal> {
        let event = Event::done(Action::Read)
            .by(&caller.principal)
            .from(caller.client)
            .with("what", what)
            .with("count", count);
        self.record(event).await
    }
}

/// Whether somebody may read a recording, of whose doings on which target it is.
pub(super) fn may_replay(
    rules: &Rules,
    principal: &Principal,
    of: Option<(&PrincipalId, &TargetName)>,
) -> Decision {
    let facts = Facts { own: of.is_some_and(|(owner, _)| *owner == principal.id), ..Facts::default() };
    let mut query = Query::new(policy::Action::Replay, principal).facts(facts);
    let entry = of.and_then(|(_, target)| rules.targets.find(target).ok());
    if let Some(entry) = entry {
        query = query.on(&entry.target);
    }
    rules.policy.decide(&query)
}

fn watches(rules: &Rules, caller: &Caller) -> bool {
    rules.policy.allows(&Query::new(policy::Action::Watch, &caller.principal))
}

fn filter(caller: &Caller, page: Page) -> Filter {
    Filter {
        principal: page.mine.then(|| caller.principal.id.clone()),
        session: None,
        open_only: page.open_only,
        limit: page.limit,
    }
}

fn may_approve(rules: &Rules, caller: &Caller, request: &Request) -> bool {
    let Ok(entry) = rules.targets.find(&request.ask.target) else { return false };
    let facts = Facts { break_glass: request.ask.break_glass, ..Facts::default() };
    let query = Query::new(policy::Action::Approve, &caller.principal)
        .on(&entry.target)
        .access(&request.ask.access)
        .facts(facts);
    rules.policy.allows(&query)
}

fn requestable(rules: &Rules, principal: &Principal, target: &Target) -> Vec<AccessName> {
    let may = |access: &&AccessName| {
        let facts = Facts { own: true, duration_seconds: 60, ..Facts::default() };
        let query = Query::new(policy::Action::Request, principal).on(target).access(access).facts(facts);
        rules.policy.allows(&query)
    };
    target.accesses.iter().filter(may).cloned().collect()
}
