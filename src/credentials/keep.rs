//! Where passwords are kept: a file for each, sealed (AES-256-GCM) with a key that is in a file beside them: as it is, or
//! encrypted by Amazon KMS, which then has to be asked once before any can be opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::amazon::{explain_answer, sdk_config};
use crate::config::{KmsKey, Server};
use crate::crypto;
use crate::crypto::seal::{self, KEY_LENGTH, NotOpened};
use crate::domain::secret::Secret;

const DIRECTORY: &str = "secrets";
const KEY_FILE: &str = "secrets.key";
const ENDING: &str = "sealed";
/// What a file begins with that holds a key as KMS encrypted it.
const IN_KMS: &str = "kms ";
/// KMS binds what it encrypts to these words, and its log shows them (AWS KMS, *encryption context*).
const CONTEXT: (&str, &str) = ("sallyport", "kept passwords");

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
    #[error("`{}` holds a key {held}, and `server.secrets_key` names one {named}: put the old value back, or remove it with \
        all that is in `{DIRECTORY}`, and set the passwords anew", path.display())]
    OtherKeeper { path: PathBuf, held: &'static str, named: &'static str },
    #[error("KMS does not give the key of the kept passwords: {0}")]
    Kms(String),
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
    kms: Option<KmsKey>,
    /// As KMS gave it.
    key: OnceCell<Secret<Vec<u8>>>,
}

impl Keep {
    pub fn of(server: &Server) -> Self {
        let (directory, key_file) = (server.data_dir.join(DIRECTORY), server.data_dir.join(KEY_FILE));
        Self { directory, key_file, kms: server.secrets_key.clone(), key: OnceCell::new() }
    }

    pub async fn load(&self, name: &str) -> Result<Kept, KeepError> {
        let path = self.path(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeepError::Unknown { name: name.to_owned() });
            }
            Err(source) => return Err(KeepError::File { path, source }),
        };
        let not_opened = |source| KeepError::NotOpened { name: name.to_owned(), source };
        let plain = seal::open(self.key().await?.expose(), name, &sealed).map_err(not_opened)?;
        let malformed = || KeepError::Malformed { name: name.to_owned() };
        let Plain { user, password, next } = serde_json::from_slice(&plain).map_err(|_| malformed())?;
        let secret = |text: std::borrow::Cow<'_, str>| Secret::new(text.into_owned());
        Ok(Kept { user: user.into_owned(), password: secret(password), next: next.map(secret) })
    }

    /// Keeps it from now on, durably.
    pub async fn store(&self, name: &str, kept: &Kept) -> Result<(), KeepError> {
        let path = self.path(name);
        let failed = |source| KeepError::File { path: path.clone(), source };
        let plain = Plain {
            user: kept.user.as_str().into(),
            password: kept.password.expose().as_str().into(),
            next: kept.next.as_ref().map(|next| next.expose().as_str().into()),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&plain).map_err(|error| failed(error.into()))?);
        let sealed = seal::seal(self.key().await?.expose(), name, &plain);
        let sealed = sealed.map_err(|source| KeepError::NotOpened { name: name.to_owned(), source })?;
        write(&self.directory, &path, &sealed).map_err(failed)
    }

    /// For whoever changes passwords, in this process or another: held until it is dropped. None while somebody has it.
    pub fn lock(&self) -> Result<Option<File>, KeepError> {
        let failed = |source| KeepError::File { path: self.directory.clone(), source };
        let directory = File::open(&self.directory).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(directory)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
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
    pub async fn make(&self) -> Result<(), KeepError> {
        let failed = |source| KeepError::File { path: self.key_file.clone(), source };
        if !self.directory.is_dir() {
            DirBuilder::new().mode(0o700).create(&self.directory).map_err(failed)?;
        }
        if self.key_file.exists() {
            return Ok(());
        }
        let text = match &self.kms {
            None => Zeroizing::new(format!("{}\n", BASE64.encode(&crypto::random::<KEY_LENGTH>()))),
            Some(kms) => Zeroizing::new(new_data_key(kms).await?),
        };
        let parent = self.key_file.parent().unwrap_or(Path::new("."));
        match private(&self.key_file).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(parent)?.sync_all()
        }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(failed),
        }
    }

    async fn key(&self) -> Result<&Secret<Vec<u8>>, KeepError> {
        self.key.get_or_try_init(|| self.read_key()).await
    }

    async fn read_key(&self) -> Result<Secret<Vec<u8>>, KeepError> {
        let path = || self.key_file.clone();
        let text = fs::read_to_string(&self.key_file).map(Zeroizing::new);
        let text = text.map_err(|source| KeepError::File { path: path(), source })?;
        let (kms, file) = ("in KMS", "of its own");
        let key = match (text.trim().strip_prefix(IN_KMS), &self.kms) {
            (None, None) => BASE64.decode(text.trim().as_bytes()).ok(),
            (Some(encrypted), Some(kms)) => {
                let encrypted = BASE64.decode(encrypted.as_bytes());
                let encrypted = encrypted.map_err(|_| KeepError::NotAKey { path: path() })?;
                Some(decrypted(kms, encrypted).await?)
            }
            (Some(_), None) => return Err(KeepError::OtherKeeper { path: path(), held: kms, named: file }),
            (None, Some(_)) => return Err(KeepError::OtherKeeper { path: path(), held: file, named: kms }),
        };
        let key = key.map(Secret::new).filter(|key| key.expose().len() == KEY_LENGTH);
        key.ok_or_else(|| KeepError::NotAKey { path: path() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.{ENDING}"))
    }
}

async fn client(kms: &KmsKey) -> Client {
    Client::new(&sdk_config(kms.region.as_deref(), kms.endpoint.as_deref()).await)
}

/// The text of a key file.
async fn new_data_key(kms: &KmsKey) -> Result<String, KeepError> {
    let asking = client(kms).await.generate_data_key_without_plaintext().key_id(&kms.key);
    let made = asking.key_spec(DataKeySpec::Aes256).encryption_context(CONTEXT.0, CONTEXT.1).send().await;
    let made = made.map_err(|error| KeepError::Kms(explain_answer(&error)))?;
    let encrypted = made.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
    Ok(format!("{IN_KMS}{}\n", BASE64.encode(&encrypted)))
}

async fn decrypted(kms: &KmsKey, encrypted: Vec<u8>) -> Result<Vec<u8>, KeepError> {
    let asking = client(kms).await.decrypt().key_id(&kms.key).ciphertext_blob(Blob::new(encrypted));
    let given = asking.encryption_context(CONTEXT.0, CONTEXT.1).send().await;
    let given = given.map_err(|error| KeepError::Kms(explain_answer(&error)))?;
    Ok(given.plaintext.map(Blob::into_inner).unwrap_or_default())
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
