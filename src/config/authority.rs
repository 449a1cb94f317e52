//! An authority's keys in files, and how it comes by another key without anybody being shut out.
//!
//! Beside the file that the configuration names, `login_ca` say:
//!
//! | file | holds |
//! |---|---|
//! | `login_ca`, `login_ca.pub` | the key that signs, and its public half |
//! | `login_ca.next` | the key that will sign, and is trusted already |
//! | `login_ca.previous` | the public half of the key that did, and is trusted still |
//!
//! 1. [`prepare`] makes the next key; those who trust the authority are told of it.
//! 2. [`activate`] has it sign in the current one's place.
//! 3. [`retire`] forgets the key before it.
//!
//! Until the next key signs, [`abandon`] forgets it instead: whoever was told of it is told again.
//!
//! Each step can be repeated, also where it was interrupted: every file is whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::files::{ssh_private_key, ssh_public_keys};
use crate::crypto::ssh::{self, PrivateKey, PublicKey, SshKeyError};

/// An authority's keys.
#[derive(Debug)]
pub struct Held {
    pub current: PrivateKey,
    pub next: Option<PrivateKey>,
    pub previous: Vec<PublicKey>,
}

impl Held {
    /// The public halves of all.
    pub fn trusted(&self) -> Vec<PublicKey> {
        let held = std::iter::once(&self.current).chain(&self.next).map(PrivateKey::public_key);
        held.chain(&self.previous).cloned().collect()
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Done,
    /// It was done before; there was nothing to do.
    Already,
}

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("the key before the current one is trusted still: retire it first")]
    NotRetired,
    #[error("no next key is prepared")]
    NotPrepared,
    #[error("a next key is prepared, and nothing is there to retire: activate it first")]
    NotActivated,
    #[error("the next key signs already, and the one before it is gone")]
    Activated,
    #[error("{0}")]
    Unreadable(String),
    #[error("the key cannot be made")]
    Key(#[from] SshKeyError),
    #[error("`{path}` cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The keys as they are.
pub fn read(current: &Path) -> Result<Held, String> {
    let key = ssh_private_key(current)?;
    let next_file = beside(current, "next");
    let next = if next_file.exists() { Some(ssh_private_key(&next_file)?) } else { None };
    if next.as_ref().is_some_and(|next| same(next.public_key(), key.public_key())) {
        return Err(format!("`{}` holds the same key as `{}`", next_file.display(), current.display()));
    }
    let previous_file = beside(current, "previous");
    let mut previous = if previous_file.exists() { ssh_public_keys(&previous_file)? } else { Vec::new() };
    // An activation that was interrupted has written the current key down as the one before.
    previous.retain(|previous| !same(previous, key.public_key()));
    Ok(Held { current: key, next, previous })
}

/// Makes the next key.
pub fn prepare(current: &Path) -> Result<Step, RotateError> {
    let _lock = lock(current)?;
    let held = read(current).map_err(RotateError::Unreadable)?;
    if held.next.is_some() {
        return Ok(Step::Already);
    }
    if !held.previous.is_empty() {
        return Err(RotateError::NotRetired);
    }
    write(current, "next", &ssh::to_pem(&ssh::generate_ed25519())?)?;
    Ok(Step::Done)
}

/// Has the next key sign. The private half of the one that did is gone.
pub fn activate(current: &Path) -> Result<Step, RotateError> {
    let _lock = lock(current)?;
    let held = read(current).map_err(RotateError::Unreadable)?;
    let Some(next) = &held.next else {
        if held.previous.is_empty() {
            return Err(RotateError::NotPrepared);
        }
        // It may have been interrupted before this, its last act.
        write_public(current, held.current.public_key())?;
        return Ok(Step::Already);
    };
    let mut previous = held.previous.clone();
    previous.push(held.current.public_key().clone());
    let lines: String = previous.iter().map(|key| ssh::public_line(key, "previous") + "\n").collect();
    write(current, "previous", &lines)?;
    let failed = |source| RotateError::Write { path: current.to_owned(), source };
    fs::rename(beside(current, "next"), current).and_then(|()| sync_dir(current)).map_err(failed)?;
    write_public(current, next.public_key())?;
    Ok(Step::Done)
}

/// Forgets the key before the current one.
pub fn retire(current: &Path) -> Result<Step, RotateError> {
    let _lock = lock(current)?;
    let held = read(current).map_err(RotateError::Unreadable)?;
    if held.next.is_some() {
        return Err(RotateError::NotActivated);
    }
    if held.previous.is_empty() {
        return Ok(Step::Already);
    }
    remove(current, "previous")?;
    Ok(Step::Done)
}

/// Forgets the next key, which has signed nothing.
pub fn abandon(current: &Path) -> Result<Step, RotateError> {
    let _lock = lock(current)?;
    let held = read(current).map_err(RotateError::Unreadable)?;
    if held.next.is_none() {
        return if held.previous.is_empty() { Ok(Step::Already) } else { Err(RotateError::Activated) };
    }
    remove(current, "next")?;
    // What an interrupted activation wrote down is of the current key.
    if held.previous.is_empty() && beside(current, "previous").exists() {
        remove(current, "previous")?;
    }
    Ok(Step::Done)
}

fn remove(current: &Path, extension: &str) -> Result<(), RotateError> {
    let path = beside(current, extension);
    let removed = fs::remove_file(&path).and_then(|()| sync_dir(current));
    removed.map_err(|source| RotateError::Write { path, source })
}

fn same(one: &PublicKey, other: &PublicKey) -> bool {
    one.key_data() == other.key_data()
}

fn beside(current: &Path, extension: &str) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// One step at a time: held until it is dropped.
fn lock(current: &Path) -> Result<File, RotateError> {
    let path = directory(current);
    let locked = File::open(path).and_then(|dir| dir.lock().map(|()| dir));
    locked.map_err(|source| RotateError::Write { path: path.to_owned(), source })
}

/// The public half is for everybody to read.
fn write_public(current: &Path, key: &PublicKey) -> Result<(), RotateError> {
    let line = ssh::public_line(key, "sallyport authority") + "\n";
    write_with(current, "pub", 0o644, &line)
}

/// A file beside the current key's, that is for whom that is.
fn write(current: &Path, extension: &str, text: &str) -> Result<(), RotateError> {
    write_with(current, extension, 0o600, text)
}

fn write_with(current: &Path, extension: &str, mode: u32, text: &str) -> Result<(), RotateError> {
    let path = beside(current, extension);
    let new = beside(&path, "new");
    let written = replace(current, &path, &new, mode, text);
    written.map_err(|source| {
        // What was begun is of no use; that it cannot be removed changes nothing for the caller.
        let _ = fs::remove_file(&new);
        RotateError::Write { path, source }
    })
}

fn replace(current: &Path, path: &Path, new: &Path, mode: u32, text: &str) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // What another attempt left.
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    let (owner, own) = (fs::metadata(current)?, file.metadata()?);
    // The server must be able to read what root makes.
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    // Some have the server read its keys by its group.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode | (owner.mode() & 0o060)))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Keys(tempfile::TempDir);

    impl Keys {
        fn new() -> Self {
            let keys = Self(tempfile::tempdir().unwrap());
            let key = ssh::generate_ed25519();
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(keys.path()).unwrap();
            fs::write(keys.path(), ssh::to_pem(&key).unwrap().as_bytes()).unwrap();
            write_public(&keys.path(), key.public_key()).unwrap();
            keys
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("login_ca")
        }

        fn file(&self, extension: &str) -> PathBuf {
            beside(&self.path(), extension)
        }

        /// Fingerprints: current, next, previous.
        fn held(&self) -> (String, Option<String>, Vec<String>) {
            let held = read(&self.path()).unwrap();
            let next = held.next.map(|key| ssh::fingerprint(key.public_key()));
            let previous = held.previous.iter().map(ssh::fingerprint).collect();
            (ssh::fingerprint(held.current.public_key()), next, previous)
        }

        fn public(&self) -> String {
            ssh::fingerprint(&ssh::parse_public(&fs::read_to_string(self.file("pub")).unwrap()).unwrap())
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_key_is_next_then_current_then_previous_then_gone_and_each_step_can_be_repeated() {
        let keys = Keys::new();
        let (first, _, _) = keys.held();
        assert_eq!(prepare(&keys.path()).unwrap(), Step::Done);
        let (current, next, previous) = keys.held();
        assert_eq!((&current, previous.len()), (&first, 0));
        let second = next.unwrap();
        assert_eq!(prepare(&keys.path()).unwrap(), Step::Already);
        assert_eq!(keys.held().1.as_ref(), Some(&second));

        assert_eq!(activate(&keys.path()).unwrap(), Step::Done);
        assert_eq!(keys.held(), (second.clone(), None, vec![first.clone()]));
        assert_eq!(keys.public(), second);
        assert_eq!(activate(&keys.path()).unwrap(), Step::Already);

        assert_eq!(retire(&keys.path()).unwrap(), Step::Done);
        assert_eq!(keys.held(), (second, None, Vec::new()));
        assert_eq!(retire(&keys.path()).unwrap(), Step::Already);
        assert_eq!(mode(&keys.path()), 0o600);
        assert_eq!(fs::read_dir(keys.0.path()).unwrap().count(), 2, "the key and its public half");
    }

    #[test]
    fn steps_out_of_order_are_refused_and_change_nothing() {
        let keys = Keys::new();
        let before = keys.held();
        assert!(matches!(activate(&keys.path()), Err(RotateError::NotPrepared)));
        assert_eq!(keys.held(), before);
        prepare(&keys.path()).unwrap();
        let before = keys.held();
        assert!(matches!(retire(&keys.path()), Err(RotateError::NotActivated)));
        assert_eq!(keys.held(), before);
        activate(&keys.path()).unwrap();
        let before = keys.held();
        assert!(matches!(prepare(&keys.path()), Err(RotateError::NotRetired)));
        assert_eq!(keys.held(), before);
    }

    #[test]
    fn a_next_key_is_forgotten_until_it_signs() {
        let keys = Keys::new();
        let before = keys.held();
        assert_eq!(abandon(&keys.path()).unwrap(), Step::Already);
        prepare(&keys.path()).unwrap();
        let abandoned = keys.held().1.unwrap();
        // An activation that was interrupted after its first act.
        let line = fs::read_to_string(keys.file("pub")).unwrap();
        write(&keys.path(), "previous", &line).unwrap();
        assert_eq!(abandon(&keys.path()).unwrap(), Step::Done);
        assert_eq!((keys.held(), keys.file("previous").exists()), (before, false));
        prepare(&keys.path()).unwrap();
        assert_ne!(keys.held().1.unwrap(), abandoned);
        activate(&keys.path()).unwrap();
        let before = keys.held();
        assert!(matches!(abandon(&keys.path()), Err(RotateError::Activated)));
        assert_eq!(keys.held(), before);
    }

    #[test]
    fn an_activation_that_was_interrupted_is_finished_by_the_next() {
        // After its first act: the current key is written down as the one before, and still signs.
        let keys = Keys::new();
        prepare(&keys.path()).unwrap();
        let (first, second, _) = keys.held();
        let line = fs::read_to_string(keys.file("pub")).unwrap();
        write(&keys.path(), "previous", &line).unwrap();
        fs::write(keys.file("previous.new"), "half").unwrap();
        assert_eq!(keys.held(), (first.clone(), second.clone(), Vec::new()));
        assert_eq!(prepare(&keys.path()).unwrap(), Step::Already);
        assert!(matches!(retire(&keys.path()), Err(RotateError::NotActivated)));
        assert_eq!(activate(&keys.path()).unwrap(), Step::Done);
        assert_eq!(keys.held(), (second.clone().unwrap(), None, vec![first.clone()]));
        assert!(!keys.file("previous.new").exists());

        // After its second: the new key signs, and its public half is not written.
        fs::write(keys.file("pub"), line).unwrap();
        assert_eq!(activate(&keys.path()).unwrap(), Step::Already);
        assert_eq!(Some(keys.public()), second);
    }

    #[test]
    fn new_keys_are_for_whom_the_current_one_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let keys = Keys::new();
        prepare(&keys.path()).unwrap();
        assert_eq!(mode(&keys.file("next")), 0o600);
        fs::remove_file(keys.file("next")).unwrap();
        fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o640)).unwrap();
        prepare(&keys.path()).unwrap();
        assert_eq!(mode(&keys.file("next")), 0o640);
        assert!(activate(&keys.path()).is_ok());
        assert_eq!(mode(&keys.file("pub")), 0o644);
        fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(retire(&keys.path()), Err(RotateError::Unreadable(_))));
    }
}
