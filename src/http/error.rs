//! Errors as the API tells them: `application/problem+json` (RFC 9457), with a stable `code`, the
//! rules that refused, and what to do next.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::refusal::Refusal;
use crate::domain::deny::Deny;
use crate::domain::request::RefusedStep;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// One rule that refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// The policy's id, for example `FR-283`.
    pub id: String,
    /// What is missing.
    pub needs: String,
}

impl From<&crate::domain::decision::Rule> for RuleView {
    fn from(rule: &crate::domain::decision::Rule) -> Self {
        Self { id: rule.id.clone(), needs: rule.needs.clone() }
    }
}

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URN that ends in `code`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    pub status: u16,
    /// A stable word, for programs.
    pub code: String,
    /// What happened, for people.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The rules that refused, if it was rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleView>,
    /// Names this call in the server's log.
    #[serde(default)]
    pub request_id: String,
    /// Seconds to wait before trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:sallyport:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            hint: None,
            rules: Vec::new(),
            request_id: String::new(),
            retry_after: None,
        }
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).hint("log in: `sallyport login`")
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What an error status without a body of ours means.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail): (&str, Cow<'static, str>) = match status {
            StatusCode::REQUEST_TIMEOUT => {
                ("timeout", "the server took too long; what was begun is finished all the same".into())
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the request body is too large".into()),
            StatusCode::INTERNAL_SERVER_ERROR => {
                ("internal", "internal error: the server's log says more under this request id".into())
            }
            other => ("refused", other.canonical_reason().unwrap_or("refused").to_lowercase().into()),
        };
        Self::new(status, code, detail)
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer itself; `frame` writes the body once it has put in the request's id.
    pub(super) fn render(self) -> Response {
        let retry_after = self.retry_after;
        let unauthenticated = self.status == StatusCode::UNAUTHORIZED.as_u16();
        let mut response = (self.status(), Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::new(status_of(&refusal), refusal.code(), refusal.to_string());
        problem.rules = refusal.rules().iter().map(RuleView::from).collect();
        problem.hint = refusal.hint();
        problem.retry_after = match &refusal {
            Refusal::TooManyAttempts { seconds } => Some(*seconds),
            Refusal::StoreUnavailable { .. } | Refusal::AuthorityUnavailable { .. } => Some(1),
            _ => None,
        };
        if problem.status >= 500 {
            tracing::error!(code = refusal.code(), %refusal, "a call could not be carried out");
        }
        problem
    }
}

/// Which status a refusal has. The one place that decides it.
pub fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Policy { .. } | Refusal::Step(RefusedStep::OwnRequest) => StatusCode::FORBIDDEN,
        Refusal::Infeasible { .. } | Refusal::Ask(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Step(_) | Refusal::Exists { .. } | Refusal::Conflict { .. } => StatusCode::CONFLICT,
        Refusal::Deny(deny) => status_of_deny(deny),
        Refusal::NotFound { .. } | Refusal::NoSshGateway => StatusCode::NOT_FOUND,
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::Unauthenticated(_) | Refusal::SecondFactorRequired => StatusCode::UNAUTHORIZED,
        Refusal::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::StoreUnavailable { .. }
        | Refusal::AuthorityUnavailable { .. }
        | Refusal::Unrecordable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn status_of_deny(deny: &Deny) -> StatusCode {
    match deny {
        Deny::UnknownTarget { .. } | Deny::OtherProtocol { .. } | Deny::UnknownDatabase { .. } => {
            StatusCode::NOT_FOUND
        }
        Deny::Ambiguous { .. } | Deny::AccessGone { .. } | Deny::NotYet { .. } => StatusCode::CONFLICT,
        Deny::NoSession { .. }
        | Deny::SlowsLogin
        | Deny::Expired { .. }
        | Deny::Revoked { .. }
        | Deny::Blocked { .. }
        | Deny::PolicyRefused { .. }
        | Deny::PrincipalGone
        | Deny::SessionGone { .. } => StatusCode::FORBIDDEN,
        Deny::TooManyConnections { .. } => StatusCode::TOO_MANY_REQUESTS,
        Deny::StoreUnavailable { .. }
        | Deny::Unrecordable { .. }
        | Deny::TargetUnavailable { .. }
        | Deny::CredentialUnavailable { .. }
        | Deny::CredentialLeftOpen { .. }
        | Deny::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::Rule;

    #[test]
    fn a_policy_refusal_names_its_rules() {
        let rules = vec![Rule { id: "FR-283".into(), needs: "one more approver".into() }];
        let problem = Problem::from(Refusal::Policy { rules });
        assert_eq!((problem.status, problem.code.as_str()), (403, "policy_refused"));
        assert_eq!(problem.rules, [RuleView { id: "FR-283".into(), needs: "one more approver".into() }]);
    }

    #[test]
    fn too_many_attempts_say_when_to_come_back() {
        let response = Problem::from(Refusal::TooManyAttempts { seconds: 7 }).render();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }

    #[test]
    fn refusals_have_the_statuses_that_the_documentation_names() {
        for (refusal, status) in [
            (Refusal::Unauthenticated("no".into()), 401),
            (Refusal::SecondFactorRequired, 401),
            (Refusal::Step(RefusedStep::OwnRequest), 403),
            (Refusal::Deny(Deny::UnknownTarget { target: "x".into() }), 404),
            (Refusal::Conflict { what: "x".into() }, 409),
            (Refusal::Infeasible { rules: Vec::new() }, 422),
            (Refusal::Malformed("x".into()), 400),
            (Refusal::StoreUnavailable { detail: "x".into() }, 503),
            (Refusal::AuthorityUnavailable { detail: "x".into() }, 503),
            (Refusal::Unrecordable { detail: "x".into() }, 503),
        ] {
            assert_eq!(status_of(&refusal).as_u16(), status, "{refusal}");
        }
    }
}
