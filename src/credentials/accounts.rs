//! As whom Amazon is asked: what its SDK finds on this machine, or a role that is assumed in the session's name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_sts::config::SharedCredentialsProvider;

use crate::amazon::sdk_config;
use crate::config::Aws;

/// Amazon's configurations, loaded once, so that credentials of this machine are not asked for again and again.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    loaded: Mutex<HashMap<(String, Option<String>), SdkConfig>>,
}

impl Accounts {
    /// For `session`, whose name Amazon's own log shows where a role is assumed (at most 64 letters, digits and
    /// `_+=,.@-`: AWS STS, `RoleSessionName`).
    pub(super) async fn config(&self, aws: &Aws, session: &str) -> SdkConfig {
        let key = (aws.region.clone(), aws.endpoint.clone());
        let known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let config = if let Some(config) = known {
            config
        } else {
            let config = sdk_config(Some(&aws.region), aws.endpoint.as_deref()).await;
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, config.clone());
            config
        };
        let Some(role) = &aws.role else { return config };
        let provider =
            AssumeRoleProvider::builder(role).session_name(session).configure(&config).build().await;
        config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
    }
}
