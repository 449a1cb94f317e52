//! SCRAM for names that nobody has: an answer that looks like an account's, the same at every try,
//! so that a stranger cannot tell which names exist (RFC 5802 section 9 leaves this to servers).

use crate::crypto::hmac_sha256;
use crate::crypto::scram::{ITERATIONS, SALT_LENGTH, Salt, Verifier};
use crate::domain::account::{Account, Token};
use crate::domain::secret::Secret;
use crate::identity::token;

/// Random, kept by the installation: with another one after a restart, the salts of names that
/// nobody has would change and give them away.
pub type ServerSecret = Secret<[u8; 32]>;

/// The salt that `name` gets when there is no such account.
pub fn salt(secret: &ServerSecret, name: &str) -> Salt {
    let hash = keyed(secret, "salt", name);
    let mut salt = [0; SALT_LENGTH];
    for (slot, byte) in salt.iter_mut().zip(hash) {
        *slot = byte;
    }
    salt
}

/// What a SCRAM proof for `name` is checked against: one verifier for each of the account's valid
/// tokens. Without an account, a disabled one or one without tokens, it is one that no password
/// fits, so that there is always something to check and the exchange runs its course.
pub fn verifiers(
    secret: &ServerSecret,
    name: &str,
    account: Option<&Account>,
    valid_tokens: &[Token],
) -> Vec<Verifier> {
    let salt = account.map_or_else(|| salt(secret, name), |account| account.scram_salt);
    let of_account = |token: &&Token| {
        account.is_some_and(|account| !account.disabled && account.principal.id == token.principal)
    };
    let mut verifiers: Vec<_> =
        valid_tokens.iter().filter(of_account).map(|kept| token::verifier(kept, salt)).collect();
    if verifiers.is_empty() {
        let stored_key = keyed(secret, "stored key", name);
        let server_key = keyed(secret, "server key", name);
        verifiers.push(Verifier { salt, iterations: ITERATIONS, stored_key, server_key });
    }
    verifiers
}

fn keyed(secret: &ServerSecret, purpose: &str, name: &str) -> [u8; 32] {
    hmac_sha256(secret.expose(), format!("sallyport mock {purpose}\0{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::time::Timestamp;
    use crate::identity::login::fixtures::account;

    fn secret(byte: u8) -> ServerSecret {
        Secret::new([byte; 32])
    }

    #[test]
    fn an_unknown_name_has_one_salt_of_its_own() {
        assert_eq!(salt(&secret(1), "nobody"), salt(&secret(1), "nobody"));
        assert_ne!(salt(&secret(1), "nobody"), salt(&secret(1), "nobodx"));
        assert_ne!(salt(&secret(1), "nobody"), salt(&secret(2), "nobody"));
    }

    #[test]
    fn there_is_always_one_verifier_and_only_valid_tokens_of_an_enabled_account_fit() {
        let mut alice = account("alice", "$argon2id$");
        let now = Timestamp::from_micros(0);
        let new = token::issue(&alice, Duration::from_hours(1), now);
        let bobs = token::issue(&account("bob", "$argon2id$"), Duration::from_hours(1), now);
        let tokens = [new.kept.clone(), bobs.kept];
        let fits = |verifiers: &[Verifier]| {
            verifiers.iter().any(|verifier| verifier.stored_key == new.kept.stored_key)
        };
        let known = verifiers(&secret(1), "alice", Some(&alice), &tokens);
        assert_eq!(known.len(), 1, "another's token is none of hers");
        assert!(fits(&known));

        let unknown = verifiers(&secret(1), "alice", None, &tokens);
        assert_eq!(unknown.len(), 1);
        assert!(!fits(&unknown));
        let without = verifiers(&secret(1), "alice", Some(&alice), &[]);
        assert_eq!(without.first().map(|verifier| verifier.salt), Some(alice.scram_salt));
        assert!(!fits(&without));
        alice.disabled = true;
        let disabled = verifiers(&secret(1), "alice", Some(&alice), &tokens);
        assert_eq!(disabled.first().map(|verifier| verifier.salt), Some(alice.scram_salt));
        assert!(!fits(&disabled) && disabled.len() == 1);
    }
}
