//! A connection to a target with its admin credential: TLS verify-full, SCRAM with channel binding
//! and nothing weaker, whatever the server asks for.

use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::PostgresTarget;
use crate::domain::name::TargetName;
use crate::domain::secret::Secret;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may work on one statement of ours.
const STATEMENT_WITHIN: Duration = Duration::from_secs(15);
/// As long as three of them, after a connection that took its time, are done within [`super::WITHIN`].
const BRIEF_STATEMENT_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("target `{target}` has no admin: its credentials are not roles that Sallyport makes")]
    None { target: TargetName },
    #[error("cannot connect to {address} as `{user}`")]
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
    /// Whether the target was asked and says that the password is wrong. Other refusals (`pg_hba.conf`, a role that may
    /// not log in just now) prove nothing of it.
    pub fn is_refusal(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        source.code() == Some(&SqlState::INVALID_PASSWORD)
    }

    /// Whether nobody answered at the target, rather than refused.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::None { .. } => false,
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
        let Some(admin) = target.source.admin() else {
            return Err(AdminError::None { target: target.target.name.clone() });
        };
        let database = database.unwrap_or(&admin.database);
        Self::connect_as(target, &admin.user, admin.password.expose(), database, STATEMENT_WITHIN).await
    }

    /// As [`Self::connect`], for what has to be done within so short a time that it cannot take effect after it was
    /// given up.
    pub async fn connect_briefly(target: &PostgresTarget) -> Result<Self, AdminError> {
        let Some(admin) = target.source.admin() else {
            return Err(AdminError::None { target: target.target.name.clone() });
        };
        let (user, password) = (&admin.user, admin.password.expose());
        Self::connect_as(target, user, password, &admin.database, BRIEF_STATEMENT_WITHIN).await
    }

    /// Connects as anybody who can prove a password.
    pub(super) async fn connect_as(
        target: &PostgresTarget,
        user: &str,
        password: &str,
        database: &str,
        statement_within: Duration,
    ) -> Result<Self, AdminError> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&target.address.host)
            .port(target.address.port)
            .user(user)
            .password(password)
            .dbname(database)
            .application_name("sallyport")
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require)
            .connect_timeout(CONNECT_WITHIN)
            // A statement that we no longer wait for must not take effect later.
            .options(format!("-c statement_timeout={}", statement_within.as_millis()));
        if let Some(address) = target.connect_to {
            config.hostaddr(address);
        }
        let tls = MakeRustlsConnect::new((*target.tls).clone());
        let address = || target.address.to_string();
        let connecting = tokio::time::timeout(CONNECT_WITHIN, config.connect(tls)).await;
        let (client, connection) = connecting
            .map_err(|_| AdminError::TimedOut { address: address() })?
            .map_err(|source| AdminError::Connect { address: address(), user: user.to_owned(), source })?;
        // What breaks the connection also fails the statement that waits for it.
        let driver = TaskTracker::new().spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
        Ok(Self { client, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// Whether the password lets the user in.
pub(super) async fn opens(
    target: &PostgresTarget,
    user: &str,
    password: &Secret,
) -> Result<bool, AdminError> {
    let database = target.databases.first().map_or("postgres", String::as_str);
    match Admin::connect_as(target, user, password.expose(), database, STATEMENT_WITHIN).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_refusal() => Ok(false),
        Err(error) => Err(error),
    }
}
