//! Puts the SSH gateway together: its keys, and what clients are told of it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio_util::task::TaskTracker;

use super::{App, bind, host_of};
use crate::access::ssh_identity::UserCa;
use crate::config;
use crate::credentials::ssh_certificate::SshCertificates;
use crate::crypto::ssh::{PrivateKey, parse_private, public_line};
use crate::domain::secret::Secret;
use crate::gateway::accept::{self, Limits};
use crate::gateway::lanes::Lanes;
use crate::http::view::SshGatewayView;
use crate::lifecycle::Stop;
use crate::ssh::{Settings, SshGateway};

/// Connections to a target that are kept for further forwards of one client.
const IDLE_UPSTREAMS: usize = 4;

pub(super) fn user_ca(config: &config::Ssh) -> Result<UserCa> {
    Ok(UserCa { key: Arc::new(key(&config.user_ca)?), longest: config.certificate_lifetime })
}

impl App {
    /// Listens, if there is an SSH gateway; gives where, and what clients are told.
    pub(super) async fn listen_ssh(
        &self,
        edges: &TaskTracker,
        stop: &Stop,
    ) -> Result<Option<(SocketAddr, SshGatewayView)>> {
        let Some(config) = &self.config.ssh else { return Ok(None) };
        let listener = bind(config.listen, "ssh.listen").await?;
        let address = listener.local_addr()?;
        let (host, port) = match &config.public_address {
            Some(public) => (public.host.clone(), public.port),
            None => (host_of(&self.config.api.public_url), address.port()),
        };
        let settings = settings(config, &host, port)?;
        let view = SshGatewayView {
            port,
            host_ca: public_line(settings.host_ca.public_key(), "sallyport-host-ca"),
            host_keys: vec![public_line(settings.host_key.public_key(), &host)],
            login_ca: public_line(&settings.certificates.authority(), "sallyport-login-ca"),
            host,
        };
        let gateway = Arc::new(SshGateway::new(Arc::clone(&self.access), settings, stop.soft.clone()));
        let limits = Limits {
            connections: config.max_connections,
            connections_per_network: None,
            handshakes: config.max_handshakes,
        };
        let lanes = Arc::new(Lanes::start().context("cannot start the SSH gateway's threads")?);
        let serve = move |stream, client, slot| {
            let (gateway, lanes) = (Arc::clone(&gateway), Arc::clone(&lanes));
            async move { lanes.carry(stream, move |stream| gateway.serve(stream, client, slot)).await }
        };
        edges.spawn(accept::run(listener, limits, edges.clone(), stop.soft.clone(), serve));
        Ok(Some((address, view)))
    }
}

fn settings(config: &config::Ssh, host: &str, port: u16) -> Result<Settings> {
    Ok(Settings {
        host_key: key(&config.host_key)?,
        host_ca: key(&config.host_ca)?,
        user_cas: vec![key(&config.user_ca)?.public_key().clone()],
        certificates: SshCertificates::new(key(&config.login_ca)?),
        // As OpenSSH looks for it: with the port where it is not the usual one.
        names: vec![host.to_owned(), format!("[{host}]:{port}")],
        handshake_timeout: config.handshake_timeout,
        idle_timeout: config.idle_timeout,
        max_channels: config.max_channels,
        stream_head: config.stream_head_bytes,
        accept_env: config.accept_env.clone(),
        idle_upstreams: IDLE_UPSTREAMS,
    })
}

fn key(path: &Path) -> Result<PrivateKey> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let text = Secret::new(text);
    parse_private(text.expose()).with_context(|| format!("cannot use the key in `{}`", path.display()))
}
