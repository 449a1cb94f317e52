//! The composition root: from a configuration to a running server. The only file that names
//! concrete backends; it knows everything, and nothing but the command line knows it.
//!
//! A start, in order: configuration, clock, store, journal (recovered), policies, use cases, what a
//! crash left in the outbox, listeners, then `READY=1`. Whatever fails before that is a clear error
//! and no listener.

mod alarm;
mod alerts;
mod canary;
mod checkpoints;
mod kms_keys;
mod reload;
mod search;
mod signing_key;
mod ssh;
mod stream;
mod trim;
mod witness;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::access::credential::Credentials;
use crate::access::login::Logins;
use crate::access::roles::Roles;
use crate::access::targets::{TargetEntry, Targets};
use crate::access::{Access, Parts, Rules, second_factor};
use crate::audit::search::Index;
use crate::audit::{Journal, JournalOptions, VerifyKey};
use crate::clock::Clock;
use crate::config::init::{read_node_id, read_server_secret};
use crate::config::{self, Config};
use crate::credentials::keep::Keep;
use crate::credentials::sources::Sources;
use crate::crypto::{self, certificate, tls};
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event};
use crate::domain::secret::Secret;
use crate::gateway::accept::{self, Limits};
use crate::gateway::lanes::Lanes;
use crate::http::{self, GatewayInfo, HttpState};
use crate::identity::limiter::{Attempts, Limit};
use crate::identity::password::Passwords;
use crate::identity::token::Lifetimes;
use crate::lifecycle::{Asked, Signals, Stop};
use crate::policy::cedar::CedarPolicy;
use crate::postgres::{ALPN, PostgresGateway, Settings};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// The store's file in the data directory.
pub const STORE_FILE: &str = "sallyport.db";
/// The index of the audit log in the data directory. It can be removed at any time, and is made anew.
pub const SEARCH_FILE: &str = "search.db";
/// The audit log's signing key in the data directory, and its public half.
pub const SIGNING_KEY_FILE: &str = "audit-signing.key";
pub const VERIFY_KEY_FILE: &str = "audit-verify.key";

/// Attempts with a token, by address: 256 random bits cannot be guessed, so only floods are of interest.
/// By user as well, any stranger could lock a user out.
const TOKEN_ATTEMPTS: Limit = Limit { burst: 1_000, refill: Duration::from_millis(100), capacity: 10_000 };

/// A server that is put together and not yet listening.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// Where there is an SSH gateway.
    authorities: Option<ssh::Authorities>,
    access: Arc<Access>,
    search: Arc<Index>,
    metrics: PrometheusHandle,
}

/// Serves until a signal says to stop.
pub async fn serve(path: &Path) -> Result<()> {
    // Before anything else, so that no signal is lost.
    let signals = Signals::listen().context("cannot listen for signals")?;
    let app = App::start(Config::load(path)?).await?;
    app.run(signals).await
}

impl App {
    /// Everything up to the listeners.
    pub async fn start(config: Config) -> Result<Self> {
        let clock = Clock::system();
        let data_dir = &config.server.data_dir;
        let node = read_node_id(data_dir)?;
        let server_secret = read_server_secret(data_dir)?;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&data_dir.join(STORE_FILE))?);
        let seen = store.high_water(clock.now()).await.context("cannot use the store")?;
        let key = signing_key::open(&config, &node)?;
        let stream = stream::rules(config.stream.as_ref());
        let options =
            JournalOptions { file_size: config.audit.segment_bytes, stream, ..JournalOptions::new(key) };
        let (journal, recovery) = Journal::open(&config.audit.directory, clock.clone(), options)
            .context("cannot open the audit log")?;
        let latest = recovery.latest.map_or(seen, |latest| latest.max(seen));
        let behind = clock.ratchet(latest);
        if !behind.is_zero() {
            tracing::warn!(?behind, %latest, "the machine's clock is behind what was recorded: going on from the latest instant recorded");
        }
        if let Some(repaired) = &recovery.repaired {
            tracing::warn!(?repaired, "the audit log was not closed: repaired");
        }
        let authorities = ssh::Authorities::of(&config)?;
        let access = Access::new(Parts {
            node,
            clock: clock.clone(),
            store,
            journal,
            rules: rules(&config.reloadable)?,
            credentials: credentials(&server_secret, &clock, Keep::of(&config.server)),
            roles: Roles::new(&installation(&server_secret), fingerprint_key(&server_secret)),
            logins: logins(&config, authorities.as_ref(), &server_secret, &clock)?,
        });
        access.resume_outbox(recovery.outbox).await?;
        access.close_strays(&EndReason::Crashed).await?;
        let metrics = PrometheusBuilder::new().install_recorder().context("cannot collect metrics")?;
        let search = Index::new(&config.server.data_dir.join(SEARCH_FILE), &config.audit.directory);
        let app = Self { config, authorities, access: Arc::new(access), search: Arc::new(search), metrics };
        let policy_hash = app.access.rules().policy.hash().to_owned();
        let started = Event::done(Action::NodeStarted)
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("policy", policy_hash)
            .with("repaired", recovery.repaired.is_some());
        app.record(app.with_authorities(started)).await?;
        if !behind.is_zero() {
            let seconds = behind.as_secs();
            app.record(Event::done(Action::ClockBehind).with("behind_seconds", seconds)).await?;
        }
        Ok(app)
    }

    async fn record(&self, event: Event) -> Result<()> {
        self.access.store.append_events(self.access.now(), &[event]).await?;
        Ok(self.access.publish().await?)
    }

    /// Listens and serves until told to stop, then drains.
    pub async fn run(self, mut signals: Signals) -> Result<()> {
        let stop = Stop::default();
        let (edges, upkeep) = (TaskTracker::new(), TaskTracker::new());
        self.listen(&edges, &stop).await?;
        self.keep_up(&upkeep, &stop);
        let log = VerifyKey::load(&self.config.server.data_dir.join(VERIFY_KEY_FILE))?;
        self.keep_index(&upkeep, &stop.hard);
        self.ask_witnesses(&log, &upkeep, &stop.hard)?;
        self.tell_alerts(&upkeep, &stop.hard)?;
        let shipping = self.ship(&upkeep, &stop.hard).await?;
        self.trim(log.clone(), &upkeep, &stop.hard);
        self.release_canaries(log, &upkeep, &stop.hard).await;
        if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
            tracing::warn!(%error, "cannot tell systemd that we are ready");
        }
        tracing::info!(node = %self.access.node, "ready");
        while signals.next().await == Asked::Reload {
            self.reload().await;
        }
        self.drain(signals, &edges, &stop).await;
        stop.hard.cancel();
        upkeep.close();
        upkeep.wait().await;
        self.access.credentials.settle().await;
        self.access.roles.settle().await;
        self.record(Event::done(Action::NodeStopped)).await?;
        self.access.journal.close().await.context("cannot close the audit log")?;
        if let Some(shipping) = shipping {
            shipping.finish(self.access.journal.backlog()).await;
        }
        tracing::info!("stopped");
        Ok(())
    }

    async fn listen(&self, edges: &TaskTracker, stop: &Stop) -> Result<()> {
        let lanes = Arc::new(Lanes::start().context("cannot start the gateways' threads")?);
        let postgres = self.listen_postgres(Arc::clone(&lanes), edges, stop).await?;
        let config = &self.config.api;
        let listener = bind(config.listener.listen, "api.listen").await?;
        let api = listener.local_addr()?;
        let tls = tls::server(&config.listener.certificate, &config.listener.key, http::serve::ALPN)?;
        let public = self.config.postgres.public_address.as_ref();
        let (host, port) = (self.postgres_host(), public.map_or(postgres.port(), |address| address.port));
        let (ssh_address, ssh) = self.listen_ssh(lanes, edges, stop).await?.unzip();
        let info = GatewayInfo { host, port, ca_pem: authority(&self.config.server.data_dir), ssh };
        let state = HttpState::new(
            Arc::clone(&self.access),
            info,
            self.config.audit.directory.clone(),
            Arc::clone(&self.search),
            self.metrics.clone(),
            edges.clone(),
        );
        // The API serves through the drain: revocations must still be possible.
        edges.spawn(http::serve(listener, Arc::new(tls), state, edges.clone(), stop.hard.clone()));
        tracing::info!(%postgres, %api, ssh = ssh_address.map(tracing::field::display), "listening");
        Ok(())
    }

    /// What clients call the host of the PostgreSQL gateway.
    fn postgres_host(&self) -> String {
        match &self.config.postgres.public_address {
            Some(address) => address.host.clone(),
            None => host_of(&self.config.api.public_url),
        }
    }

    async fn listen_postgres(
        &self,
        lanes: Arc<Lanes>,
        edges: &TaskTracker,
        stop: &Stop,
    ) -> Result<SocketAddr> {
        let config = &self.config.postgres;
        let listener = bind(config.listener.listen, "postgres.listen").await?;
        let address = listener.local_addr()?;
        let (certificate, key) = (&config.listener.certificate, &config.listener.key);
        let tls = match &config.client_ca_file {
            Some(client_ca) => tls::server_for_certified(certificate, key, &[ALPN], client_ca)?,
            None => tls::server(certificate, key, &[ALPN])?,
        };
        let chain = tls::certificates(&config.listener.certificate)?;
        let end_point = chain.first().and_then(|leaf| certificate::server_end_point(leaf).ok());
        if end_point.is_none() {
            tracing::warn!(
                "postgres.certificate allows no channel binding: use an ECDSA P-256 or RSA certificate"
            );
        }
        let settings = Settings {
            tls: Arc::new(tls),
            end_point: end_point.map(Into::into),
            host: self.postgres_host().to_ascii_lowercase(),
            handshake_timeout: config.handshake_timeout,
            idle_timeout: config.idle_timeout,
            max_message: config.max_message_bytes,
        };
        let gateway = Arc::new(PostgresGateway::new(Arc::clone(&self.access), settings));
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
        Ok(address)
    }

    /// What goes on beside the connections, until the hard stop.
    fn keep_up(&self, upkeep: &TaskTracker, stop: &Stop) {
        let until = |stop: &Stop| stop.hard.clone();
        upkeep.spawn({
            let (access, stop) = (Arc::clone(&self.access), until(stop));
            async move {
                stop.run_until_cancelled(access.hub.enforce_deadlines(&access.clock)).await;
            }
        });
        upkeep.spawn({
            let (access, stop) = (Arc::clone(&self.access), until(stop));
            async move {
                stop.run_until_cancelled(access.watch_forever()).await;
            }
        });
        upkeep.spawn({
            let (access, stop) = (Arc::clone(&self.access), until(stop));
            async move {
                let cleaning = async { tokio::join!(access.quiet_after_crash(), access.clean_up_forever()) };
                stop.run_until_cancelled(cleaning).await;
            }
        });
        upkeep.spawn({
            let (access, stop) = (Arc::clone(&self.access), until(stop));
            async move {
                // On the heap, as is what it awaits.
                stop.run_until_cancelled(Box::pin(access.look_after_targets_forever())).await;
            }
        });
        self.keep_signing(upkeep, &stop.hard);
    }

    /// Lets nothing new in, waits for what is there, then cuts it.
    async fn drain(&self, mut signals: Signals, edges: &TaskTracker, stop: &Stop) {
        let drain_for = self.config.server.drain_timeout;
        tracing::info!(
            connections = self.access.hub.count(),
            ?drain_for,
            "draining: signal again to stop at once"
        );
        let _told = sd_notify::notify(&[NotifyState::Stopping]);
        stop.soft.cancel();
        // A client that is still authenticating would otherwise be let in while others are let out.
        self.access.hub.close();
        let emptied = async {
            while self.access.hub.count() > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let second = async { while signals.next().await != Asked::Stop {} };
        tokio::select! {
            () = emptied => {}
            () = second => tracing::warn!("second signal: stopping at once"),
            () = tokio::time::sleep(drain_for) => tracing::warn!("drain deadline passed"),
        }
        self.access.end_all(EndReason::Shutdown).await;
        stop.hard.cancel();
        edges.close();
        if tokio::time::timeout(Duration::from_secs(15), edges.wait()).await.is_err() {
            tracing::error!(tasks = edges.len(), "some connections did not end in time");
        }
    }
}

/// Targets and policies as configured.
fn rules(reloadable: &config::Targets) -> Result<Rules> {
    let policy = match &reloadable.policies {
        Some(directory) => CedarPolicy::load(directory)?,
        None => CedarPolicy::builtin()?,
    };
    let targets = Targets::new(reloadable.targets.values().cloned().map(TargetEntry::from));
    Ok(Rules { targets: Arc::new(targets), policy: Arc::new(policy) })
}

fn credentials(server_secret: &Secret<Vec<u8>>, clock: &Clock, keep: Keep) -> Credentials {
    let sources = Sources::new(&installation(server_secret), clock, keep);
    Credentials::new(sources, fingerprint_key(server_secret))
}

fn fingerprint_key(server_secret: &Secret<Vec<u8>>) -> Secret<Vec<u8>> {
    Secret::new(crypto::hmac_sha256(server_secret.expose(), b"credential fingerprints").to_vec())
}

fn installation(server_secret: &Secret<Vec<u8>>) -> String {
    let installation = crypto::hmac_sha256(server_secret.expose(), b"names the installation at its targets");
    crypto::hex(installation.get(..8).unwrap_or(&installation))
}

fn logins(
    config: &Config,
    authorities: Option<&ssh::Authorities>,
    server_secret: &Secret<Vec<u8>>,
    clock: &Clock,
) -> Result<Logins> {
    let lifetime = config.login.token_lifetime;
    Ok(Logins {
        passwords: Passwords::new()?,
        password_attempts: Attempts::new(clock.clone()),
        token_attempts: Attempts::by_address(clock.clone(), TOKEN_ATTEMPTS),
        second_factor_attempts: second_factor::attempts(clock.clone()),
        server_secret: Secret::new(crypto::hmac_sha256(server_secret.expose(), b"salts of unknown users")),
        lifetimes: Lifetimes { default: lifetime, longest: lifetime },
        ssh_user_ca: config.ssh.as_ref().zip(authorities).map(|(ssh, authorities)| authorities.user_ca(ssh)),
    })
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => bail!("cannot listen on {address} ({key}): {error}"),
    }
}

/// The host part of a URL that the configuration has checked.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => authority.to_owned(),
    }
}

/// The authority that `sallyport init` made, if this server uses one of its own.
fn authority(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.join("tls/ca.crt")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_host_is_that_of_the_public_url() {
        for (url, host) in [
            ("https://bastion.example:8443", "bastion.example"),
            ("https://bastion.example", "bastion.example"),
            ("https://127.0.0.1:8443/", "127.0.0.1"),
            ("https://[::1]:8443", "[::1]"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }
}
