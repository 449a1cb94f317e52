//! What lets somebody in by SSH: registered keys, and a certificate for the time of a login.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::name::UserName;
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::{Body, Query};
use crate::http::view::{List, SshCertificateView, SshKeyView};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddKeyBody {
    /// The line of a `.pub` file: type, key, comment.
    pub public_key: String,
    /// Somebody else, for administrators; the caller without a word.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveKeyBody {
    /// `SHA256:…`
    pub fingerprint: String,
    /// Somebody else, for administrators; the caller without a word.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysQuery {
    /// Somebody else's, for administrators; the caller's without a word.
    pub user: Option<UserName>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateBody {
    /// The line of a `.pub` file.
    pub public_key: String,
}

#[utoipa::path(
    post, path = "/pam/ssh-keys", tag = "ssh", request_body = AddKeyBody,
    responses(
        (status = 201, description = "Registered: it lets its owner in by SSH", body = SshKeyView),
        (status = 400, description = "Not a public key, or not one that is accepted", body = Problem),
        (status = 403, description = "Somebody else's, and the caller is no administrator", body = Problem),
        (status = 409, description = "The key is registered already", body = Problem),
    )
)]
pub async fn add_key(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<AddKeyBody>,
) -> Result<(StatusCode, Json<SshKeyView>), Problem> {
    let key = state.access.add_ssh_key(&who.caller, body.user.as_ref(), &body.public_key).await?;
    Ok((StatusCode::CREATED, Json(SshKeyView::from(key))))
}

#[utoipa::path(
    post, path = "/pam/ssh-keys/remove", tag = "ssh", request_body = RemoveKeyBody,
    responses(
        (status = 204, description = "It lets nobody in any more; connections that are up go on with their session"),
        (status = 403, description = "Somebody else's, and the caller is no administrator", body = Problem),
        (status = 404, description = "There is no such key", body = Problem),
    )
)]
pub async fn remove_key(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<RemoveKeyBody>,
) -> Result<StatusCode, Problem> {
    state.access.remove_ssh_key(&who.caller, body.user.as_ref(), &body.fingerprint).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/pam/ssh-keys", tag = "ssh",
    params(("user" = Option<String>, Query, description = "Somebody else's, for administrators")),
    responses(
        (status = 200, description = "Registered keys; the latest first", body = List<SshKeyView>),
        (status = 403, description = "Somebody else's, and the caller is no administrator", body = Problem),
    )
)]
pub async fn list_keys(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Query(query): Query<KeysQuery>,
) -> Result<Json<List<SshKeyView>>, Problem> {
    let keys = state.access.ssh_keys(&who.caller, query.user.as_ref()).await?;
    Ok(Json(keys.into_iter().map(SshKeyView::from).collect()))
}

#[utoipa::path(
    post, path = "/pam/ssh-certificate", tag = "ssh", request_body = CertificateBody,
    responses(
        (status = 200, description = "A user certificate that ends with the login at the latest", body = SshCertificateView),
        (status = 400, description = "Not a public key, or not one that is accepted", body = Problem),
        (status = 404, description = "`no_ssh_gateway`: there is none here", body = Problem),
        (status = 503, description = "`authority_unavailable`: the key that signs is elsewhere, and does not", body = Problem),
    )
)]
pub async fn certify(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<CertificateBody>,
) -> Result<Json<SshCertificateView>, Problem> {
    let certificate = state.access.issue_ssh_certificate(&who, &body.public_key).await?;
    Ok(Json(SshCertificateView { certificate: certificate.line, ends_at: certificate.ends_at }))
}
