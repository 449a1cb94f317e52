//! One SSH certificate per connection to a host: a key that exists only here and only while the
//! gateway authenticates, certified for one login, for a minute, by Sallyport's own authority.
//!
//! Nothing has to be destroyed at the source: the key is wiped from memory as soon as the target has
//! taken it, and the certificate is worth nothing without it.

use std::fmt;
use std::time::Duration;

use crate::crypto;
use crate::crypto::ssh::certificate::{CertificateOrder, SignError, sign_user};
use crate::crypto::ssh::{self, Certificate, PrivateKey, PublicKey};
use crate::domain::time::Timestamp;

/// How long a certificate is valid either way of its issue: hosts' clocks differ.
const VALID_FOR: Duration = Duration::from_mins(1);
/// What a host's own sshd then decides on; X11 is never among it.
const EXTENSIONS: [&str; 4] =
    ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"];

/// Issues certificates that open hosts.
pub struct SshCertificates {
    authority: PrivateKey,
}

impl fmt::Debug for SshCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshCertificates").finish_non_exhaustive()
    }
}

/// For whom and what.
#[derive(Debug, Clone, Copy)]
pub struct CertificateFor<'a> {
    /// What the target's log will show: session and connection.
    pub id: &'a str,
    /// The host login, and nothing else that it is good for.
    pub login: &'a str,
    /// Where the gateway comes from, as the target sees it.
    pub source_address: Option<&'a str>,
    pub now: Timestamp,
    /// The session's end; the certificate ends no later.
    pub ends_at: Timestamp,
}

/// What opens one connection. Never shown to the principal.
pub struct OneConnection {
    pub key: PrivateKey,
    pub certificate: Certificate,
    /// Of the public key, as the target's log shows it.
    pub fingerprint: String,
}

impl fmt::Debug for OneConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneConnection").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl SshCertificates {
    pub fn new(authority: PrivateKey) -> Self {
        Self { authority }
    }

    /// What hosts must trust.
    pub fn authority(&self) -> PublicKey {
        self.authority.public_key().clone()
    }

    pub fn issue(&self, wanted: &CertificateFor<'_>) -> Result<OneConnection, SignError> {
        let key = ssh::generate_ed25519();
        let seconds = |at: Timestamp| u64::try_from(at.as_micros() / 1_000_000).unwrap_or(0);
        let order = CertificateOrder {
            key: key.public_key(),
            key_id: wanted.id,
            principals: &[wanted.login],
            valid_after: seconds(wanted.now).saturating_sub(VALID_FOR.as_secs()),
            valid_before: seconds(wanted.now.plus(VALID_FOR).min(wanted.ends_at)),
            serial: u64::from_be_bytes(crypto::random()),
            source_address: wanted.source_address,
            extensions: &EXTENSIONS,
        };
        let certificate = sign_user(&self.authority, &order)?;
        let fingerprint = ssh::fingerprint(key.public_key());
        Ok(OneConnection { key, certificate, fingerprint })
    }
}
