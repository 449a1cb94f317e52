//! From a name and a password to a token, and from a token to a principal.
//!
//! An unknown name, a wrong password and a disabled account take the same course and give the same
//! answer. Attempts are limited by name and by address, for the API and for the gateways alike.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::crypto::scram::{ITERATIONS, Salt, Verifier};
use crate::domain::account::Token;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::TokenId;
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::identity::{AttemptLimiter, Passwords, mock_salt, new_token, token_hash};

use super::refusal::Refusal;
use super::{Access, Caller};

const WRONG: &str = "wrong user name or password";
const BAD_TOKEN: &str = "the token is unknown, revoked or expired: log in again (`sallyport login`)";

/// What logging in needs beyond the store.
#[derive(Debug)]
pub struct Logins {
    pub passwords: Passwords,
    pub limiter: AttemptLimiter,
    /// Key of the salts that unknown users are shown.
    pub server_secret: Secret<Vec<u8>>,
    pub token_lifetime: Duration,
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
    /// One for each of the user's valid tokens.
    pub candidates: Vec<(TokenId, Verifier)>,
    /// `None` for an unknown or disabled user; then there are no candidates either.
    pub principal: Option<Principal>,
}

impl Access {
    pub async fn login(
        &self,
        name: &str,
        password: &Secret<String>,
        client: Option<SocketAddr>,
    ) -> Result<LoggedIn, Refusal> {
        self.limit_attempts(name, client.map(|client| client.ip()))?;
        let account = match name.parse::<UserName>() {
            Ok(name) => self.store.user_by_name(&name).await?,
            Err(_) => None,
        };
        let verified =
            self.logins.passwords.verify(account.as_ref().map(|a| a.password_hash.as_str()), password).await;
        let account = account.filter(|account| verified && !account.disabled);
        let Some(account) = account else {
            let event = Event::new(Action::Login, Outcome::Refused)
                .from(client)
                .with("claimed", name.chars().take(80).collect::<String>());
            self.record(event).await?;
            metrics::counter!("sallyport_logins_refused_total").increment(1);
            return Err(Refusal::Unauthenticated(WRONG));
        };
        let now = self.now();
        let made = new_token(&account, now, self.logins.token_lifetime);
        let event = Event::done(Action::Login)
            .by(&account.principal)
            .from(client)
            .with("token", made.row.id.as_str())
            .with("expires_at", made.row.expires_at.to_string());
        self.store.add_token(&made.row, now, &[event]).await?;
        self.publish().await?;
        Ok(LoggedIn {
            principal: account.principal,
            token: made.text,
            token_id: made.row.id,
            expires_at: made.row.expires_at,
        })
    }

    /// Counts an attempt to authenticate, by name and by address.
    pub fn limit_attempts(&self, name: &str, address: Option<IpAddr>) -> Result<(), Refusal> {
        self.logins
            .limiter
            .attempt(name, address, self.now())
            .map_err(|wait| Refusal::TooManyAttempts { seconds: wait.as_secs().max(1) })
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
        let refused = || Refusal::Unauthenticated(BAD_TOKEN);
        let hash = token_hash(bearer).ok_or_else(refused)?;
        let token = self.store.token_by_hash(&hash).await?.ok_or_else(refused)?;
        let account = self.store.user_by_id(&token.principal).await?;
        let account = account.filter(|account| !account.disabled).ok_or_else(refused)?;
        if !token.is_valid(self.now()) {
            return Err(refused());
        }
        Ok(Authenticated {
            caller: Caller { principal: account.principal, client },
            token: token.id,
            expires_at: token.expires_at,
        })
    }

    /// The keys to check a SCRAM proof of one of the user's tokens with.
    pub async fn scram_keys(&self, user: &UserName) -> Result<ScramKeys, Refusal> {
        let account = self.store.user_by_name(user).await?.filter(|account| !account.disabled);
        let Some(account) = account else {
            let salt = mock_salt(self.logins.server_secret.expose(), user);
            return Ok(ScramKeys { salt, candidates: Vec::new(), principal: None });
        };
        let tokens = self.store.valid_tokens(&account.principal.id, self.now()).await?;
        let salt = account.scram_salt;
        let candidates = tokens.into_iter().map(|token| (token.id.clone(), verifier(salt, &token))).collect();
        Ok(ScramKeys { salt, candidates, principal: Some(account.principal) })
    }
}

fn verifier(salt: Salt, token: &Token) -> Verifier {
    Verifier { salt, iterations: ITERATIONS, stored_key: token.stored_key, server_key: token.server_key }
}
