//! Where passwords are kept: a file for each, sealed with the key of a file beside them (AES-256-GCM).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto;
use crate::crypto::seal::{self, KEY_LENGTH, NotOpened};
use crate::domain::secret::Secret;

const DIRECTORY: &str = "secrets";
const KEY_FILE: &str = "secrets.key";
const ENDING: &str = "sealed";

/// Why a password is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("no password is kept as `{name}`: `sallyport secret set {name}` keeps one")]
    Unknown { name: String },
    #[error("the password `{name}` cannot be opened: {source}")]
    NotOpened {
        name: String,
        #[source]
        source: NotOpened,
    },
    #[error("the password `{name}` cannot be opened: what is in it is no password")]
    Malformed { name: String },
    #[error("`{}` holds no key: it has {KEY_LENGTH} bytes in base64", path.display())]
    NotAKey { path: PathBuf },
    #[error("cannot read or write `{}`: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A user with a password, and the one that it is being changed to.
#[derive(Debug)]
pub struct Kept {
    pub user: String,
    pub password: Secret,
    pub next: Option<Secret>,
}

/// As it is sealed.
#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    user: std::borrow::Cow<'a, str>,
    password: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<std::borrow::Cow<'a, str>>,
}

/// All that are kept.
#[derive(Debug, Clone)]
pub struct Keep {
    directory: PathBuf,
    key_file: PathBuf,
}

impl Keep {
    pub fn at(data_dir: &Path) -> Self {
        Self { directory: data_dir.join(DIRECTORY), key_file: data_dir.join(KEY_FILE) }
    }

    pub fn load(&self, name: &str) -> Result<Kept, KeepError> {
        let path = self.path(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeepError::Unknown { name: name.to_owned() });
            }
            Err(source) => return Err(KeepError::File { path, source }),
        };
        let not_opened = |source| KeepError::NotOpened { name: name.to_owned(), source };
        let plain = seal::open(&self.key()?, name, &sealed).map_err(not_opened)?;
        let malformed = || KeepError::Malformed { name: name.to_owned() };
        let Plain { user, password, next } = serde_json::from_slice(&plain).map_err(|_| malformed())?;
        let secret = |text: std::borrow::Cow<'_, str>| Secret::new(text.into_owned());
        Ok(Kept { user: user.into_owned(), password: secret(password), next: next.map(secret) })
    }

    /// Keeps it from now on, durably.
    pub fn store(&self, name: &str, kept: &Kept) -> Result<(), KeepError> {
        let path = self.path(name);
        let failed = |source| KeepError::File { path: path.clone(), source };
        let plain = Plain {
            user: kept.user.as_str().into(),
            password: kept.password.expose().as_str().into(),
            next: kept.next.as_ref().map(|next| next.expose().as_str().into()),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&plain).map_err(|error| failed(error.into()))?);
        let sealed = seal::seal(&self.key()?, name, &plain);
        let sealed = sealed.map_err(|source| KeepError::NotOpened { name: name.to_owned(), source })?;
        write(&self.directory, &path, &sealed).map_err(failed)
    }

    /// Whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, KeepError> {
        let path = self.path(name);
        match fs::remove_file(&path).and_then(|()| File::open(&self.directory)?.sync_all()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(KeepError::File { path, source }),
        }
    }

    /// The names that passwords are kept under, in order.
    pub fn names(&self) -> Result<Vec<String>, KeepError> {
        let failed = |source| KeepError::File { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING)
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes the key, and the place for the passwords, where they are not there yet.
    pub fn make(&self) -> Result<(), KeepError> {
        let failed = |source| KeepError::File { path: self.key_file.clone(), source };
        if !self.directory.is_dir() {
            fs::create_dir(&self.directory).map_err(failed)?;
        }
        let key = Zeroizing::new(format!("{}\n", BASE64.encode(&crypto::random::<KEY_LENGTH>())));
        let parent = self.key_file.parent().unwrap_or(Path::new("."));
        match private(&self.key_file).and_then(|mut file| {
            file.write_all(key.as_bytes())?;
            file.sync_all()?;
            File::open(parent)?.sync_all()
        }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(failed),
        }
    }

    fn key(&self) -> Result<Zeroizing<Vec<u8>>, KeepError> {
        let path = || self.key_file.clone();
        let text = fs::read_to_string(&self.key_file).map(Zeroizing::new);
        let text = text.map_err(|source| KeepError::File { path: path(), source })?;
        let key = BASE64.decode(text.trim().as_bytes()).ok().filter(|key| key.len() == KEY_LENGTH);
        key.map(Zeroizing::new).ok_or_else(|| KeepError::NotAKey { path: path() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.{ENDING}"))
    }
}

/// A new file for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Either the old bytes are there or the new ones, whenever it stops.
fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}
