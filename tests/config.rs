//! The configuration: what is wrong with one is told all at once, and what `init` makes works.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sallyport::config::init::{self, Init, InitError};
use sallyport::config::{Address, AnyTarget, Config, PostgresTarget, Source};
use sallyport::crypto::ssh::{PublicKey, parse_private, parse_public, public_line};
use sallyport::domain::name::TargetName;
use sallyport::domain::target::TargetKind;
use sallyport::domain::time::Timestamp;

/// 2026-11-23T12:00:00Z
const NOW: Timestamp = Timestamp::from_micros(1_795_435_200_000_000);

/// A data directory as `init` makes it, with a target's secret and authority beside.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { dir };
        home.init(&["bastion.bank.example".to_owned()]).unwrap();
        fs::copy(home.path("tls/ca.crt"), home.path("tls/ledger-ca.crt")).unwrap();
        home.secret("secrets/ledger-prod", "hunter2\n");
        home
    }

    fn init(&self, names: &[String]) -> Result<init::Made, InitError> {
        let audit_key = |dir: &Path| Ok(fs::write(dir.join("signing.key"), "key")?);
        init::init(&Init { dir: self.dir.path(), names, now: NOW, audit_key: &audit_key })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self, text: &str) -> Result<Config, String> {
        fs::write(self.path("sallyport.toml"), text).unwrap();
        let environment = |name: &str| (name == "LEDGER_PASSWORD").then(|| "from-env".to_owned());
        Config::load_with(&self.path("sallyport.toml"), &environment)
            .map_err(|errors| errors.to_string().replace(&format!("{}/", self.dir.path().display()), ""))
    }

    fn public(&self, name: &str) -> PublicKey {
        let line = fs::read_to_string(self.path(&format!("ssh/{name}.pub"))).unwrap();
        PublicKey::from(parse_public(&line).unwrap().key_data().clone())
    }

    fn with_key(&self, text: &str) -> String {
        text.replace("KEY", &public_line(&self.public("host_ed25519"), ""))
    }

    fn good_ssh(&self) -> String {
        self.with_key(&format!("{FIXED}{SSH}{TARGET}{SSH_TARGET}"))
    }

    fn mistakes(&self, text: &str) -> String {
        self.load(text).err().unwrap_or_else(|| panic!("no mistake in:\n{text}"))
    }
}

const FIXED: &str = r#"
[server]
data_dir = "."
[api]
certificate = "tls/api.crt"
key = "tls/api.key"
[postgres]
certificate = "tls/postgres.crt"
key = "tls/postgres.key"
"#;

const TARGET: &str = r#"
[[target]]
name = "ledger-prod"
kind = "postgres"
address = "ledger.db.example:5432"
ca_file = "tls/ledger-ca.crt"
environment = "prod"
domain = "bank-core"
databases = ["ledger", "archive"]
accesses = { readonly = "ledger_readonly", dba = "ledger_owner" }
[target.admin]
user = "sallyport"
password_file = "secrets/ledger-prod"
"#;

const SSH: &str = r#"
[ssh]
host_key = "ssh/host_ed25519"
host_ca = "ssh/host_ca"
user_ca = "ssh/user_ca"
login_ca = "ssh/login_ca"
"#;

/// `KEY` stands for a public key ([`Home::with_key`]).
const SSH_TARGET: &str = r#"
[[target]]
name = "web-1"
kind = "ssh"
address = "web-1.bank.example:22"
environment = "prod"
domain = "bank-core"
accesses = { admin = "root", deploy = "deploy" }
host_keys = ["KEY"]
"#;

fn postgres(config: &Config) -> &PostgresTarget {
    match config.reloadable.targets.get(&"ledger-prod".parse().unwrap()) {
        Some(AnyTarget::Postgres(target)) => target,
        other => panic!("{other:?}"),
    }
}

fn good() -> String {
    format!("{FIXED}{TARGET}")
}

#[test]
fn a_small_configuration_has_the_documented_defaults() {
    let home = Home::new();
    let config = home.load(&good()).unwrap();
    assert_eq!(config.server.name, "sallyport");
    assert_eq!(config.server.data_dir, home.dir.path());
    assert_eq!(config.api.listener.listen.to_string(), "127.0.0.1:8443");
    assert_eq!(config.api.public_url, "https://127.0.0.1:8443");
    assert_eq!(config.postgres.listener.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(config.postgres.max_connections, 2000);
    assert_eq!(config.postgres.max_handshakes, 400);
    assert_eq!(config.postgres.handshake_timeout, Duration::from_secs(10));
    assert_eq!(config.postgres.idle_timeout, None);
    assert_eq!(config.postgres.max_message_bytes, 64 * 1024 * 1024);
    assert_eq!(config.postgres.client_ca_file, None);
    assert_eq!(config.audit.directory, home.path("audit"));
    assert_eq!(config.login.token_lifetime, Duration::from_hours(8));
    assert_eq!(config.reloadable.policies, None);
    let target = postgres(&config);
    assert_eq!(target.hosts.to_string(), "ledger.db.example:5432");
    assert!(target.hosts.is_one());
    assert_eq!(target.hosts.preferred().server_name, ServerName::try_from("ledger.db.example").unwrap());
    assert_eq!(target.databases, ["ledger", "archive"]);
    assert_eq!(target.roles[&"dba".parse().unwrap()], "ledger_owner");
    assert_eq!(target.target.accesses.len(), 2);
    assert_eq!(target.target.requesters, ["requesters".parse().unwrap()].into());
    assert_eq!(target.target.approvers, ["approvers".parse().unwrap()].into());
    assert_eq!(target.source.admin().unwrap().password.expose(), "hunter2");
    assert_eq!(target.source.admin().unwrap().database, "ledger");
    assert_eq!(target.ca.len(), 1);
    assert_eq!(target.connection_limit, 20);
    assert_eq!(config.ssh, None);
    assert!(!config.summary().contains("ssh"), "{}", config.summary());
}

#[test]
fn an_ssh_gateway_and_host_have_the_documented_defaults() {
    let home = Home::new();
    let config = home.load(&home.good_ssh()).unwrap();
    let ssh = config.ssh.as_ref().unwrap();
    assert_eq!(ssh.listen.to_string(), "127.0.0.1:2222");
    assert_eq!(ssh.public_address, None);
    let signs = sallyport::config::Signs::File(home.path("ssh/login_ca"));
    assert_eq!(ssh.login_ca, sallyport::config::AuthorityKeys { signs, trusted: Vec::new() });
    assert_eq!((ssh.max_connections, ssh.max_handshakes, ssh.max_channels), (2000, 400, 200));
    assert_eq!((ssh.handshake_timeout, ssh.idle_timeout), (Duration::from_secs(30), None));
    assert_eq!(ssh.stream_head_bytes, 1024 * 1024);
    assert_eq!(ssh.accept_env, ["LANG", "LC_*", "COLORTERM", "NO_COLOR", "TERM_PROGRAM"]);
    assert_eq!(ssh.certificate_lifetime, Duration::from_hours(8));
    let AnyTarget::Ssh(target) = &config.reloadable.targets[&"web-1".parse().unwrap()] else {
        panic!("{config:?}");
    };
    assert_eq!(target.address, Address { host: "web-1.bank.example".to_owned(), port: 22 });
    assert_eq!(target.logins[&"admin".parse().unwrap()], "root");
    assert_eq!(target.target.kind, TargetKind::Ssh);
    assert_eq!(target.target.accesses.len(), 2);
    assert_eq!(target.host_keys, [home.public("host_ed25519")]);
    assert_eq!((target.host_cas.len(), &target.source_address), (0, &None));
    assert!(
        config.summary().contains("target web-1 (prod, bank-core) at web-1.bank.example:22: admin, deploy")
    );
}

#[test]
fn a_secret_may_come_from_the_environment() {
    let home = Home::new();
    let text =
        good().replace("password_file = \"secrets/ledger-prod\"", "password_env = \"LEDGER_PASSWORD\"");
    let config = home.load(&text).unwrap();
    let target = postgres(&config);
    assert_eq!(target.source.admin().unwrap().password.expose(), "from-env");
    assert!(!format!("{config:?}").contains("from-env"), "a secret is printed");
    assert!(!config.summary().contains("from-env"), "a secret is printed");
}

/// What replaces what in a good configuration with an SSH gateway, and what is then told.
const SSH_MISTAKES: &[(&str, &str, &str)] = &[
    ("[ssh]", "[ssh]\nlisten = \"22\"", "ssh.listen: `22` is not an address: write `127.0.0.1:2222`"),
    ("[ssh]", "[ssh]\nlisten = \"127.0.0.1:6432\"", "ssh.listen: is the same as postgres.listen"),
    ("[ssh]", "[ssh]\nlisten = \"127.0.0.1:8443\"", "ssh.listen: is the same as api.listen"),
    ("[ssh]", "[ssh]\nlsten = \"x\"", "ssh.lsten: is not a known key: did you mean `listen`?"),
    ("[ssh]", "[ssh]\npublic_address = \"bastion\"", "ssh.public_address: `bastion` is not an address"),
    ("[ssh]", "[ssh]\nmax_channels = 0", "ssh.max_channels: must be from 1 to 10000, not 0"),
    ("[ssh]", "[ssh]\nmax_handshakes = -1", "ssh.max_handshakes: must be from 1 to 100000, not -1"),
    ("[ssh]", "[ssh]\nhandshake_timeout = \"0s\"", "ssh.handshake_timeout: must be from"),
    ("[ssh]", "[ssh]\nidle_timeout = \"5h\"", "ssh.idle_timeout: must be from"),
    ("[ssh]", "[ssh]\nstream_head_bytes = \"1\"", "ssh.stream_head_bytes: must be a whole number"),
    ("[ssh]", "[ssh]\ncertificate_lifetime = \"30s\"", "ssh.certificate_lifetime: must be from"),
    ("[ssh]", "[ssh]\naccept_env = [\"A=B\"]", "ssh.accept_env[1]: `A=B` is not the name of a variable"),
    ("host_key = \"ssh/host_ed25519\"", "", "ssh.host_key: is missing: name the file with the gateway's own"),
    ("login_ca = \"ssh/login_ca\"", "", "ssh.login_ca: is missing"),
    ("ssh/user_ca", "ssh/none", "ssh.user_ca: `ssh/none` cannot be read"),
    ("ssh/user_ca", "ssh/user_ca.pub", "ssh.user_ca: `ssh/user_ca.pub` is open to everybody (mode 644)"),
    (
        "ssh/user_ca",
        "tls/api.key",
        "ssh.user_ca: `tls/api.key` cannot be used: not a private key in OpenSSH's",
    ),
    ("ssh/login_ca", "ssh/user_ca", "ssh.login_ca: is the same key as user_ca: make another"),
    (
        "kind = \"ssh\"",
        "kind = \"shh\"",
        "target[2].kind: `shh` is not a kind of target: there are `postgres`",
    ),
    (
        "web-1.bank.example:22",
        "web-1.bank.example",
        "target[2].address: `web-1.bank.example` is not an address",
    ),
    ("web-1.bank.example:22", "web_1!:22", "target[2].address: `web_1!` is not a host name or IP address"),
    ("kind = \"ssh\"", "kind = \"ssh\"\nca_file = \"x\"", "target[2].ca_file: is not a known key"),
    ("kind = \"ssh\"", "kind = \"ssh\"\ndatabases = []", "target[2].databases: is not a known key"),
    (
        "admin = \"root\"",
        "admin = \"-oProxyCommand=x\"",
        "target[2].accesses.admin: `-oProxyCommand=x` is not a user",
    ),
    ("admin = \"root\"", "Admin = \"root\"", "target[2].accesses.Admin: `Admin` is not an access name"),
    ("{ admin = \"root\", deploy = \"deploy\" }", "{}", "target[2].accesses: is empty"),
    ("host_keys = [\"KEY\"]", "", "target[2].host_keys: is missing: list the host's public keys"),
    ("host_keys = [\"KEY\"]", "host_keys = []", "target[2].host_keys: is empty"),
    (
        "host_keys = [\"KEY\"]",
        "host_ca = [\"x y\"]",
        "target[2].host_ca[1]: a public key begins with its type",
    ),
    ("[\"KEY\"]", "[\"ssh-ed25519 AAAA\"]", "target[2].host_keys[1]: the public key is damaged"),
    ("[\"KEY\"]", "[\"ssh-dss AAAA\"]", "target[2].host_keys[1]: DSA keys are not accepted"),
    ("[\"KEY\"]", "[\"KEY\", \"KEY again\"]", "target[2].host_keys: the key SHA256:"),
    (
        "host_keys = ",
        "source_address = \"10.0.0.5/8\"\nhost_keys = ",
        "target[2].source_address: `10.0.0.5/8` is neither an address nor a network",
    ),
    (
        "host_keys = ",
        "connect_to = \"10.0.0.5:22\"\nhost_keys = ",
        "target[2].connect_to: `10.0.0.5:22` is not an IP address",
    ),
];

#[test]
fn each_mistake_about_ssh_has_its_message_and_is_told_once() {
    let home = Home::new();
    let good = format!("{FIXED}{SSH}{TARGET}{SSH_TARGET}");
    for (from, to, expected) in SSH_MISTAKES {
        assert!(good.contains(from), "{from}");
        let told = home.mistakes(&home.with_key(&good.replacen(from, to, 1)));
        assert!(told.contains(expected), "{from} -> {to}\ntold:     {told}\nexpected: {expected}");
        assert_eq!(told.lines().count(), 1, "{from} -> {to}\n{told}");
        assert!(!told.contains("OPENSSH PRIVATE KEY-----\n"), "{told}");
    }
}

#[test]
fn an_ssh_key_must_be_protected_and_without_a_passphrase() {
    let home = Home::new();
    let keygen = |arguments: &[&str]| {
        let output = Command::new("ssh-keygen").current_dir(home.path("ssh")).args(arguments).output();
        assert!(output.expect("ssh-keygen, of Debian's openssh-client").status.success());
    };
    keygen(&["-q", "-p", "-N", "secret", "-f", "user_ca"]);
    let told = home.mistakes(&home.good_ssh());
    assert!(
        told.contains("ssh.user_ca: `ssh/user_ca` cannot be used: the private key has a passphrase"),
        "{told}"
    );
    keygen(&["-q", "-p", "-P", "secret", "-N", "", "-f", "user_ca"]);
    home.load(&home.good_ssh()).unwrap();
    fs::set_permissions(home.path("ssh/user_ca"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = home.mistakes(&home.good_ssh());
    assert!(told.contains("is open to everybody (mode 644): run `chmod 600 ssh/user_ca`"), "{told}");
}

#[test]
fn an_ssh_host_without_a_gateway_is_a_mistake() {
    let home = Home::new();
    let told = home.mistakes(&home.with_key(&format!("{FIXED}{TARGET}{SSH_TARGET}")));
    let expected =
        "sallyport.toml: ssh: is missing: the target `web-1` is an SSH host: say where the gateway listens";
    assert_eq!(told, expected);
}

#[test]
fn a_target_that_changes_its_kind_or_keys_is_changed_and_a_comment_changes_nothing() {
    let home = Home::new();
    let before = home.load(&home.good_ssh()).unwrap();
    let with = |from: &str, to: &str| {
        let text = format!("{FIXED}{SSH}{TARGET}{SSH_TARGET}").replacen(from, to, 1);
        before.diff(&home.load(&home.with_key(&text)).unwrap())
    };
    assert_eq!(with("KEY", "KEY of web-1"), sallyport::config::Diff::default());
    let web: Vec<TargetName> = vec!["web-1".parse().unwrap()];
    let other =
        format!("[\"KEY\", \"{}\"]", fs::read_to_string(home.path("ssh/host_ca.pub")).unwrap().trim());
    assert_eq!(with("[\"KEY\"]", &other).changed, web);
    assert_eq!(with("\"root\"", "\"toor\"").changed, web);
    assert_eq!(with("[ssh]", "[ssh]\nidle_timeout = \"5m\"").needs_restart, ["ssh.idle_timeout"]);
    let as_database = TARGET.replacen("ledger-prod", "web-1", 1);
    let changed = before.diff(&home.load(&format!("{FIXED}{TARGET}{as_database}")).unwrap());
    assert_eq!(changed.changed, web);
    assert_eq!(changed.needs_restart.len(), 11, "{changed:?}");
}

/// What replaces what in a good configuration, and what is then told.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("[server]", "[server", "sallyport.toml:2: "),
    ("[server]", "[sever]", "sallyport.toml:2: sever: is not a known key: did you mean `server`?"),
    ("data_dir = \".\"", "", "sallyport.toml:2: server.data_dir: is missing: name the directory"),
    (
        "data_dir = \".\"",
        "data_dir = \"nowhere\"",
        "server.data_dir: `nowhere` is not a directory: `sallyport init",
    ),
    (
        "data_dir = \".\"",
        "data_dir = 7",
        "server.data_dir: must be a text in quotes, not a value of type integer",
    ),
    ("[api]", "[api]\nlisten = \"8443\"", "sallyport.toml:5: api.listen: `8443` is not an address"),
    ("[api]", "[api]\npublic_url = \"http://x\"", "api.public_url: `http://x` is not a URL of the API"),
    ("tls/api.crt", "tls/none.crt", "api.certificate: `tls/none.crt` cannot be read: No such file"),
    ("tls/api.crt", "tls/api.key", "api.certificate: `tls/api.key` holds no certificate"),
    (
        "tls/api.key",
        "tls/api.crt",
        "api.key: `tls/api.crt` is open to everybody (mode 644): run `chmod 600 tls/api.crt`",
    ),
    (
        "key = \"tls/api.key\"",
        "",
        "api.key: is missing: name the PEM file with the certificate's private key",
    ),
    ("[postgres]", "[postgres]\nlisten = \"127.0.0.1:8443\"", "postgres.listen: is the same as api.listen"),
    (
        "[postgres]",
        "[postgres]\nmax_conections = 5",
        "postgres.max_conections: is not a known key: did you mean `max_connections`?",
    ),
    (
        "[postgres]",
        "[postgres]\nmax_connections = 0",
        "postgres.max_connections: must be from 1 to 1000000, not 0",
    ),
    ("[postgres]", "[postgres]\nmax_connections = -1", "must be from 1 to 1000000, not -1"),
    (
        "[postgres]",
        "[postgres]\nmax_handshakes = \"many\"",
        "postgres.max_handshakes: must be a whole number, not a value of type string",
    ),
    (
        "[postgres]",
        "[postgres]\nhandshake_timeout = \"10\"",
        "postgres.handshake_timeout: `10` is not a duration: write it as",
    ),
    (
        "[postgres]",
        "[postgres]\nhandshake_timeout = \"1h\"",
        "postgres.handshake_timeout: must be from 1s to 5m, not `1h`",
    ),
    ("[postgres]", "[postgres]\nidle_timeout = \"soon\"", "postgres.idle_timeout: `soon` is not a duration"),
    ("[postgres]", "[postgres]\nclient_ca_file = \"nowhere.crt\"", "postgres.client_ca_file: "),
    (
        "address = \"ledger.db.example:5432\"",
        "address = [\"db-1:5432\", \"db-1:5432\"]",
        "target[1].address: `db-1:5432` is listed twice",
    ),
    ("address = \"ledger.db.example:5432\"", "address = []", "target[1].address: names no server"),
    (
        "[target.admin]",
        "[target.credential]\nkind = \"role\"\nallow_md5 = true\n[target.admin]",
        "target[1].credential.allow_md5: is for `static` credentials without `rotate`",
    ),
    (
        "[target.admin]",
        "[target.credential]\nkind = \"role\"\nallow_md5 = 1\n[target.admin]",
        "target[1].credential.allow_md5: must be `true` or `false`",
    ),
    (
        "[target.admin]",
        "[target.credential]\nkind = \"rds-iam\"\nregion = \"eu-central-1\"\n[target.admin]",
        "target[1].admin: is of no use with `rds-iam`",
    ),
    (
        "address = \"ledger.db.example:5432\"",
        "address = [\"db-1:5432\", \"db-2\"]",
        "target[1].address[2]: `db-2` is not an address",
    ),
    (
        "address = \"ledger.db.example:5432\"",
        "address = [\"db-1:5432\", \"db-2:5432\"]\nconnect_to = \"127.0.0.1\"",
        "target[1].connect_to: cannot be that of several servers",
    ),
    (
        "[postgres]",
        "[postgres]\nmax_message_bytes = 10",
        "postgres.max_message_bytes: must be from 65536 to 1073741823, not 10",
    ),
    (
        "[[target]]",
        "[[witness]]\nurl = \"http://w:1\"\nkey = \"k\"\n[[target]]",
        "witness[1].key: `k` is not a witness's key",
    ),
    (
        "[[target]]",
        "[[witness]]\nurl = \"w:1\"\nkey = \"k\"\n[[target]]",
        "witness[1].url: `w:1` begins neither with `http://`",
    ),
    ("[[target]]", "[audit]\nsegment_bytes = 1\n[[target]]", "audit.segment_bytes: must be from 65536"),
    (
        "[[target]]",
        "[audit]\nsigning_key = \"audit.pem\"\n[[target]]",
        "audit.signing_key: `audit.pem` names no key of Amazon KMS: write `arn:aws:kms:",
    ),
    (
        "[[target]]",
        "[audit]\nsigning_key = \"alias/a\"\nsigning_endpoint = \"kms\"\n[[target]]",
        "audit.signing_endpoint: `kms` begins neither with `http://`",
    ),
    (
        "[[target]]",
        "[login]\ntoken_lifetime = \"48h\"\n[[target]]",
        "login.token_lifetime: must be from 1m to 24h, not `48h`",
    ),
    (
        "[[target]]",
        "[policies]\ndirectory = \"nowhere\"\n[[target]]",
        "policies.directory: `nowhere` is not a directory",
    ),
    ("[[target]]", "[target]", "target: must be an array of tables, not a value of type table"),
    ("\n[server]", "\ninclude = [\"nowhere.toml\"]\n[server]", "nowhere.toml: cannot be read: No such file"),
    ("\n[server]", "\ninclude = [\"nowhere/*.toml\"]\n[server]", "include: `nowhere/*.toml` cannot be read"),
    ("name = \"ledger-prod\"", "", "target[1].name: is missing: what people call it"),
    (
        "name = \"ledger-prod\"",
        "name = \"ledger+prod\"",
        "target[1].name: `ledger+prod` is not a target name: use",
    ),
    ("kind = \"postgres\"", "", "target[1].kind: is missing: write `postgres`, `ssh` or `aws`"),
    ("kind = \"postgres\"", "kind = \"oracle\"", "target[1].kind: `oracle` is not a kind of target"),
    (
        "ledger.db.example:5432",
        "ledger.db.example",
        "target[1].address: `ledger.db.example` is not an address: write `host:port`",
    ),
    ("ledger.db.example:5432", "ledger.db.example:0", "`ledger.db.example:0` is not an address"),
    (
        "ledger.db.example:5432",
        "ledger_.db..example:5432",
        "target[1].address: `ledger_.db..example` is not a host name or IP address",
    ),
    ("ca_file = \"tls/ledger-ca.crt\"", "", "target[1].ca_file: is missing: name the PEM file"),
    ("tls/ledger-ca.crt", "sallyport.toml", "target[1].ca_file: `sallyport.toml` holds no certificate"),
    ("tls/ledger-ca.crt", "tls", "target[1].ca_file: `tls` is not a file"),
    (
        "environment = \"prod\"",
        "environment = \"production\"",
        "target[1].environment: `production` is not an environment: write `prod`, `uat` or `dev`",
    ),
    ("environment = \"prod\"", "", "target[1].environment: is missing"),
    ("domain = \"bank-core\"", "domain = \"Bank\"", "target[1].domain: `Bank` is not a domain name"),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\nconnect_to = \"ledger\"",
        "target[1].connect_to: `ledger` is not an IP address",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\nconnection_limit = 0",
        "target[1].connection_limit: must be from 1 to 1000",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\nrequesters = []",
        "target[1].requesters: is empty: name at least one group",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\napprovers = [\"a\", \"B\", 3]",
        "target[1].approvers[2]: `B` is not a group name",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\napprovers = [\"a\", \"B\", 3]",
        "target[1].approvers[3]: must be a text in quotes",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\napprover = [\"a\"]",
        "target[1].approver: is not a known key: did you mean `approvers`?",
    ),
    (
        "domain = \"bank-core\"",
        "domain = \"bank-core\"\nlabels = { tier = 1 }",
        "target[1].labels.tier: must be a text in quotes",
    ),
    ("[\"ledger\", \"archive\"]", "[]", "target[1].databases: is empty: list what clients may connect to"),
    ("[\"ledger\", \"archive\"]", "[\"a\", \"a\"]", "target[1].databases: `a` is listed twice"),
    ("[\"ledger\", \"archive\"]", "[\"\"]", "target[1].databases: is empty: name a database name"),
    ("[\"ledger\", \"archive\"]", "[\"a b\"]", "`a b` is not a database name: no spaces"),
    (
        "{ readonly = \"ledger_readonly\", dba = \"ledger_owner\" }",
        "{}",
        "target[1].accesses: is empty: without an access",
    ),
    ("\"ledger_owner\"", "\"\"", "sallyport.toml:19: target[1].accesses.dba: is empty: name a database role"),
    (
        "\"ledger_owner\"",
        "\"pg_write_all_data\"",
        "target[1].accesses.dba: `pg_write_all_data` begins with `pg_`, which is reserved",
    ),
    ("\"ledger_owner\"", "\"sp_x\"", "target[1].accesses.dba: `sp_x` begins with `sp_`, which is reserved"),
    ("\"ledger_owner\"", "\"PUBLIC\"", "target[1].accesses.dba: `PUBLIC` is reserved by PostgreSQL"),
    ("\"ledger_owner\"", "\"sallyport\"", "target[1].accesses.dba: `sallyport` is the admin user"),
    ("\"ledger_owner\"", "'a\"b'", "target[1].accesses.dba: `a\\\"b` is not a database role"),
    ("dba =", "DBA =", "target[1].accesses.DBA: `DBA` is not an access name"),
    (
        "[target.admin]\nuser = \"sallyport\"\npassword_file = \"secrets/ledger-prod\"",
        "",
        "target[1].admin: is missing: say as whom roles are made",
    ),
    ("user = \"sallyport\"", "", "target[1].admin.user: is missing"),
    ("user = \"sallyport\"", "user = \"sallyport\"\ndatabase = \"\"", "target[1].admin.database: is empty"),
    (
        "user = \"sallyport\"",
        "user = \"sallyport\"\npassword = \"x\"",
        "target[1].admin.password: is not a known key",
    ),
    (
        "user = \"sallyport\"",
        "user = \"sallyport\"\npassword_env = \"X\"",
        "target[1].admin.password_env: is given beside `password_file`",
    ),
    ("password_file = \"secrets/ledger-prod\"", "", "target[1].admin.password_file: is missing"),
    (
        "password_file = \"secrets/ledger-prod\"",
        "password_env = \"NO_SUCH\"",
        "target[1].admin.password_env: the environment variable `NO_SUCH` is not set",
    ),
    ("secrets/ledger-prod", "secrets/none", "target[1].admin.password_file: `secrets/none` cannot be read"),
    ("secrets/ledger-prod", "secrets/empty", "target[1].admin.password_file: `secrets/empty` is empty"),
    (
        "secrets/ledger-prod",
        "secrets/open",
        "target[1].admin.password_file: `secrets/open` is open to everybody (mode 644): run `chmod 600 secrets/open`",
    ),
    (
        "secrets/ledger-prod",
        "secrets/lines",
        "target[1].admin.password_file: `secrets/lines` holds more than one line",
    ),
];

#[test]
fn each_mistake_has_its_message() {
    let home = Home::new();
    home.secret("secrets/empty", "\n");
    home.secret("secrets/lines", "one\ntwo\n");
    home.secret("secrets/open", "hunter2\n");
    fs::set_permissions(home.path("secrets/open"), fs::Permissions::from_mode(0o644)).unwrap();
    for (from, to, expected) in MISTAKES {
        assert!(good().contains(from), "{from}");
        let told = home.mistakes(&good().replacen(from, to, 1));
        assert!(told.contains(expected), "{from} -> {to}\ntold:     {told}\nexpected: {expected}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_single_mistake_is_told_once() {
    let home = Home::new();
    for (from, to, _) in MISTAKES.iter().filter(|(from, to, _)| {
        // These are two mistakes each: a name not known and another missing, or a list with two.
        !["[sever]", "[server"].contains(to) && !to.contains("\"B\", 3") && !from.contains("[[target]]")
    }) {
        let told = home.mistakes(&good().replacen(from, to, 1));
        assert_eq!(told.lines().count(), 1, "{from} -> {to}\n{told}");
    }
}

#[test]
fn an_md5_hash_is_for_kept_passwords_that_are_not_rotated() {
    let home = Home::new();
    let good = good();
    let before = good.split_once("[target.admin]").unwrap().0;
    let with = |lines: &str| format!("{before}[target.credential]\nkind = \"static\"\n{lines}");
    let config = home.load(&with("allow_md5 = true\n")).unwrap();
    let Source::Static(kept) = &postgres(&config).source else { panic!("{:?}", postgres(&config).source) };
    assert!(kept.allow_md5);
    let told = home.mistakes(&with("rotate = [\"/bin/true\"]\nallow_md5 = true\n"));
    assert!(told.contains("allow_md5: is for `static` credentials without `rotate`"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn several_mistakes_are_told_at_once() {
    let home = Home::new();
    let text = good()
        .replace("data_dir = \".\"", "data_dri = \".\"")
        .replace("\"tls/api.key\"", "5")
        .replace("[postgres]", "[postgres]\nmax_connections = 0\nhandshake_timeout = \"x\"")
        .replace("\"prod\"", "\"production\"")
        .replace("\"ledger_owner\"", "\"pg_x\"")
        .replace("secrets/ledger-prod", "secrets/none");
    let told = home.mistakes(&text);
    for expected in [
        "server.data_dir: is missing",
        "server.data_dri: is not a known key",
        "api.key: must be a text",
        "postgres.max_connections",
        "postgres.handshake_timeout",
        "target[1].environment",
        "target[1].accesses.dba",
        "target[1].admin.password_file",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert_eq!(told.lines().count(), 8, "{told}");
}

#[test]
fn a_configuration_that_is_not_there_is_told() {
    let errors = Config::load(Path::new("nowhere/sallyport.toml")).unwrap_err();
    assert!(
        errors.to_string().starts_with("nowhere/sallyport.toml: cannot be read: No such file"),
        "{errors}"
    );
}

#[test]
fn two_targets_of_one_name_are_refused_across_files() {
    let home = Home::new();
    fs::create_dir(home.path("targets.d")).unwrap();
    let other = TARGET.replace("tls/", "../tls/").replace("secrets/", "../secrets/");
    fs::write(home.path("targets.d/other.toml"), &other).unwrap();
    let text = format!("include = [\"targets.d\"]\n{}", good());
    let told = home.mistakes(&text);
    assert_eq!(
        told,
        "targets.d/other.toml:3: target[1].name: `ledger-prod` is the name of another target: choose another"
    );
    fs::write(home.path("targets.d/other.toml"), other.replacen("ledger-prod", "ledger-uat", 1)).unwrap();
    for include in ["targets.d", "targets.d/*.toml", "targets.d/other.toml"] {
        let config = home.load(&format!("include = [\"{include}\"]\n{}", good())).unwrap();
        assert_eq!(config.reloadable.targets.len(), 2, "{include}");
    }
    fs::write(home.path("targets.d/other.toml"), "[server]\nname = \"x\"\n").unwrap();
    assert!(home.mistakes(&text).contains("targets.d/other.toml:1: server: is not a known key"));
}

#[test]
fn a_reload_tells_what_changed_and_what_needs_a_restart() {
    let home = Home::new();
    let before = home.load(&good()).unwrap();
    assert_eq!(before.diff(&home.load(&good()).unwrap()), sallyport::config::Diff::default());
    let changed = good()
        .replace("[postgres]", "[postgres]\nmax_connections = 7\nidle_timeout = \"5m\"")
        .replace("ledger_owner", "ledger_writer");
    let second = TARGET.replace("\"ledger-prod\"\nkind", "\"ledger-uat\"\nkind");
    let after = home.load(&format!("{changed}{second}")).unwrap();
    let diff = before.diff(&after);
    assert_eq!(diff.needs_restart, ["postgres.max_connections", "postgres.idle_timeout"]);
    assert_eq!(diff.added, ["ledger-uat".parse().unwrap()]);
    assert_eq!(diff.changed, ["ledger-prod".parse().unwrap()]);
    assert_eq!(after.diff(&before).removed, ["ledger-uat".parse().unwrap()]);
    home.secret("secrets/ledger-prod", "another");
    let rotated = before.diff(&home.load(&good()).unwrap());
    assert_eq!(rotated.changed, ["ledger-prod".parse().unwrap()], "a rotated password is a change");
    assert!(rotated.needs_restart.is_empty());
}

#[test]
fn every_example_loads() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let mut loaded = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let example = entry.unwrap().path();
        if example.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let home = Home::new();
        fs::copy(home.path("tls/ca.crt"), home.path("tls/databases-ca.crt")).unwrap();
        for secret in ["secrets/ledger-prod", "secrets/ledger-dev"] {
            home.secret(secret, "hunter2");
        }
        fs::create_dir(home.path("targets.d")).unwrap();
        for included in fs::read_dir(examples.join("targets.d")).unwrap() {
            let included = included.unwrap().path();
            fs::copy(&included, home.path("targets.d").join(included.file_name().unwrap())).unwrap();
        }
        let copy = home.path("sallyport.toml");
        fs::copy(&example, &copy).unwrap();
        let config = Config::load_with(&copy, &|_| Some("hunter2".to_owned()))
            .unwrap_or_else(|errors| panic!("{}\n{errors}", example.display()));
        assert!(config.reloadable.targets.len() >= 3, "{}", example.display());
        assert!(
            config.summary().contains("target ledger-prod (prod, bank-core) at ledger.db.bank.example:5432")
        );
        loaded += 1;
    }
    assert!(loaded >= 2);
}

#[test]
fn what_init_makes_loads_as_it_is_and_with_its_example_target() {
    let home = Home::new();
    let text = fs::read_to_string(home.path("sallyport.toml")).unwrap();
    let config = home.load(&text).unwrap();
    assert_eq!(config.server.name, "bastion.bank.example");
    assert_eq!(config.api.public_url, "https://bastion.bank.example:8443");
    assert!(config.summary().contains("no target yet"));
    let at = text.find("# [[target]]").unwrap();
    let uncommented = text[at..].replace("\n# ", "\n").replacen("# [[", "[[", 1).replace("\n#\n", "\n\n");
    let key = public_line(&home.public("host_ed25519"), "");
    let uncommented = uncommented.replace("ssh-ed25519 AAAA…", &key);
    let config = home.load(&format!("{}{uncommented}", &text[..at])).unwrap();
    assert_eq!(config.reloadable.targets.len(), 2);
    assert!(config.ssh.is_some());
}

#[test]
fn init_makes_nothing_where_something_is() {
    let home = Home::new();
    let before = fs::read_to_string(home.path("tls/api.key")).unwrap();
    let error = home.init(&[]).unwrap_err().to_string();
    for name in ["`sallyport.toml`", "`tls`", "`ca`", "`node-id`", "choose another directory"] {
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(fs::read_to_string(home.path("tls/api.key")).unwrap(), before);
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes.txt"), "mine").unwrap();
    let audit_key = |_: &Path| Ok(());
    let init = Init { dir: other.path(), names: &[], now: NOW, audit_key: &audit_key };
    assert!(init::init(&init).unwrap_err().to_string().contains("`notes.txt`"));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn init_refuses_names_that_no_certificate_can_carry() {
    let home = Home { dir: tempfile::tempdir().unwrap() };
    for name in ["", "a b", "https://x", "bastion:8443"] {
        let error = home.init(&[name.to_owned()]).unwrap_err();
        assert!(matches!(error, InitError::MalformedName(_)), "{name}");
        assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn an_audit_key_that_cannot_be_made_fails_init() {
    let dir = tempfile::tempdir().unwrap();
    let audit_key = |_: &Path| Err("no entropy".into());
    let init = Init { dir: &dir.path().join("new"), names: &[], now: NOW, audit_key: &audit_key };
    assert!(matches!(init::init(&init), Err(InitError::AuditKey(_))));
}

#[test]
fn what_init_makes_is_the_owners_alone() {
    let home = Home::new();
    let mode = |name: &str| fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    for dir in ["", "tls", "ca", "ssh", "secrets", "audit"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in ["ca/ca.key", "tls/api.key", "tls/postgres.key", "node-id", "server-secret", "sallyport.toml"]
    {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    for name in ["host_ed25519", "host_ca", "user_ca", "login_ca"] {
        assert_eq!(mode(&format!("ssh/{name}")), 0o600, "{name}");
        assert_eq!(mode(&format!("ssh/{name}.pub")), 0o644, "{name}");
        let private = parse_private(&fs::read_to_string(home.path(&format!("ssh/{name}"))).unwrap()).unwrap();
        assert_eq!(private.public_key().key_data(), home.public(name).key_data());
    }
    assert!(home.path("audit/signing.key").exists());
    assert!(!home.path("tls/ca.key").exists(), "the authority's key is apart from what the server reads");
}

#[test]
fn what_makes_a_node_itself_is_read_back_and_differs_between_nodes() {
    let (a, b) = (Home::new(), Home::new());
    let ids = [&a, &b].map(|home| init::read_node_id(home.dir.path()).unwrap());
    assert_ne!(ids[0], ids[1]);
    let secrets = [&a, &b].map(|home| init::read_server_secret(home.dir.path()).unwrap());
    assert_eq!(secrets[0].expose().len(), 32);
    assert_ne!(secrets[0].expose(), secrets[1].expose());
    fs::write(a.path("node-id"), "ses-0000000000000000").unwrap();
    fs::write(a.path("server-secret"), "00").unwrap();
    assert!(init::read_node_id(a.dir.path()).is_err());
    assert!(init::read_server_secret(a.dir.path()).is_err());
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn verifier(home: &Home) -> Arc<WebPkiServerVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&home.path("tls/ca.crt"))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
}

fn at(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(now.since(Timestamp::from_micros(0)))
}

#[test]
fn the_certificates_verify_against_the_authority_for_the_names_given() {
    let home = Home::new();
    let verifier = verifier(&home);
    for file in ["tls/api.crt", "tls/postgres.crt"] {
        let leaf = certificate(&home.path(file));
        let verify = |name: &'static str, when| {
            verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name).unwrap(), &[], at(when))
        };
        for name in ["localhost", "127.0.0.1", "::1", "bastion.bank.example"] {
            verify(name, NOW).unwrap_or_else(|error| panic!("{file} {name}: {error}"));
        }
        assert!(verify("other.bank.example", NOW).is_err());
        let days = |days: u64| NOW.plus(Duration::from_hours(24 * days));
        assert!(verify("localhost", days(init::certificates::SERVER_DAYS - 1)).is_ok());
        assert!(verify("localhost", days(init::certificates::SERVER_DAYS + 1)).is_err());
    }
    let other = Home::new();
    let foreign = certificate(&other.path("tls/api.crt"));
    let localhost = ServerName::try_from("localhost").unwrap();
    assert!(verifier.verify_server_cert(&foreign, &[], &localhost, &[], at(NOW)).is_err());
}

#[test]
fn the_keys_are_p_256_and_belong_to_their_certificates() {
    let home = Home::new();
    // The object identifier of prime256v1 (RFC 5480, section 2.1.1.1), in DER.
    let prime256v1 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    for stem in ["ca/ca", "tls/api", "tls/postgres"] {
        let key = rcgen::KeyPair::from_pem(&fs::read_to_string(home.path(&format!("{stem}.key"))).unwrap())
            .unwrap();
        assert!(key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256), "{stem}");
        let certificate = certificate(&home.path(&format!("{stem}.crt")));
        let contains = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
        assert!(contains(&prime256v1), "{stem}");
        assert!(contains(key.public_key_raw()), "{stem}");
    }
}

#[test]
fn every_key_is_documented() {
    let home = Home::new();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let docs = fs::read_to_string(docs).unwrap();
    let unknown =
        |from: &str| home.mistakes(&good().replacen(from, &format!("{from}\nzzzzzzzzzzzzzzzz = 1"), 1));
    let mut told: Vec<String> =
        ["[server]", "[api]", "[postgres]", "[[target]]", "[target.admin]"].map(unknown).into();
    for section in ["audit", "login", "policies"] {
        told.push(home.mistakes(&format!("{}\n[{section}]\nzzzzzzzzzzzzzzzz = 1", good())));
    }
    told.push(home.mistakes(&format!("zzzzzzzzzzzzzzzz = 1\n{}", good())));
    for section in ["[ssh]", "kind = \"ssh\""] {
        let text = home.good_ssh().replacen(section, &format!("{section}\nzzzzzzzzzzzzzzzz = 1"), 1);
        told.push(home.mistakes(&text));
    }
    let mut keys = 0;
    for message in told {
        let (_, known) = message.split_once("there are ").unwrap();
        for key in known.split(", ") {
            let section = key.trim_matches('`');
            let documented = docs.contains(key) || docs.contains(&format!("[{section}]`"));
            assert!(documented || docs.contains(&format!("[[{section}]]`")), "{key}");
            keys += 1;
        }
    }
    assert!(keys > 60, "{keys}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_configuration_is_read_or_refused_with_a_message(
        from in 0_usize..600, length in 0_usize..40, with in "[\\[\\]{}=\"a-z0-9. \n]{0,12}",
    ) {
        let home = Home::new();
        let mut text = good();
        let from = from.min(text.len());
        text.replace_range(from..(from + length).min(text.len()), &with);
        if let Err(told) = home.load(&text) {
            prop_assert!(!told.is_empty());
            prop_assert!(!told.contains("cannot be used"), "a mistake without a message in:\n{}", text);
            prop_assert!(!told.contains("hunter2"), "{}", told);
        }
    }
}
