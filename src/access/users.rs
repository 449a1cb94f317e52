//! Local users: added and changed by whoever administers the server.

use std::collections::BTreeSet;

use crate::crypto;
use crate::domain::account::{Account, AccountSummary};
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
        };
        let event = self.event(Action::UserAdded, &account);
        self.store.add_user(&account, now, &[event]).await?;
        Ok(principal)
    }

    pub async fn change(
        &self,
        name: &UserName,
        change: UserChange,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        let account = self.store.user_by_name(name).await?;
        let mut account = account.ok_or_else(|| Refusal::NotFound { what: format!("user `{name}`") })?;
        let new_password = change.password.is_some();
        if let Some(domain) = change.domain {
            account.principal.domain = domain;
        }
        if let Some(groups) = change.groups {
            account.principal.groups = groups;
        }
        if let Some(password) = change.password {
            account.password_hash = self.hash(password, account.principal.name.as_str()).await?;
        }
        if let Some(disabled) = change.disabled {
            account.disabled = disabled;
        }
        let event = self
            .event(Action::UserChanged, &account)
            .with("disabled", account.disabled)
            .with("new_password", new_password);
        self.store.change_user(&account, now, &[event]).await?;
        Ok(account.principal)
    }

    pub async fn list(&self) -> Result<Vec<AccountSummary>, Refusal> {
        Ok(self.store.users().await?)
    }

    async fn hash(&self, password: Secret<String>, user: &str) -> Result<String, Refusal> {
        self.passwords.hash(password, user).await.map_err(|error| Refusal::Malformed(error.to_string()))
    }

    fn event(&self, action: Action, account: &Account) -> Event {
        let groups: Vec<&str> = account.principal.groups.iter().map(GroupName::as_str).collect();
        Event::done(action)
            .with("user", account.principal.name.as_str())
            .with("user_id", account.principal.id.as_str())
            .with("home_domain", account.principal.domain.as_str())
            .with("groups", groups)
            .with("operator", self.operator.as_str())
    }
}
