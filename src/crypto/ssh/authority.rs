//! Who signs certificates: a key that is here, or one that is kept elsewhere and can only be asked.
//!
//! An [`Authority`] is one key. A [`Keyring`] is an authority as people know it, which may change its key while the
//! server runs: the key that signs now, and the others that are trusted beside it, before and after they sign.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{PrivateKey, PublicKey, Signature, SignatureError, Signer as _, fingerprint};

/// Signs certificates with one key.
#[async_trait]
pub trait Authority: fmt::Debug + Send + Sync {
    fn public_key(&self) -> &PublicKey;

    /// The signature over `text`. Waits while the key is asked elsewhere, but not for ever. It need not be right:
    /// whoever uses it checks it.
    async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned>;
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    #[error("the key cannot sign")]
    Unable,
    #[error("the authority's keeper does not sign: {0}")]
    Failed(String),
    #[error("the authority's keeper has not answered")]
    Silent,
    #[error("the authority's keeper has too many to answer: try again")]
    Busy,
}

#[async_trait]
impl Authority for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        Self::public_key(self)
    }

    async fn sign(&self, text: &[u8]) -> Result<Signature, NotSigned> {
        self.try_sign(text).map_err(|_: SignatureError| NotSigned::Unable)
    }
}

/// The keys of one authority at one time.
#[derive(Debug, Clone)]
pub struct Keys {
    pub signer: Arc<dyn Authority>,
    /// Those that will sign, and those that did.
    pub others: Vec<PublicKey>,
}

impl Keys {
    /// Whoever trusts this authority is to trust all of these; the one that signs comes first.
    pub fn trusted(&self) -> Vec<PublicKey> {
        std::iter::once(self.signer.public_key()).chain(&self.others).cloned().collect()
    }

    pub fn fingerprints(&self) -> Vec<String> {
        self.trusted().iter().map(fingerprint).collect()
    }
}

impl From<PrivateKey> for Keys {
    fn from(key: PrivateKey) -> Self {
        Self { signer: Arc::new(key), others: Vec::new() }
    }
}

/// The keys of one authority, whichever are in force.
#[derive(Debug)]
pub struct Keyring(ArcSwap<Keys>);

impl Keyring {
    pub fn new(keys: Keys) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// As they are now. What was signed before may have been by others.
    pub fn now(&self) -> Arc<Keys> {
        self.0.load_full()
    }

    pub fn replace(&self, keys: Keys) {
        self.0.store(Arc::new(keys));
    }
}
