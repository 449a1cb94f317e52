//! The API's description, made from the handlers themselves.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::api::{
    aws, block, connection, export, gateway, health, login, metrics, recording, request, review, search,
    session, ssh, target,
};
use super::error::Problem;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Sallyport",
        description = "Approved, time-limited, recorded and revocable access to production. \
            Errors are `application/problem+json` with a stable `code`."
    ),
    paths(
        request::create, request::list, request::show,
        review::approve, review::deny, review::cancel,
        session::revoke, session::list,
        block::add, block::lift, block::list,
        connection::list, target::list, gateway::show, recording::show, search::find, export::show, export::bundle,
        ssh::add_key, ssh::list_keys, ssh::remove_key, ssh::certify, aws::issue,
        login::login, login::logout, login::whoami,
        metrics::show, health::alive, health::ready,
        describe,
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The whole document.
pub fn document() -> utoipa::openapi::OpenApi {
    let document = Description::openapi();
    #[cfg(feature = "testing")]
    let document = document.merge_from(Testing::openapi());
    document
}

#[cfg(feature = "testing")]
#[derive(Debug, OpenApi)]
#[openapi(paths(super::api::testing::clock))]
struct Testing;

#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, description = "This document"))
)]
pub async fn describe() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
