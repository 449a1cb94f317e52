//! The blocklist.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ListQuery;
use super::session::Reach;
use crate::domain::id::BlockId;
use crate::domain::name::{TargetName, UserName};
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::{Body, Query};
use crate::http::view::{BlockView, BlockedView, CutView, List};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockBody {
    #[schema(value_type = String)]
    pub user: UserName,
    /// Only this target; all of them without a word.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// For so long; until lifted without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// The person blocked reads it.
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnblockBody {
    #[schema(value_type = String)]
    pub block: BlockId,
}

#[utoipa::path(
    post, path = "/pam/block", tag = "blocks", request_body = BlockBody,
    responses(
        (status = 201, description = "Blocked from now on; what was open is cut", body = BlockedView),
        (status = 403, description = "Not theirs to block", body = Problem),
        (status = 404, description = "No such user", body = Problem),
    )
)]
pub async fn add(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<BlockBody>,
) -> Result<(StatusCode, Json<BlockedView>), Problem> {
    let order = Reach { target: body.target, for_seconds: body.for_seconds }.order(&state);
    let (block, cuts) = state.access.block(&who.caller, &body.user, order, &body.why).await?;
    let cuts = cuts.into_iter().map(CutView::from).collect();
    Ok((StatusCode::CREATED, Json(BlockedView { block: BlockView::new(block, state.access.now()), cuts })))
}

#[utoipa::path(
    post, path = "/pam/unblock", tag = "blocks", request_body = UnblockBody,
    responses(
        (status = 200, description = "Lifted", body = BlockView),
        (status = 403, description = "Not theirs to lift", body = Problem),
        (status = 404, description = "No such block", body = Problem),
    )
)]
pub async fn lift(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<UnblockBody>,
) -> Result<Json<BlockView>, Problem> {
    let block = state.access.unblock(&who.caller, &body.block).await?;
    Ok(Json(BlockView::new(block, state.access.now())))
}

#[utoipa::path(
    get, path = "/pam/blocks", tag = "blocks", params(ListQuery),
    responses((status = 200, description = "Those on the caller, and with the right to watch all", body = List<BlockView>))
)]
pub async fn list(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<BlockView>>, Problem> {
    let found = state.access.blocks(&who.caller, query.into()).await?;
    let now = state.access.now();
    Ok(Json(found.into_iter().map(|block| BlockView::new(block, now)).collect()))
}
