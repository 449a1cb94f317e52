//! Whether the process lives, and whether it can do its work.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use crate::http::HttpState;
use crate::http::view::{CheckView, HealthView};
use crate::store::StoreError;

/// For how long one look at the parts answers everybody who asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the store may take to answer.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

#[utoipa::path(
    get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "The process lives", body = HealthView))
)]
pub async fn alive() -> Json<HealthView> {
    Json(HealthView { ok: true, checks: Vec::new() })
}

#[utoipa::path(
    get, path = "/readyz", tag = "operations", security(()),
    responses(
        (status = 200, description = "The server can do its work", body = HealthView),
        (status = 503, description = "It cannot; the failed checks say why", body = HealthView),
    )
)]
pub async fn ready(State(state): State<HttpState>) -> Response {
    // Strangers may ask, and looking at the store writes to it: once a second is enough for everybody.
    let mut latest = state.readiness.lock().await;
    let known = latest.as_ref().filter(|(at, _)| at.elapsed() < LOOK_EVERY).map(|(_, checks)| checks.clone());
    let [store, clock] = if let Some(checks) = known {
        checks
    } else {
        let checks = [store(&state).await, clock(&state).await];
        *latest = Some((Instant::now(), checks.clone()));
        checks
    };
    drop(latest);
    let checks = vec![store, journal(&state), clock];
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Json(HealthView { ok, checks }).into_response();
    *response.status_mut() = status;
    // Its own body says more than a problem would.
    response.extensions_mut().insert(crate::http::frame::OwnBody);
    response
}

fn check(name: &str, outcome: &Result<(), String>) -> CheckView {
    if let Err(error) = outcome {
        tracing::warn!(check = name, %error, "not ready");
    }
    // Strangers may ask: they learn what fails, the log says why.
    CheckView { name: name.to_owned(), ok: outcome.is_ok() }
}

/// A store that is at work on something else is not ready; whoever asks is told so in time.
async fn within<T>(look: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(LOOK_WITHIN, look).await {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store does not answer within {} s", LOOK_WITHIN.as_secs())),
    }
}

async fn store(state: &HttpState) -> CheckView {
    check("store", &within(state.access.store.check()).await)
}

fn journal(state: &HttpState) -> CheckView {
    // A future that is ready once the journal has failed.
    let failed = state.access.journal.failed().now_or_never();
    check("journal", &failed.map_or(Ok(()), |error| Err(error.to_string())))
}

/// The store remembers how far time had come; a clock behind it makes sessions live too long.
async fn clock(state: &HttpState) -> CheckView {
    let now = state.access.now();
    let outcome = match within(state.access.store.high_water(now)).await {
        Ok(latest) if latest > state.access.now() => Err(format!("the clock is behind: {latest} was seen")),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    check("clock", &outcome)
}
