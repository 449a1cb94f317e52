//! The SSH gateway's keys, read once at a start: what signs people's certificates, and what clients and
//! hosts are told.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::access::ssh_identity::UserCa;
use crate::config::Ssh;
use crate::crypto::ssh::{self, PrivateKey};
use crate::http::view::SshGatewayView;

pub(super) fn user_ca(config: &Ssh) -> Result<UserCa> {
    Ok(UserCa { key: Arc::new(key(&config.user_ca)?), longest: config.certificate_lifetime })
}

/// What `GET /pam/gateway` shows: clients reach the gateway at `host` and `port`.
pub(super) fn view(config: &Ssh, host: String, port: u16) -> Result<SshGatewayView> {
    let public =
        |path: &Path, comment| -> Result<String> { Ok(ssh::public_line(key(path)?.public_key(), comment)) };
    let (host, port) = match config.public_address.clone() {
        Some(address) => (address.host, address.port),
        None => (host, port),
    };
    Ok(SshGatewayView {
        host,
        port,
        host_ca: public(&config.host_ca, "sallyport host authority")?,
        host_keys: vec![public(&config.host_key, "")?],
        login_ca: public(&config.login_ca, "sallyport login authority")?,
    })
}

fn key(path: &Path) -> Result<PrivateKey> {
    let read = || {
        let pem = zeroize::Zeroizing::new(std::fs::read_to_string(path)?);
        Ok::<_, anyhow::Error>(ssh::parse_private(&pem)?)
    };
    read().with_context(|| format!("cannot use the key `{}`", path.display()))
}
