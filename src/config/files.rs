//! What the configuration points to: secrets, certificates and keys, checked when it is loaded, so
//! that a missing or badly protected file is found before anything starts.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::crypto::ssh::{PrivateKey, PublicKey, parse_private, parse_public};
use crate::domain::secret::Secret;

/// Nothing that is a secret or a certificate is larger.
const LARGEST: u64 = 1024 * 1024;

/// A secret in a file that nobody but its owner and group may read, without its last line end.
pub(super) fn secret(path: &Path) -> Result<Secret, String> {
    let text = Secret::new(read(path)?);
    protected(path)?;
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    let line = Secret::new(line.strip_suffix('\r').unwrap_or(line).to_owned());
    one_line(line, &format!("`{}`", path.display()))
}

pub(super) fn secret_from(
    name: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, String> {
    let Some(value) = environment(name) else {
        return Err(format!("the environment variable `{name}` is not set: set it, or use a file"));
    };
    one_line(Secret::new(value), &format!("the environment variable `{name}`"))
}

fn one_line(secret: Secret, whence: &str) -> Result<Secret, String> {
    if secret.expose().is_empty() {
        return Err(format!("{whence} is empty: put the secret there"));
    }
    if secret.expose().chars().any(char::is_control) {
        return Err(format!("{whence} holds more than one line or a control character"));
    }
    Ok(secret)
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("`{}` holds no certificate: it must be PEM", path.display())),
        Err(error) => Err(format!("`{}` is not PEM: {error}", path.display())),
    }
}

/// Checks that the file holds a private key and is protected; who needs the key reads it.
pub(super) fn private_key(path: &Path) -> Result<(), String> {
    let text = Secret::new(read(path)?);
    protected(path)?;
    match PrivateKeyDer::from_pem_slice(text.expose().as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{}` holds no private key: it must be PEM", path.display())),
    }
}

/// An SSH private key that signs without a passphrase, in a protected file.
pub(super) fn ssh_private_key(path: &Path) -> Result<PrivateKey, String> {
    let text = Secret::new(read(path)?);
    protected(path)?;
    parse_private(text.expose()).map_err(|error| format!("`{}` cannot be used: {error}", path.display()))
}

/// SSH public keys, one a line.
pub(super) fn ssh_public_keys(path: &Path) -> Result<Vec<PublicKey>, String> {
    let text = read(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let unusable = |error| format!("`{}` cannot be used: {error}", path.display());
    lines.map(|line| parse_public(line).map_err(unusable)).collect()
}

/// A text that is no secret.
pub(super) fn text(path: &Path) -> Result<String, String> {
    read(path)
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("`{}` is not a file", path.display()));
    }
    let mut text = String::new();
    let length = file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > LARGEST {
        return Err(format!("`{}` is larger than {LARGEST} bytes", path.display()));
    }
    Ok(text)
}

/// Refuses a file that others than its owner and group may open.
fn protected(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?
        .mode();
    let (path, for_others) = (path.display(), mode & 0o007);
    if for_others == 0 {
        return Ok(());
    }
    Err(format!("`{path}` is open to everybody (mode {:03o}): run `chmod 600 {path}`", mode & 0o777))
}
