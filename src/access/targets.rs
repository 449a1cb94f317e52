//! The targets that the configuration names, with what is needed to reach them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{AnyTarget, AwsTarget, PostgresTarget, SshTarget};
use crate::domain::deny::Deny;
use crate::domain::name::TargetName;
use crate::domain::target::Target;

/// A target: what rules see of it, and how it is reached.
#[derive(Debug, Clone)]
pub struct TargetEntry {
    pub target: Target,
    pub route: Route,
}

/// How a target is reached. An edge takes the route that it speaks, or refuses with what to do.
#[derive(Debug, Clone)]
pub enum Route {
    Postgres(Arc<PostgresTarget>),
    Ssh(Arc<SshTarget>),
    Aws(Arc<AwsTarget>),
}

impl Route {
    pub fn postgres(&self) -> Result<&Arc<PostgresTarget>, Deny> {
        match self {
            Self::Postgres(postgres) => Ok(postgres),
            Self::Ssh(ssh) => Err(other_protocol(&ssh.target)),
            Self::Aws(aws) => Err(other_protocol(&aws.target)),
        }
    }

    pub fn ssh(&self) -> Result<&Arc<SshTarget>, Deny> {
        match self {
            Self::Ssh(ssh) => Ok(ssh),
            Self::Postgres(postgres) => Err(other_protocol(&postgres.target)),
            Self::Aws(aws) => Err(other_protocol(&aws.target)),
        }
    }

    pub fn aws(&self) -> Result<&Arc<AwsTarget>, Deny> {
        match self {
            Self::Aws(aws) => Ok(aws),
            Self::Postgres(postgres) => Err(other_protocol(&postgres.target)),
            Self::Ssh(ssh) => Err(other_protocol(&ssh.target)),
        }
    }
}

fn other_protocol(target: &Target) -> Deny {
    Deny::OtherProtocol { target: target.name.clone(), kind: target.kind }
}

impl From<AnyTarget> for TargetEntry {
    fn from(any: AnyTarget) -> Self {
        let target = any.target().clone();
        let route = match any {
            AnyTarget::Postgres(postgres) => Route::Postgres(Arc::new(postgres)),
            AnyTarget::Ssh(ssh) => Route::Ssh(Arc::new(ssh)),
            AnyTarget::Aws(aws) => Route::Aws(Arc::new(aws)),
        };
        Self { target, route }
    }
}

#[derive(Debug, Default)]
pub struct Targets {
    by_name: BTreeMap<TargetName, Arc<TargetEntry>>,
}

impl Targets {
    pub fn new(entries: impl IntoIterator<Item = TargetEntry>) -> Self {
        let by_name = entries.into_iter().map(|entry| (entry.target.name.clone(), Arc::new(entry))).collect();
        Self { by_name }
    }

    pub fn find(&self, name: &TargetName) -> Result<&Arc<TargetEntry>, Deny> {
        self.by_name.get(name).ok_or_else(|| Deny::UnknownTarget { target: name.to_string() })
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<TargetEntry>> {
        self.by_name.values()
    }
}
