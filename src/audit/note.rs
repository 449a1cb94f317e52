//! Checkpoints: signed statements of how long the log is and what its tree's root is, as C2SP signed
//! notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) with Ed25519.
//!
//! ```text
//! sallyport/nod-…            origin, which is also the key's name
//! 1207                       records
//! 6sFr…=                     root, base64
//!
//! — sallyport/nod-… h4xK…=   base64(key hash, 4 bytes ‖ signature, 64 bytes)
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

use super::signer::{NotSigned, Signer};
use crate::crypto::cosign::text_and_signatures;
use crate::crypto::sign::{self, KeyPair, PUBLIC_KEY_LENGTH};
use crate::crypto::{Hash, sha256};
use crate::domain::id::NodeId;

const ED25519: u8 = 0x01;
const KEY_HASH_LENGTH: usize = 4;
const ORIGIN_PREFIX: &str = "sallyport/";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the audit key `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` does not hold an audit key: `sallyport init` makes one", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: sign::MalformedKey,
    },
    #[error("`{0}` is not a verification key: expected `sallyport/nod-…+hash+base64`")]
    MalformedVerifyKey(String),
}

/// The name of a node's log, and of its key.
pub fn origin(node: &NodeId) -> String {
    format!("{ORIGIN_PREFIX}{node}")
}

fn key_hash(name: &str, public_key: &[u8; PUBLIC_KEY_LENGTH]) -> [u8; KEY_HASH_LENGTH] {
    let [a, b, c, d, ..] = sha256(&[name.as_bytes(), b"\n", &[ED25519], public_key]);
    [a, b, c, d]
}

/// What signs a node's checkpoints. Clones share the same key.
#[derive(Debug, Clone)]
pub struct SigningKey {
    node: NodeId,
    signer: Arc<dyn Signer>,
}

impl SigningKey {
    /// Of the log of `node`, with the key that `signer` holds.
    pub fn new(node: NodeId, signer: Arc<dyn Signer>) -> Self {
        Self { node, signer }
    }

    /// Makes a new key, as PKCS#8 PEM text to be stored readable by the gateway alone.
    pub fn generate() -> Zeroizing<String> {
        sign::generate_pem()
    }

    pub fn from_pem(pem: &str, node: NodeId) -> Result<Self, sign::MalformedKey> {
        Ok(Self::new(node, Arc::new(KeyPair::from_pem(pem)?)))
    }

    pub fn load(path: &Path, node: NodeId) -> Result<Self, KeyError> {
        let read = std::fs::read_to_string(path);
        let pem = Zeroizing::new(read.map_err(|source| KeyError::Read { path: path.to_owned(), source })?);
        Self::from_pem(&pem, node).map_err(|source| KeyError::Malformed { path: path.to_owned(), source })
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The public half, to be kept where verification is done.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey { node: self.node.clone(), public_key: self.signer.public_key() }
    }

    /// Signs; the result is the whole note. May block as long as [`Signer::sign`].
    pub fn sign(&self, size: u64, root: &Hash) -> Result<String, NotSigned> {
        let name = origin(&self.node);
        let text = format!("{name}\n{size}\n{}\n", BASE64.encode(root));
        let public_key = self.signer.public_key();
        let made = self.signer.sign(text.as_bytes())?;
        // A signature that does not hold would be noticed by who verifies, years later.
        if !sign::verifies(&public_key, text.as_bytes(), &made) {
            return Err(NotSigned::OtherKey);
        }
        let mut signature = key_hash(&name, &public_key).to_vec();
        signature.extend_from_slice(&made);
        Ok(format!("{text}\n\u{2014} {name} {}\n", BASE64.encode(&signature)))
    }
}

/// The public key of a node's log. Its text form is a signed-note verifier key,
/// `name+hash+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey {
    node: NodeId,
    public_key: [u8; PUBLIC_KEY_LENGTH],
}

impl VerifyKey {
    pub fn new(node: NodeId, public_key: [u8; PUBLIC_KEY_LENGTH]) -> Self {
        Self { node, public_key }
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_LENGTH] {
        &self.public_key
    }

    /// Reads the first line of a public key file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        text.lines().next().unwrap_or_default().parse()
    }

    /// Checks a note and gives what it says.
    pub fn open(&self, note: &str) -> Result<Checkpoint, BadCheckpoint> {
        let (text, signatures) = text_and_signatures(note).ok_or(BadCheckpoint::Malformed)?;
        let mut lines = text.strip_suffix('\n').unwrap_or_default().split('\n');
        let (Some(name), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(BadCheckpoint::Malformed);
        };
        let expected = origin(&self.node);
        if name != expected {
            return Err(BadCheckpoint::OtherOrigin { found: name.chars().take(200).collect(), expected });
        }
        self.check_signatures(&text, signatures, &expected)?;
        let parsed: u64 = size.parse().map_err(|_| BadCheckpoint::Malformed)?;
        let root = BASE64.decode(root.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        match root {
            Some(root) if parsed.to_string() == size => Ok(Checkpoint { size: parsed, root }),
            _ => Err(BadCheckpoint::Malformed),
        }
    }

    /// Signatures of other keys (witnesses) are passed over; ours must be there and hold.
    fn check_signatures(&self, text: &str, signatures: &str, name: &str) -> Result<(), BadCheckpoint> {
        let signatures = signatures.strip_suffix('\n').ok_or(BadCheckpoint::Malformed)?;
        let ours = key_hash(name, &self.public_key);
        let mut verdict = Err(BadCheckpoint::OtherKey);
        for line in signatures.split('\n') {
            let parts = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' '));
            let (signer, encoded) = parts.ok_or(BadCheckpoint::Malformed)?;
            let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| BadCheckpoint::Malformed)?;
            let (hash, signature) =
                bytes.split_at_checked(KEY_HASH_LENGTH).ok_or(BadCheckpoint::Malformed)?;
            if signer == name && hash == ours {
                if !sign::verifies(&self.public_key, text.as_bytes(), signature) {
                    return Err(BadCheckpoint::Forged);
                }
                verdict = Ok(());
            }
        }
        verdict
    }
}

impl fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = origin(&self.node);
        let mut key = vec![ED25519];
        key.extend_from_slice(&self.public_key);
        let hash = HEXLOWER.encode(&key_hash(&name, &self.public_key));
        write!(f, "{name}+{hash}+{}", BASE64.encode(&key))
    }
}

impl FromStr for VerifyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parse = || {
            let mut parts = text.trim().splitn(3, '+');
            let name = parts.next()?;
            let hash = parts.next()?;
            let key = BASE64.decode(parts.next()?.as_bytes()).ok()?;
            let node = name.strip_prefix(ORIGIN_PREFIX)?.parse().ok()?;
            let (algorithm, key) = key.split_first()?;
            let public_key = <[u8; PUBLIC_KEY_LENGTH]>::try_from(key).ok()?;
            let good = *algorithm == ED25519 && hash == HEXLOWER.encode(&key_hash(name, &public_key));
            good.then_some(Self { node, public_key })
        };
        parse().ok_or_else(|| KeyError::MalformedVerifyKey(text.chars().take(200).collect()))
    }
}

/// What a checkpoint states, once its signature held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of records.
    pub size: u64,
    pub root: Hash,
}

impl Checkpoint {
    /// What a note says, whoever signed it.
    pub(super) fn unchecked(note: &str) -> Option<Self> {
        let mut lines = note.lines().skip(1);
        let (size, root) = (lines.next()?.parse().ok()?, BASE64.decode(lines.next()?.as_bytes()).ok()?);
        Some(Self { size, root: root.try_into().ok()? })
    }
}

/// Why a checkpoint vouches for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    #[error("the checkpoint does not have a checkpoint's form: it was altered")]
    Malformed,
    #[error("the checkpoint is of another log, `{found}`: expected `{expected}`")]
    OtherOrigin { found: String, expected: String },
    #[error("the checkpoint is signed with another key than the one given")]
    OtherKey,
    #[error("the checkpoint's signature does not hold: it was altered or forged")]
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        let node = NodeId::from_random([7; 10]);
        SigningKey::from_pem(&SigningKey::generate(), node).unwrap()
    }

    #[test]
    fn a_checkpoint_says_what_was_signed() {
        let key = key();
        let note = key.sign(12, &[3; 32]).unwrap();
        assert_eq!(key.verify_key().open(&note), Ok(Checkpoint { size: 12, root: [3; 32] }));
    }

    #[test]
    fn no_byte_of_a_checkpoint_can_be_changed() {
        let key = key();
        let note = key.sign(12, &[3; 32]).unwrap();
        for index in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[index] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(key.verify_key().open(&changed).is_err(), "byte {index}");
            assert!(key.verify_key().open(&note[..note.floor_char_boundary(index)]).is_err());
        }
    }

    #[test]
    fn another_key_or_another_log_is_told_apart_from_a_forgery() {
        let (ours, theirs) = (key(), key());
        let note = theirs.sign(1, &[0; 32]).unwrap();
        assert_eq!(ours.verify_key().open(&note), Err(BadCheckpoint::OtherKey));
        let elsewhere = SigningKey::from_pem(&SigningKey::generate(), NodeId::from_random([9; 10])).unwrap();
        let note = elsewhere.sign(1, &[0; 32]).unwrap();
        assert!(matches!(ours.verify_key().open(&note), Err(BadCheckpoint::OtherOrigin { .. })));
    }

    /// Signs with another key than it says.
    #[derive(Debug)]
    struct Mistaken;

    impl Signer for Mistaken {
        fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
            [7; PUBLIC_KEY_LENGTH]
        }

        fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned> {
            Ok(KeyPair::from_pem(&sign::generate_pem()).unwrap().sign(text))
        }
    }

    #[test]
    fn a_signature_that_does_not_hold_is_none() {
        let mistaken = SigningKey::new(NodeId::from_random([7; 10]), Arc::new(Mistaken));
        assert_eq!(mistaken.sign(1, &[0; 32]), Err(NotSigned::OtherKey));
    }

    #[test]
    fn a_verification_key_round_trips_and_a_typing_error_is_noticed() {
        let key = key().verify_key();
        let text = key.to_string();
        assert_eq!(text.parse::<VerifyKey>().unwrap(), key);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(changed.parse::<VerifyKey>().map_or(true, |other| other == key), "{changed}");
        }
    }
}
