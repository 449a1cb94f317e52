//! The gateway's host certificates: for its own names, and for those of targets behind it, whose
//! place it takes for a client that jumps. Signed as they are needed, and again before they are old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::server::Presence;
use super::settings::Settings;
use crate::clock::Clock;
use crate::crypto;
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
    made: Mutex<HashMap<Vec<String>, (Timestamp, Presence)>>,
}

impl Presences {
    pub(super) fn new(settings: Arc<Settings>, clock: Clock) -> Self {
        Self { settings, clock, made: Mutex::default() }
    }

    /// As the gateway itself.
    pub(super) fn own(&self) -> Result<Presence, SignError> {
        self.named(&self.settings.names)
    }

    /// As the host of these names.
    pub(super) fn named(&self, names: &[String]) -> Result<Presence, SignError> {
        let now = self.clock.now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, presence)) = made.get(names)
            && now.since(*at) < RENEW_AFTER
        {
            return Ok(presence.clone());
        }
        let presence = self.sign(names, now)?;
        made.insert(names.to_vec(), (now, presence.clone()));
        Ok(presence)
    }

    fn sign(&self, names: &[String], now: Timestamp) -> Result<Presence, SignError> {
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
        let certificate = sign_host(&self.settings.host_ca, &order)?;
        Ok(Presence::new(vec![self.settings.host_key.clone()], vec![certificate]))
    }
}
