//! `kind = "postgres"`: a database server, and as whom Sallyport manages roles there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::hosts::{self, Hosts};
use super::source::{self, Source};
use super::{Common, Section, files};
use crate::crypto::tls;
use crate::domain::name::AccessName;
use crate::domain::secret::Secret;
use crate::domain::target::{Target, TargetKind};

const DEFAULT_CONNECTION_LIMIT: u64 = 20;
/// The longest identifier that Postgres keeps whole, in bytes (its `NAMEDATALEN` - 1).
const LONGEST_IDENTIFIER: usize = 63;
/// What Sallyport's own roles begin with; `pg_` is Postgres's.
const RESERVED_PREFIXES: [&str; 2] = ["pg_", "sp_"];
const RESERVED_ROLES: [&str; 2] = ["public", "none"];

/// A Postgres target: what policies see of it, and how it is reached.
#[derive(Debug, Clone)]
pub struct PostgresTarget {
    pub target: Target,
    pub hosts: Hosts,
    /// Where to connect instead of asking the name system for the one host that there is; the certificate is still
    /// checked against its name.
    pub connect_to: Option<IpAddr>,
    /// What clients may connect to; never empty. The first is the default.
    pub databases: Vec<String>,
    /// What each access stands for at the server; [`Source`] says what kind of name that is.
    pub roles: BTreeMap<AccessName, String>,
    /// The accesses by which one may replicate, if the rules allow it.
    pub replication: BTreeSet<AccessName>,
    pub source: Source,
    pub ca_file: PathBuf,
    /// Who may sign the target's certificate; never empty.
    pub ca: Vec<CertificateDer<'static>>,
    /// What is shown to a server that asks for a certificate.
    pub shown: Option<Arc<CertifiedKey>>,
    /// Trusts `ca` and nobody else, and shows `shown`.
    pub tls: Arc<rustls::ClientConfig>,
    /// The newest version of the protocol that the server is asked for.
    pub protocol: Protocol,
    /// How many connections one session may have open at a time.
    pub connection_limit: u32,
}

/// A version of PostgreSQL's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Everything that speaks it knows this.
    #[default]
    V3_0,
    /// With longer keys for cancelling; servers since 18. Older ones say what they know; proxies may refuse it.
    V3_2,
}

/// As whom roles are made and dropped.
#[derive(Debug, Clone)]
pub struct Admin {
    pub user: String,
    pub password: Secret,
    pub database: String,
}

impl PostgresTarget {
    /// Whether both say the same, secrets included.
    pub(in crate::config) fn same(&self, other: &Self) -> bool {
        let plain = |target: &Self| {
            let Self {
                hosts, connect_to, databases, roles, replication, ca, connection_limit, shown, ..
            } = target.clone();
            let shown = shown.map(|shown| shown.cert.clone());
            let tls = (ca, shown, target.protocol);
            (hosts, connect_to, databases, roles, replication, tls, connection_limit, target.target.clone())
        };
        plain(self) == plain(other) && self.source.same(&other.source)
    }
}

impl Admin {
    pub(super) fn same(&self, other: &Self) -> bool {
        let plain = |admin: &Self| (admin.user.clone(), admin.database.clone());
        plain(self) == plain(other) && self.password.expose() == other.password.expose()
    }
}

/// `None` when something is wrong with it, which then is reported.
pub(super) fn read(
    section: &Section<'_>,
    common: Common,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<PostgresTarget> {
    let hosts = hosts::read(section);
    let connect_to = super::connect_to(section);
    let databases = databases(section);
    let source = source::read(section, databases.first(), environment);
    if hosts.as_ref().is_some_and(|hosts| !hosts.is_one()) {
        if connect_to.is_some() {
            section.blame(
                "connect_to",
                "cannot be that of several servers: write their IP addresses in `address`",
            );
        }
        if let Some(Source::RdsIam(_)) = source {
            let what = "is several servers, and a token of RDS opens one: name the cluster's writer";
            section.blame("address", what);
        }
    }
    let (roles, replication) = roles(section, source.as_ref());
    let limit = section.integer("connection_limit", DEFAULT_CONNECTION_LIMIT, 1, 1000);
    let (ca_file, ca) = ca(section);
    let shown = shown(section);
    let protocol = protocol(section);
    let tls = match tls::client(&ca, shown.as_ref()) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(error) => {
            section.blame("ca_file", error.to_string());
            None
        }
    };
    Some(PostgresTarget {
        target: common.target(TargetKind::Postgres, roles.keys().cloned().collect())?,
        hosts: hosts?,
        connect_to,
        databases,
        roles,
        replication,
        source: source?,
        ca_file,
        ca,
        shown,
        protocol,
        tls: tls?,
        connection_limit: u32::try_from(limit).unwrap_or(u32::MAX),
    })
}

fn databases(section: &Section<'_>) -> Vec<String> {
    if !section.has("databases") {
        section.missing("databases", "list what clients may connect to, the default first");
    }
    let databases: Vec<String> = section.list("databases").unwrap_or_default();
    if databases.is_empty() && section.has("databases") {
        section.blame("databases", "is empty: list what clients may connect to, the default first");
    }
    let mut seen = BTreeSet::new();
    for database in &databases {
        if let Err(message) = identifier(database, "a database name") {
            section.blame("databases", message);
        }
        if !seen.insert(database) {
            section.blame("databases", format!("`{database}` is listed twice"));
        }
    }
    databases
}

fn roles(
    section: &Section<'_>,
    source: Option<&Source>,
) -> (BTreeMap<AccessName, String>, BTreeSet<AccessName>) {
    let what = "say which database role each access is, for example `{ readonly = \"ledger_readonly\" }`";
    let check = |role: &str| {
        match source {
            Some(Source::SecretsManager(_)) => return source::secret_name(role),
            Some(Source::Static(_)) => return source::kept_name(role),
            Some(Source::Role(_) | Source::RdsIam(_)) | None => {}
        }
        role_name(role)?;
        if source.and_then(Source::admin).is_some_and(|admin| admin.user == role) {
            return Err(format!("`{role}` is the admin user: give the access a role of its own"));
        }
        Ok(())
    };
    let read = |access: &str, role: &str, table: Option<&Section<'_>>| {
        let replicates = table.is_some_and(|table| table.switch("replication"));
        let access: AccessName = access.parse().map_err(|error| format!("{error}"))?;
        check(role)?;
        Ok((access, role.to_owned(), replicates))
    };
    let entries = super::access_entries(section, what, |accesses| {
        accesses.entries_or_tables("role", "the database role that the access is", read)
    });
    let replication =
        entries.iter().filter(|(.., replicates)| *replicates).map(|(access, ..)| access.clone()).collect();
    (entries.into_iter().map(|(access, role, _)| (access, role)).collect(), replication)
}

fn role_name(role: &str) -> Result<(), String> {
    identifier(role, "a database role")?;
    let folded = role.to_ascii_lowercase();
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|prefix| folded.starts_with(**prefix)) {
        return Err(format!("`{role}` begins with `{prefix}`, which is reserved: name another role"));
    }
    if RESERVED_ROLES.contains(&folded.as_str()) {
        return Err(format!("`{role}` is reserved by PostgreSQL: name another role"));
    }
    Ok(())
}

fn identifier(text: &str, what: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("is empty: name {what}"));
    }
    if text.len() > LONGEST_IDENTIFIER {
        return Err(format!("`{text}` is longer than {LONGEST_IDENTIFIER} bytes, the most {what} may have"));
    }
    let reserved = |c: char| c.is_control() || c.is_whitespace() || ['"', '\'', '\\', ';'].contains(&c);
    if text.contains(reserved) {
        return Err(format!("`{}` is not {what}: no spaces, quotes, `\\` or `;`", text.escape_debug()));
    }
    Ok(())
}

pub(super) fn admin(
    section: &Section<'_>,
    default_database: Option<&String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Admin> {
    if !section.has("admin") {
        section
            .missing("admin", "say as whom roles are made: `[target.admin]` with `user` and `password_file`");
        return None;
    }
    let admin = section.section("admin");
    let user = admin.required_text("user", "the database user that makes and drops roles");
    if let Some(Err(message)) = user.map(|user| identifier(user, "a database role")) {
        admin.blame("user", message);
    }
    let password = password(&admin, environment);
    let database = match admin.text("database") {
        Some(database) => {
            if let Err(message) = identifier(database, "a database name") {
                admin.blame("database", message);
            }
            Some(database.to_owned())
        }
        None => default_database.cloned(),
    };
    admin.finish();
    Some(Admin { user: user?.to_owned(), password: password?, database: database? })
}

fn password(admin: &Section<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let file = admin.path("password_file");
    let variable = admin.text("password_env");
    let (key, secret) = match (file, variable) {
        (Some(file), None) => ("password_file", files::secret(&file)),
        (None, Some(variable)) => ("password_env", files::secret_from(variable, environment)),
        (None, None) => {
            if !admin.has("password_file") && !admin.has("password_env") {
                admin.missing("password_file", "name the file that holds the password, or `password_env`");
            }
            return None;
        }
        (Some(_), Some(_)) => {
            admin.blame("password_env", "is given beside `password_file`: keep one of them");
            return None;
        }
    };
    secret.map_err(|message| admin.blame(key, message)).ok()
}

/// What is shown to a server that asks for a certificate, if anything; what cannot be read is reported.
fn shown(section: &Section<'_>) -> Option<Arc<CertifiedKey>> {
    let (certificate, key) = (section.path("client_cert_file"), section.path("client_key_file"));
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            files::private_key(&key).map_err(|message| section.blame("client_key_file", message)).ok()?;
            tls::shown(&certificate, &key)
                .map_err(|error| section.blame("client_cert_file", error.to_string()))
                .ok()
        }
        (Some(_), None) => {
            section.missing("client_key_file", "name the PEM file of the certificate's key");
            None
        }
        (None, Some(_)) => {
            section.missing("client_cert_file", "name the PEM file of the key's certificate");
            None
        }
        (None, None) => None,
    }
}

fn protocol(section: &Section<'_>) -> Protocol {
    match section.text("protocol") {
        None | Some("3.0") => Protocol::V3_0,
        Some("3.2") => Protocol::V3_2,
        Some(other) => {
            section.blame("protocol", format!("is `{}`: write \"3.0\" or \"3.2\"", other.escape_debug()));
            Protocol::V3_0
        }
    }
}

/// An unreadable file is reported; nothing stands in for it.
fn ca(section: &Section<'_>) -> (PathBuf, Vec<CertificateDer<'static>>) {
    if !section.has("ca_file") {
        section.missing("ca_file", "name the PEM file of the authority that signs the target's certificate");
    }
    let Some(path) = section.path("ca_file") else { return (PathBuf::new(), Vec::new()) };
    let certificates = files::certificates(&path).map_err(|message| section.blame("ca_file", message));
    (path, certificates.unwrap_or_default())
}
