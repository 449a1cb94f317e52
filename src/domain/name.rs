//! Names that people choose: of users, groups, domains, targets and accesses.
//!
//! All follow one rule, so that none can be mistaken for another part of a login
//! (`alice+ledger-prod`), of a URL or of a policy: 1 to 63 of `a-z 0-9 . _ -`, starting with a
//! letter or digit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LONGEST: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not {what}: use 1 to 63 lower-case letters, digits, `.`, `_` or `-`, \
     starting with a letter or digit"
)]
pub struct MalformedName {
    text: String,
    what: &'static str,
}

fn well_formed(text: &str) -> bool {
    let first_is_good = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first_is_good
        && text.len() <= LONGEST
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = MalformedName;

            fn from_str(text: &str) -> Result<Self, MalformedName> {
                if well_formed(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(MalformedName { text: text.chars().take(80).collect(), what: $what })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(/// What a principal logs in as.
    UserName, "a user name");
name!(/// A group of principals, as policies name it.
    GroupName, "a group name");
name!(/// A part of the bank, home of principals and targets (`bank-core`).
    DomainName, "a domain name");
name!(/// A target's name (`ledger-prod`).
    TargetName, "a target name");
name!(/// What one may be on a target (`readonly`, `dba`).
    AccessName, "an access name");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_read_as_something_else_are_refused() {
        for text in ["", "Alice", "a+b", "-x", ".x", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(text.parse::<UserName>().is_err(), "{text}");
        }
        for text in ["alice", "ledger-prod", "7.of_9", &"x".repeat(63)] {
            assert!(text.parse::<TargetName>().is_ok(), "{text}");
        }
    }
}
