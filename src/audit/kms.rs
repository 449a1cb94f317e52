//! A signing key that does not leave Amazon KMS: an Ed25519 key (`ECC_NIST_EDWARDS25519`, for signing and verifying).

use super::signer::{NotSigned, Signer};
pub use crate::amazon::kms::KmsError;
use crate::amazon::kms::{self, Keeper, KeySpec, MessageType, SigningAlgorithmSpec};
use crate::config::KmsKey;
use crate::crypto::sign::PUBLIC_KEY_LENGTH;

/// What comes before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410, section 4).
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

type PublicKey = [u8; PUBLIC_KEY_LENGTH];

/// The key as a signer.
#[derive(Debug)]
pub struct Kms {
    keeper: Keeper,
    public_key: PublicKey,
}

impl Kms {
    /// Asks KMS for the public key; blocks until it answers. When KMS cannot be reached, `known` is taken for it: what
    /// another key signs is noticed then ([`NotSigned::OtherKey`]).
    pub fn open(key: &KmsKey, known: Option<&PublicKey>) -> Result<Self, KmsError> {
        let key = kms::Key {
            name: key.key.clone(),
            region: key.region.clone(),
            endpoint: key.endpoint.clone(),
            spec: KeySpec::EccNistEdwards25519,
            algorithm: SigningAlgorithmSpec::Ed25519Sha512,
        };
        let keeper = Keeper::start("kms", key)?;
        let read = |info: &[u8]| info.strip_prefix(&ED25519_INFO)?.try_into().ok();
        let public_key = keeper.public_key(read, known.copied())?;
        Ok(Self { keeper, public_key })
    }
}

impl Signer for Kms {
    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned> {
        self.keeper.sign_blocking(text.to_vec(), MessageType::Raw).map_err(|why| match why {
            kms::NotSigned::Failed(why) => NotSigned::Failed(why),
            kms::NotSigned::Silent | kms::NotSigned::Busy => NotSigned::Silent,
        })
    }
}
