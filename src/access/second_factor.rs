//! The second factor: set and removed by whoever administers the server, checked after a password.
//!
//! A code has six digits, so attempts are few; they are counted for who proved the password, so that
//! no stranger can use them up. A code is accepted once, whoever comes first with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::PrincipalId;
use crate::domain::name::UserName;
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::identity::limiter::{Attempts, Limit};
use crate::identity::totp;

use super::Access;
use super::refusal::Refusal;
use super::users::Users;

/// Three of a million codes fit at any moment: at this rate one is guessed in some three years.
const GUESSES: Limit = Limit { burst: 5, refill: Duration::from_mins(5), capacity: 10_000 };

/// Attempts with codes.
pub fn attempts(clock: Clock) -> Attempts {
    Attempts::with_limits(clock, GUESSES, Limit::ADDRESS)
}

/// A fresh second factor: the only time that it is shown.
#[derive(Debug)]
pub struct NewSecondFactor {
    /// For an authenticator's camera.
    pub uri: Secret<String>,
    /// For its keyboard.
    pub base32: Secret<String>,
}

impl Users<'_> {
    /// Gives the user a second factor, in place of one they may have.
    pub async fn set_second_factor(
        &self,
        name: &UserName,
        now: Timestamp,
    ) -> Result<NewSecondFactor, Refusal> {
        let id = self.id_of(name).await?;
        let factor = totp::generate();
        let event = self.event(Action::SecondFactorSet, name, &id);
        self.store.set_second_factor(&id, &factor, now, &[event]).await?;
        Ok(NewSecondFactor { uri: totp::uri(&factor, name), base32: totp::base32(&factor) })
    }

    pub async fn remove_second_factor(&self, name: &UserName, now: Timestamp) -> Result<(), Refusal> {
        let id = self.id_of(name).await?;
        let event = self.event(Action::SecondFactorRemoved, name, &id);
        if self.store.remove_second_factor(&id, now, &[event]).await? {
            return Ok(());
        }
        Err(Refusal::NotFound { what: format!("a second factor of `{name}`") })
    }
}

impl Access {
    pub async fn has_second_factor(&self, principal: &PrincipalId) -> Result<bool, Refusal> {
        Ok(self.store.second_factor(principal).await?.is_some())
    }

    /// Checks a code of somebody who proved their password. Recorded either way.
    pub async fn check_second_factor(
        &self,
        principal: &Principal,
        code: &str,
        client: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let address = client.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |client| client.ip());
        let attempt = self
            .logins
            .second_factor_attempts
            .admit(principal.id.as_str(), address)
            .map_err(|wait| Refusal::TooManyAttempts { seconds: wait.retry_after.as_secs().max(1) })?;
        match self.use_code(principal, code, client).await {
            Ok(true) => {
                attempt.give_back();
                self.publish().await
            }
            Ok(false) => {
                let event =
                    Event::new(Action::SecondFactorChecked, Outcome::Refused).by(principal).from(client);
                metrics::counter!("sallyport_logins_refused_total").increment(1);
                self.record(event).await?;
                let told = "the code is wrong or was used already: wait for the next one";
                Err(Refusal::Unauthenticated(told.to_owned()))
            }
            Err(error) => {
                attempt.give_back();
                Err(error)
            }
        }
    }

    async fn use_code(
        &self,
        principal: &Principal,
        code: &str,
        client: Option<SocketAddr>,
    ) -> Result<bool, Refusal> {
        let now = self.now();
        let Some(factor) = self.store.second_factor(&principal.id).await? else { return Ok(false) };
        let Some(step) = totp::acceptable_step(&factor, code, now) else { return Ok(false) };
        let event = Event::done(Action::SecondFactorChecked).by(principal).from(client);
        Ok(self.store.use_second_factor(&principal.id, step, now, &[event]).await?)
    }
}
