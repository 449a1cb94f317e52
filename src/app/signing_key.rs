//! Finds the audit log's signing key: in a file of the data directory, or in Amazon KMS.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::{SIGNING_KEY_FILE, VERIFY_KEY_FILE};
use crate::audit::kms::Kms;
use crate::audit::signer::Signer as _;
use crate::audit::{SigningKey, VerifyKey};
use crate::config::{self, Config};
use crate::domain::id::NodeId;

/// The key as configured. One in KMS must be that whose public half is in the data directory; where none is, it is
/// written there, so that who verifies finds it at the same place.
pub(super) fn open(config: &Config, node: &NodeId) -> Result<SigningKey> {
    let data_dir = &config.server.data_dir;
    match &config.audit.signing_key {
        None => Ok(SigningKey::load(&data_dir.join(SIGNING_KEY_FILE), node.clone())?),
        Some(key) => in_kms(key, &data_dir.join(VERIFY_KEY_FILE), node),
    }
}

fn in_kms(key: &config::KmsKey, public: &Path, node: &NodeId) -> Result<SigningKey> {
    let known = if public.exists() { Some(VerifyKey::load(public)?) } else { None };
    let unusable = || format!("cannot use the audit key `{}` (audit.signing_key)", key.key);
    let kms = Kms::open(key, known.as_ref().map(VerifyKey::public_key)).with_context(unusable)?;
    let found = VerifyKey::new(node.clone(), kms.public_key());
    match known {
        None => write(public, &found).with_context(|| format!("cannot write `{}`", public.display()))?,
        Some(known) if known == found => {}
        Some(_) => bail!(
            "`{}` holds the public half of another key than `{}` (audit.signing_key): a log keeps its key. Where \
             nothing is recorded yet, remove `{VERIFY_KEY_FILE}` and `{SIGNING_KEY_FILE}`; otherwise begin a new data \
             directory, and keep this one as evidence",
            public.display(),
            key.key
        ),
    }
    Ok(SigningKey::new(node.clone(), Arc::new(kms)))
}

fn write(path: &Path, key: &VerifyKey) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(format!("{key}\n").as_bytes())?;
    file.sync_all()
}
