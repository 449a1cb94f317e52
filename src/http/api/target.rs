//! What one can get into.

use axum::Json;
use axum::extract::State;

use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::view::{List, TargetView};

#[utoipa::path(
    get, path = "/pam/targets", tag = "targets",
    responses((status = 200, description = "All targets, with what the caller may ask for there", body = List<TargetView>))
)]
pub async fn list(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
) -> Result<Json<List<TargetView>>, Problem> {
    let found = state.access.targets(&who.caller).await?;
    Ok(Json(found.into_iter().map(TargetView::from).collect()))
}
