//! The gateway's host certificates: for its own names, and for those of targets behind it, whose
//! place it takes for a client that jumps. Signed as they are needed, and again before they are old, or
//! when the authority has another key. While the authority does not sign, those there are go on to their end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::server::Presence;
use super::settings::Settings;
use crate::access::credential::error_chain;
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
/// After an authority did not sign: nobody is to wait for it at every connection.
const RETRY_AFTER: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Presences {
    settings: Arc<Settings>,
    clock: Clock,
    made: Mutex<HashMap<Vec<String>, Made>>,
}

#[derive(Debug, Clone)]
struct Made {
    by: PublicKey,
    renew_at: Timestamp,
    ends_at: Timestamp,
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
        let known = self.known(names);
        let known = known.filter(|made| made.by.key_data() == by.key_data() && now < made.ends_at);
        if let Some(made) = known.as_ref().filter(|made| now < made.renew_at) {
            return Ok(made.presence.clone());
        }
        let made = match (self.sign(&*keys.signer, names, now).await, known) {
            (Ok(presence), _) => {
                let (renew_at, ends_at) = (now.plus(RENEW_AFTER), now.plus(VALID_FOR));
                Made { by: by.clone(), renew_at, ends_at, presence }
            }
            (Err(error), Some(known)) => {
                tracing::warn!(
                    error = error_chain(&error),
                    ?names,
                    "a host certificate is not renewed: going on with the one there is"
                );
                Made { renew_at: now.plus(RETRY_AFTER), ..known }
            }
            (Err(error), None) => return Err(error),
        };
        let presence = made.presence.clone();
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(names.to_vec(), made);
        Ok(presence)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::credentials::ssh_certificate::SshCertificates;
    use crate::crypto::ssh::authority::{Keyring, Keys, NotSigned};
    use crate::crypto::ssh::{PrivateKey, Signature, generate_ed25519};

    /// Signs so many times, and then not any more.
    #[derive(Debug)]
    struct Tired {
        key: PrivateKey,
        strength: usize,
        asked: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Authority for Tired {
        fn public_key(&self) -> &PublicKey {
            self.key.public_key()
        }

        async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned> {
            if self.asked.fetch_add(1, Ordering::Relaxed) < self.strength {
                return Authority::sign(&self.key, text).await;
            }
            Err(NotSigned::Silent)
        }
    }

    fn tired(strength: usize) -> (Arc<Tired>, Keys) {
        let signer = Arc::new(Tired { key: generate_ed25519(), strength, asked: AtomicUsize::new(0) });
        (Arc::clone(&signer), Keys { signer, others: Vec::new() })
    }

    fn presences(keys: Keys) -> (Presences, Arc<Keyring>, Clock) {
        let (host_ca, clock) = (Arc::new(Keyring::new(keys)), Clock::manual(Timestamp::from_micros(1 << 50)));
        let other = || Arc::new(Keyring::new(generate_ed25519().into()));
        let settings = Settings {
            host_key: generate_ed25519(),
            host_ca: Arc::clone(&host_ca),
            user_ca: other(),
            certificates: SshCertificates::new(other()),
            names: vec!["bastion".to_owned()],
            handshake_timeout: Duration::from_secs(1),
            idle_timeout: None,
            max_channels: 1,
            stream_head: 0,
            accept_env: Vec::new(),
            idle_upstreams: 0,
        };
        (Presences::new(Arc::new(settings), clock.clone()), host_ca, clock)
    }

    #[tokio::test]
    async fn a_host_certificate_that_cannot_be_renewed_goes_on_to_its_end() {
        let (authority, keys) = tired(1);
        let (presences, _, clock) = presences(keys);
        let asked = || authority.asked.load(Ordering::Relaxed);
        presences.own().await.unwrap();
        presences.own().await.unwrap();
        assert_eq!(asked(), 1, "one certificate is for everybody");
        clock.advance(RENEW_AFTER);
        presences.own().await.unwrap();
        presences.own().await.unwrap();
        assert_eq!(asked(), 2, "who does not sign is not asked for every connection");
        clock.advance(RETRY_AFTER);
        presences.own().await.unwrap();
        assert_eq!(asked(), 3);
        clock.advance(VALID_FOR);
        assert_eq!(presences.own().await.unwrap_err(), SignError::NotSigned(NotSigned::Silent));
    }

    #[tokio::test]
    async fn another_key_of_the_authority_makes_another_certificate_at_once() {
        let (_, keys) = tired(1);
        let (presences, host_ca, _) = presences(keys);
        presences.own().await.unwrap();
        let (authority, keys) = tired(1);
        host_ca.replace(keys);
        presences.own().await.unwrap();
        assert_eq!(authority.asked.load(Ordering::Relaxed), 1);
    }
}
