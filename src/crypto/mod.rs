//! Hashing, randomness, SCRAM keys and SSH certificates: thin names over aws-lc-rs, the one cryptography
//! provider, but for SSH keys, whose library brings its own ([`ssh`]).

pub mod certificate;
pub mod cosign;
pub mod hasher;
pub mod scram;
pub mod seal;
pub mod sign;
pub mod ssh;
pub mod tls;

use std::io::Write as _;

use aws_lc_rs::{digest, hmac, rand};

pub const HASH_LENGTH: usize = 32;
pub type Hash = [u8; HASH_LENGTH];

/// What is no longer is hashed in one call. A context costs more than hashing a few hundred bytes.
const SHORT: usize = 1024;
/// What links one hash to the next is no longer: not even a kilobyte is cleared for it.
const LINK: usize = 96;

/// SHA-256 over the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length <= LINK {
        sha256_short::<LINK>(parts)
    } else if length <= SHORT {
        sha256_short::<SHORT>(parts)
    } else {
        sha256_long(parts)
    }
}

/// Of no more than `N` bytes.
fn sha256_short<const N: usize>(parts: &[&[u8]]) -> Hash {
    let mut whole = [0; N];
    let mut rest = whole.as_mut_slice();
    for part in parts {
        let fits = rest.write_all(part);
        debug_assert!(fits.is_ok(), "more than {N} bytes");
    }
    let length = N.saturating_sub(rest.len());
    to_hash(digest::digest(&digest::SHA256, whole.get(..length).unwrap_or_default()).as_ref())
}

fn sha256_long(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    to_hash(context.finish().as_ref())
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Hash {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    to_hash(hmac::sign(&key, message).as_ref())
}

/// For one-time codes alone, whose standard asks for it (RFC 6238).
pub fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    hmac::sign(&key, message).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can be done then.
#[expect(clippy::expect_used, reason = "there is no safe way on without randomness")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A hash from its lower-case hexadecimal digits.
pub fn from_hex(digits: &str) -> Option<Hash> {
    data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
}

fn to_hash(bytes: &[u8]) -> Hash {
    bytes.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_parts_is_sha256_of_the_whole() {
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(&[b"a", b"", b"bc"])), expected);
        let long = vec![7; 3 * SHORT];
        for length in [0, SHORT - 1, SHORT, SHORT + 1, 3 * SHORT] {
            let (one, two) = long[..length].split_at(length / 3);
            assert_eq!(sha256(&[one, two]), sha256_long(&[&long[..length]]), "{length}");
        }
    }
}
