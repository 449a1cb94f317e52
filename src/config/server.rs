//! The sections that are fixed while the server runs: `[server]`, `[api]`, `[postgres]`, `[audit]`,
//! `[login]`; and where `[policies]` are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files;
use super::reader::Section;
use super::target::Address;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::crypto::tls;
use crate::domain::time::humane;

const MIB: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What the server calls itself to people.
    pub name: String,
    /// Where the store, the node's id and the server's secret are.
    pub data_dir: PathBuf,
    /// How long connections may go on by themselves once the server was told to stop.
    pub drain_timeout: Duration,
    /// What kept passwords are sealed under; `None`: a key in a file of the data directory.
    pub secrets_key: Option<KmsKey>,
}

/// Where to listen, and with which certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub listen: SocketAddr,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    pub listener: Listener,
    /// How people reach the API, without a slash at its end.
    pub public_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    pub listener: Listener,
    /// How clients reach the gateway; `None`: the API's public host and the port listened on.
    pub public_address: Option<Address>,
    pub max_connections: usize,
    /// Connections that have not authenticated yet.
    pub max_handshakes: usize,
    pub handshake_timeout: Duration,
    /// `None`: connections may idle as long as their session lasts.
    pub idle_timeout: Option<Duration>,
    pub max_message_bytes: usize,
    /// PEM: who may sign the certificates by which clients log in; `None`: they are not asked for any.
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub directory: PathBuf,
    /// How large a journal file grows before the next is begun.
    pub segment_bytes: u64,
    /// How much of what the stream has confirmed stays; without a stream all of it does.
    pub keep_bytes: u64,
    /// Signs the log's checkpoints; `None`: the key that is in a file of the data directory.
    pub signing_key: Option<KmsKey>,
}

/// A key in Amazon KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsKey {
    /// ARN of the key or of an alias, or the alias's name.
    pub key: String,
    /// `None`: as Amazon's SDK finds it.
    pub region: Option<String>,
    /// Instead of Amazon's own address.
    pub endpoint: Option<String>,
}

impl KmsKey {
    /// The key that `text` names; none when it names none. An ARN says in which region it is.
    pub fn parse(text: &str) -> Option<Self> {
        let arn: Vec<&str> = text.split(':').collect();
        let region = match arn.as_slice() {
            ["arn", _, "kms", region, _, what] if !region.is_empty() && what.contains('/') => {
                Some((*region).to_owned())
            }
            [alias] if alias.strip_prefix("alias/").is_some_and(|name| !name.is_empty()) => None,
            _ => return None,
        };
        Some(Self { key: text.to_owned(), region, endpoint: None })
    }
}

/// Somebody else's machine that sees the audit log grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub url: String,
    pub key: WitnessVerifyKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub token_lifetime: Duration,
}

pub(super) fn server(root: &Section<'_>) -> Option<Server> {
    let section = root.section("server");
    let name = if section.has("name") {
        section.required_text("name", "say what people call this server")
    } else {
        Some("sallyport")
    };
    if !section.has("data_dir") {
        section.missing("data_dir", "name the directory that `sallyport init` made");
    }
    let data_dir = section.path("data_dir");
    if let Some(dir) = data_dir.as_ref().filter(|dir| !dir.is_dir()) {
        let dir = dir.display();
        section.blame("data_dir", format!("`{dir}` is not a directory: `sallyport init {dir}` makes it"));
    }
    let drain_timeout = section.duration("drain_timeout", Duration::ZERO, Duration::from_hours(4));
    let secrets_key = kms_key(&section, ["secrets_key", "secrets_region", "secrets_endpoint"]);
    section.finish();
    Some(Server {
        name: name?.to_owned(),
        data_dir: data_dir?,
        drain_timeout: drain_timeout.unwrap_or(Duration::from_secs(30)),
        secrets_key,
    })
}

pub(super) fn api(root: &Section<'_>) -> Option<Api> {
    let section = root.section("api");
    let listener = listener(&section, SocketAddr::from(([127, 0, 0, 1], 8443)));
    let public_url = match section.text("public_url") {
        Some(url) => Some(checked_url(&section, url)),
        None => listener.as_ref().map(|listener| format!("https://{}", listener.listen)),
    };
    section.finish();
    Some(Api { listener: listener?, public_url: public_url? })
}

fn checked_url(section: &Section<'_>, url: &str) -> String {
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("https://").unwrap_or("");
    if host.is_empty() || host.contains(['?', '#', '@']) || host.contains(char::is_whitespace) {
        let message = format!("`{url}` is not a URL of the API: write `https://bastion.example:8443`");
        section.blame("public_url", message);
    }
    url.to_owned()
}

pub(super) fn postgres(root: &Section<'_>) -> Option<Postgres> {
    let section = root.section("postgres");
    let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
    let listener = listener(&section, SocketAddr::from(([127, 0, 0, 1], 6432)));
    let public_address = section.parsed("public_address");
    let max_connections = section.count("max_connections", 2000, 1_000_000);
    let max_handshakes = section.count("max_handshakes", 400, 100_000);
    let handshake_timeout = section.duration("handshake_timeout", second, 5 * minute);
    let idle_timeout = section.duration("idle_timeout", second, 240 * minute);
    let max_message_bytes =
        section.integer("max_message_bytes", bytes(64 * MIB), bytes(MIB / 16), bytes(1024 * MIB - 1));
    let client_ca_file = section.path("client_ca_file");
    if let Some(path) = &client_ca_file
        && let Err(message) = client_authorities(path)
    {
        section.blame("client_ca_file", message);
    }
    section.finish();
    Some(Postgres {
        listener: listener?,
        public_address,
        max_connections,
        max_handshakes,
        handshake_timeout: handshake_timeout.unwrap_or(10 * second),
        idle_timeout,
        max_message_bytes: usize::try_from(max_message_bytes).unwrap_or(64 * MIB),
        client_ca_file,
    })
}

fn client_authorities(path: &Path) -> Result<(), String> {
    let unusable = |error| format!("`{}` cannot be used: {error}", path.display());
    tls::roots(&files::certificates(path)?).map(drop).map_err(unusable)
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The address to listen on; one that is none is reported.
pub(super) fn listen(section: &Section<'_>, default: SocketAddr) -> SocketAddr {
    let Some(text) = section.text("listen") else { return default };
    text.parse().unwrap_or_else(|_| {
        section.blame("listen", format!("`{text}` is not an address: write `{default}`"));
        default
    })
}

fn listener(section: &Section<'_>, default: SocketAddr) -> Option<Listener> {
    let listen = listen(section, default);
    for (key, what) in [
        ("certificate", "name the PEM file with the server's certificate"),
        ("key", "name the PEM file with the certificate's private key"),
    ] {
        if !section.has(key) {
            section.missing(key, what);
        }
    }
    let (certificate, key) = (section.path("certificate"), section.path("key"));
    if let Some(Err(message)) = certificate.as_deref().map(files::certificates) {
        section.blame("certificate", message);
    }
    if let Some(Err(message)) = key.as_deref().map(files::private_key) {
        section.blame("key", message);
    }
    Some(Listener { listen, certificate: certificate?, key: key? })
}

pub(super) fn audit(root: &Section<'_>, server: Option<&Server>) -> Option<Audit> {
    let section = root.section("audit");
    let directory = section.path("directory");
    let directory = directory.or_else(|| server.map(|server| server.data_dir.join("audit")));
    let segment_bytes = section.integer("segment_bytes", bytes(64 * MIB), bytes(MIB / 16), bytes(4096 * MIB));
    let keep_bytes = section.integer("keep_bytes", bytes(8192 * MIB), segment_bytes, u64::MAX);
    let signing_key = kms_key(&section, ["signing_key", "signing_region", "signing_endpoint"]);
    section.finish();
    Some(Audit { directory: directory?, segment_bytes, keep_bytes, signing_key })
}

/// The key that the first of these names, in the region and at the address that the others say.
fn kms_key(section: &Section<'_>, [key, region, endpoint]: [&'static str; 3]) -> Option<KmsKey> {
    let (region, endpoint) = (section.text(region), url(section, endpoint));
    let text = section.text(key)?;
    let Some(parsed) = KmsKey::parse(text) else {
        let message = format!("`{text}` names no key of Amazon KMS: write `arn:aws:kms:…` or `alias/…`");
        section.blame(key, message);
        return None;
    };
    Some(KmsKey { region: region.map(str::to_owned).or(parsed.region), endpoint, key: parsed.key })
}

/// For comparing, and for people.
pub(super) fn signing_key_text(key: Option<&KmsKey>) -> String {
    let Some(KmsKey { key, region, endpoint }) = key else { return "file".to_owned() };
    let parts = [("region", region), ("endpoint", endpoint)];
    let parts = parts.iter().filter_map(|(what, value)| Some(format!("; {what} {}", value.as_ref()?)));
    format!("{key}{}", parts.collect::<String>())
}

/// The value of `key`, which is to be the address of a service.
pub(super) fn url(section: &Section<'_>, key: &'static str) -> Option<String> {
    let url = section.text(key)?;
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        section.blame(key, format!("`{url}` begins neither with `http://` nor with `https://`"));
    }
    Some(url.to_owned())
}

/// Who cosigns the audit log's checkpoints.
pub(super) fn witnesses(root: &Section<'_>) -> Vec<Witness> {
    let mut witnesses: Vec<Witness> = Vec::new();
    for section in root.sections("witness") {
        let url = section.required_text("url", "say where it listens, as in `http://witness.example:7455`");
        let key = section.required_text("key", "give the line that `sallyport audit witness` prints");
        if let Some(url) = url
            && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
        {
            section.blame("url", format!("`{url}` begins neither with `http://` nor with `https://`"));
        }
        match key.map(str::parse::<WitnessVerifyKey>) {
            Some(Ok(key)) if witnesses.iter().any(|other| other.key == key) => {
                section.blame("key", format!("`{}` is there twice", key.name()));
            }
            Some(Ok(key)) => witnesses.extend(url.map(|url| Witness { url: url.to_owned(), key })),
            Some(Err(error)) => section.blame("key", error),
            None => {}
        }
        section.finish();
    }
    witnesses
}

/// For comparing.
pub(super) fn witnesses_text(witnesses: &[Witness]) -> String {
    witnesses.iter().map(|witness| format!("{} {}", witness.url, witness.key)).collect::<Vec<_>>().join(", ")
}

pub(super) fn login(root: &Section<'_>) -> Login {
    let section = root.section("login");
    let hour = Duration::from_hours(1);
    let token_lifetime = section.duration("token_lifetime", hour / 60, 24 * hour);
    section.finish();
    Login { token_lifetime: token_lifetime.unwrap_or(8 * hour) }
}

pub(super) fn policies(root: &Section<'_>) -> Option<PathBuf> {
    let section = root.section("policies");
    let directory = section.path("directory");
    if let Some(dir) = directory.as_ref().filter(|dir| !dir.is_dir()) {
        section.blame("directory", format!("`{}` is not a directory", dir.display()));
    }
    section.finish();
    directory
}

pub(super) fn duration_text(duration: Option<Duration>) -> String {
    duration.map_or("none".to_owned(), humane)
}
