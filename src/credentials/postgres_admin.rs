//! A connection to a target with its admin credential: TLS verify-full, SCRAM with channel binding
//! and nothing weaker, whatever the server asks for.

use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::PostgresTarget;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may work on one statement of ours.
const STATEMENT_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot connect to {address} as the admin `{user}`")]
    Connect {
        address: String,
        user: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("{address} does not answer within {} s", CONNECT_WITHIN.as_secs())]
    TimedOut { address: String },
}

impl AdminError {
    /// Whether nobody answered at the target, rather than refused.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Connect { source, .. } => {
                let cause = std::error::Error::source(source);
                let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
                // What TLS finds wrong comes as an I/O error of the kind `InvalidData`.
                cause.is_some_and(|cause| cause.kind() != std::io::ErrorKind::InvalidData)
            }
        }
    }
}

/// An admin connection; it closes when dropped.
#[derive(Debug)]
pub struct Admin {
    client: tokio_postgres::Client,
    _driver: AbortOnDropHandle<()>,
}

impl std::ops::Deref for Admin {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Admin {
    /// Connects to `database` of the target, or to the admin's own.
    pub async fn connect(target: &PostgresTarget, database: Option<&str>) -> Result<Self, AdminError> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&target.address.host)
            .port(target.address.port)
            .user(&target.admin.user)
            .password(target.admin.password.expose())
            .dbname(database.unwrap_or(&target.admin.database))
            .application_name("sallyport")
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require)
            .connect_timeout(CONNECT_WITHIN)
            // A statement that we no longer wait for must not take effect later.
            .options(format!("-c statement_timeout={}", STATEMENT_WITHIN.as_millis()));
        if let Some(address) = target.connect_to {
            config.hostaddr(address);
        }
        let tls = MakeRustlsConnect::new((*target.tls).clone());
        let address = || target.address.to_string();
        let connecting = tokio::time::timeout(CONNECT_WITHIN, config.connect(tls)).await;
        let (client, connection) =
            connecting.map_err(|_| AdminError::TimedOut { address: address() })?.map_err(|source| {
                AdminError::Connect { address: address(), user: target.admin.user.clone(), source }
            })?;
        // What breaks the connection also fails the statement that waits for it.
        let driver = TaskTracker::new().spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
        Ok(Self { client, _driver: AbortOnDropHandle::new(driver) })
    }
}
