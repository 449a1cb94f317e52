//! An SSH authority's key that does not leave Amazon KMS: ECDSA on P-256 (`ECC_NIST_P256`, for signing and verifying).

use async_trait::async_trait;

pub use crate::amazon::kms::KmsError;
use crate::amazon::kms::{self, Keeper, KeySpec, MessageType, SigningAlgorithmSpec};
use crate::config::KmsKey;
use crate::crypto;
use crate::crypto::ssh::authority::{Authority, NotSigned};
use crate::crypto::ssh::{PublicKey, Signature, nist_p256};

/// What is longer, KMS takes as its hash alone.
const LONGEST_MESSAGE: usize = 4096;

/// The key as an authority.
#[derive(Debug)]
pub struct KmsAuthority {
    keeper: Keeper,
    public_key: PublicKey,
}

impl KmsAuthority {
    /// Asks KMS for the public key; blocks until it answers. When KMS cannot be reached, `known` is taken for it: what
    /// another key signs makes no certificate.
    pub fn open(key: &KmsKey, known: Option<&PublicKey>) -> Result<Self, KmsError> {
        let key = kms::Key {
            name: key.key.clone(),
            region: key.region.clone(),
            endpoint: key.endpoint.clone(),
            spec: KeySpec::EccNistP256,
            algorithm: SigningAlgorithmSpec::EcdsaSha256,
        };
        let keeper = Keeper::start("ssh-kms", key)?;
        let public_key = keeper.public_key(nist_p256::public_key, known.cloned())?;
        Ok(Self { keeper, public_key })
    }
}

#[async_trait]
impl Authority for KmsAuthority {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned> {
        let (message, kind) = message(text);
        let signed = self.keeper.sign(message, kind).await.map_err(|why| match why {
            kms::NotSigned::Failed(why) => NotSigned::Failed(why),
            kms::NotSigned::Silent => NotSigned::Silent,
            kms::NotSigned::Busy => NotSigned::Busy,
        })?;
        nist_p256::signature(&signed)
            .ok_or_else(|| NotSigned::Failed("what it gives is no signature".to_owned()))
    }
}

fn message(text: &[u8]) -> (Vec<u8>, MessageType) {
    if text.len() > LONGEST_MESSAGE {
        return (crypto::sha256(&[text]).to_vec(), MessageType::Digest);
    }
    (text.to_vec(), MessageType::Raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_kms_is_sent_as_its_hash() {
        assert_eq!(message(&[7; 4096]), (vec![7; 4096], MessageType::Raw));
        let long = [7; 4097];
        assert_eq!(message(&long), (crypto::sha256(&[&long]).to_vec(), MessageType::Digest));
    }
}
