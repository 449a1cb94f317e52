//! `[[target]]`: what one can get into, and how to reach it. What every kind has is read here.

mod aws;
mod hosts;
mod postgres;
mod source;
mod ssh;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::files;
use super::reader::Section;
use crate::domain::name::{AccessName, DomainName, GroupName, TargetName};
use crate::domain::target::{Environment, Target, TargetKind};

pub use aws::{AwsTarget, LONGEST_CREDENTIAL};
pub use hosts::{Host, Hosts};
pub use postgres::{Admin, PostgresTarget, Protocol};
pub use source::{Aws, Source, Static, kept_name};
pub use ssh::SshTarget;

/// A target of any kind.
#[derive(Debug, Clone)]
pub enum AnyTarget {
    Postgres(PostgresTarget),
    Ssh(SshTarget),
    Aws(AwsTarget),
}

impl AnyTarget {
    /// What policies see of it.
    pub fn target(&self) -> &Target {
        match self {
            Self::Postgres(postgres) => &postgres.target,
            Self::Ssh(ssh) => &ssh.target,
            Self::Aws(aws) => &aws.target,
        }
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self {
            Self::Postgres(postgres) => postgres.hosts.to_string(),
            Self::Ssh(ssh) => ssh.address.to_string(),
            Self::Aws(aws) => aws.endpoint.as_ref().unwrap_or(&aws.region).clone(),
        }
    }

    /// Whether both say the same, secrets included.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Postgres(one), Self::Postgres(other)) => one.same(other),
            (Self::Ssh(one), Self::Ssh(other)) => one == other,
            (Self::Aws(one), Self::Aws(other)) => one == other,
            (Self::Postgres(_) | Self::Ssh(_) | Self::Aws(_), _) => false,
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write `host:port`, for example `ledger.db.example:5432`")]
pub struct MalformedAddress(String);

impl FromStr for Address {
    type Err = MalformedAddress;

    fn from_str(text: &str) -> Result<Self, MalformedAddress> {
        let malformed = || MalformedAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?.to_string(),
            None if host.is_empty() || host.contains([':', '/', '@', ' ']) => return Err(malformed()),
            None => host.to_owned(),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What targets of all kinds have; `None` where something was wrong.
struct Common {
    name: Option<TargetName>,
    environment: Option<Environment>,
    domain: Option<DomainName>,
    labels: BTreeMap<String, String>,
    requesters: Option<BTreeSet<GroupName>>,
    approvers: Option<BTreeSet<GroupName>>,
}

impl Common {
    fn read(section: &Section<'_>) -> Self {
        Self {
            name: section.required("name", "what people call it, for example `ledger-prod`"),
            environment: read_environment(section),
            domain: section.required("domain", "the part of the bank it belongs to, for example `bank-core`"),
            labels: labels(section),
            requesters: groups(section, "requesters"),
            approvers: groups(section, "approvers"),
        }
    }

    fn target(self, kind: TargetKind, accesses: BTreeSet<AccessName>) -> Option<Target> {
        Some(Target {
            name: self.name?,
            kind,
            environment: self.environment?,
            domain: self.domain?,
            labels: self.labels,
            accesses,
            requesters: self.requesters?,
            approvers: self.approvers?,
        })
    }
}

/// Reads one `[[target]]`; `None` when something is wrong with it, which then is reported.
pub(super) fn read(section: &Section<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Option<AnyTarget> {
    let common = Common::read(section);
    // Of a kind that is not known, nobody knows which keys it has.
    let target = match kind(section)? {
        TargetKind::Postgres => postgres::read(section, common, environment).map(AnyTarget::Postgres),
        TargetKind::Ssh => ssh::read(section, common).map(AnyTarget::Ssh),
        TargetKind::Aws => aws::read(section, common).map(AnyTarget::Aws),
    };
    section.finish();
    target
}

fn kind(section: &Section<'_>) -> Option<TargetKind> {
    let text = section.required_text("kind", "write `postgres`, `ssh` or `aws`")?;
    let found = TargetKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    if found.is_none() {
        section.blame(
            "kind",
            format!("`{text}` is not a kind of target: there are `postgres`, `ssh` and `aws`"),
        );
    }
    found
}

fn address(section: &Section<'_>, example: &str) -> Option<Address> {
    section.required("address", &format!("write `host:port`, for example `{example}`"))
}

fn read_environment(section: &Section<'_>) -> Option<Environment> {
    let all = [Environment::Prod, Environment::Uat, Environment::Dev];
    let text = section.required_text("environment", "write `prod`, `uat` or `dev`")?;
    let found = all.into_iter().find(|environment| environment.as_str() == text);
    if found.is_none() {
        section.blame("environment", format!("`{text}` is not an environment: write `prod`, `uat` or `dev`"));
    }
    found
}

fn connect_to(section: &Section<'_>) -> Option<IpAddr> {
    let text = section.text("connect_to")?;
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("`{text}` is not an IP address: write one without a port, or leave it out");
        section.blame("connect_to", message);
    }
    address
}

/// What each access stands for there; `check` refuses what cannot be.
fn accesses(
    section: &Section<'_>,
    what: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> BTreeMap<AccessName, String> {
    let read = |access: &str, meaning: &str| {
        let access: AccessName = access.parse().map_err(|error| format!("{error}"))?;
        check(meaning)?;
        Ok((access, meaning.to_owned()))
    };
    access_entries(section, what, |accesses| accesses.entries(read)).into_iter().collect()
}

/// The entries of `accesses`, as `read` makes them; there must be some.
fn access_entries<T>(section: &Section<'_>, what: &str, read: impl FnOnce(&Section<'_>) -> Vec<T>) -> Vec<T> {
    let accesses = section.section("accesses");
    if !section.has("accesses") {
        section.missing("accesses", what);
    }
    let entries = read(&accesses);
    if entries.is_empty() && accesses.is_empty() && section.has("accesses") {
        section.blame("accesses", "is empty: without an access nobody can ask for the target");
    }
    entries
}

fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    section
        .section("labels")
        .entries(|key, value| {
            if key.is_empty() || key.len() > 63 || value.len() > 255 {
                return Err("a label has a key of 1 to 63 and a value of at most 255 bytes".to_owned());
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .into_iter()
        .collect()
}

/// The groups under `key`; without it, the group that is called so.
fn groups(section: &Section<'_>, key: &'static str) -> Option<BTreeSet<GroupName>> {
    if !section.has(key) {
        return key.parse().ok().map(|group| BTreeSet::from([group]));
    }
    let groups: Vec<GroupName> = section.list(key)?;
    if groups.is_empty() {
        section.blame(key, "is empty: name at least one group, or leave it out");
    }
    Some(groups.into_iter().collect())
}
