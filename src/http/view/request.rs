//! Requests, as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PersonView, SessionView};
use crate::access::read;
use crate::domain::approval::Approval;
use crate::domain::decision::Rule;
use crate::domain::id::{RequestId, SessionId};
use crate::domain::name::{AccessName, DomainName, TargetName};
use crate::domain::request::{Request, RequestState};
use crate::domain::session::Session;
use crate::domain::time::Timestamp;
use crate::http::error::RuleView;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    pub by: PersonView,
    #[schema(value_type = String)]
    pub domain: DomainName,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub comment: String,
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        Self { by: approval.by.into(), domain: approval.domain, at: approval.at, comment: approval.comment }
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pending,
    Approved,
    Denied,
    Cancelled,
    Lapsed,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "lapsed",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    #[schema(value_type = String)]
    pub id: RequestId,
    pub requester: PersonView,
    #[schema(value_type = String)]
    pub requester_domain: DomainName,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub access: AccessName,
    pub duration_seconds: u64,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub break_glass: bool,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When a request that nobody decided on lapses.
    #[schema(value_type = String, format = DateTime)]
    pub lapses_at: Timestamp,
    pub state: State,
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Who denied or withdrew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<PersonView>,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The session that came of it.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub approvals: Vec<ApprovalView>,
    /// What a pending request still wants.
    pub missing: Vec<RuleView>,
}

impl From<read::RequestView> for RequestView {
    fn from(view: read::RequestView) -> Self {
        Self::new(view.request, view.state, &view.missing)
    }
}

impl RequestView {
    fn new(request: Request, state: RequestState, missing: &[Rule]) -> Self {
        let (mut decided_at, mut decided_by, mut why_denied, mut session_id) = (None, None, None, None);
        let state = match state {
            RequestState::Pending => State::Pending,
            RequestState::Approved { at, session } => {
                (decided_at, session_id) = (Some(at), Some(session));
                State::Approved
            }
            RequestState::Denied { at, by, why } => {
                (decided_at, decided_by, why_denied) = (Some(at), Some(by.into()), Some(why));
                State::Denied
            }
            RequestState::Cancelled { at, by } => {
                (decided_at, decided_by) = (Some(at), Some(by.into()));
                State::Cancelled
            }
            RequestState::Lapsed { at } => {
                decided_at = Some(at);
                State::Lapsed
            }
        };
        Self {
            id: request.id,
            requester: request.requester.into(),
            requester_domain: request.requester_domain,
            target: request.ask.target,
            access: request.ask.access,
            duration_seconds: request.ask.duration.as_secs(),
            reason: request.ask.reason,
            ticket: request.ask.ticket,
            break_glass: request.ask.break_glass,
            created_at: request.created_at,
            lapses_at: request.lapses_at,
            state,
            decided_at,
            decided_by,
            why: why_denied,
            session: session_id,
            approvals: request.approvals.into_iter().map(ApprovalView::from).collect(),
            missing: missing.iter().map(RuleView::from).collect(),
        }
    }
}

/// A request and, once it is granted, its session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskedView {
    pub request: RequestView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
}

impl AskedView {
    pub(in crate::http) fn new(
        request: Request,
        session: Option<Session>,
        missing: &[Rule],
        now: Timestamp,
    ) -> Self {
        let state = request.state_at(now);
        Self {
            request: RequestView::new(request, state, missing),
            session: session.map(|session| {
                let status = session.status(now);
                SessionView::new(session, status)
            }),
        }
    }
}
