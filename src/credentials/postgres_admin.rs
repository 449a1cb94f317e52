//! A connection to a target with its admin credential: TLS verify-full, SCRAM with channel binding
//! and nothing weaker, whatever the server asks for.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::{Host, PostgresTarget};
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
    #[error("{address} does not answer within {} s", within.as_secs())]
    TimedOut { address: String, within: Duration },
    #[error("{address} is a standby")]
    Standby { address: String },
    #[error("none of the target's servers is of use: {}", listed(tried))]
    Nowhere { tried: Vec<AdminError> },
}

/// Each with its causes.
fn listed(tried: &[AdminError]) -> String {
    let one = |error: &AdminError| {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl AdminError {
    /// Whether the target was asked and says that the password is wrong. Other refusals (`pg_hba.conf`, a role that may
    /// not log in just now) prove nothing of it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.code() == Some(&SqlState::INVALID_PASSWORD),
            // A server that could not be asked may be the primary, and a standby may be behind it: all have to say so
            // that are not known to be standbys.
            Self::Nowhere { tried } => {
                let mut others =
                    tried.iter().filter(|error| !matches!(error, Self::Standby { .. })).peekable();
                others.peek().is_some() && others.all(Self::is_refusal)
            }
            Self::None { .. } | Self::TimedOut { .. } | Self::Standby { .. } => false,
        }
    }

    /// Whether the server says that it takes nobody just now: it starts, stops, or has no room (PostgreSQL documentation,
    /// appendix A, classes 57 and 53).
    pub fn is_unready(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source
                .code()
                .is_some_and(|state| ["57P", "53"].iter().any(|class| state.code().starts_with(class))),
            Self::Nowhere { tried } => tried.iter().all(|error| error.is_unreachable() || error.is_unready()),
            Self::None { .. } | Self::TimedOut { .. } | Self::Standby { .. } => false,
        }
    }

    /// Whether nobody answered at the target, rather than refused.
    pub fn is_unreachable(&self) -> bool {
        match self {
            // A standby alone is a server without its primary.
            Self::TimedOut { .. } | Self::Standby { .. } => true,
            Self::Nowhere { tried } => tried.iter().all(Self::is_unreachable),
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
    since: Instant,
    _driver: AbortOnDropHandle<()>,
}

impl std::ops::Deref for Admin {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Admin {
    /// When it was connected.
    pub fn since(&self) -> Instant {
        self.since
    }

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

    /// Connects as anybody who can prove a password: to the server, or to that of several which is no standby.
    pub(super) async fn connect_as(
        target: &PostgresTarget,
        user: &str,
        password: &str,
        database: &str,
        statement_within: Duration,
    ) -> Result<Self, AdminError> {
        let options = Options { user, password, database, statement_within };
        let mut tried = Vec::new();
        for host in target.hosts.in_order() {
            match options.connect(target, host).await {
                Ok(admin) => {
                    target.hosts.worked(host);
                    return Ok(admin);
                }
                Err(error) if target.hosts.is_one() => return Err(error),
                Err(error) => tried.push(error),
            }
        }
        Err(AdminError::Nowhere { tried })
    }
}

/// As whom to connect, and how.
struct Options<'a> {
    user: &'a str,
    password: &'a str,
    database: &'a str,
    statement_within: Duration,
}

impl Options<'_> {
    async fn connect(&self, target: &PostgresTarget, host: &Host) -> Result<Admin, AdminError> {
        let within = target.hosts.share_of(CONNECT_WITHIN);
        let address = || host.address.to_string();
        let connecting = async {
            let admin = self.connect_now(target, host, within).await?;
            let is_standby = !target.hosts.is_one() && is_standby(&admin).await?;
            Ok((admin, is_standby))
        };
        let failed = |source| AdminError::Connect { address: address(), user: self.user.to_owned(), source };
        match tokio::time::timeout(within, connecting).await {
            Err(_) => Err(AdminError::TimedOut { address: address(), within }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok((_, true))) => Err(AdminError::Standby { address: address() }),
            Ok(Ok((admin, false))) => Ok(admin),
        }
    }

    async fn connect_now(
        &self,
        target: &PostgresTarget,
        host: &Host,
        within: Duration,
    ) -> Result<Admin, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&host.address.host)
            .port(host.address.port)
            .user(self.user)
            .password(self.password)
            .dbname(self.database)
            .application_name("sallyport")
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require)
            .connect_timeout(within)
            // A statement that we no longer wait for must not take effect later.
            .options(format!("-c statement_timeout={}", self.statement_within.as_millis()));
        if let Some(address) = target.connect_to {
            config.hostaddr(address);
        }
        let tls = MakeRustlsConnect::new((*target.tls).clone());
        let (client, connection) = config.connect(tls).await?;
        // What breaks the connection also fails the statement that waits for it.
        let driver = TaskTracker::new().spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
        Ok(Admin { client, since: Instant::now(), _driver: AbortOnDropHandle::new(driver) })
    }
}

async fn is_standby(admin: &Admin) -> Result<bool, tokio_postgres::Error> {
    admin.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get(0)
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
