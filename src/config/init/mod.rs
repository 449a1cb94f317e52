//! `sallyport init`: makes a data directory with everything that a first start needs.
//!
//! 1. Nothing is made unless the directory is new or empty.
//! 2. A certificate authority, and from it a certificate each for the API and the Postgres gateway.
//! 3. The SSH gateway's host key, and the three authorities for hosts, people and logins.
//! 4. What makes this node itself: its id, the server's secret, the key that signs the audit log.
//! 5. A configuration that starts as it is and shows how a target is added.

pub mod certificates;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::crypto;
use crate::crypto::ssh::{self, SshKeyError};
use crate::domain::id::{MalformedId, NodeId};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use certificates::{Authority, Certified, MakeCertificate};

pub const CONFIG_FILE: &str = "sallyport.toml";
pub const NODE_ID_FILE: &str = "node-id";
pub const SERVER_SECRET_FILE: &str = "server-secret";
pub const AUDIT_DIR: &str = "audit";
const SECRET_BYTES: usize = 32;
/// The SSH gateway's keys, each with what its public half is called.
const SSH_KEYS: [(&str, &str); 4] = [
    ("host_ed25519", "sallyport host key"),
    ("host_ca", "sallyport host CA"),
    ("user_ca", "sallyport user CA"),
    ("login_ca", "sallyport login CA"),
];
const TEMPLATE: &str = include_str!("../template.toml");

/// What whoever writes the audit signing key may fail with.
pub type KeyError = Box<dyn std::error::Error + Send + Sync>;

/// What to make.
pub struct Init<'a> {
    pub dir: &'a Path,
    /// Host names and addresses that clients will use, beside `localhost`. The first is the server's.
    pub names: &'a [String],
    pub now: Timestamp,
    /// Writes the audit signing key into the directory given, which exists and is the owner's alone.
    pub audit_key: &'a dyn Fn(&Path) -> Result<(), KeyError>,
}

impl std::fmt::Debug for Init<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dir, names, now, .. } = self;
        f.debug_struct("Init")
            .field("dir", dir)
            .field("names", names)
            .field("now", now)
            .finish_non_exhaustive()
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub config: PathBuf,
    pub node: NodeId,
    /// For the person: what there is now and what to do next.
    pub next_steps: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("`{dir}` is not empty, it has {found}: choose another directory, or remove that first")]
    NotEmpty { dir: PathBuf, found: String },
    #[error("`{path}` cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{0}` is neither a host name nor an address: give what clients will connect to")]
    MalformedName(String),
    #[error("the certificates cannot be made")]
    Certificate(#[source] MakeCertificate),
    #[error("the SSH keys cannot be made")]
    SshKey(#[source] SshKeyError),
    #[error("the audit signing key cannot be made")]
    AuditKey(#[source] KeyError),
}

/// Why what [`init`] made cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("`{path}` cannot be read: `sallyport init` makes it")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` does not hold a node id")]
    NodeId {
        path: PathBuf,
        #[source]
        source: MalformedId,
    },
    #[error("`{path}` does not hold {SECRET_BYTES} bytes in hexadecimal")]
    Secret { path: PathBuf },
}

pub fn init(init: &Init<'_>) -> Result<Made, InitError> {
    let dir = init.dir;
    certificates::check_names(init.names).map_err(InitError::MalformedName)?;
    make_empty(dir)?;
    for name in ["tls", "ca", "ssh", "secrets", AUDIT_DIR] {
        make_dir(&dir.join(name))?;
    }
    let authority = Authority::make(init.now).map_err(InitError::Certificate)?;
    write_pair(dir, "ca/ca", authority.certified())?;
    write(&dir.join("tls/ca.crt"), 0o644, &authority.certified().certificate)?;
    for name in ["api", "postgres"] {
        let certified = authority.server(name, init.names, init.now).map_err(InitError::Certificate)?;
        write_pair(dir, &format!("tls/{name}"), &certified)?;
    }
    for (name, comment) in SSH_KEYS {
        write_ssh_key(&dir.join("ssh"), name, comment)?;
    }
    let node = NodeId::from_random(crypto::random());
    write(&dir.join(NODE_ID_FILE), 0o600, &format!("{node}\n"))?;
    let secret = Secret::new(crypto::hex(&crypto::random::<SECRET_BYTES>()));
    write(&dir.join(SERVER_SECRET_FILE), 0o600, secret.expose())?;
    (init.audit_key)(&dir.join(AUDIT_DIR)).map_err(InitError::AuditKey)?;
    let host = init.names.first().map_or("localhost", String::as_str);
    let config = dir.join(CONFIG_FILE);
    write(&config, 0o600, &TEMPLATE.replace("@NAME@", host).replace("@HOST@", &url_host(host)))?;
    let next_steps = next_steps(dir, &config, host);
    Ok(Made { config, node, next_steps })
}

/// The node's id in a data directory.
pub fn read_node_id(data_dir: &Path) -> Result<NodeId, ReadError> {
    let path = data_dir.join(NODE_ID_FILE);
    let text = read(&path)?;
    text.trim().parse().map_err(|source| ReadError::NodeId { path, source })
}

/// The server's secret in a data directory: what stands in for the SCRAM salts of users there are
/// not, so that they look like others.
pub fn read_server_secret(data_dir: &Path) -> Result<Secret<Vec<u8>>, ReadError> {
    let path = data_dir.join(SERVER_SECRET_FILE);
    let text = Secret::new(read(&path)?);
    match data_encoding::HEXLOWER.decode(text.expose().trim().as_bytes()) {
        Ok(bytes) if bytes.len() == SECRET_BYTES => Ok(Secret::new(bytes)),
        _ => Err(ReadError::Secret { path }),
    }
}

fn read(path: &Path) -> Result<String, ReadError> {
    fs::read_to_string(path).map_err(|source| ReadError::Unreadable { path: path.to_owned(), source })
}

/// The directory, new or empty, for its owner alone.
fn make_empty(dir: &Path) -> Result<(), InitError> {
    let failed = |source| InitError::Write { path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                found.push(format!("`{}`", entry.map_err(failed)?.file_name().to_string_lossy()));
            }
            // A volume that was just formatted is as good as empty.
            found.retain(|name| name != "`lost+found`");
            found.sort();
            if !found.is_empty() {
                return Err(InitError::NotEmpty { dir: dir.to_owned(), found: found.join(", ") });
            }
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn make_dir(path: &Path) -> Result<(), InitError> {
    let failed = |source| InitError::Write { path: path.to_owned(), source };
    DirBuilder::new().mode(0o700).create(path).map_err(failed)
}

fn write_pair(dir: &Path, stem: &str, certified: &Certified) -> Result<(), InitError> {
    write(&dir.join(format!("{stem}.crt")), 0o644, &certified.certificate)?;
    write(&dir.join(format!("{stem}.key")), 0o600, certified.key.expose())
}

/// A new private key, and its public half in the file that ends in `.pub`.
fn write_ssh_key(dir: &Path, name: &str, comment: &str) -> Result<(), InitError> {
    let key = ssh::generate_ed25519();
    write(&dir.join(name), 0o600, &ssh::to_pem(&key).map_err(InitError::SshKey)?)?;
    let public = ssh::public_line(key.public_key(), comment);
    write(&dir.join(format!("{name}.pub")), 0o644, &format!("{public}\n"))
}

/// Writes a file that must not exist yet.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), InitError> {
    let failed = |source| InitError::Write { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn next_steps(dir: &Path, config: &Path, host: &str) -> String {
    let (dir, config, host) = (dir.display(), config.display(), url_host(host));
    format!(
        "Made `{dir}`.\n\
         \n\
         1. Add a target to `{config}`; an example is in it.\n\
         2. Check it:              sallyport check-config --config {config}\n\
         3. Add people, as the user that the server will run as:\n\
         \x20                          sallyport user add NAME --domain DOMAIN --group GROUP --config {config}\n\
         4. Start:                 sallyport serve --config {config}\n\
         5. Give clients           {dir}/tls/ca.crt\n\
         \x20  for PostgreSQL clients: PGSSLROOTCERT={dir}/tls/ca.crt PGSSLMODE=verify-full PGHOST={host}\n\
         6. Have SSH hosts trust  {dir}/ssh/login_ca.pub\n\
         \x20  on each host, in sshd_config: TrustedUserCAKeys, with a copy of that file\n\
         7. Move `{dir}/ca/ca.key` off this machine: whoever has it can pose as this server. It is needed\n\
         \x20  again when the server's certificates are renewed, within {days} days.\n",
        days = certificates::SERVER_DAYS,
    )
}
