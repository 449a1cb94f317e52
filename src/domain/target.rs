//! What one can get into, as far as rules care. How to reach it (admin credential, certificate
//! authority, host keys) is configuration and stays with the code that dials.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{AccessName, DomainName, GroupName, TargetName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Postgres,
    Ssh,
    /// Roles of an AWS account.
    Aws,
}

impl TargetKind {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Ssh, Self::Aws];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Ssh => "ssh",
            Self::Aws => "aws",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Prod,
    Uat,
    Dev,
}

impl Environment {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prod => "prod",
            Self::Uat => "uat",
            Self::Dev => "dev",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A target as policies see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub name: TargetName,
    pub kind: TargetKind,
    pub environment: Environment,
    pub domain: DomainName,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What one may be there.
    pub accesses: BTreeSet<AccessName>,
    /// Groups whose members may ask for it.
    pub requesters: BTreeSet<GroupName>,
    /// Groups whose members may approve requests for it.
    pub approvers: BTreeSet<GroupName>,
}
