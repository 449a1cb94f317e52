//! Local users: added and changed by whoever administers the server.

use std::collections::BTreeSet;

use crate::crypto;
use crate::domain::account::{Account, AccountChange, AccountSummary};
use crate::domain::event::{Action, Event};
use crate::domain::id::PrincipalId;
use crate::domain::name::{DomainName, GroupName, UserName};
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::identity::password::Passwords;
use crate::store::Store;

use super::refusal::Refusal;

/// A user to be.
#[derive(Debug)]
pub struct NewUser {
    pub name: UserName,
    pub domain: DomainName,
    pub groups: BTreeSet<GroupName>,
    pub password: Secret<String>,
}

/// What is to change; `None` leaves as it is.
#[derive(Debug, Default)]
pub struct UserChange {
    pub domain: Option<DomainName>,
    pub groups: Option<BTreeSet<GroupName>>,
    pub password: Option<Secret<String>>,
    pub disabled: Option<bool>,
}

/// Works on the store alone, so that `sallyport user` can be run on the server's host whether or
/// not the server is up; a running server records the events from the outbox.
#[derive(Debug)]
pub struct Users<'a> {
    pub store: &'a dyn Store,
    pub passwords: &'a Passwords,
    /// Who does it, as the operating system knows them.
    pub operator: String,
}

impl Users<'_> {
    pub async fn add(&self, user: NewUser, now: Timestamp) -> Result<Principal, Refusal> {
        let password_hash = self.hash(user.password, user.name.as_str()).await?;
        let principal = Principal {
            id: PrincipalId::from_random(crypto::random()),
            name: user.name,
            domain: user.domain,
            groups: user.groups,
        };
        let account = Account {
            principal: principal.clone(),
            password_hash,
            scram_salt: crypto::random(),
            disabled: false,
            created_at: now,
            ssh_certificates_void_before: None,
        };
        let event = self
            .event(Action::UserAdded, &principal.name, &principal.id)
            .with("home_domain", principal.domain.as_str())
            .with("groups", texts(&principal.groups));
        self.store.add_user(&account, now, &[event]).await?;
        Ok(principal)
    }

    pub async fn change(
        &self,
        name: &UserName,
        change: UserChange,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        let id = self.id_of(name).await?;
        let password_hash = match change.password {
            Some(password) => Some(self.hash(password, name.as_str()).await?),
            None => None,
        };
        let change = AccountChange {
            domain: change.domain,
            groups: change.groups,
            password_hash,
            disabled: change.disabled,
        };
        let mut event = self.event(Action::UserChanged, name, &id);
        if let Some(domain) = &change.domain {
            event = event.with("home_domain", domain.as_str());
        }
        if let Some(groups) = &change.groups {
            event = event.with("groups", texts(groups));
        }
        if let Some(disabled) = change.disabled {
            event = event.with("disabled", disabled);
        }
        let event = event.with("new_password", change.password_hash.is_some());
        Ok(self.store.change_user(&id, &change, now, &[event]).await?.principal)
    }

    /// Ends all of the user's tokens and says how many that were.
    pub async fn log_out(&self, name: &UserName, now: Timestamp) -> Result<u64, Refusal> {
        let id = self.id_of(name).await?;
        let event = self.event(Action::UserLoggedOut, name, &id);
        Ok(self.store.revoke_tokens_of(&id, now, &[event]).await?)
    }

    pub async fn list(&self) -> Result<Vec<AccountSummary>, Refusal> {
        Ok(self.store.users().await?)
    }

    async fn hash(&self, password: Secret<String>, user: &str) -> Result<String, Refusal> {
        self.passwords.hash(password, user).await.map_err(|error| Refusal::Malformed(error.to_string()))
    }

    pub(super) async fn id_of(&self, name: &UserName) -> Result<PrincipalId, Refusal> {
        let account = self.store.user_by_name(name).await?;
        let account = account.ok_or_else(|| Refusal::NotFound { what: format!("user `{name}`") })?;
        Ok(account.principal.id)
    }

    pub(super) fn event(&self, action: Action, name: &UserName, id: &PrincipalId) -> Event {
        Event::done(action)
            .with("user", name.as_str())
            .with("user_id", id.as_str())
            .with("operator", self.operator.as_str())
    }
}

fn texts(groups: &BTreeSet<GroupName>) -> Vec<&str> {
    groups.iter().map(GroupName::as_str).collect()
}
