//! Asking for an access, and what was asked.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ListQuery;
use crate::domain::id::RequestId;
use crate::domain::name::{AccessName, TargetName};
use crate::domain::request::{Ask, DEFAULT_DURATION};
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::{Body, Named, Query};
use crate::http::view::{AskedView, List, RequestView};

/// What is asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskBody {
    #[schema(value_type = String, example = "ledger-prod")]
    pub target: TargetName,
    #[schema(value_type = String, example = "readonly")]
    pub access: AccessName,
    /// How long the session is to last; 3600 without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// Why; approvers and auditors read it.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Skips the count of approvals. Raises an alert.
    #[serde(default)]
    pub break_glass: bool,
}

impl From<AskBody> for Ask {
    fn from(body: AskBody) -> Self {
        Self {
            target: body.target,
            access: body.access,
            duration: body.duration_seconds.map_or(DEFAULT_DURATION, Duration::from_secs),
            reason: body.reason,
            ticket: body.ticket,
            break_glass: body.break_glass,
        }
    }
}

#[utoipa::path(
    post, path = "/pam/request", tag = "requests", request_body = AskBody,
    responses(
        (status = 201, description = "Asked for; with a session if no approval is needed", body = AskedView),
        (status = 403, description = "Refused by policy, or blocked", body = Problem),
        (status = 404, description = "No such target", body = Problem),
        (status = 422, description = "Nobody could approve it, or it is not a sensible ask", body = Problem),
    )
)]
pub async fn create(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<AskBody>,
) -> Result<(StatusCode, Json<AskedView>), Problem> {
    let asked = state.access.ask(&who.caller, body.into()).await?;
    let now = state.access.now();
    Ok((StatusCode::CREATED, Json(AskedView::new(asked.request, asked.session, &asked.missing, now))))
}

#[utoipa::path(
    get, path = "/pam/requests", tag = "requests", params(ListQuery),
    responses((status = 200, description = "The caller's own, those they may approve, and with the right to watch all", body = List<RequestView>))
)]
pub async fn list(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<RequestView>>, Problem> {
    let found = state.access.requests(&who.caller, query.into()).await?;
    Ok(Json(found.into_iter().map(RequestView::from).collect()))
}

#[utoipa::path(
    get, path = "/pam/requests/{id}", tag = "requests", params(("id" = String, Path, description = "`req-…`")),
    responses(
        (status = 200, description = "The request as of now", body = RequestView),
        (status = 404, description = "There is none, or none that the caller may see", body = Problem),
    )
)]
pub async fn show(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Named(id): Named<RequestId>,
) -> Result<Json<RequestView>, Problem> {
    Ok(Json(state.access.request_view(&who.caller, &id).await?.into()))
}
