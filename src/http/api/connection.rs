//! Connections: what is live, and what was.

use axum::Json;
use axum::extract::State;

use super::ListQuery;
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::Query;
use crate::http::view::{ConnectionView, List};

#[utoipa::path(
    get, path = "/pam/connections", tag = "connections", params(ListQuery),
    responses((status = 200, description = "The caller's own, and with the right to watch all", body = List<ConnectionView>))
)]
pub async fn list(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<ConnectionView>>, Problem> {
    let found = state.access.connections(&who.caller, query.into()).await?;
    Ok(Json(found.into_iter().map(ConnectionView::from).collect()))
}
