//! A witness's cosignatures of checkpoints (c2sp.org/tlog-cosignature), and its keys.
//!
//! A cosignature says that at its time this checkpoint was consistent with every one that the witness had
//! cosigned before. It is one more signature line of the note:
//!
//! ```text
//! — witness.example jWbPPwAAAABn…=   base64(key hash, 4 bytes ‖ seconds since 1970, 8 ‖ signature, 64)
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};

use super::sha256;
use super::sign::{self, KeyPair, PUBLIC_KEY_LENGTH};

/// An Ed25519 key that cosigns.
const COSIGNATURE: u8 = 0x04;
const KEY_HASH_LENGTH: usize = 4;
const TIME_LENGTH: usize = 8;

/// `witness.example`: what a witness is called, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a witness: up to 100 letters, digits, `.`, `-`, `_` and `/`")]
pub struct BadName(String);

impl FromStr for WitnessName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !text.is_empty() && text.len() <= 100 && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName(text.chars().take(100).collect()))
        }
    }
}

impl fmt::Display for WitnessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is signed of a note, with its line's end, and the signatures' lines.
pub fn text_and_signatures(note: &str) -> Option<(String, &str)> {
    let (text, signatures) = note.rsplit_once("\n\n")?;
    Some((format!("{text}\n"), signatures))
}

fn key_hash(name: &WitnessName, public_key: &[u8; PUBLIC_KEY_LENGTH]) -> [u8; KEY_HASH_LENGTH] {
    let [a, b, c, d, ..] = sha256(&[name.0.as_bytes(), b"\n", &[COSIGNATURE], public_key]);
    [a, b, c, d]
}

/// What is signed.
fn message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// The key that a witness cosigns with.
#[derive(Debug)]
pub struct WitnessKey {
    name: WitnessName,
    pair: KeyPair,
}

impl WitnessKey {
    pub fn from_pem(pem: &str, name: WitnessName) -> Result<Self, sign::MalformedKey> {
        Ok(Self { name, pair: KeyPair::from_pem(pem)? })
    }

    pub fn verify_key(&self) -> WitnessVerifyKey {
        WitnessVerifyKey { name: self.name.clone(), public_key: self.pair.public_key() }
    }

    /// The signature line for a note of this `text`, at so many `seconds` since 1970.
    pub fn cosign(&self, text: &str, seconds: u64) -> String {
        let mut bytes = key_hash(&self.name, &self.pair.public_key()).to_vec();
        bytes.extend_from_slice(&seconds.to_be_bytes());
        bytes.extend_from_slice(&self.pair.sign(message(text, seconds).as_bytes()));
        format!("\u{2014} {} {}\n", self.name, BASE64.encode(&bytes))
    }
}

/// The public key of a witness. Its text form is a signed-note verifier key, `name+hash+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessVerifyKey {
    name: WitnessName,
    public_key: [u8; PUBLIC_KEY_LENGTH],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a witness's key: expected `name+hash+base64`, as `sallyport audit witness` prints it")]
pub struct MalformedWitnessKey(String);

impl WitnessVerifyKey {
    pub fn name(&self) -> &WitnessName {
        &self.name
    }

    /// Its key hash, in hexadecimal: what tells it from others at a glance.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&key_hash(&self.name, &self.public_key))
    }

    /// When this witness cosigned the note, in seconds since 1970; `None` when it did not.
    pub fn cosigned_at(&self, note: &str) -> Option<u64> {
        let (text, signatures) = text_and_signatures(note)?;
        signatures.lines().find_map(|line| self.signed_at(&text, line))
    }

    fn signed_at(&self, text: &str, line: &str) -> Option<u64> {
        let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        if name != self.name.0 {
            return None;
        }
        let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
        let (hash, rest) = bytes.split_at_checked(KEY_HASH_LENGTH)?;
        let (time, signature) = rest.split_at_checked(TIME_LENGTH)?;
        let seconds = u64::from_be_bytes(time.try_into().ok()?);
        let holds = hash == key_hash(&self.name, &self.public_key)
            && sign::verifies(&self.public_key, message(text, seconds).as_bytes(), signature);
        holds.then_some(seconds)
    }
}

impl fmt::Display for WitnessVerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![COSIGNATURE];
        key.extend_from_slice(&self.public_key);
        let hash = HEXLOWER.encode(&key_hash(&self.name, &self.public_key));
        write!(f, "{}+{hash}+{}", self.name, BASE64.encode(&key))
    }
}

impl FromStr for WitnessVerifyKey {
    type Err = MalformedWitnessKey;

    fn from_str(text: &str) -> Result<Self, MalformedWitnessKey> {
        let parse = || {
            let mut parts = text.trim().splitn(3, '+');
            let name: WitnessName = parts.next()?.parse().ok()?;
            let hash = parts.next()?;
            let key = BASE64.decode(parts.next()?.as_bytes()).ok()?;
            let (algorithm, key) = key.split_first()?;
            let public_key = <[u8; PUBLIC_KEY_LENGTH]>::try_from(key).ok()?;
            let good = *algorithm == COSIGNATURE && hash == HEXLOWER.encode(&key_hash(&name, &public_key));
            good.then_some(Self { name, public_key })
        };
        parse().ok_or_else(|| MalformedWitnessKey(text.chars().take(200).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> WitnessKey {
        WitnessKey::from_pem(&sign::generate_pem(), name.parse().unwrap()).unwrap()
    }

    fn note() -> String {
        "example.org/log\n12\nAwMDAwMDAwM=\n\n\u{2014} example.org/log AAAA\n".to_owned()
    }

    #[test]
    fn a_cosignature_says_when_and_covers_every_byte_of_the_text() {
        let (witness, other) = (key("witness.example"), key("witness.example"));
        let note = note();
        let (text, _) = text_and_signatures(&note).unwrap();
        let cosigned = note.clone() + &other.cosign(&text, 7) + &witness.cosign(&text, 1_795_468_800);
        assert_eq!(witness.verify_key().cosigned_at(&cosigned), Some(1_795_468_800));
        assert_eq!(witness.verify_key().cosigned_at(&note), None);
        let named = key("another.example");
        assert_eq!(named.verify_key().cosigned_at(&cosigned), None);
        let line = cosigned.len() - witness.cosign(&text, 1_795_468_800).len();
        for index in (0..text.len()).chain(line..cosigned.len() - 1) {
            let mut bytes = cosigned.clone().into_bytes();
            bytes[index] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert_eq!(witness.verify_key().cosigned_at(&changed), None, "byte {index}");
        }
    }

    #[test]
    fn a_witnesss_key_round_trips_and_a_typing_error_is_noticed() {
        let key = key("witness.example/1").verify_key();
        let text = key.to_string();
        assert_eq!(text.parse::<WitnessVerifyKey>().unwrap(), key);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(changed.parse::<WitnessVerifyKey>().map_or(true, |other| other == key), "{changed}");
        }
        for bad in ["", "a b", "a+b", "\u{fc}"] {
            assert!(bad.parse::<WitnessName>().is_err(), "{bad}");
        }
    }
}
