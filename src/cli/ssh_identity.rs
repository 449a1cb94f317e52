//! The key by which the command line's user comes by SSH, and the certificate that a login gets for it:
//! `ssh/id_ed25519` and `ssh/id_ed25519-cert.pub` in the home directory. The key stays; the certificate
//! comes with a login and goes with it.

use std::path::PathBuf;

use super::client::Client;
use super::config_psql::read;
use super::exit::Failure;
use super::home::{Home, absolute, remove, write_private};
use crate::crypto::ssh::{self, Certificate, PrivateKey};
use crate::domain::time::Timestamp;
use crate::http::api::ssh::CertificateBody;
use crate::http::view::{GatewayView, SshCertificateView};

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub key: PathBuf,
    pub public_key: PathBuf,
    pub certificate: PathBuf,
    pub known_hosts: PathBuf,
    pub config: PathBuf,
}

impl Files {
    pub(super) fn of(home: &Home) -> Result<Self, Failure> {
        let dir = absolute(&home.dir.join("ssh"))?;
        Ok(Self {
            key: dir.join("id_ed25519"),
            public_key: dir.join("id_ed25519.pub"),
            certificate: dir.join("id_ed25519-cert.pub"),
            known_hosts: dir.join("known_hosts"),
            config: dir.join("config"),
        })
    }
}

/// Has the key certified, made when there is none yet. Does nothing when the server has no SSH gateway.
pub(super) async fn obtain(home: &Home, client: &Client) -> Result<(), Failure> {
    let files = Files::of(home)?;
    // Asked first: a refusal would be on record.
    let gateway: GatewayView = client.get("/pam/gateway").await?;
    if gateway.ssh.is_none() {
        return remove(&files.certificate);
    }
    let known = known_key(&files)?;
    let key = known.clone().unwrap_or_else(ssh::generate_ed25519);
    let public_key = ssh::public_line(key.public_key(), "sallyport");
    let body = CertificateBody { public_key: public_key.clone() };
    let view: SshCertificateView = client.post("/pam/ssh-certificate", &body).await?;
    if known.is_none() {
        let pem = ssh::to_pem(&key).map_err(|error| Failure::of("cannot write the SSH key", &error))?;
        write_private(&files.key, pem.as_bytes())?;
    }
    write_private(&files.public_key, format!("{public_key}\n").as_bytes())?;
    write_private(&files.certificate, format!("{}\n", view.certificate).as_bytes())
}

/// Obtains a certificate unless there is one that holds.
pub(super) async fn ensure(home: &Home, client: &Client, now: Timestamp) -> Result<(), Failure> {
    let text = read(&Files::of(home)?.certificate)?;
    let ends = Certificate::from_openssh(text.trim()).map_or(0, |certificate| certificate.valid_before());
    if i64::try_from(ends).is_ok_and(|ends| ends > now.as_micros() / 1_000_000) {
        return Ok(());
    }
    obtain(home, client).await
}

/// After a logout: it lets nobody in any more, and nothing that looks as if stays behind.
pub(super) fn forget(home: &Home) -> Result<(), Failure> {
    remove(&Files::of(home)?.certificate)
}

fn known_key(files: &Files) -> Result<Option<PrivateKey>, Failure> {
    let pem = zeroize::Zeroizing::new(read(&files.key)?);
    if pem.is_empty() {
        return Ok(None);
    }
    ssh::parse_private(&pem).map(Some).map_err(|error| {
        Failure::of(format!("`{}` cannot be used", files.key.display()), &error)
            .hint("remove it: the next login makes another")
    })
}
