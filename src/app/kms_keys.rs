//! The public halves of the SSH authorities' keys in Amazon KMS, kept in the data directory, so that the server starts
//! while KMS is away: a file of lines, each the key's name in the configuration and its public half as OpenSSH writes it.
//! A key that is another by then signs nothing that holds.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::credentials::ssh_authority::KnownKeys;
use crate::crypto::ssh::{parse_public, public_line};

const FILE: &str = "ssh-kms-keys";

/// What is known; nothing where there is no such file, or it cannot be read: KMS is asked then.
pub(super) fn read(data_dir: &Path) -> KnownKeys {
    let text = fs::read_to_string(data_dir.join(FILE)).unwrap_or_default();
    let line = |line: &str| {
        let (name, key) = line.split_once(' ')?;
        Some((name.to_owned(), parse_public(key).ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Keeps what is known for the next start. Where that fails, the next start needs KMS.
pub(super) fn keep(data_dir: &Path, known: &KnownKeys) {
    if known.is_empty() || *known == read(data_dir) {
        return;
    }
    if let Err(error) = write(data_dir, known) {
        tracing::warn!(%error, "the public keys of KMS are not kept: the next start needs KMS");
    }
}

fn write(data_dir: &Path, known: &KnownKeys) -> io::Result<()> {
    let new = data_dir.join(format!("{FILE}.new"));
    let lines = known.iter().map(|(name, key)| [name, " ", &public_line(key, ""), "\n"].concat());
    let text: String = lines.collect();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ssh::generate_ed25519;

    #[test]
    fn what_is_kept_is_read_again_and_what_is_damaged_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_empty());
        let key = || generate_ed25519().public_key().clone();
        let known =
            KnownKeys::from([("alias/a".to_owned(), key()), ("arn:aws:kms:r:1:key/k".to_owned(), key())]);
        keep(dir.path(), &known);
        assert_eq!(read(dir.path()), known);
        fs::write(dir.path().join(FILE), "alias/a ssh-ed25519 no\nnothing\n").unwrap();
        assert!(read(dir.path()).is_empty());
    }
}
