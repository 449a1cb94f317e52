//! Verdicts on requests.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::read;
use crate::domain::id::RequestId;
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::Body;
use crate::http::view::{AskedView, RequestView};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    #[schema(value_type = String)]
    pub request: RequestId,
    #[serde(default)]
    pub comment: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyBody {
    #[schema(value_type = String)]
    pub request: RequestId,
    /// The requester reads it.
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    #[schema(value_type = String)]
    pub request: RequestId,
}

#[utoipa::path(
    post, path = "/pam/approve", tag = "requests", request_body = ApproveBody,
    responses(
        (status = 200, description = "Approved; with a session if this was the last approval missing", body = AskedView),
        (status = 403, description = "Not theirs to approve", body = Problem),
        (status = 404, description = "No such request", body = Problem),
        (status = 409, description = "Decided already, or lapsed", body = Problem),
    )
)]
pub async fn approve(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<ApproveBody>,
) -> Result<Json<AskedView>, Problem> {
    let reviewed = state.access.approve(&who.caller, &body.request, &body.comment).await?;
    let now = state.access.now();
    Ok(Json(AskedView::new(reviewed.request, reviewed.session, &reviewed.missing, now)))
}

#[utoipa::path(
    post, path = "/pam/deny", tag = "requests", request_body = DenyBody,
    responses(
        (status = 200, description = "Denied; the request is over", body = RequestView),
        (status = 403, description = "Not theirs to deny", body = Problem),
        (status = 404, description = "No such request", body = Problem),
        (status = 409, description = "Decided already, or lapsed", body = Problem),
    )
)]
pub async fn deny(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<DenyBody>,
) -> Result<Json<RequestView>, Problem> {
    let request = state.access.deny(&who.caller, &body.request, &body.why).await?;
    Ok(Json(decided(&state, request)))
}

#[utoipa::path(
    post, path = "/pam/cancel", tag = "requests", request_body = CancelBody,
    responses(
        (status = 200, description = "Withdrawn; the request is over", body = RequestView),
        (status = 403, description = "Not their own", body = Problem),
        (status = 404, description = "No such request", body = Problem),
        (status = 409, description = "Decided already, or lapsed", body = Problem),
    )
)]
pub async fn cancel(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<CancelBody>,
) -> Result<Json<RequestView>, Problem> {
    let request = state.access.cancel(&who.caller, &body.request).await?;
    Ok(Json(decided(&state, request)))
}

fn decided(state: &HttpState, request: crate::domain::request::Request) -> RequestView {
    let view = request.state_at(state.access.now());
    read::RequestView { state: view, request, missing: Vec::new() }.into()
}
