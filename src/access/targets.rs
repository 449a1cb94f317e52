//! The targets that the configuration names, with what is needed to reach them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::PostgresTarget;
use crate::domain::deny::Deny;
use crate::domain::name::TargetName;
use crate::domain::target::Target;

/// A target: what rules see of it, and how it is reached.
#[derive(Debug, Clone)]
pub struct TargetEntry {
    pub target: Target,
    pub postgres: Arc<PostgresTarget>,
}

impl From<PostgresTarget> for TargetEntry {
    fn from(postgres: PostgresTarget) -> Self {
        Self { target: postgres.target.clone(), postgres: Arc::new(postgres) }
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
