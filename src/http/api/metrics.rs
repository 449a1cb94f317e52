//! Prometheus metrics, for whoever may administer the server.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::HttpState;
use crate::http::auth::Bearer;

#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"))
)]
pub async fn show(State(state): State<HttpState>, _who: Bearer) -> Response {
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
