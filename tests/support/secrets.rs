//! Looks for secrets where none may be.

use std::path::Path;

use super::Bastion;

/// What the API tells an administrator.
const ANSWERS: [&str; 8] = [
    "/pam/requests",
    "/pam/sessions",
    "/pam/connections",
    "/pam/blocks",
    "/pam/targets",
    "/pam/gateway",
    "/pam/export?format=jsonl",
    "/metrics",
];

/// Nothing that the server has written (log, journal, store, index), tells by its API, has for arguments or in its
/// environment has the secret in it.
#[track_caller]
pub fn assert_nowhere(bastion: &Bastion, secret: &str) {
    look(&bastion.data(), secret.as_bytes());
    for of_process in ["cmdline", "environ"] {
        look(format!("/proc/{}/{of_process}", bastion.pid()).as_ref(), secret.as_bytes());
    }
    assert!(!bastion.log().contains(secret), "a secret is in the server's log");
    for path in ANSWERS {
        let (status, body) = bastion.api(Some("erin"), "GET", path, None);
        assert_ne!(status, 404, "{path}");
        assert!(!body.to_string().contains(secret), "a secret is in the answer to {path}");
    }
}

fn look(path: &Path, secret: &[u8]) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            look(&entry.unwrap().path(), secret);
        }
    } else if let Ok(bytes) = std::fs::read(path) {
        let found = memchr::memmem::find(&bytes, secret).is_some();
        assert!(!found, "a secret is in {}", path.display());
    }
}
