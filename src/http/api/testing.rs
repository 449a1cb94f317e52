//! Control over the served process's clock, for acceptance tests. Not in release builds.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::time::Timestamp;
use crate::http::HttpState;
use crate::http::error::Problem;
use crate::http::extract::Body;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockBody {
    pub advance_seconds: u64,
    /// Leaves what time brings to the server's own rounds.
    #[serde(default)]
    pub leave: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClockView {
    #[schema(value_type = String, format = DateTime)]
    pub now: Timestamp,
}

/// Moves time forward and, unless it is to be left, does what time brings.
#[utoipa::path(
    post, path = "/testing/clock", tag = "testing", request_body = ClockBody, security(()),
    responses((status = 200, description = "What time it is now", body = ClockView))
)]
pub async fn clock(
    State(state): State<HttpState>,
    Body(body): Body<ClockBody>,
) -> Result<Json<ClockView>, Problem> {
    state.access.clock.advance(Duration::from_secs(body.advance_seconds));
    if !body.leave {
        state.access.sweep().await?;
    }
    Ok(Json(ClockView { now: state.access.now() }))
}
