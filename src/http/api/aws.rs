//! Credentials of AWS roles, for the person who has a session.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::connect::Wanted;
use crate::domain::name::{AccessName, TargetName};
use crate::http::HttpState;
use crate::http::auth::Bearer;
use crate::http::error::Problem;
use crate::http::extract::Body;
use crate::http::view_aws::AwsCredentialView;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsBody {
    #[schema(value_type = String)]
    pub target: TargetName,
    /// Needed where the caller has sessions for several accesses.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessName>,
}

#[utoipa::path(
    post, path = "/pam/aws-credentials", tag = "aws", request_body = AwsBody,
    responses(
        (status = 200, description = "A credential that is good until the session's end, or shorter: then ask again", body = AwsCredentialView),
        (status = 403, description = "The caller has no active session for the target, or is blocked", body = Problem),
        (status = 404, description = "There is no such target, or it is no AWS role", body = Problem),
        (status = 409, description = "`ambiguous_access`: name the access", body = Problem),
        (status = 503, description = "AWS did not issue one; or what was handed out in this session is denied already", body = Problem),
    )
)]
pub async fn issue(
    State(state): State<HttpState>,
    Bearer(who): Bearer,
    Body(body): Body<AwsBody>,
) -> Result<Json<AwsCredentialView>, Problem> {
    let wanted = Wanted { target: body.target, access: body.access };
    let handed_out = state.access.hand_out_role(&who.caller, &wanted).await?;
    Ok(Json(AwsCredentialView::from(handed_out)))
}
