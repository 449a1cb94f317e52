//! Who signs checkpoints: a key in a file, or one that does not leave [Amazon KMS](super::kms).

use std::fmt;

use crate::crypto::sign::{KeyPair, PUBLIC_KEY_LENGTH};

/// Makes signatures with one Ed25519 key.
pub trait Signer: fmt::Debug + Send + Sync {
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH];

    /// The signature over `text` (RFC 8032). May block the thread while the key is asked elsewhere, but not for ever.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned>;
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    #[error("the audit key is not here, only its public half")]
    Absent,
    #[error("the audit key's keeper does not sign: {0}")]
    Failed(String),
    #[error("the audit key's keeper has not answered")]
    Silent,
    #[error("the signature does not hold with the log's public key: it was made with another key")]
    OtherKey,
}

impl Signer for KeyPair {
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        Self::public_key(self)
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned> {
        Ok(Self::sign(self, text))
    }
}

/// Stands for a key that is somewhere else: what it would sign stays unsigned.
#[derive(Debug)]
pub struct Absent(pub [u8; PUBLIC_KEY_LENGTH]);

impl Signer for Absent {
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.0
    }

    fn sign(&self, _text: &[u8]) -> Result<Vec<u8>, NotSigned> {
        Err(NotSigned::Absent)
    }
}
