//! The gateway's host certificates: for its own names, and for those of targets behind it, whose
//! place it takes for a client that jumps. Signed as they are needed, and again before they are old, or
//! when the authority has another key. While the authority does not sign, those there are go on to their end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::server::Presence;
use super::settings::Settings;
use crate::clock::Clock;
use crate::crypto;
use crate::crypto::ssh::PublicKey;
use crate::crypto::ssh::authority::Authority;
use crate::crypto::ssh::certificate::{CertificateOrder, SignError, sign_host};
use crate::domain::time::Timestamp;

/// Clients' clocks may be behind.
const VALID_FROM: Duration = Duration::from_hours(1);
const VALID_FOR: Duration = Duration::from_hours(24 * 7);
const RENEW_AFTER: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(super) struct Presences {
    settings: Arc<Settings>,
    clock: Clock,
    made: Mutex<HashMap<Vec<String>, Made>>,
}

#[derive(Debug, Clone)]
struct Made {
    at: Timestamp,
    by: PublicKey,
    presence: Presence,
}

impl Presences {
    pub(super) fn new(settings: Arc<Settings>, clock: Clock) -> Self {
        Self { settings, clock, made: Mutex::default() }
    }

    /// As the gateway itself.
    pub(super) async fn own(&self) -> Result<Presence, SignError> {
        self.named(&self.settings.names).await
    }

    /// As the host of these names.
    pub(super) async fn named(&self, names: &[String]) -> Result<Presence, SignError> {
        let now = self.clock.now();
        let keys = self.settings.host_ca.now();
        let by = keys.signer.public_key();
        let known = self.known(names).filter(|made| made.by.key_data() == by.key_data());
        let known = match known {
            Some(made) if now.since(made.at) < RENEW_AFTER => return Ok(made.presence),
            known => known.filter(|made| now.since(made.at) < VALID_FOR),
        };
        match (self.sign(&*keys.signer, names, now).await, known) {
            (Ok(presence), _) => {
                let made = Made { at: now, by: by.clone(), presence: presence.clone() };
                self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(names.to_vec(), made);
                Ok(presence)
            }
            (Err(error), Some(known)) => {
                tracing::warn!(%error, ?names, "a host certificate is not renewed: going on with the one there is");
                Ok(known.presence)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn known(&self, names: &[String]) -> Option<Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).get(names).cloned()
    }

    async fn sign(
        &self,
        authority: &dyn Authority,
        names: &[String],
        now: Timestamp,
    ) -> Result<Presence, SignError> {
        let seconds = |at: Timestamp| u64::try_from(at.as_micros() / 1_000_000).unwrap_or(0);
        let principals: Vec<&str> = names.iter().map(String::as_str).collect();
        let order = CertificateOrder {
            key: self.settings.host_key.public_key(),
            key_id: "sallyport",
            principals: &principals,
            valid_after: seconds(now).saturating_sub(VALID_FROM.as_secs()),
            valid_before: seconds(now.plus(VALID_FOR)),
            serial: u64::from_be_bytes(crypto::random()),
            source_address: None,
            extensions: &[],
        };
        let certificate = sign_host(authority, &order).await?;
        Ok(Presence::new(vec![self.settings.host_key.clone()], vec![certificate]))
    }
}
