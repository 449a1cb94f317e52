//! The configuration: what is wrong with one is told all at once, and what `init` makes works.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "config/init.rs"]
mod init_makes;
#[path = "config/ssh.rs"]
mod ssh;

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
        "ca_file = \"tls/ledger-ca.crt\"",
        "ca_file = \"tls/ledger-ca.crt\"\nclient_cert_file = \"tls/ledger-ca.crt\"",
        "target[1].client_key_file: is missing: name the PEM file of the certificate's key",
    ),
    (
        "ca_file = \"tls/ledger-ca.crt\"",
        "ca_file = \"tls/ledger-ca.crt\"\nclient_cert_file = \"tls/ledger-ca.crt\"\nclient_key_file = \"none.key\"",
        "target[1].client_key_file: `none.key`",
    ),
    (
        "ca_file = \"tls/ledger-ca.crt\"",
        "ca_file = \"tls/ledger-ca.crt\"\nprotocol = \"4\"",
        "target[1].protocol: is `4`: write",
    ),
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
