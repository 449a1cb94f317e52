//! From a name and a password to a token, and back to nothing.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::secret::Secret;
use crate::http::HttpState;
use crate::http::auth::{Bearer, Client};
use crate::http::error::Problem;
use crate::http::extract::Body;
use crate::http::view::{LoginView, PrincipalView, WhoamiView};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginBody {
    user: String,
    #[schema(value_type = String, format = Password)]
    #[serde(deserialize_with = "secret")]
    password: Secret<String>,
    /// Of the second factor, for accounts that have one.
    #[serde(default)]
    code: Option<String>,
}

impl std::fmt::Debug for LoginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginBody").field("user", &self.user).finish_non_exhaustive()
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[utoipa::path(
    post, path = "/login", tag = "login", request_body = LoginBody, security(()),
    responses(
        (status = 200, description = "A token: bearer of this API, password of the Postgres gateway", body = LoginView),
        (status = 401, description = "Wrong name, password or code; `second_factor_required`: send a code too", body = Problem),
        (status = 429, description = "Too many attempts; `retry-after` says how long to wait", body = Problem),
    )
)]
pub async fn login(
    State(state): State<HttpState>,
    Client(client): Client,
    Body(body): Body<LoginBody>,
) -> Result<Json<LoginView>, Problem> {
    let logged_in = state.access.login(&body.user, body.password, body.code.as_deref(), client).await?;
    Ok(Json(LoginView {
        token: logged_in.token.expose().clone(),
        expires_at: logged_in.expires_at,
        principal: PrincipalView::from(logged_in.principal),
    }))
}

#[utoipa::path(
    post, path = "/logout", tag = "login",
    responses((status = 204, description = "The token is worth nothing any more"))
)]
pub async fn logout(State(state): State<HttpState>, Bearer(who): Bearer) -> Result<StatusCode, Problem> {
    state.access.logout(&who).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/whoami", tag = "login",
    responses((status = 200, description = "Whom the token stands for, and until when", body = WhoamiView))
)]
pub async fn whoami(Bearer(who): Bearer) -> Json<WhoamiView> {
    Json(WhoamiView {
        expires_at: who.expires_at,
        token: who.token,
        principal: PrincipalView::from(who.caller.principal),
    })
}
