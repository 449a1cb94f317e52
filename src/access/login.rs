//! From a name, a password and where there is one a second factor to a token, and from a token to a principal.
//!
//! An unknown name, a wrong password and a disabled account take the same course and give the same
//! answer. Attempts with a password are limited by name and by address, attempts with a token by address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::crypto::scram::{Salt, Verifier};
use crate::domain::account::Account;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{PrincipalId, TokenId};
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::identity::limiter::{Attempt, Attempts};
use crate::identity::login::{LoginError, with_password, with_token};
use crate::identity::mock::{self, ServerSecret};
use crate::identity::password::Passwords;
use crate::identity::token::{self, Lifetimes, PresentedToken};

use super::refusal::Refusal;
use super::ssh_identity::UserCa;
use super::{Access, Caller};

/// What logging in needs beyond the store.
#[derive(Debug)]
pub struct Logins {
    pub passwords: Passwords,
    /// Attempts with a password, which can be guessed.
    pub password_attempts: Attempts,
    /// Attempts with a token at a gateway, which cannot: only floods are limited.
    pub token_attempts: Attempts,
    /// Attempts with a code of six digits.
    pub second_factor_attempts: Attempts,
    /// Key of the salts that unknown users are shown.
    pub server_secret: ServerSecret,
    pub lifetimes: Lifetimes,
    /// `None`: there is no SSH gateway here.
    pub ssh_user_ca: Option<UserCa>,
}

/// A fresh token: the only time that it is shown.
#[derive(Debug)]
pub struct LoggedIn {
    pub principal: Principal,
    pub token: Secret<String>,
    pub token_id: TokenId,
    pub expires_at: Timestamp,
}

/// Somebody known by their token.
#[derive(Debug, Clone)]
pub struct Authenticated {
    pub caller: Caller,
    pub token: TokenId,
    pub expires_at: Timestamp,
}

/// What the SCRAM exchange of a gateway needs; of the same form for a user that does not exist.
#[derive(Debug)]
pub struct ScramKeys {
    pub salt: Salt,
    /// One for each of the user's valid tokens; for nobody, one that nothing fits.
    pub candidates: Vec<Verifier>,
    /// `None` for an unknown or disabled user.
    pub principal: Option<Principal>,
}

impl Access {
    /// Checks name and password, and the second factor's code of those who have one, and makes a token.
    pub async fn login(
        &self,
        name: &str,
        password: Secret<String>,
        code: Option<&str>,
        client: Option<SocketAddr>,
    ) -> Result<LoggedIn, Refusal> {
        let account = self.check_password(name, password, client).await?;
        if self.has_second_factor(&account.principal.id).await? {
            let Some(code) = code else {
                let refusal = Refusal::SecondFactorRequired;
                return Err(self.refused_login(name, client, refusal).await);
            };
            self.check_second_factor(&account.principal, code, client).await?;
        }
        let now = self.now();
        let made = token::issue(&account, self.logins.lifetimes.clip(None), now);
        let event = Event::done(Action::Login)
            .by(&account.principal)
            .from(client)
            .with("token", made.kept.id.as_str())
            .with("expires_at", made.kept.expires_at.to_string());
        self.store.add_token(&made.kept, &account.password_hash, now, &[event]).await?;
        self.publish().await?;
        Ok(LoggedIn {
            principal: account.principal,
            token: made.text,
            token_id: made.kept.id,
            expires_at: made.kept.expires_at,
        })
    }

    /// Checks name and password and makes nothing: for a gateway that asks for the password itself,
    /// and then for the second factor of whoever [has one](Self::has_second_factor).
    pub async fn authenticate_password(
        &self,
        name: &str,
        password: Secret<String>,
        client: Option<SocketAddr>,
    ) -> Result<Principal, Refusal> {
        let account = self.check_password(name, password, client).await?;
        Ok(account.principal)
    }

    /// Records that somebody proved who they are at a gateway, by all that was asked of them.
    pub async fn record_login(
        &self,
        principal: &Principal,
        client: Option<SocketAddr>,
        way: &str,
    ) -> Result<(), Refusal> {
        self.record(Event::done(Action::Login).by(principal).from(client).with("way", way)).await
    }

    async fn check_password(
        &self,
        name: &str,
        password: Secret<String>,
        client: Option<SocketAddr>,
    ) -> Result<Account, Refusal> {
        let address = client.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |client| client.ip());
        let attempt = self
            .logins
            .password_attempts
            .admit(name, address)
            .map_err(|wait| Refusal::TooManyAttempts { seconds: wait.retry_after.as_secs().max(1) })?;
        let found = match name.parse::<UserName>() {
            Ok(name) => self.store.user_by_name(&name).await,
            Err(_) => Ok(None),
        };
        let account = match found {
            Ok(account) => account,
            Err(error) => {
                attempt.give_back();
                return Err(error.into());
            }
        };
        match with_password(&self.logins.passwords, account, password).await {
            Ok(account) => {
                attempt.give_back();
                Ok(account)
            }
            Err(error) => {
                let refusal = Refusal::Unauthenticated(error.to_string());
                Err(self.refused_login(name, client, refusal).await)
            }
        }
    }

    /// Records the refusal and gives it back, or what kept it from being recorded.
    async fn refused_login(&self, name: &str, client: Option<SocketAddr>, refusal: Refusal) -> Refusal {
        let event = Event::new(Action::Login, Outcome::Refused)
            .from(client)
            .with("claimed", name.chars().take(80).collect::<String>())
            .with("why", refusal.to_string());
        metrics::counter!("sallyport_logins_refused_total").increment(1);
        match self.record(event).await {
            Ok(()) => refusal,
            Err(unrecorded) => unrecorded,
        }
    }

    /// Counts an attempt to authenticate with a token at a gateway.
    pub fn admit_token_attempt(&self, name: &str, address: IpAddr) -> Result<Attempt, Refusal> {
        self.logins
            .token_attempts
            .admit(name, address)
            .map_err(|wait| Refusal::TooManyAttempts { seconds: wait.retry_after.as_secs().max(1) })
    }

    /// Ends the token that the caller came with.
    pub async fn logout(&self, who: &Authenticated) -> Result<(), Refusal> {
        let event = Event::done(Action::Logout)
            .by(&who.caller.principal)
            .from(who.caller.client)
            .with("token", who.token.as_str());
        self.store.revoke_token(&who.token, self.now(), &[event]).await?;
        self.publish().await
    }

    /// Who comes with this bearer token.
    pub async fn authenticate(
        &self,
        bearer: &str,
        client: Option<SocketAddr>,
    ) -> Result<Authenticated, Refusal> {
        let unauthenticated = |error: &dyn std::error::Error| Refusal::Unauthenticated(error.to_string());
        let presented = PresentedToken::parse(bearer).map_err(|error| unauthenticated(&error))?;
        let token = self.store.token_by_hash(&presented.hash()).await?;
        let account = match &token {
            Some(token) => self.store.user_by_id(&token.principal).await?,
            None => None,
        };
        let principal =
            with_token(token.as_ref(), account, self.now()).map_err(|error| unauthenticated(&error))?;
        let token = token.ok_or_else(|| unauthenticated(&LoginError::UnknownToken))?;
        Ok(Authenticated {
            caller: Caller { principal, client },
            token: token.id,
            expires_at: token.expires_at,
        })
    }

    /// What to check a SCRAM proof of one of the user's tokens with. For a user that does not
    /// exist it has the same form, and nothing fits it.
    pub async fn scram_keys(&self, user: &UserName) -> Result<ScramKeys, Refusal> {
        let account = self.store.user_by_name(user).await?;
        // Nobody's tokens are looked up as well: how long the answer takes must not tell who exists.
        let nobody = PrincipalId::from_random([0; 10]);
        let id = account.as_ref().map_or(&nobody, |account| &account.principal.id);
        let tokens = self.store.valid_tokens(id, self.now()).await?;
        let secret = &self.logins.server_secret;
        let salt = match &account {
            Some(account) => account.scram_salt,
            None => mock::salt(secret, user.as_str()),
        };
        let candidates = mock::verifiers(secret, user.as_str(), account.as_ref(), &tokens);
        let principal = account.filter(|account| !account.disabled).map(|account| account.principal);
        Ok(ScramKeys { salt, candidates, principal })
    }

    /// Who has this name, for a gateway that has seen it proved; `None` for an unknown or disabled user.
    pub async fn principal_by_name(&self, user: &UserName) -> Result<Option<Principal>, Refusal> {
        let account = self.store.user_by_name(user).await?;
        Ok(account.filter(|account| !account.disabled).map(|account| account.principal))
    }
}
