//! Puts the SSH gateway together: its keys, and what clients are told of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result, bail};
use tokio_util::task::TaskTracker;

use super::{App, bind, host_of, kms_keys};
use crate::access::ssh_identity::UserCa;
use crate::config::{self, AuthorityKeys, Config};
use crate::credentials::ssh_authority::{KnownKeys, SshAuthority};
use crate::credentials::ssh_certificate::SshCertificates;
use crate::crypto::ssh::authority::{Keyring, Keys};
use crate::crypto::ssh::{PrivateKey, parse_private, public_line};
use crate::domain::event::Event;
use crate::domain::secret::Secret;
use crate::gateway::accept::{self, Limits};
use crate::gateway::lanes::Lanes;
use crate::http::SshGatewayInfo;
use crate::lifecycle::Stop;
use crate::ssh::{Settings, SshGateway};

/// Connections to a target that are kept for further forwards of one client.
const IDLE_UPSTREAMS: usize = 4;

/// The three authorities, with the keys that they have now.
#[derive(Debug)]
pub(super) struct Authorities {
    host: Arc<Keyring>,
    user: Arc<Keyring>,
    login: Arc<Keyring>,
}

impl Authorities {
    /// As configured, if there is an SSH gateway. Blocks while KMS is asked.
    pub(super) fn of(config: &Config) -> Result<Option<Self>> {
        let Some(ssh) = &config.ssh else { return Ok(None) };
        let data_dir = &config.server.data_dir;
        let mut known = kms_keys::read(data_dir);
        let authorities = Self::load(ssh, &mut known)?;
        kms_keys::keep(data_dir, &known);
        Ok(Some(authorities))
    }

    fn load(config: &config::Ssh, known: &mut KnownKeys) -> Result<Self> {
        let mut keyring = |keys: &AuthorityKeys, name: &str| {
            let authority = SshAuthority::open(keys, known).with_context(|| format!("ssh.{name}"))?;
            Ok::<_, Error>(Arc::new(Keyring::new(authority.into_keys())))
        };
        let authorities = Self {
            host: keyring(&config.host_ca, "host_ca")?,
            user: keyring(&config.user_ca, "user_ca")?,
            login: keyring(&config.login_ca, "login_ca")?,
        };
        authorities.have_nothing_in_common()?;
        Ok(authorities)
    }

    /// Each key has one purpose. Of keys in files the configuration knows; KMS may have several names for one.
    fn have_nothing_in_common(&self) -> Result<()> {
        let keyrings = [("host_ca", &self.host), ("user_ca", &self.user), ("login_ca", &self.login)];
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (name, keyring) in keyrings {
            for fingerprint in keyring.now().fingerprints() {
                if let Some(other) = seen.insert(fingerprint, name).filter(|other| *other != name) {
                    bail!("ssh.{name} has the same key as {other}: make another in KMS");
                }
            }
        }
        Ok(())
    }

    pub(super) fn user_ca(&self, config: &config::Ssh) -> UserCa {
        UserCa { keys: Arc::clone(&self.user), longest: config.certificate_lifetime }
    }

    /// Whoever has these keyrings goes on with the keys of `new`.
    pub(super) fn take_up(&self, new: &Self) {
        for (ours, new) in [(&self.host, &new.host), (&self.user, &new.user), (&self.login, &new.login)] {
            ours.replace(Keys::clone(&new.now()));
        }
    }

    /// With the fingerprints of each authority's keys, the one that signs first.
    pub(super) fn recorded(&self, event: Event) -> Event {
        event
            .with("ssh_host_ca", self.host.now().fingerprints())
            .with("ssh_user_ca", self.user.now().fingerprints())
            .with("ssh_login_ca", self.login.now().fingerprints())
    }
}

impl App {
    /// Listens, if there is an SSH gateway; gives where, and what clients are told.
    pub(super) async fn listen_ssh(
        &self,
        lanes: Arc<Lanes>,
        edges: &TaskTracker,
        stop: &Stop,
    ) -> Result<Option<(SocketAddr, SshGatewayInfo)>> {
        let (Some(config), Some(authorities)) = (&self.config.ssh, &self.authorities) else {
            return Ok(None);
        };
        let listener = bind(config.listen, "ssh.listen").await?;
        let address = listener.local_addr()?;
        let (host, port) = match &config.public_address {
            Some(public) => (public.host.clone(), public.port),
            None => (host_of(&self.config.api.public_url), address.port()),
        };
        let settings = settings(config, authorities, &host, port)?;
        let info = SshGatewayInfo {
            port,
            host_keys: vec![public_line(settings.host_key.public_key(), &host)],
            host_ca: Arc::clone(&authorities.host),
            login_ca: Arc::clone(&authorities.login),
            host,
        };
        let gateway = Arc::new(SshGateway::new(Arc::clone(&self.access), settings, stop.soft.clone()));
        let limits = Limits {
            connections: config.max_connections,
            connections_per_network: None,
            handshakes: config.max_handshakes,
        };
        let serve = move |stream, client, slot| {
            let (gateway, lanes) = (Arc::clone(&gateway), Arc::clone(&lanes));
            async move { lanes.carry(stream, move |stream| gateway.serve(stream, client, slot)).await }
        };
        edges.spawn(accept::run(listener, limits, edges.clone(), stop.soft.clone(), serve));
        Ok(Some((address, info)))
    }
}

fn settings(config: &config::Ssh, authorities: &Authorities, host: &str, port: u16) -> Result<Settings> {
    Ok(Settings {
        host_key: key(&config.host_key)?,
        host_ca: Arc::clone(&authorities.host),
        user_ca: Arc::clone(&authorities.user),
        certificates: SshCertificates::new(Arc::clone(&authorities.login)),
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
