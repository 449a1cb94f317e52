//! Passwords: what is good enough, how they are kept (Argon2id, RFC 9106) and checked.
//!
//! Hashing costs 19 MiB and some 20 ms on purpose. It runs on blocking threads, at most as many at
//! once as the machine has cores, so that a flood of logins queues instead of starving the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::crypto;
use crate::domain::secret::Secret;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SHORTEST: usize = 12;
/// In bytes. Longer ones are refused before they are hashed.
const LONGEST: usize = 1024;

/// Why a new password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("the password is too short: use at least {SHORTEST} characters, four random words are good")]
    TooShort,
    #[error("the password is too long: use at most {LONGEST} bytes")]
    TooLong,
    #[error("the password is the user name or one character repeated: choose another")]
    Guessable,
}

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error(transparent)]
    Weak(#[from] WeakPassword),
    #[error("passwords cannot be checked: see the server's log")]
    Hash(#[source] argon2::password_hash::Error),
    /// The process is shutting down.
    #[error("passwords cannot be checked now: try again shortly")]
    Stopped,
}

/// Whether a new password is good enough.
pub fn check_strength(password: &Secret, user: &str) -> Result<(), WeakPassword> {
    let text = password.expose();
    if text.chars().count() < SHORTEST {
        return Err(WeakPassword::TooShort);
    }
    if text.len() > LONGEST {
        return Err(WeakPassword::TooLong);
    }
    let first = text.chars().next();
    if text.eq_ignore_ascii_case(user) || text.chars().all(|c| Some(c) == first) {
        return Err(WeakPassword::Guessable);
    }
    Ok(())
}

/// Hashes and checks passwords. One for the process; cloning shares it.
#[derive(Debug, Clone)]
pub struct Passwords {
    slots: Arc<Semaphore>,
    /// Checked against when there is no account, so that the time taken does not tell.
    nobody: Arc<str>,
    computed: Arc<AtomicU64>,
}

impl Passwords {
    /// Takes one hash's time.
    pub fn new() -> Result<Self, PasswordError> {
        let unguessable = Secret::new(crypto::hex(&crypto::random::<32>()));
        let nobody = hash(&unguessable)?.into();
        let cores = available_parallelism().map_or(1, usize::from);
        Ok(Self { slots: Arc::new(Semaphore::new(cores)), nobody, computed: Arc::default() })
    }

    /// The hash to keep, in PHC text form, of a password that is good enough for `user`.
    pub async fn hash(&self, password: Secret, user: &str) -> Result<String, PasswordError> {
        check_strength(&password, user)?;
        self.work(move || hash(&password)).await
    }

    /// Whether `password` is the one that `stored` was made of. `None` (no such account) takes the
    /// same time and is never so.
    pub async fn verify(&self, password: Secret, stored: Option<&str>) -> Result<bool, PasswordError> {
        let nobody = self.nobody.clone();
        let stored = stored.map(str::to_owned);
        self.work(move || {
            let matches = verify(&password, stored.as_deref().unwrap_or(&nobody))?;
            Ok(matches && stored.is_some() && password.expose().len() <= LONGEST)
        })
        .await
    }

    /// How many hashes were computed so far.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    async fn work<T, F>(&self, work: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, PasswordError> + Send + 'static,
    {
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| PasswordError::Stopped)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        // The slot goes with the work: a caller who gives up does not make room for another.
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        });
        task.await.map_err(|_| PasswordError::Stopped)?
    }
}

fn argon2id() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hash(argon2::password_hash::Error::from(error)))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Secret) -> Result<String, PasswordError> {
    let salt = crypto::random::<16>();
    let hash = argon2id()?.hash_password_with_salt(password.expose().as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(PasswordError::Hash)
}

fn verify(password: &Secret, stored: &str) -> Result<bool, PasswordError> {
    let unreadable = |_| PasswordError::Hash(argon2::password_hash::Error::EncodingInvalid);
    let stored = PasswordHash::new(stored).map_err(unreadable)?;
    let text = password.expose().as_bytes();
    let bounded = text.get(..LONGEST).unwrap_or(text);
    match argon2id()?.verify_password(bounded, &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(PasswordError::Hash(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_weak_password_is_refused_with_what_to_do() {
        let check = |text: &str| check_strength(&secret(text), "alice-the-dba");
        assert_eq!(check("eleven char"), Err(WeakPassword::TooShort));
        assert_eq!(check(""), Err(WeakPassword::TooShort));
        assert_eq!(check("zwölf zeiche"), Ok(()), "characters count, not bytes");
        assert_eq!(check(&"é".repeat(11)), Err(WeakPassword::TooShort));
        assert_eq!(check(&"ab".repeat(512)), Ok(()));
        assert_eq!(check(&"ab".repeat(513)), Err(WeakPassword::TooLong));
        assert_eq!(check("Alice-The-DBA"), Err(WeakPassword::Guessable));
        assert_eq!(check("aaaaaaaaaaaaaaaa"), Err(WeakPassword::Guessable));
        assert!(WeakPassword::TooShort.to_string().contains("at least 12 characters"));
    }

    #[tokio::test]
    async fn a_password_is_kept_as_argon2id_with_its_own_salt() {
        let passwords = Passwords::new().unwrap();
        let one = passwords.hash(secret("correct horse battery"), "alice").await.unwrap();
        let two = passwords.hash(secret("correct horse battery"), "alice").await.unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        assert!(passwords.verify(secret("correct horse battery"), Some(&one)).await.unwrap());
        assert!(!passwords.verify(secret("correct horse batterz"), Some(&one)).await.unwrap());
        assert!(!passwords.verify(secret(""), Some(&one)).await.unwrap());
        assert!(matches!(passwords.hash(secret("short"), "alice").await, Err(PasswordError::Weak(_))));
    }

    #[tokio::test]
    async fn a_password_longer_than_the_limit_is_never_the_one() {
        let passwords = Passwords::new().unwrap();
        let longest = "ab".repeat(LONGEST / 2);
        let stored = passwords.hash(secret(&longest), "alice").await.unwrap();
        assert!(passwords.verify(secret(&longest), Some(&stored)).await.unwrap());
        assert!(!passwords.verify(secret(&format!("{longest}x")), Some(&stored)).await.unwrap());
    }

    #[tokio::test]
    async fn a_damaged_hash_lets_nobody_in() {
        let passwords = Passwords::new().unwrap();
        for stored in ["", "x", "$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$$"] {
            let result = passwords.verify(secret(stored), Some(stored)).await;
            assert!(!matches!(result, Ok(true)), "`{stored}`");
        }
    }
}
