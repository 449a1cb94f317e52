//! Sends each request to the kind of source that its target is configured with.

use super::keep::Keep;
use super::postgres_role::PostgresRole;
use super::rds_iam::RdsIam;
use super::secrets_manager::SecretsManager;
use super::static_secret::StaticSecrets;
use super::{CredentialSource, How};
use crate::clock::Clock;
use crate::config::{PostgresTarget, Source};

/// All kinds of sources that there are.
#[derive(Debug)]
pub struct Sources {
    role: PostgresRole,
    secrets_manager: SecretsManager,
    rds_iam: RdsIam,
    kept: StaticSecrets,
}

impl Sources {
    /// `installation`: the same for all nodes that share a store, and for nobody else.
    pub fn new(installation: &str, clock: &Clock, keep: Keep) -> Self {
        Self {
            role: PostgresRole::new(installation),
            secrets_manager: SecretsManager::new(clock.clone()),
            rds_iam: RdsIam::new(clock.clone()),
            kept: StaticSecrets::new(keep),
        }
    }

    /// What becomes of the target's credentials.
    pub fn fate(target: &PostgresTarget) -> How {
        match &target.source {
            Source::Role(_) => How::Dropped,
            Source::SecretsManager(_) => How::Rotated,
            Source::RdsIam(_) => How::Expires,
            Source::Static(kept) if kept.rotate.is_some() => How::Rotated,
            Source::Static(_) => How::Kept,
        }
    }

    /// The source of the target's credentials.
    pub fn of(&self, target: &PostgresTarget) -> &dyn CredentialSource {
        match &target.source {
            Source::Role(_) => &self.role,
            Source::SecretsManager(_) => &self.secrets_manager,
            Source::RdsIam(_) => &self.rds_iam,
            Source::Static(_) => &self.kept,
        }
    }
}
