//! From a bearer token to a caller. There is no other way to an [`Authenticated`], so a handler that
//! takes one cannot be reached without a token.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::HttpState;
use super::error::Problem;
use super::frame::LONGEST_BODY;
use super::route::{Auth, Route};
use super::standing::Standing;
use crate::access::login::Authenticated;
use crate::access::refusal::Refusal;
use crate::domain::event::{Action, Event, Outcome};

/// Where a call comes from; absent only when there is no network in between.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub SocketAddr);

/// The caller, as the guard of the route found them.
#[derive(Debug, Clone)]
pub struct Bearer(pub Authenticated);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Problem::unauthenticated("this call needs a bearer token"))
    }
}

/// The client's address, for public routes.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub Option<SocketAddr>);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<ClientAddress>().map(|address| address.0)))
    }
}

/// Stands before every route: admits who may call it, reads the body within its bound, and has the
/// call carried out by a task of its own, so that what was begun is finished even if the client
/// hangs up meanwhile.
pub async fn guard(
    State((state, route)): State<(HttpState, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(problem) = admit(&state, route, &mut parts).await {
        return problem.into_response();
    }
    let Ok(body) = to_bytes(body, LONGEST_BODY).await else {
        return Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body could not be read, or is longer than {LONGEST_BODY} bytes"),
        )
        .into_response();
    };
    let request = Request::from_parts(parts, Body::from(body));
    let carried_out = state.tasks.spawn(next.run(request).in_current_span()).await;
    carried_out.unwrap_or_else(|error| {
        tracing::error!(%error, "a handler panicked");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

async fn admit(state: &HttpState, route: &Route, parts: &mut Parts) -> Result<(), Problem> {
    if route.auth == Auth::Public {
        return Ok(());
    }
    let client = parts.extensions.get::<ClientAddress>().map(|address| address.0);
    let outcome = match bearer(&parts.headers) {
        Some(token) => state.access.authenticate(token, client).await,
        None => Err(Refusal::Unauthenticated("this call needs a bearer token".to_owned())),
    };
    let who = match outcome {
        Ok(who) => who,
        Err(refusal @ Refusal::Unauthenticated(_)) => {
            record_stranger(state, route, client, &refusal).await;
            return Err(Problem::unauthenticated(refusal.to_string()));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    if let Some(standing) = parts.extensions.get::<Standing>() {
        standing.authenticated()?;
    }
    if let Auth::Right(action) = route.auth {
        state.access.require(&who.caller, action, route.path).await?;
    }
    parts.extensions.insert(Bearer(who));
    Ok(())
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Writes a refused stranger down, unless there are too many of them.
async fn record_stranger(state: &HttpState, route: &Route, client: Option<SocketAddr>, refusal: &Refusal) {
    if !state.strangers.admit(client.map(|client| client.ip()), state.access.now()) {
        metrics::counter!("sallyport_api_refusals_unrecorded_total").increment(1);
        return;
    }
    let event = Event::new(Action::ApiRefused, Outcome::Refused)
        .from(client)
        .with("method", route.method.as_str())
        .with("path", route.path)
        .with("refusal", refusal.to_string())
        .with("code", refusal.code());
    if let Err(error) = state.access.record(event).await {
        tracing::error!(%error, "a refused call could not be recorded");
    }
}
