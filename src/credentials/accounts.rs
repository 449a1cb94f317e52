//! As whom Amazon is asked: what its SDK finds on this machine, or a role that is assumed in the session's name and for no
//! longer than the session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sts::config::{IdentityCache, SharedCredentialsProvider};

use super::aws_role::{AssumeOrder, AwsRoles, SHORTEST, identity, provided, tags};
use super::{AssumedRole, SourceError, SourceRequest};
use crate::amazon::sdk_config;
use crate::config::Aws;
use crate::domain::time::Timestamp;

/// What ends so soon is not used again.
const HARDLY_GOOD: Duration = Duration::from_mins(2);
/// What AWS issues at most to who is in a role itself, as the gateway may be.
const LONGEST: Duration = Duration::from_hours(1);

/// Amazon's configurations, loaded once, so that credentials of this machine are not asked for again and again.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    loaded: Mutex<HashMap<(String, Option<String>), SdkConfig>>,
    /// By lease, and whether it is for who holds the session.
    assumed: Mutex<HashMap<(String, bool), Assumed>>,
    /// By lease: those that are on no record yet.
    unrecorded: Mutex<HashMap<String, Vec<Arc<AssumedRole>>>>,
    roles: AwsRoles,
}

#[derive(Debug)]
struct Assumed {
    aws: Aws,
    config: SdkConfig,
    expires_at: Timestamp,
}

impl Accounts {
    /// For a session's credential. Where a role is assumed, Amazon's own log shows for whom and in which session.
    pub(super) async fn config(
        &self,
        aws: &Aws,
        request: &SourceRequest<'_>,
        now: Timestamp,
    ) -> Result<SdkConfig, SourceError> {
        let config = self.loaded(aws).await;
        let Some(role) = &aws.role else { return Ok(config) };
        let key = (request.lease.to_owned(), request.holder.is_some());
        let is_good = |one: &&Assumed| one.aws == *aws && one.expires_at > now.plus(HARDLY_GOOD);
        if let Some(known) = self.assumed().get(&key).filter(is_good) {
            return Ok(known.config.clone());
        }
        // What is done once the session is over takes a moment.
        let not_after = if request.holder.is_some() { request.ends_at } else { now.plus(SHORTEST) };
        let who = request.holder.map_or("sallyport", |holder| holder.principal.as_str());
        let (session, holder) = (request.session, request.holder);
        let order = AssumeOrder {
            region: &aws.region,
            endpoint: aws.endpoint.as_deref(),
            role,
            identity: &identity(who, session),
            tags: &tags(session, holder.map(|holder| (holder.request, holder.principal))),
            session_policy: None,
            not_after,
            duration: not_after.since(now).clamp(SHORTEST, LONGEST),
        };
        let credential = self.roles.assume(&order).await;
        let credential = credential.map_err(|error| SourceError::Amazon(error.to_string()))?;
        let config = config
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(provided(&credential)))
            .identity_cache(IdentityCache::no_cache())
            .build();
        let expires_at = credential.expires_at;
        let role = Arc::new(AssumedRole { role: role.clone(), credential });
        self.of_leases().entry(request.lease.to_owned()).or_default().push(role);
        let mut assumed = self.assumed();
        assumed.retain(|_, one| one.expires_at > now);
        assumed.insert(key, Assumed { aws: aws.clone(), config: config.clone(), expires_at });
        Ok(config)
    }

    /// The roles that were assumed for a lease and are on no record yet.
    pub(super) fn unrecorded(&self, lease: &str) -> Vec<Arc<AssumedRole>> {
        self.of_leases().get(lease).cloned().unwrap_or_default()
    }

    /// They are on record.
    pub(super) fn recorded(&self, lease: &str) {
        self.of_leases().remove(lease);
    }

    /// The credential is destroyed: what was assumed for it is not needed any more.
    pub(super) fn forget(&self, lease: &str) {
        self.assumed().retain(|(of, _), _| of != lease);
    }

    fn assumed(&self) -> MutexGuard<'_, HashMap<(String, bool), Assumed>> {
        self.assumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_leases(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<AssumedRole>>>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn loaded(&self, aws: &Aws) -> SdkConfig {
        let key = (aws.region.clone(), aws.endpoint.clone());
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(config) = known {
            return config;
        }
        let config = sdk_config(Some(&aws.region), aws.endpoint.as_deref()).await;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, config.clone());
        config
    }
}
