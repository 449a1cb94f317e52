//! Who somebody is, once authenticated.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::PrincipalId;
use super::name::{DomainName, GroupName, UserName};

/// An authenticated person or machine user. Compared by `id`; the name is for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub id: PrincipalId,
    pub name: UserName,
    pub domain: DomainName,
    pub groups: BTreeSet<GroupName>,
}

/// Somebody as a record names them: enough to find the person and to read the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub id: PrincipalId,
    pub name: UserName,
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self { id: principal.id.clone(), name: principal.name.clone() }
    }
}
