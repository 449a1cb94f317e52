//! Typed identifiers: a prefix that says what it names, then 80 random bits in lower-case
//! Crockford base 32 (`req-7f3k9m2qv8x4n1t6`), so that no id can be taken for another kind's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_BYTES: usize = 10;
const SYMBOLS: usize = 16;

/// The text does not have the form of the identifier that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: expected `{prefix}-` and 16 letters or digits")]
pub struct MalformedId {
    text: String,
    what: &'static str,
    prefix: &'static str,
}

/// An id's text, all of it ASCII; no allocation, as ids are copied for every record. `LENGTH` is the prefix's, one and
/// [`SYMBOLS`].
fn encode<const LENGTH: usize>(prefix: &str, bytes: [u8; RANDOM_BYTES]) -> [u8; LENGTH] {
    let mut bits = bytes.iter().fold(0_u128, |acc, byte| (acc << 8) | u128::from(*byte));
    let mut text = [b'-'; LENGTH];
    for slot in text.iter_mut().rev().take(SYMBOLS) {
        let index = usize::try_from(bits & 31).unwrap_or(0);
        *slot = ALPHABET.get(index).copied().unwrap_or(b'0');
        bits >>= 5;
    }
    for (slot, byte) in text.iter_mut().zip(prefix.bytes()) {
        *slot = byte;
    }
    text
}

fn well_formed(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|rest| rest.len() == SYMBOLS && rest.bytes().all(|b| ALPHABET.contains(&b)))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $prefix.len() + 1 + SYMBOLS]);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from random bytes; the caller supplies the randomness.
            pub fn from_random(bytes: [u8; RANDOM_BYTES]) -> Self {
                Self(encode($prefix, bytes))
            }

            pub fn as_str(&self) -> &str {
                // It is ASCII: there is no other way to make one.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let malformed = || MalformedId { text: text.to_owned(), what: $what, prefix: $prefix };
                let id = text.as_bytes().try_into().ok().filter(|_| well_formed($prefix, text));
                id.map(Self).ok_or_else(malformed)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/// A stable subject: what is compared when two people are told apart, never a name or address.
    PrincipalId, "usr", "a principal id");
id!(/// A person's ask for one access on one target.
    RequestId, "req", "a request id");
id!(/// An approved, time-limited right.
    SessionId, "ses", "a session id");
id!(/// One client connection; also names its recording.
    ConnectionId, "con", "a connection id");
id!(/// An entry on the blocklist.
    BlockId, "blk", "a block id");
id!(/// A login token; not the token itself.
    TokenId, "tok", "a token id");
id!(/// A short-lived credential's lease.
    LeaseId, "crd", "a credential lease id");
id!(/// One gateway process with its data directory.
    NodeId, "nod", "a node id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_is_not_taken_for_another_kind() {
        let id = RequestId::from_random([0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(id.as_str().len(), "req-".len() + 16);
        assert_eq!(id.as_str().parse::<RequestId>().as_ref(), Ok(&id));
        assert!(id.as_str().parse::<SessionId>().is_err());
    }

    #[test]
    fn different_bytes_give_different_ids() {
        let mut seen = std::collections::HashSet::new();
        for index in 0..10 {
            for bit in 0..8 {
                let mut bytes = [0_u8; 10];
                if let Some(byte) = bytes.get_mut(index) {
                    *byte = 1 << bit;
                }
                assert!(seen.insert(SessionId::from_random(bytes)));
            }
        }
    }
}
