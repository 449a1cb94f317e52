//! A credential of an AWS role as the API shows it: the one answer that holds a secret of a target.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::role::HandedOut;
use crate::domain::id::SessionId;
use crate::domain::time::Timestamp;

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AwsCredentialView {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
    /// By then another one must be asked for. It is denied from the session's end on, should that come earlier.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The session's end: then there are no more.
    #[schema(value_type = String, format = DateTime)]
    pub session_ends_at: Timestamp,
    #[schema(value_type = String)]
    pub session: SessionId,
    /// The role's ARN.
    pub role: String,
    pub region: String,
}

impl fmt::Debug for AwsCredentialView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentialView")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl From<HandedOut> for AwsCredentialView {
    fn from(handed_out: HandedOut) -> Self {
        let HandedOut { credential, session, role, region } = handed_out;
        Self {
            access_key_id: credential.access_key_id.clone(),
            secret_access_key: credential.secret_access_key.expose().clone(),
            session_token: credential.session_token.expose().clone(),
            expires_at: credential.expires_at,
            session_ends_at: session.ends_at,
            session: session.id,
            role,
            region,
        }
    }
}
