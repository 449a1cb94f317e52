//! The HTTP API: requests, verdicts, sessions, blocks and recordings, over TLS only.
//!
//! 1. [`mod@serve`]: accepts, shakes hands within a deadline, speaks HTTP/1.1 or HTTP/2 by ALPN.
//! 2. [`frame`]: gives every request an id, a deadline and a log span, and writes every error as
//!    `application/problem+json`.
//! 3. [`route`]: the one table of routes, with who may call each and whether it leaves a record.
//! 4. [`auth`]: from a bearer token to a caller; whoever is refused here is recorded.
//! 5. [`api`]: one file a noun; each handler calls one use case and shows a [`view`] of the result.

pub mod api;
pub mod auth;
pub mod error;
pub mod extract;
pub mod frame;
pub mod openapi;
pub mod route;
pub mod serve;
mod standing;
pub mod strangers;
mod streamed;
pub mod view;
pub mod view_aws;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::audit::search::Index;
use crate::crypto::ssh::authority::Keyring;
use crate::crypto::ssh::public_line;

pub use route::{Auth, ROUTES, Route, router};
pub use serve::serve;

use strangers::Strangers;
use view::{CheckView, SshGatewayView};

/// How many searches read at the same time.
const SEARCHES: usize = 2;

/// What the handlers work with. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct HttpState {
    pub access: Arc<Access>,
    pub gateway: Arc<GatewayInfo>,
    /// The directory of the audit log that recordings are read from.
    pub audit: Arc<PathBuf>,
    /// The index of that log.
    pub search: Arc<Index>,
    /// Searches read much: so few at a time, and the others wait.
    pub(crate) searches: Arc<Semaphore>,
    pub metrics: PrometheusHandle,
    /// Owns what is being carried out: a client that hangs up does not stop a revocation half-way.
    pub tasks: TaskTracker,
    pub(crate) strangers: Arc<Strangers>,
    /// The latest look at whether the server can do its work.
    pub(crate) readiness: Arc<Mutex<Option<Look>>>,
}

/// When it was looked whether the server can do its work, and what was seen.
pub(crate) type Look = (Instant, [CheckView; 2]);

/// How clients reach the gateways.
#[derive(Debug, Clone)]
pub struct GatewayInfo {
    pub host: String,
    pub port: u16,
    /// The certificate authority of the gateway and the API, in PEM, unless it is a public one.
    pub ca_pem: Option<String>,
    pub ssh: Option<SshGatewayInfo>,
}

/// What the SSH gateway is known by, whichever keys its authorities have.
#[derive(Debug, Clone)]
pub struct SshGatewayInfo {
    pub host: String,
    pub port: u16,
    /// Lines without a name before.
    pub host_keys: Vec<String>,
    pub host_ca: Arc<Keyring>,
    pub login_ca: Arc<Keyring>,
}

impl SshGatewayInfo {
    /// As it is now.
    pub fn view(&self) -> SshGatewayView {
        let lines = |keys: &Keyring, comment: &str| {
            keys.now().trusted().iter().map(|key| public_line(key, comment)).collect()
        };
        SshGatewayView {
            host: self.host.clone(),
            port: self.port,
            host_ca: lines(&self.host_ca, "sallyport-host-ca"),
            host_keys: self.host_keys.clone(),
            login_ca: lines(&self.login_ca, "sallyport-login-ca"),
        }
    }
}

impl HttpState {
    pub fn new(
        access: Arc<Access>,
        gateway: GatewayInfo,
        audit: PathBuf,
        search: Arc<Index>,
        metrics: PrometheusHandle,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            access,
            gateway: Arc::new(gateway),
            audit: Arc::new(audit),
            search,
            searches: Arc::new(Semaphore::new(SEARCHES)),
            metrics,
            tasks,
            strangers: Arc::default(),
            readiness: Arc::default(),
        }
    }
}
