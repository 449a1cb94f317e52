//! What lets somebody in by SSH beside a password: their registered public keys, and a second factor.

use serde::{Deserialize, Serialize};

use super::id::PrincipalId;
use super::secret::Secret;
use super::time::Timestamp;

/// A user's public key. It belongs to one person only, so that it proves who comes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    /// `SHA256:…`, as OpenSSH writes it.
    pub fingerprint: String,
    pub principal: PrincipalId,
    /// Algorithm and key in base64, as in a `.pub` file; no options, no comment.
    pub line: String,
    /// What the person calls it.
    pub comment: String,
    pub added_at: Timestamp,
    /// A user's name, or that of an operator on the server's host.
    pub added_by: String,
}

/// A time-based second factor (RFC 6238).
#[derive(Clone)]
pub struct SecondFactor {
    /// Shared with the person's authenticator: it has to be kept as it is.
    pub secret: Secret<[u8; 20]>,
    /// The latest step whose code was accepted: neither it nor an earlier one is accepted again.
    pub last_step: u64,
}

impl std::fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecondFactor").field("last_step", &self.last_step).finish_non_exhaustive()
    }
}
