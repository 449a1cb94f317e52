//! Login tokens: `spt_` and 43 characters of base64url that hold 256 random bits.
//!
//! Of a token only its SHA-256 and its SCRAM keys are kept. A fast hash is right here, other than
//! for passwords: 256 random bits cannot be guessed however fast one hashes.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use crate::crypto::scram::{ITERATIONS, Salt, Verifier};
use crate::crypto::{random, sha256};
use crate::domain::account::{Account, Token};
use crate::domain::id::TokenId;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

pub const PREFIX: &str = "spt_";
const RANDOM_BYTES: usize = 32;

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// When the login does not say.
    pub default: Duration,
    /// Whatever the login says.
    pub longest: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: Duration::from_hours(8), longest: Duration::from_hours(8) }
    }
}

impl Lifetimes {
    /// What a login gets that asked for `asked`.
    pub fn clip(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.longest)
    }
}

/// A token that was just made: the only moment at which its text exists here.
#[derive(Debug)]
pub struct NewToken {
    /// For the person who logged in; shown once.
    pub text: Secret,
    /// For the store.
    pub kept: Token,
}

/// Makes a token for `account` that ends `lifetime` after `now`. Takes a millisecond or two
/// (PBKDF2).
pub fn issue(account: &Account, lifetime: Duration, now: Timestamp) -> NewToken {
    let bytes = Secret::new(random::<RANDOM_BYTES>());
    let mut text = String::with_capacity(PREFIX.len() + 43);
    text.push_str(PREFIX);
    BASE64URL_NOPAD.encode_append(bytes.expose(), &mut text);
    let keys = Verifier::derive(&text, account.scram_salt, ITERATIONS);
    let kept = Token {
        id: TokenId::from_random(random()),
        principal: account.principal.id.clone(),
        hash: sha256(&[text.as_bytes()]),
        stored_key: keys.stored_key,
        server_key: keys.server_key,
        created_at: now,
        expires_at: now.plus(lifetime),
        revoked_at: None,
    };
    NewToken { text: Secret::new(text), kept }
}

/// The text does not have a token's form. It is not repeated here: it may be half of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a login token: log in again, it starts with `{PREFIX}`")]
pub struct MalformedToken;

/// A token as somebody presents it; whether it is valid is for the store to say.
#[derive(Debug, Clone)]
pub struct PresentedToken(Secret);

impl PresentedToken {
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        let encoded = text.strip_prefix(PREFIX).ok_or(MalformedToken)?;
        if BASE64URL_NOPAD.decode_len(encoded.len()) != Ok(RANDOM_BYTES) {
            return Err(MalformedToken);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| MalformedToken)?;
        drop(Secret::new(bytes));
        Ok(Self(Secret::new(text.to_owned())))
    }

    /// What the store finds it by.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[self.0.expose().as_bytes()])
    }
}

/// What checks a SCRAM proof made with this token; `salt` is the account's.
pub fn verifier(token: &Token, salt: Salt) -> Verifier {
    Verifier { salt, iterations: ITERATIONS, stored_key: token.stored_key, server_key: token.server_key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::login::fixtures::account;

    const NOW: Timestamp = Timestamp::from_micros(1_795_392_000_000_000);

    #[test]
    fn a_token_is_found_by_its_hash_and_checked_by_its_keys() {
        let account = account("alice", "$argon2id$");
        let NewToken { text, kept } = issue(&account, Duration::from_hours(8), NOW);
        assert_eq!(text.expose().len(), 47);
        let presented = PresentedToken::parse(text.expose()).unwrap();
        assert_eq!(presented.hash(), kept.hash);
        assert_eq!(kept.principal, account.principal.id);
        assert_eq!(kept.expires_at, NOW.plus(Duration::from_hours(8)));
        let expected = Verifier::derive(text.expose(), account.scram_salt, ITERATIONS);
        assert!(verifier(&kept, account.scram_salt) == expected);
    }

    #[test]
    fn no_two_tokens_are_alike() {
        let account = account("alice", "$argon2id$");
        let one = issue(&account, Duration::from_hours(8), NOW);
        let two = issue(&account, Duration::from_hours(8), NOW);
        assert_ne!(one.text.expose(), two.text.expose());
        assert_ne!(one.kept.hash, two.kept.hash);
        assert_ne!(one.kept.stored_key, two.kept.stored_key);
        assert_ne!(one.kept.id, two.kept.id);
    }

    #[test]
    fn what_does_not_have_the_form_of_a_token_is_not_looked_up() {
        let good = format!("{PREFIX}{}", "A".repeat(43));
        assert!(PresentedToken::parse(&good).is_ok());
        let bad = [
            String::new(),
            "A".repeat(47),
            PREFIX.to_owned(),
            format!("{PREFIX}{}", "A".repeat(42)),
            format!("{PREFIX}{}", "A".repeat(44)),
            format!("{PREFIX}{}", "A".repeat(43 + 1_000_000)),
            format!("{PREFIX}{}+", "A".repeat(42)),
            // The last character holds bits beyond the 256: a second text for the same token.
            format!("{PREFIX}{}B", "A".repeat(42)),
            format!("{good} "),
            good.to_uppercase(),
        ];
        for text in bad {
            assert!(PresentedToken::parse(&text).is_err(), "{text:.60}");
        }
    }

    #[test]
    fn the_text_of_a_token_is_never_printed() {
        let new = issue(&account("alice", "$argon2id$"), Duration::from_hours(8), NOW);
        let text = new.text.expose().clone();
        let random_part = &text[PREFIX.len()..];
        let presented = PresentedToken::parse(&text).unwrap();
        let error = PresentedToken::parse(&text[..46]).unwrap_err();
        for printed in [format!("{new:?}"), format!("{presented:?}"), format!("{error:?} {error}")] {
            assert!(!printed.contains(&random_part[..8]), "{printed}");
        }
        let keys = crate::crypto::hex(&new.kept.stored_key);
        assert!(!format!("{:?}", new.kept).contains(&keys));
    }

    #[test]
    fn a_token_lives_as_long_as_configured_at_most() {
        let lifetimes = Lifetimes { default: Duration::from_hours(1), longest: Duration::from_hours(2) };
        assert_eq!(lifetimes.clip(None), Duration::from_hours(1));
        assert_eq!(lifetimes.clip(Some(Duration::from_mins(5))), Duration::from_mins(5));
        assert_eq!(lifetimes.clip(Some(Duration::from_hours(24 * 365))), Duration::from_hours(2));
        assert_eq!(Lifetimes::default().clip(None), Duration::from_hours(8));
        let short = Lifetimes { default: Duration::from_hours(9), longest: Duration::from_hours(2) };
        assert_eq!(short.clip(None), Duration::from_hours(2));
    }
}
