//! SCRAM-SHA-256 key derivation (RFC 5802 section 3, RFC 7677) and PostgreSQL's text form of a
//! verifier, which is what `CREATE ROLE … PASSWORD` takes instead of a clear password.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use data_encoding::BASE64;

use super::{Hash, equal, hmac_sha256, sha256};

/// PostgreSQL's own default, for what clients prove: some of them refuse less. The secrets hashed with it are 256-bit
/// random, so a higher count would only slow logins down.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// For 256-bit random secrets that we prove ourselves: to guess one takes for ever, however little each guess takes.
pub const ONCE: NonZeroU32 = NonZeroU32::MIN;
pub const SALT_LENGTH: usize = 16;
pub type Salt = [u8; SALT_LENGTH];

/// What a server keeps of a password: enough to check a proof, not to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub salt: Salt,
    pub iterations: NonZeroU32,
    pub stored_key: Hash,
    pub server_key: Hash,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier([secret])")
    }
}

impl Verifier {
    pub fn derive(password: &str, salt: Salt, iterations: NonZeroU32) -> Self {
        let mut salted: Hash = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let server_key = hmac_sha256(&salted, b"Server Key");
        Self { salt, iterations, stored_key: sha256(&[&client_key]), server_key }
    }

    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid.rolpassword`.
    pub fn to_postgres(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(&self.stored_key),
            BASE64.encode(&self.server_key)
        )
    }

    /// Checks a client's proof over `auth_message`; gives the server's signature when it holds.
    pub fn check(&self, auth_message: &[u8], proof: &[u8]) -> Option<Hash> {
        if proof.len() != self.stored_key.len() {
            return None;
        }
        let signature = hmac_sha256(&self.stored_key, auth_message);
        let mut client_key: Hash = [0; 32];
        for ((slot, a), b) in client_key.iter_mut().zip(proof).zip(signature) {
            *slot = a ^ b;
        }
        equal(&sha256(&[&client_key]), &self.stored_key).then(|| hmac_sha256(&self.server_key, auth_message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7677 section 3: user "user", password "pencil".
    const AUTH_MESSAGE: &[u8] = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
        c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    fn verifier(password: &str) -> Verifier {
        let salt: Salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        Verifier::derive(password, salt, ITERATIONS)
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_accepted() {
        let proof = BASE64.decode(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = verifier("pencil").check(AUTH_MESSAGE, &proof).unwrap();
        assert_eq!(BASE64.encode(&signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn another_password_or_a_bent_proof_is_refused() {
        let proof = BASE64.decode(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        assert!(verifier("pencils").check(AUTH_MESSAGE, &proof).is_none());
        for index in 0..proof.len() {
            let mut bent = proof.clone();
            bent[index] ^= 1;
            assert!(verifier("pencil").check(AUTH_MESSAGE, &bent).is_none());
        }
        assert!(verifier("pencil").check(AUTH_MESSAGE, &proof[..31]).is_none());
    }
}
