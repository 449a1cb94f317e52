//! One SSH certificate per connection to a host: a key that exists only here and only while the
//! gateway authenticates, certified for one login, for a minute, by Sallyport's own authority.
//!
//! Nothing has to be destroyed at the source: the key is wiped from memory as soon as the target has
//! taken it, and the certificate is worth nothing without it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto;
use crate::crypto::ssh::authority::Keyring;
use crate::crypto::ssh::certificate::{CertificateOrder, SignError, sign_user};
use crate::crypto::ssh::{self, Certificate, PrivateKey};
use crate::domain::time::Timestamp;

/// How long a certificate is valid either way of its issue: hosts' clocks differ.
const VALID_FOR: Duration = Duration::from_mins(1);
/// What a host's own sshd then decides on; X11 is never among it.
const EXTENSIONS: [&str; 4] =
    ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"];

/// Issues certificates that open hosts.
#[derive(Debug)]
pub struct SshCertificates {
    authority: Arc<Keyring>,
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
    /// Hosts must trust `authority`.
    pub fn new(authority: Arc<Keyring>) -> Self {
        Self { authority }
    }

    pub async fn issue(&self, wanted: &CertificateFor<'_>) -> Result<OneConnection, SignError> {
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
        let certificate = sign_user(&*self.authority.now().signer, &order).await?;
        let fingerprint = ssh::fingerprint(key.public_key());
        Ok(OneConnection { key, certificate, fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use futures_util::FutureExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_795_468_800_900_000);

    /// What `ssh-keygen -L` says of a certificate, line by line.
    fn listed(ends_after: Duration, source_address: Option<&str>) -> Vec<String> {
        let authority = ssh::generate_ed25519();
        let trusted = ssh::fingerprint(authority.public_key());
        let certificates = SshCertificates::new(Arc::new(Keyring::new(authority.into())));
        let wanted = CertificateFor {
            id: "sallyport ses/con/1",
            login: "deploy",
            source_address,
            now: NOW,
            ends_at: NOW.plus(ends_after),
        };
        let issued = certificates.issue(&wanted).now_or_never().unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id-cert.pub");
        std::fs::write(&path, issued.certificate.to_openssh().unwrap()).unwrap();
        let output = Command::new("ssh-keygen").env("TZ", "UTC").arg("-Lf").arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&trusted), "{text}");
        assert!(text.contains(&issued.fingerprint), "{text}");
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// What is listed below a headline.
    fn below<'a>(lines: &'a [String], headline: &str) -> Vec<&'a str> {
        let below = lines.iter().skip_while(|line| *line != headline).skip(1);
        below.take_while(|line| !line.ends_with([':', ')'])).map(String::as_str).collect()
    }

    #[test]
    fn openssh_reads_one_login_for_a_minute_and_nothing_else() {
        let lines = listed(Duration::from_hours(1), None);
        assert!(lines[1].contains("ssh-ed25519-cert-v01@openssh.com user certificate"), "{lines:?}");
        assert!(lines.contains(&"Key ID: \"sallyport ses/con/1\"".to_owned()), "{lines:?}");
        assert!(
            lines.contains(&"Valid: from 2026-11-23T21:19:00 to 2026-11-23T21:21:00".to_owned()),
            "{lines:?}"
        );
        assert_eq!(below(&lines, "Principals:"), ["deploy"]);
        assert!(lines.contains(&"Critical Options: (none)".to_owned()), "{lines:?}");
        assert_eq!(below(&lines, "Extensions:"), EXTENSIONS);
    }

    #[test]
    fn it_ends_with_the_session() {
        let lines = listed(Duration::from_secs(20), None);
        assert!(
            lines.contains(&"Valid: from 2026-11-23T21:19:00 to 2026-11-23T21:20:20".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn it_is_for_the_gateways_address_alone_where_that_is_known() {
        let lines = listed(Duration::from_hours(1), Some("192.0.2.7,2001:db8::/64"));
        assert_eq!(below(&lines, "Critical Options:"), ["source-address 192.0.2.7,2001:db8::/64"]);
    }
}
