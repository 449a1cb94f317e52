//! Sealing small secrets for the disk: AES-256-GCM with a nonce of its own for each (NIST SP 800-38D).

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

pub const KEY_LENGTH: usize = 32;

/// It was sealed with another key, for another purpose, or changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key or for something else, or it was changed since")]
pub struct NotOpened;

/// Nonce, ciphertext and tag. `purpose` has to be the same when it is opened.
pub fn seal(key: &[u8], purpose: &str, plain: &[u8]) -> Result<Vec<u8>, NotOpened> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| NotOpened)?;
    let mut sealed = plain.to_vec();
    let aad = Aad::from(purpose.as_bytes());
    let nonce = key.seal_in_place_append_tag(aad, &mut sealed).map_err(|_| NotOpened)?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

/// What was sealed.
pub fn open(key: &[u8], purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(NotOpened)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| NotOpened)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let plain =
        key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut buffer).map_err(|_| NotOpened)?;
    Ok(Zeroizing::new(plain.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> [u8; KEY_LENGTH] {
        [byte; KEY_LENGTH]
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_purpose_unchanged() {
        let sealed = seal(&key(1), "ledger", b"hunter2").unwrap();
        assert_eq!(open(&key(1), "ledger", &sealed).unwrap().as_slice(), b"hunter2");
        assert_eq!(open(&key(2), "ledger", &sealed).unwrap_err(), NotOpened);
        assert_eq!(open(&key(1), "kyc", &sealed).unwrap_err(), NotOpened);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key(1), "ledger", &changed).unwrap_err(), NotOpened, "byte {at}");
            assert_eq!(open(&key(1), "ledger", &sealed[..at]).unwrap_err(), NotOpened, "{at} bytes");
        }
        assert_ne!(seal(&key(1), "ledger", b"hunter2").unwrap(), sealed, "each has a nonce of its own");
    }
}
