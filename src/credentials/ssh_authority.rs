//! An SSH authority's keys as they are configured: in files, or in Amazon KMS.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ssh_kms::{KmsAuthority, KmsError};
use crate::config::{AuthorityKeys, KmsKey, Signs, Trusted, authority};
use crate::crypto::ssh::PublicKey;
use crate::crypto::ssh::authority::{Authority, Keys};

/// Public halves of keys in KMS, by how the configuration names these: good for as long as KMS cannot be asked.
pub type KnownKeys = BTreeMap<String, PublicKey>;

/// Why an authority cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("{0}")]
    File(String),
    #[error("cannot use the key `{key}`")]
    Kms {
        key: String,
        #[source]
        source: KmsError,
    },
}

/// An authority's keys, each for what it is.
#[derive(Debug)]
pub struct SshAuthority {
    pub signer: Arc<dyn Authority>,
    pub next: Option<PublicKey>,
    pub previous: Vec<PublicKey>,
    /// What the configuration names beside these.
    pub trusted: Vec<PublicKey>,
}

impl SshAuthority {
    /// Blocks while KMS is asked for the keys that are there. What it says is added to `known`; where it cannot be
    /// reached, what `known` says is believed.
    pub fn open(configured: &AuthorityKeys, known: &mut KnownKeys) -> Result<Self, AuthorityError> {
        let (signer, next, previous): (Arc<dyn Authority>, _, _) = match &configured.signs {
            Signs::File(path) => {
                let held = authority::read(path).map_err(AuthorityError::File)?;
                (Arc::new(held.current), held.next.map(|key| key.public_key().clone()), held.previous)
            }
            Signs::Kms(key) => (Arc::new(in_kms(key, known)?), None, Vec::new()),
        };
        let trusted = configured.trusted.iter().map(|trusted| match trusted {
            Trusted::Line(key) => Ok(key.clone()),
            Trusted::Kms(key) => Ok(in_kms(key, known)?.public_key().clone()),
        });
        let mut trusted = trusted.collect::<Result<Vec<_>, _>>()?;
        // One that was trusted before it signs is named at both places for a while.
        trusted.retain(|key| key.key_data() != signer.public_key().key_data());
        Ok(Self { signer, next, previous, trusted })
    }

    pub fn into_keys(self) -> Keys {
        let Self { signer, next, previous, trusted } = self;
        let mut others: Vec<PublicKey> = Vec::new();
        for key in next.into_iter().chain(previous).chain(trusted) {
            if others.iter().all(|other| other.key_data() != key.key_data()) {
                others.push(key);
            }
        }
        Keys { signer, others }
    }
}

fn in_kms(key: &KmsKey, known: &mut KnownKeys) -> Result<KmsAuthority, AuthorityError> {
    let opened = KmsAuthority::open(key, known.get(&key.key));
    let opened = opened.map_err(|source| AuthorityError::Kms { key: key.key.clone(), source })?;
    known.insert(key.key.clone(), opened.public_key().clone());
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ssh::{self, PrivateKey};

    fn line(key: &PrivateKey) -> Trusted {
        Trusted::Line(key.public_key().clone())
    }

    #[test]
    fn what_is_configured_beside_the_key_is_trusted_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("login_ca");
        let (current, other) = (ssh::generate_ed25519(), ssh::generate_ed25519());
        std::fs::write(&path, ssh::to_pem(&current).unwrap().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let trusted = vec![line(&current), line(&other), line(&other)];
        let configured = AuthorityKeys { signs: Signs::File(path), trusted };
        let keys = SshAuthority::open(&configured, &mut KnownKeys::new()).unwrap().into_keys();
        let expected = [&current, &other].map(|key| ssh::fingerprint(key.public_key()));
        assert_eq!(keys.fingerprints(), expected);
    }
}
