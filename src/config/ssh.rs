//! `[ssh]`: where the SSH gateway listens, its keys, and what it lets through. Without the section there
//! is no SSH gateway.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::reader::Section;
use super::server::{KmsKey, Login, duration_text, listen, signing_key_text, url};
use super::{Address, authority, files};
use crate::crypto::ssh::{PublicKey, SshKeyError, fingerprint, parse_public};

const MIB: u64 = 1024 * 1024;
/// What shells and tools need to know of the person's terminal, and nothing that changes what runs.
const ACCEPT_ENV: [&str; 5] = ["LANG", "LC_*", "COLORTERM", "NO_COLOR", "TERM_PROGRAM"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub listen: SocketAddr,
    /// How clients reach the gateway; `None`: the API's public host and the port listened on.
    pub public_address: Option<Address>,
    /// The gateway's own host key. All keys in files are in OpenSSH's format.
    pub host_key: PathBuf,
    /// Signs certificates for the host key in the names of targets, which a jump through the gateway
    /// shows.
    pub host_ca: AuthorityKeys,
    /// Signs the short-lived certificates of people.
    pub user_ca: AuthorityKeys,
    /// Signs the certificates that open targets, each for one connection.
    pub login_ca: AuthorityKeys,
    pub max_connections: usize,
    /// Connections that have not authenticated yet.
    pub max_handshakes: usize,
    pub handshake_timeout: Duration,
    /// `None`: connections may idle as long as their session lasts.
    pub idle_timeout: Option<Duration>,
    /// Channels that one connection may have open at a time.
    pub max_channels: usize,
    /// How much of a stream that is no terminal is recorded, beside its length and hash.
    pub stream_head_bytes: u64,
    /// Which variables clients may set, with `*` and `?` as in `sshd_config(5)`.
    pub accept_env: Vec<String>,
    /// How long a person's certificate is valid.
    pub certificate_lifetime: Duration,
}

pub(super) fn ssh(root: &Section<'_>, login: &Login) -> Option<Ssh> {
    if !root.has("ssh") {
        return None;
    }
    let section = root.section("ssh");
    let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
    let listen = listen(&section, SocketAddr::from(([127, 0, 0, 1], 2222)));
    let public_address = section.parsed("public_address");
    let (host_key, [host_ca, user_ca, login_ca]) = keys(&section);
    let max_connections = section.count("max_connections", 2000, 1_000_000);
    let max_handshakes = section.count("max_handshakes", 400, 100_000);
    let handshake_timeout = section.duration("handshake_timeout", second, 5 * minute);
    let idle_timeout = section.duration("idle_timeout", second, 240 * minute);
    let max_channels = section.count("max_channels", 200, 10_000);
    let stream_head_bytes = section.integer("stream_head_bytes", MIB, 0, 1024 * MIB);
    let accept_env = section.list::<Pattern>("accept_env");
    let certificate_lifetime = section.duration("certificate_lifetime", minute, 24 * 60 * minute);
    section.finish();
    Some(Ssh {
        listen,
        public_address,
        host_key: host_key?,
        host_ca: host_ca?,
        user_ca: user_ca?,
        login_ca: login_ca?,
        max_connections,
        max_handshakes,
        handshake_timeout: handshake_timeout.unwrap_or(30 * second),
        idle_timeout,
        max_channels,
        stream_head_bytes,
        accept_env: match accept_env {
            Some(patterns) => patterns.into_iter().map(|Pattern(pattern)| pattern).collect(),
            None => ACCEPT_ENV.map(str::to_owned).to_vec(),
        },
        certificate_lifetime: certificate_lifetime.unwrap_or(login.token_lifetime),
    })
}

/// The four keys. Each has one purpose, those that are not yet or no longer in use too: were two the same, a person's
/// certificate could open a target.
fn keys(section: &Section<'_>) -> (Option<PathBuf>, [Option<AuthorityKeys>; 3]) {
    let mut seen: Vec<(&str, String)> = Vec::new();
    let host_key = required(section, "host_key", "name the file with the gateway's own host key")
        .and_then(|_| section.path("host_key"));
    if let Some(path) = &host_key {
        let key = files::ssh_private_key(path).map(|key| vec![key.public_key().clone()]);
        blame_unusable(section, "host_key", key, &mut seen);
    }
    let (region, endpoint) = (section.text("kms_region"), url(section, "kms_endpoint"));
    let kms = |key: KmsKey| KmsKey {
        region: region.map(str::to_owned).or(key.region),
        endpoint: endpoint.clone(),
        ..key
    };
    let authorities = [
        ("host_ca", "host_ca_trusted", "name the file with the key that signs host certificates"),
        ("user_ca", "user_ca_trusted", "name the file with the key that signs people's certificates"),
        (
            "login_ca",
            "login_ca_trusted",
            "name the file with the key that signs the certificates that open targets",
        ),
    ]
    .map(|(name, trusted, what)| {
        let others: Vec<Trusted> = section.list(trusted).unwrap_or_default();
        let lines = others.iter().filter_map(Trusted::line).cloned().collect();
        blame_unusable(section, name, Ok(lines), &mut seen);
        let signs = match KmsKey::parse(required(section, name, what)?) {
            Some(key) => Signs::Kms(kms(key)),
            None => Signs::File(section.path(name)?),
        };
        if let Signs::File(path) = &signs {
            blame_unusable(section, name, authority::read(path).map(|held| held.trusted()), &mut seen);
        }
        let others = others.into_iter().map(|other| match other {
            Trusted::Kms(key) => Trusted::Kms(kms(key)),
            line @ Trusted::Line(_) => line,
        });
        Some(AuthorityKeys { signs, trusted: others.collect() })
    });
    (host_key, authorities)
}

fn required<'a>(section: &Section<'a>, name: &'static str, what: &str) -> Option<&'a str> {
    section.required_text(name, &format!("{what}; `sallyport init` makes one"))
}

fn blame_unusable(
    section: &Section<'_>,
    name: &'static str,
    keys: Result<Vec<PublicKey>, String>,
    seen: &mut Vec<(&'static str, String)>,
) {
    match keys {
        Ok(keys) => keys.iter().for_each(|key| blame_twice(section, name, key, seen)),
        Err(message) => section.blame(name, message),
    }
}

fn blame_twice(
    section: &Section<'_>,
    name: &'static str,
    key: &PublicKey,
    seen: &mut Vec<(&'static str, String)>,
) {
    let fingerprint = fingerprint(key);
    // Of one authority, a key may be named twice.
    let same = |(other, of_other): &&(&str, String)| *other != name && *of_other == fingerprint;
    if let Some((other, _)) = seen.iter().find(same) {
        section.blame(name, format!("is the same key as {other}: make another with `ssh-keygen -t ed25519`"));
    }
    seen.push((name, fingerprint));
}

/// An authority's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityKeys {
    pub signs: Signs,
    /// Others that are to be trusted: those that will sign, and those that did. An authority in a file has its own
    /// beside it.
    pub trusted: Vec<Trusted>,
}

/// Where the key is that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signs {
    File(PathBuf),
    Kms(KmsKey),
}

impl fmt::Display for Signs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Kms(key) => f.write_str(&signing_key_text(Some(key))),
        }
    }
}

/// A key that is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    Line(PublicKey),
    Kms(KmsKey),
}

impl Trusted {
    fn line(&self) -> Option<&PublicKey> {
        match self {
            Self::Line(key) => Some(key),
            Self::Kms(_) => None,
        }
    }
}

impl FromStr for Trusted {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        match KmsKey::parse(text) {
            Some(key) => Ok(Self::Kms(key)),
            None => parse_public(text).map(Self::Line),
        }
    }
}

/// A name of variables, perhaps with `*` and `?`.
struct Pattern(String);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_*?".contains(&b);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(fits) {
            return Err(format!(
                "`{}` is not the name of a variable: use letters, digits and `_`, with `*` and `?` for any",
                text.escape_debug()
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The keys of the section that a reload changes as well, with their values as text.
pub(super) fn authorities(ssh: &Ssh) -> [(&'static str, String); 3] {
    [
        ("ssh.host_ca", ssh.host_ca.signs.to_string()),
        ("ssh.user_ca", ssh.user_ca.signs.to_string()),
        ("ssh.login_ca", ssh.login_ca.signs.to_string()),
    ]
}

/// The keys of the section with their values as text, as [`Config::diff`](super::Config::diff) compares
/// them; the same keys whether or not there is a gateway.
pub(super) fn fixed(ssh: Option<&Ssh>) -> [(&'static str, String); 11] {
    let text = |value: fn(&Ssh) -> String| ssh.map_or_else(|| "no gateway".to_owned(), value);
    let public_address =
        |ssh: &Ssh| ssh.public_address.as_ref().map_or_else(|| "derived".to_owned(), ToString::to_string);
    [
        ("ssh.listen", text(|ssh| ssh.listen.to_string())),
        ("ssh.public_address", text(public_address)),
        ("ssh.host_key", text(|ssh| ssh.host_key.display().to_string())),
        ("ssh.max_connections", text(|ssh| ssh.max_connections.to_string())),
        ("ssh.max_handshakes", text(|ssh| ssh.max_handshakes.to_string())),
        ("ssh.handshake_timeout", text(|ssh| duration_text(Some(ssh.handshake_timeout)))),
        ("ssh.idle_timeout", text(|ssh| duration_text(ssh.idle_timeout))),
        ("ssh.max_channels", text(|ssh| ssh.max_channels.to_string())),
        ("ssh.stream_head_bytes", text(|ssh| ssh.stream_head_bytes.to_string())),
        ("ssh.accept_env", text(|ssh| ssh.accept_env.join(" "))),
        ("ssh.certificate_lifetime", text(|ssh| duration_text(Some(ssh.certificate_lifetime)))),
    ]
}
