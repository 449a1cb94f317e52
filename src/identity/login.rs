//! From a password or a token to a principal, without telling a stranger which names exist.

use crate::domain::account::{Account, Token};
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

use super::password::{PasswordError, Passwords};

/// Why somebody is not who they say, as far as they are told.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such name, or another password: not said which.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// Said only to who knows the password or holds the token.
    #[error("this account is disabled: speak with your administrator")]
    Disabled,
    #[error("this login token is unknown or was revoked: log in again")]
    UnknownToken,
    #[error("this login token ended at {at}: log in again")]
    TokenEnded { at: Timestamp },
    #[error(transparent)]
    Unavailable(#[from] PasswordError),
}

/// Checks a password. One hash is computed whether or not there is an account.
pub async fn with_password(
    passwords: &Passwords,
    account: Option<Account>,
    password: Secret,
) -> Result<Account, LoginError> {
    let stored = account.as_ref().map(|account| account.password_hash.as_str());
    let right = passwords.verify(password, stored).await?;
    match account {
        Some(account) if right && account.disabled => Err(LoginError::Disabled),
        Some(account) if right => Ok(account),
        _ => Err(LoginError::Wrong),
    }
}

/// Checks a bearer token that was found by its hash, and the account that it belongs to.
pub fn with_token(
    token: Option<&Token>,
    account: Option<Account>,
    now: Timestamp,
) -> Result<Principal, LoginError> {
    let (Some(token), Some(account)) = (token, account) else { return Err(LoginError::UnknownToken) };
    if token.principal != account.principal.id || token.revoked_at.is_some() {
        return Err(LoginError::UnknownToken);
    }
    if !token.is_valid(now) {
        return Err(LoginError::TokenEnded { at: token.expires_at });
    }
    if account.disabled {
        return Err(LoginError::Disabled);
    }
    Ok(account.principal)
}

#[cfg(test)]
pub(super) mod fixtures {
    use std::collections::BTreeSet;

    use super::*;
    use crate::crypto::random;
    use crate::domain::id::PrincipalId;

    pub(in crate::identity) fn account(name: &str, password_hash: &str) -> Account {
        Account {
            principal: Principal {
                id: PrincipalId::from_random(random()),
                name: name.parse().unwrap(),
                domain: "bank-core".parse().unwrap(),
                groups: BTreeSet::new(),
            },
            password_hash: password_hash.to_owned(),
            scram_salt: random(),
            disabled: false,
            created_at: Timestamp::default(),
            ssh_certificates_void_before: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::fixtures::account;
    use super::*;
    use crate::identity::token;

    const RIGHT: &str = "correct horse battery";

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    async fn alice(passwords: &Passwords) -> Account {
        account("alice", &passwords.hash(secret(RIGHT), "alice").await.unwrap())
    }

    #[tokio::test]
    async fn the_right_password_gives_the_account() {
        let passwords = Passwords::new().unwrap();
        let alice = alice(&passwords).await;
        let found = with_password(&passwords, Some(alice.clone()), secret(RIGHT)).await.unwrap();
        assert_eq!(found, alice);
    }

    #[tokio::test]
    async fn an_unknown_name_and_a_wrong_password_are_one_answer_and_one_hash_each() {
        let passwords = Passwords::new().unwrap();
        let alice = alice(&passwords).await;
        let mut texts = Vec::new();
        for (account, password) in [(None, RIGHT), (Some(alice.clone()), "wrong"), (Some(alice), "")] {
            let before = passwords.computed();
            let error = with_password(&passwords, account, secret(password)).await.unwrap_err();
            assert_eq!(passwords.computed() - before, 1);
            assert!(matches!(error, LoginError::Wrong));
            texts.push(error.to_string());
        }
        texts.dedup();
        assert_eq!(texts.len(), 1);
    }

    #[tokio::test]
    async fn a_disabled_account_is_refused_and_only_its_owner_learns_why() {
        let passwords = Passwords::new().unwrap();
        let mut alice = alice(&passwords).await;
        alice.disabled = true;
        let right = with_password(&passwords, Some(alice.clone()), secret(RIGHT)).await;
        assert!(matches!(right, Err(LoginError::Disabled)));
        let wrong = with_password(&passwords, Some(alice), secret("wrong")).await;
        assert!(matches!(wrong, Err(LoginError::Wrong)));
    }

    #[test]
    fn an_account_is_printed_without_what_checks_its_password() {
        let alice = account("alice", "$argon2id$something");
        let printed = format!("{alice:?}");
        assert!(printed.contains("alice") && !printed.contains("argon2"), "{printed}");
        assert!(!printed.contains("salt"), "{printed}");
    }

    #[test]
    fn a_token_speaks_for_its_own_enabled_account_until_its_end() {
        let mut alice = account("alice", "");
        let start = Timestamp::from_micros(0);
        let end = start.plus(Duration::from_hours(1));
        let just_before = Timestamp::from_micros(end.as_micros() - 1);
        let mut kept = token::issue(&alice, Duration::from_hours(1), start).kept;
        let check = |kept: &Token, account: &Account, now| with_token(Some(kept), Some(account.clone()), now);
        assert_eq!(check(&kept, &alice, just_before).unwrap(), alice.principal);
        assert!(matches!(check(&kept, &alice, end), Err(LoginError::TokenEnded { at }) if at == end));
        let bob = account("bob", "");
        assert!(matches!(check(&kept, &bob, start), Err(LoginError::UnknownToken)));
        assert!(matches!(with_token(None, Some(bob), start), Err(LoginError::UnknownToken)));
        assert!(matches!(with_token(Some(&kept), None, start), Err(LoginError::UnknownToken)));
        alice.disabled = true;
        assert!(matches!(check(&kept, &alice, start), Err(LoginError::Disabled)));
        alice.disabled = false;
        kept.revoked_at = Some(start);
        assert!(matches!(check(&kept, &alice, start), Err(LoginError::UnknownToken)));
    }
}
