//! Sessions, and their revocation.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ListQuery;
use crate::access::block::BlockOrder;
use crate::domain::id::SessionId;
use crate::domain::name::TargetName;
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::{Body, Query};
use crate::http::view::{List, RevokedView, SessionView};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    #[schema(value_type = String)]
    pub session: SessionId,
    /// The person cut off reads it.
    pub why: String,
    /// Also bars the session's holder from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Reach>,
}

/// How far a block reaches.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reach {
    /// Only this target; all of them without a word.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// For so long; until lifted without a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
}

impl Reach {
    pub(super) fn order(self, state: &HttpState) -> BlockOrder {
        let until = self.for_seconds.map(|seconds| state.access.now().plus(Duration::from_secs(seconds)));
        BlockOrder { target: self.target, until }
    }
}

#[utoipa::path(
    post, path = "/pam/revoke", tag = "sessions", request_body = RevokeBody,
    responses(
        (status = 200, description = "Revoked: what was cut, and whether the credential is dead", body = RevokedView),
        (status = 403, description = "Not theirs to revoke", body = Problem),
        (status = 404, description = "No such session", body = Problem),
    )
)]
pub async fn revoke(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<RevokeBody>,
) -> Result<Json<RevokedView>, Problem> {
    let order = body.block.map(|reach| reach.order(&state));
    let done = state.access.revoke(&who.caller, &body.session, &body.why, order).await?;
    Ok(Json(RevokedView::new(done, state.access.now())))
}

#[utoipa::path(
    get, path = "/pam/sessions", tag = "sessions", params(ListQuery),
    responses((status = 200, description = "The caller's own, and with the right to watch all", body = List<SessionView>))
)]
pub async fn list(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<SessionView>>, Problem> {
    let found = state.access.sessions(&who.caller, query.into()).await?;
    Ok(Json(found.into_iter().map(|view| SessionView::new(view.session, view.status)).collect()))
}
