//! What is kept beside the store of credentials of AWS roles: who is at work on which session's, and the latest secret
//! of each, in memory alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::amazon::REQUEST_TIMEOUT;
use crate::credentials::aws_role::{AwsRoles, RoleCredential};
use crate::crypto;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

use super::slots::Slots;

/// How long a stop waits for what was asked of AWS.
const SETTLE_WITHIN: Duration = REQUEST_TIMEOUT.saturating_mul(3);

/// What is needed to hand out credentials of roles, and to end them.
pub struct Roles {
    pub(super) aws: AwsRoles,
    /// Begins the names of our policies on roles, which others may share.
    pub(super) policy_prefix: String,
    /// Key of the fingerprints by which records name a credential without telling it.
    fingerprint_key: Secret<Vec<u8>>,
    /// Held by whoever issues or ends a session's.
    pub(super) slots: Slots<Mutex<()>>,
    /// The latest credential of each session, to find out when a deny has come into force.
    held: std::sync::Mutex<HashMap<SessionId, Held>>,
    /// Owns what must come to its end once begun.
    pub(super) tasks: TaskTracker,
}

/// A credential that was handed out.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) credential: Arc<RoleCredential>,
    /// What it was narrowed by.
    pub(super) session_policy: Option<String>,
    /// When the deny was put.
    pub(super) denied_at: Option<Timestamp>,
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roles").field("policy_prefix", &self.policy_prefix).finish_non_exhaustive()
    }
}

impl Roles {
    /// `installation`: the same for all nodes that share a store, and for nobody else.
    pub fn new(installation: &str, fingerprint_key: Secret<Vec<u8>>) -> Self {
        Self {
            aws: AwsRoles::default(),
            policy_prefix: format!("sallyport-{installation}"),
            fingerprint_key,
            slots: Slots::default(),
            held: std::sync::Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn held(&self, session: &SessionId) -> Option<Held> {
        lock(&self.held).get(session).cloned()
    }

    pub(super) fn hold(&self, session: &SessionId, held: Held) {
        lock(&self.held).insert(session.clone(), held);
    }

    /// Forgets the credential; whoever did so first is told.
    pub(super) fn let_go(&self, session: &SessionId) -> Option<Held> {
        lock(&self.held).remove(session)
    }

    /// Waits for what has been begun; nothing new may begin.
    pub async fn settle(&self) {
        self.tasks.close();
        if tokio::time::timeout(SETTLE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::error!(
                left = self.tasks.len(),
                "credentials of roles were being issued: none is handed out"
            );
        }
    }

    pub(super) fn fingerprint(&self, credential: &RoleCredential) -> String {
        let secret = credential.secret_access_key.expose().as_bytes();
        crypto::hex(&crypto::hmac_sha256(self.fingerprint_key.expose(), secret))
    }
}

fn lock<T>(of: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
