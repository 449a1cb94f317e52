//! The configuration file: read, checked as a whole, every mistake reported at once.
//!
//! 1. [`reader`] reads TOML key by key and gathers mistakes.
//! 2. [`server`], [`ssh`], [`stream`] and [`alerts`] read what is fixed while the server runs, [`target`] what may be reloaded.
//! 3. [`files`] checks the secrets, certificates and keys that the configuration points to.
//! 4. [`authority`] has the SSH authorities' keys in files, and another take one's place.
//! 5. [`init`] makes a data directory and a first configuration.

pub mod alerts;
pub mod authority;
mod files;
pub mod init;
pub mod reader;
pub mod server;
pub mod ssh;
pub mod stream;
pub mod target;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use alerts::{AlertFormat, Alerts};
pub use reader::{ConfigErrors, Mistake};
pub use server::{Api, Audit, KmsKey, Listener, Login, Postgres, Server, Witness};
pub use ssh::{AuthorityKeys, Signs, Ssh, Trusted};
pub use stream::Stream;
pub use target::{
    Address, Admin, AnyTarget, Aws, AwsTarget, Host, Hosts, LONGEST_CREDENTIAL, PostgresTarget, Protocol,
    Source, SshTarget, Static, kept_name,
};

use crate::domain::name::{AccessName, TargetName};
use crate::domain::target::TargetKind;
use crate::domain::time::humane;
use reader::{Document, Mistakes, Section};

/// A configuration that holds together.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    pub server: Server,
    pub api: Api,
    pub postgres: Postgres,
    /// Without it there is no SSH gateway.
    pub ssh: Option<Ssh>,
    pub audit: Audit,
    pub login: Login,
    pub witnesses: Vec<Witness>,
    /// Without it the audit log stays on this machine.
    pub stream: Option<Stream>,
    pub alerts: Option<Alerts>,
    pub reloadable: Targets,
}

/// The part that may change while the server runs.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// The operator's policies; `None`: those that Sallyport comes with.
    pub policies: Option<PathBuf>,
    pub targets: BTreeMap<TargetName, AnyTarget>,
}

/// What a reload would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Keys outside of [`Targets`] that differ: they take effect after a restart only.
    pub needs_restart: Vec<String>,
    pub added: Vec<TargetName>,
    pub changed: Vec<TargetName>,
    pub removed: Vec<TargetName>,
    /// Another policies directory; what is in it may have changed in any case.
    pub policies_moved: bool,
}

impl Config {
    /// Reads and checks the file and what it includes and points to.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_with(path, &|name| std::env::var(name).ok())
    }

    /// As [`Config::load`], with the environment's variables as given.
    pub fn load_with(
        path: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mistakes = Mistakes::default();
        let config =
            Document::read(path, &mistakes).and_then(|document| read(&document, environment, &mistakes));
        mistakes.into_result()?;
        config.ok_or_else(|| {
            // Every `None` has been reported; say something sensible should one not have been.
            let message = "cannot be used".to_owned();
            ConfigErrors(vec![Mistake { file: path.to_owned(), line: None, key: String::new(), message }])
        })
    }

    /// What `sallyport check-config` prints: the configuration in a few lines, without secrets.
    pub fn check(path: &Path) -> Result<String, ConfigErrors> {
        Self::load(path).map(|config| config.summary())
    }

    /// The configuration in a few lines, for a person: values in force, defaults included.
    pub fn summary(&self) -> String {
        let mut text = format!("{}: good\n", self.path.display());
        for (key, value) in self.fixed() {
            if key.starts_with("ssh.") && self.ssh.is_none() {
                continue;
            }
            let _ = writeln!(text, "  {key} = {value}");
        }
        for (key, value) in self.ssh.iter().flat_map(ssh::authorities) {
            let _ = writeln!(text, "  {key} = {value}");
        }
        let policies = self.reloadable.policies.as_ref();
        let policies = policies.map_or("built in".to_owned(), |path| path.display().to_string());
        let _ = writeln!(text, "  policies.directory = {policies}");
        for any in self.reloadable.targets.values() {
            let (target, address) = (any.target(), any.place());
            let (name, tier, domain) = (&target.name, target.environment, &target.domain);
            let accesses = target.accesses.iter().map(AccessName::as_str).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "  target {name} ({tier}, {domain}) at {address}: {accesses}");
        }
        if self.reloadable.targets.is_empty() {
            text.push_str("  no target yet: add a [[target]]\n");
        }
        text
    }

    /// What differs in `new`.
    pub fn diff(&self, new: &Self) -> Diff {
        let (old_fixed, new_fixed) = (self.fixed(), new.fixed());
        let needs_restart = old_fixed
            .iter()
            .zip(&new_fixed)
            .filter(|(old, new)| old.1 != new.1)
            .map(|(old, _)| old.0.to_owned())
            .collect();
        let (old, new) = (&self.reloadable, &new.reloadable);
        let only_in = |a: &Targets, b: &Targets| {
            a.targets.keys().filter(|name| !b.targets.contains_key(name)).cloned().collect()
        };
        let changed = old
            .targets
            .iter()
            .filter(|(name, target)| new.targets.get(name).is_some_and(|other| !target.same(other)));
        Diff {
            needs_restart,
            added: only_in(new, old),
            changed: changed.map(|(name, _)| name.clone()).collect(),
            removed: only_in(old, new),
            policies_moved: old.policies != new.policies,
        }
    }

    /// Every key that only a restart changes, with its value as text, always in the same order.
    fn fixed(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        let Self { server, api, postgres, ssh, audit, login, witnesses, stream, alerts, .. } = self;
        let public_address =
            postgres.public_address.as_ref().map_or_else(|| "derived".to_owned(), ToString::to_string);
        let mut fixed = vec![
            ("server.name", server.name.clone()),
            ("server.data_dir", path(&server.data_dir)),
            ("server.drain_timeout", humane(server.drain_timeout)),
            ("server.secrets_key", server::signing_key_text(server.secrets_key.as_ref())),
            ("api.listen", api.listener.listen.to_string()),
            ("api.certificate", path(&api.listener.certificate)),
            ("api.key", path(&api.listener.key)),
            ("api.public_url", api.public_url.clone()),
            ("postgres.listen", postgres.listener.listen.to_string()),
            ("postgres.certificate", path(&postgres.listener.certificate)),
            ("postgres.key", path(&postgres.listener.key)),
            ("postgres.max_connections", postgres.max_connections.to_string()),
            ("postgres.max_handshakes", postgres.max_handshakes.to_string()),
            ("postgres.handshake_timeout", server::duration_text(Some(postgres.handshake_timeout))),
            ("postgres.idle_timeout", server::duration_text(postgres.idle_timeout)),
            ("postgres.public_address", public_address),
            ("postgres.max_message_bytes", postgres.max_message_bytes.to_string()),
            ("postgres.client_ca_file", postgres.client_ca_file.as_deref().map_or("none".to_owned(), path)),
            ("audit.directory", path(&audit.directory)),
            ("audit.segment_bytes", audit.segment_bytes.to_string()),
            ("audit.keep_bytes", audit.keep_bytes.to_string()),
            ("audit.signing_key", server::signing_key_text(audit.signing_key.as_ref())),
            ("login.token_lifetime", server::duration_text(Some(login.token_lifetime))),
        ];
        fixed.push(("witness", server::witnesses_text(witnesses)));
        fixed.push(("stream", stream::text(stream.as_ref())));
        fixed.push(("alerts", alerts::text(alerts.as_ref())));
        fixed.extend(ssh::fixed(ssh.as_ref()));
        fixed
    }
}

fn read(
    document: &Document,
    environment: &dyn Fn(&str) -> Option<String>,
    mistakes: &Mistakes,
) -> Option<Config> {
    let table = document.parse(mistakes)?;
    let root = Section::root(document, &table, mistakes);
    let server = server::server(&root);
    let api = server::api(&root);
    let postgres = server::postgres(&root);
    let audit = server::audit(&root, server.as_ref());
    let login = server::login(&root);
    let ssh = ssh::ssh(&root, &login);
    let witnesses = server::witnesses(&root);
    let stream = stream::stream(&root);
    let alerts = alerts::alerts(&root);
    let policies = server::policies(&root);
    let mut targets = BTreeMap::new();
    read_targets(&root, environment, &mut targets);
    for path in included(&root) {
        read_included(&path, environment, mistakes, &mut targets);
    }
    root.finish();
    if !root.has("ssh")
        && let Some(host) =
            targets.values().map(AnyTarget::target).find(|target| target.kind == TargetKind::Ssh)
    {
        let what = format!("the target `{}` is an SSH host: say where the gateway listens", host.name);
        root.missing("ssh", &what);
    }
    let (api, postgres) = (api?, postgres?);
    check_ports(&root, &api, &postgres, ssh.as_ref());
    let reloadable = Targets { policies, targets };
    Some(Config {
        path: document.path.clone(),
        server: server?,
        api,
        postgres,
        ssh,
        audit: audit?,
        login,
        witnesses,
        stream,
        alerts,
        reloadable,
    })
}

/// No two listen on the same address.
fn check_ports(root: &Section<'_>, api: &Api, postgres: &Postgres, ssh: Option<&Ssh>) {
    let api = ("api", api.listener.listen);
    let postgres = ("postgres", postgres.listener.listen);
    let ssh = ssh.map(|ssh| ("ssh", ssh.listen));
    let pairs = [Some((api, postgres)), ssh.map(|ssh| (api, ssh)), ssh.map(|ssh| (postgres, ssh))];
    for ((first, listen), (second, other)) in pairs.into_iter().flatten() {
        if listen == other && listen.port() != 0 {
            let message = format!("is the same as {first}.listen: choose another port");
            root.section(second).blame("listen", message);
        }
    }
}

fn read_targets(
    root: &Section<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    targets: &mut BTreeMap<TargetName, AnyTarget>,
) {
    for section in root.sections("target") {
        let Some(target) = target::read(&section, environment) else { continue };
        let name = target.target().name.clone();
        if targets.insert(name.clone(), target).is_some() {
            section.blame("name", format!("`{name}` is the name of another target: choose another"));
        }
    }
}

/// A file of targets: `[[target]]` and nothing else.
fn read_included(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    mistakes: &Mistakes,
    targets: &mut BTreeMap<TargetName, AnyTarget>,
) {
    let Some(document) = Document::read(path, mistakes) else { return };
    let Some(table) = document.parse(mistakes) else { return };
    let root = Section::root(&document, &table, mistakes);
    read_targets(&root, environment, targets);
    root.finish();
}

/// The files that `include` names, each once: a file, all `*.toml` of a directory, or `dir/*.toml`.
fn included(root: &Section<'_>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in root.list::<String>("include").unwrap_or_default() {
        let path = root.document.resolve(&entry);
        let dir = match path.file_name() {
            Some(name) if name == "*.toml" => path.parent().map(Path::to_owned),
            _ if path.is_dir() => Some(path.clone()),
            _ => None,
        };
        match dir.map(|dir| toml_files(&dir)) {
            None => paths.push(path),
            Some(Ok(files)) => paths.extend(files),
            Some(Err(error)) => root.blame("include", format!("`{entry}` cannot be read: {error}")),
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

fn toml_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
