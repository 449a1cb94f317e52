//! Ed25519 signatures (RFC 8032): key pairs as PKCS#8 in PEM, public keys as 32 bytes.

use std::fmt;

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::BASE64;
use zeroize::Zeroizing;

pub const PUBLIC_KEY_LENGTH: usize = 32;
pub const SIGNATURE_LENGTH: usize = 64;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PEM_LINE: usize = 64;

/// The text is not an Ed25519 private key in PKCS#8 PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key: expected a PEM file that starts with `{PEM_BEGIN}`")]
pub struct MalformedKey;

/// A private key that signs.
pub struct KeyPair(Ed25519KeyPair);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair([secret])")
    }
}

/// Makes a new private key, as PKCS#8 PEM text.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can be done then.
#[expect(clippy::expect_used, reason = "there is no safe way on without randomness")]
pub fn generate_pem() -> Zeroizing<String> {
    let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
        .expect("the operating system gives randomness");
    let body = Zeroizing::new(BASE64.encode(document.as_ref()));
    let mut pem = Zeroizing::new(String::with_capacity(256));
    pem.push_str(PEM_BEGIN);
    pem.push('\n');
    for (index, symbol) in body.chars().enumerate() {
        if index > 0 && index % PEM_LINE == 0 {
            pem.push('\n');
        }
        pem.push(symbol);
    }
    pem.push('\n');
    pem.push_str(PEM_END);
    pem.push('\n');
    pem
}

impl KeyPair {
    pub fn from_pem(pem: &str) -> Result<Self, MalformedKey> {
        let body = pem.trim().strip_prefix(PEM_BEGIN).and_then(|rest| rest.strip_suffix(PEM_END));
        let body: Zeroizing<String> =
            Zeroizing::new(body.ok_or(MalformedKey)?.split_ascii_whitespace().collect());
        let document = Zeroizing::new(BASE64.decode(body.as_bytes()).map_err(|_| MalformedKey)?);
        Ed25519KeyPair::from_pkcs8(&document).map(Self).map_err(|_| MalformedKey)
    }

    pub fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        let mut key = [0; PUBLIC_KEY_LENGTH];
        for (slot, byte) in key.iter_mut().zip(self.0.public_key().as_ref()) {
            *slot = *byte;
        }
        key
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// Whether `signature` over `message` was made with the private half of `public_key`.
pub fn verifies(public_key: &[u8; PUBLIC_KEY_LENGTH], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&signature::ED25519, public_key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_own_message_and_key_alone() {
        let key = KeyPair::from_pem(&generate_pem()).unwrap();
        let other = KeyPair::from_pem(&generate_pem()).unwrap();
        let signature = key.sign(b"one");
        assert_eq!(signature.len(), SIGNATURE_LENGTH);
        assert!(verifies(&key.public_key(), b"one", &signature));
        assert!(!verifies(&key.public_key(), b"two", &signature));
        assert!(!verifies(&other.public_key(), b"one", &signature));
    }

    #[test]
    fn what_is_not_a_private_key_is_refused_and_a_key_is_not_printed() {
        for text in ["", PEM_BEGIN, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert_eq!(KeyPair::from_pem(text).unwrap_err(), MalformedKey);
        }
        let key = KeyPair::from_pem(&generate_pem()).unwrap();
        assert_eq!(format!("{key:?}"), "KeyPair([secret])");
    }
}
