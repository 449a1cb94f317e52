//! The table of routes. The router is built from it and a test walks it, so that no route can be
//! without an authorization case or, unless the table says so, without a record.

use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use super::HttpState;
use super::api::{
    aws, block, connection, export, gateway, health, login, metrics, recording, request, review, search,
    session, ssh, target,
};
use super::auth;
use super::error::Problem;
use super::frame;
use super::openapi;
use crate::policy;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Anybody: nothing is shown that belongs to anybody.
    Public,
    /// Whoever has a valid token; the use case decides, by the policy, what they may do with it.
    Bearer,
    /// Whoever has a valid token and this right.
    Right(policy::Action),
}

#[derive(Debug)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub auth: Auth,
    /// Whether a call leaves an audit record. The few that do not read or change nothing that
    /// belongs to anybody else than the caller.
    pub recorded: bool,
    /// How long its answer may take to begin.
    pub deadline: Duration,
    handler: fn() -> MethodRouter<HttpState>,
}

const fn route(
    method: Method,
    path: &'static str,
    auth: Auth,
    handler: fn() -> MethodRouter<HttpState>,
) -> Route {
    Route { method, path, auth, recorded: true, deadline: frame::DEADLINE, handler }
}

const fn unrecorded(
    method: Method,
    path: &'static str,
    auth: Auth,
    handler: fn() -> MethodRouter<HttpState>,
) -> Route {
    Route { method, path, auth, recorded: false, deadline: frame::DEADLINE, handler }
}

/// One that reads the audit log from its beginning before it answers.
const fn reads_log(path: &'static str, handler: fn() -> MethodRouter<HttpState>) -> Route {
    let deadline = frame::LONG_DEADLINE;
    Route { method: GET, path, auth: Auth::Bearer, recorded: true, deadline, handler }
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// Every route there is.
pub static ROUTES: &[Route] = &[
    route(POST, "/pam/request", Auth::Bearer, || post(request::create)),
    route(POST, "/pam/approve", Auth::Bearer, || post(review::approve)),
    route(POST, "/pam/deny", Auth::Bearer, || post(review::deny)),
    route(POST, "/pam/cancel", Auth::Bearer, || post(review::cancel)),
    route(POST, "/pam/revoke", Auth::Bearer, || post(session::revoke)),
    route(POST, "/pam/block", Auth::Bearer, || post(block::add)),
    route(POST, "/pam/unblock", Auth::Bearer, || post(block::lift)),
    route(GET, "/pam/requests", Auth::Bearer, || get(request::list)),
    route(GET, "/pam/requests/{id}", Auth::Bearer, || get(request::show)),
    route(GET, "/pam/sessions", Auth::Bearer, || get(session::list)),
    route(GET, "/pam/connections", Auth::Bearer, || get(connection::list)),
    route(GET, "/pam/blocks", Auth::Bearer, || get(block::list)),
    route(GET, "/pam/targets", Auth::Bearer, || get(target::list)),
    route(GET, "/pam/gateway", Auth::Bearer, || get(gateway::show)),
    route(POST, "/pam/ssh-keys", Auth::Bearer, || post(ssh::add_key)),
    route(GET, "/pam/ssh-keys", Auth::Bearer, || get(ssh::list_keys)),
    route(POST, "/pam/ssh-keys/remove", Auth::Bearer, || post(ssh::remove_key)),
    route(POST, "/pam/ssh-certificate", Auth::Bearer, || post(ssh::certify)),
    route(POST, "/pam/aws-credentials", Auth::Bearer, || post(aws::issue)),
    reads_log("/pam/recordings/{connection}", || get(recording::show)),
    route(GET, "/pam/search", Auth::Bearer, || get(search::find)),
    reads_log("/pam/export", || get(export::show)),
    reads_log("/pam/sessions/{id}/bundle", || get(export::bundle)),
    route(POST, "/login", Auth::Public, || post(login::login)),
    route(POST, "/logout", Auth::Bearer, || post(login::logout)),
    unrecorded(GET, "/whoami", Auth::Bearer, || get(login::whoami)),
    route(GET, "/metrics", Auth::Right(policy::Action::Administer), || get(metrics::show)),
    unrecorded(GET, "/openapi.json", Auth::Public, || get(openapi::describe)),
    unrecorded(GET, "/healthz", Auth::Public, || get(health::alive)),
    unrecorded(GET, "/readyz", Auth::Public, || get(health::ready)),
    #[cfg(feature = "testing")]
    unrecorded(POST, "/testing/clock", Auth::Public, || post(super::api::testing::clock)),
];

fn deadline(path: &str) -> Duration {
    let route = ROUTES.iter().find(|route| route.path == path);
    route.map_or(frame::DEADLINE, |route| route.deadline)
}

/// The whole API.
pub fn router(state: HttpState) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, route| {
        let guard = from_fn_with_state((state.clone(), route), auth::guard);
        router.route(route.path, (route.handler)().layer(guard))
    });
    routes
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no_such_route", "there is no such route"))
        .method_not_allowed_fallback(async || {
            let detail = "the route does not take this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .layer(CatchPanicLayer::new())
        .layer(from_fn_with_state(deadline as frame::Deadlines, frame::frame))
        .with_state(state)
}
