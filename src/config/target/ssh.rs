//! `kind = "ssh"`: a host, the logins on it that accesses are, and how it proves that it is itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use rustls_pki_types::ServerName;

use super::{Address, Common, Section};
use crate::crypto::ssh::source_address::SourceAddresses;
use crate::crypto::ssh::{PublicKey, SshKeyError, parse_public};
use crate::domain::name::AccessName;
use crate::domain::target::{Target, TargetKind};

/// The longest name of a user that Linux has (`useradd(8)`).
const LONGEST_LOGIN: usize = 32;

/// An SSH target: what policies see of it, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    pub target: Target,
    pub address: Address,
    /// Where to connect instead of asking the name system for [`Address::host`]; a host's certificate
    /// is still checked against the host.
    pub connect_to: Option<IpAddr>,
    /// The user on the host that each access is.
    pub logins: BTreeMap<AccessName, String>,
    /// The keys that the host may have, without comments. These or `host_cas` are never empty.
    pub host_keys: Vec<PublicKey>,
    /// Whose certificates it may have, without comments.
    pub host_cas: Vec<PublicKey>,
    /// Where our certificates may be used from, as they say it themselves; not given: the address that we
    /// connect from.
    pub source_address: Option<String>,
}

impl SshTarget {
    /// Whether it is the same host, known by the same keys, with the same accounts.
    pub fn is_reached_as(&self, other: &Self) -> bool {
        *self == Self { target: self.target.clone(), ..other.clone() }
    }
}

/// `None` when something is wrong with it, which then is reported.
pub(super) fn read(section: &Section<'_>, common: Common) -> Option<SshTarget> {
    let address = super::address(section, "web-1.bank.example:22");
    if let Some(address) = &address
        && ServerName::try_from(address.host.as_str()).is_err()
    {
        section.blame("address", format!("`{}` is not a host name or IP address", address.host));
    }
    let connect_to = super::connect_to(section);
    let what = "say which user on the host each access is, for example `{ deploy = \"deploy\" }`";
    let logins = super::accesses(section, what, login);
    let (host_keys, host_cas) = (keys(section, "host_keys"), keys(section, "host_ca"));
    if !section.has("host_keys") && !section.has("host_ca") {
        let what = "list the host's public keys, as `ssh-keyscan` prints them after the name, or those of its authority as `host_ca`";
        section.missing("host_keys", what);
    }
    let source_address = section.text("source_address");
    if let Some(Err(error)) = source_address.map(str::parse::<SourceAddresses>) {
        section.blame("source_address", error);
    }
    Some(SshTarget {
        target: common.target(TargetKind::Ssh, logins.keys().cloned().collect())?,
        address: address?,
        connect_to,
        logins,
        host_keys,
        host_cas,
        source_address: source_address.map(str::to_owned),
    })
}

/// What `useradd` accepts as a name, so that no login can be read as anything else by a host.
fn login(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('$').unwrap_or(text);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let holds_well =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b));
    if starts_well && holds_well && text.len() <= LONGEST_LOGIN {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a user on a host: use 1 to {LONGEST_LOGIN} lower-case letters, digits, `_`, `.` or `-`, \
         starting with a letter or `_`",
        text.escape_debug()
    ))
}

/// A key without its comment, so that equal keys are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key(PublicKey);

impl FromStr for Key {
    type Err = SshKeyError;

    fn from_str(line: &str) -> Result<Self, SshKeyError> {
        parse_public(line).map(|key| Self(PublicKey::from(key.key_data().clone())))
    }
}

fn keys(section: &Section<'_>, name: &'static str) -> Vec<PublicKey> {
    let Some(keys) = section.list::<Key>(name) else { return Vec::new() };
    if section.value(name).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty()) {
        section.blame(name, "is empty: list at least one public key, or leave it out");
    }
    let mut seen = BTreeSet::new();
    if let Some(Key(twice)) = keys.iter().find(|Key(key)| !seen.insert(key.key_data())) {
        let fingerprint = crate::crypto::ssh::fingerprint(twice);
        section.blame(name, format!("the key {fingerprint} is listed twice"));
    }
    keys.into_iter().map(|Key(key)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_what_a_host_could_have_as_a_user() {
        for good in ["root", "_apt", "deploy-2", "web.app", "machine$", "a", &"x".repeat(32)] {
            assert_eq!(login(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "$",
            "-oProxyCommand=x",
            "Root",
            "a b",
            "a\nb",
            "0day",
            ".x",
            "a$b",
            "a$$",
            "é",
            "a/b",
            "a;b",
            &"x".repeat(33),
        ] {
            assert!(login(bad).is_err(), "{bad}");
        }
    }
}
