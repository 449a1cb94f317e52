//! What the SSH gateway was configured with.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::ssh_certificate::SshCertificates;
use crate::crypto::ssh::PrivateKey;
use crate::crypto::ssh::authority::Keyring;

#[derive(Debug)]
pub struct Settings {
    /// The gateway's own key.
    pub host_key: PrivateKey,
    /// Certifies the host key for names: the gateway's, and those of targets behind it.
    pub host_ca: Arc<Keyring>,
    /// Who signs people's certificates.
    pub user_ca: Arc<Keyring>,
    /// Issues what opens targets.
    pub certificates: SshCertificates,
    /// The names under which clients reach the gateway.
    pub names: Vec<String>,
    /// From accept to authenticated.
    pub handshake_timeout: Duration,
    /// Without a byte either way; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Channels that a connection may have open at once.
    pub max_channels: usize,
    /// How much is kept of a byte stream that is not a terminal, in bytes.
    pub stream_head: u64,
    /// Names of variables that go on to the target; `*` and `?` as sshd's `AcceptEnv` has them.
    pub accept_env: Vec<String>,
    /// Connections to the target that are kept for further forwards, for each client connection.
    pub idle_upstreams: usize,
}

impl Settings {
    pub(super) fn accepts_env(&self, name: &str) -> bool {
        self.accept_env.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }
}

/// Whether `*` (anything) and `?` (any one byte) make `pattern` fit `text`. Takes time in proportion
/// to both lengths: after a later `*`, an earlier one need not be tried again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                t += 1;
            }
            Some(expected) if expected == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_matched_as_sshd_does() {
        for (pattern, name, fits) in [
            ("LANG", "LANG", true),
            ("LANG", "LANGUAGE", false),
            ("LC_*", "LC_ALL", true),
            ("LC_*", "LC_", true),
            ("LC_*", "XLC_ALL", false),
            ("*", "", true),
            ("?", "", false),
            ("a?c*e", "abcde", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
