//! Places where a test has the process die, as a crash would: before and after every step of a credential's life.
//! In a release build they are nothing.

/// Every place there is, in the order in which one session's credential passes them.
pub const CREDENTIAL: [&str; 15] = [
    "credential_intending",
    "credential_intended",
    "role_making",
    "role_made",
    "credential_opened",
    "credential_issued",
    "role_shut",
    "credential_ending",
    "credential_releasing",
    "role_quiet",
    "role_rolled_back",
    "role_disowned",
    "role_dropped",
    "credential_gone",
    "credential_released",
];

/// Those of a secret that Secrets Manager rotates.
pub const ROTATED: [&str; 2] = ["secret_rotated", "secret_rotated_away"];

/// Those of a kept password that a command changes.
pub const KEPT: [&str; 3] = ["static_next", "static_changed", "static_kept"];

/// Those of what the janitor finds at a database.
pub const FOUND: [&str; 4] = ["orphan_kept", "orphan_destroyed", "open_kept", "open_shut"];

/// Those of a deny that the janitor finds on a role.
pub const FOUND_DENY: [&str; 2] = ["deny_kept", "deny_lifted"];

/// The same for what is handed out of an AWS role.
pub const ROLE: [&str; 7] = [
    "handout_intended",
    "handout_issued",
    "handout_recorded",
    "deny_intended",
    "deny_put",
    "deny_recorded",
    "deny_removed",
];

/// Names the place, or the place and how often it is passed before (`role_made:1`), where the process dies.
pub const VARIABLE: &str = "SALLYPORT_TEST_DIE_AT";

/// Dies here if a test asked for it.
#[cfg(feature = "testing")]
pub fn reached(place: &str) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let known = CREDENTIAL.iter().chain(&ROTATED).chain(&KEPT).chain(&FOUND);
    let known = known.chain(&FOUND_DENY).chain(&ROLE);
    debug_assert!(known.into_iter().any(|known| *known == place), "{place}");
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let (name, before) = wanted.split_once(':').unwrap_or((&wanted, "0"));
    if name == place && PASSED.fetch_add(1, Ordering::Relaxed).to_string() == before {
        std::process::abort();
    }
}

#[cfg(not(feature = "testing"))]
pub const fn reached(_place: &str) {}
