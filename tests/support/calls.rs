//! Calls and looks that several acceptance tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::bastion::{ADMIN_DIR, Bastion, Granted};
use super::process::{Finished, Running, wait_until};
use super::{Options, Postgres};

impl Bastion {
    /// `POST`, as somebody.
    pub fn post(&self, who: &str, path: &str, body: Value) -> (u16, Value) {
        self.api(Some(who), "POST", path, Some(body))
    }

    /// Asks by the API; the answer as it is, a refusal included.
    pub fn try_ask(&self, who: &str, target: &str, seconds: Option<u64>) -> (u16, Value) {
        let mut body = json!({ "target": target, "access": "readonly", "reason": "a test" });
        if let Some(seconds) = seconds {
            body["duration_seconds"] = seconds.into();
        }
        self.post(who, "/pam/request", body)
    }

    pub fn approve(&self, who: &str, request: &str) -> (u16, Value) {
        self.post(who, "/pam/approve", json!({ "request": request }))
    }

    /// Approves what must be approvable; gives the request and perhaps the session.
    #[track_caller]
    pub fn approved(&self, who: &str, request: &str) -> Value {
        let (status, body) = self.approve(who, request);
        assert_eq!(status, 200, "{body}");
        body
    }

    #[track_caller]
    pub fn request(&self, who: &str, request: &str) -> Value {
        let (status, body) = self.api(Some(who), "GET", &format!("/pam/requests/{request}"), None);
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A session as its holder sees it.
    #[track_caller]
    pub fn session(&self, who: &str, session: &str) -> Value {
        let (status, body) = self.api(Some(who), "GET", "/pam/sessions?mine=true&all=true", None);
        assert_eq!(status, 200, "{body}");
        let items = body["items"].as_array().unwrap();
        items.iter().find(|item| item["id"] == session).unwrap_or_else(|| panic!("{body}")).clone()
    }

    /// Break-glass by olga, who is on call.
    #[track_caller]
    pub fn break_glass(&self, target: &str) -> Granted {
        let body = json!({
            "target": target, "access": "readonly", "reason": "the ledger is down", "break_glass": true
        });
        let (status, body) = self.post("olga", "/pam/request", body);
        assert_eq!(status, 201, "{body}");
        Granted { request: text(&body["request"]["id"]), session: text(&body["session"]["id"]) }
    }

    /// The real psql in another database than usual.
    pub fn psql_in(&self, database: &str, who: &str, target: &str, sql: &str) -> Finished {
        let conninfo = self.conninfo(who, target).replace("dbname=ledger", &format!("dbname={database}"));
        let mut command = Command::new("psql");
        command
            .arg(conninfo)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", sql])
            .env("PGPASSWORD", self.token(who))
            .env("LC_ALL", "C");
        command.output().unwrap().into()
    }

    /// A client of its own runtime with a connection through the gateway.
    #[track_caller]
    pub fn driver(&self, who: &str, target: &str) -> Driver {
        self.try_driver(who, target, &self.token(who)).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub fn try_driver(
        &self,
        who: &str,
        target: &str,
        password: &str,
    ) -> Result<Driver, tokio_postgres::Error> {
        let (config, tls) = self.driver_config(who, target, password);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (client, connection) = runtime.block_on(config.connect(tls))?;
        runtime.spawn(connection);
        Ok(Driver { client, runtime })
    }

    /// What the driver tokio-postgres needs to connect through the gateway.
    pub fn driver_config(
        &self,
        who: &str,
        target: &str,
        password: &str,
    ) -> (tokio_postgres::Config, MakeRustlsConnect) {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca_file()) {
            roots.add(certificate).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .hostaddr([127, 0, 0, 1].into())
            .port(self.postgres_port)
            .user(format!("{who}+{target}"))
            .password(password)
            .dbname("ledger")
            .application_name("driver")
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        (config, MakeRustlsConnect::new(tls))
    }

    /// The recording that holds the statement whose text contains `sql`, once it has ended.
    #[track_caller]
    pub fn ended_recording_with(&self, sql: &str) -> Vec<Value> {
        let holds = |record: &Value| record["sql"].as_str().is_some_and(|text| text.contains(sql));
        let mut found = Vec::new();
        wait_until("the recording has ended", || {
            let records = self.records();
            let Some(statement) = records.iter().find(|record| holds(record)) else { return false };
            let recording = statement["rec"].clone();
            found = records.into_iter().filter(|record| record["rec"] == recording).collect();
            found.last().is_some_and(|record| record["kind"] == "ended")
        });
        found
    }

    /// Everything that the server keeps: its data directory and its log.
    pub fn kept_files(&self) -> Vec<PathBuf> {
        let mut files = files_under(&self.data());
        files.push(self.scratch().join("log"));
        files
    }
}

/// A bastion whose usual targets stand beside one that only `approvers` may approve for.
pub fn with_target_approved_by(postgres: &Postgres, name: &str, environment: &str, group: &str) -> Bastion {
    let entry = super::bastion::target(name, environment, "bank-core", postgres, Path::new(ADMIN_DIR));
    let entry =
        entry.replace("\n\n[target.admin]", &format!("\napprovers = [\"{group}\"]\n\n[target.admin]"));
    Bastion::start_with(postgres, Options { targets: entry, ..Options::default() })
}

fn certificates(file: &Path) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_file_iter(file).unwrap().map(|one| one.unwrap()).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// A psql client and the runtime that drives it.
#[derive(Debug)]
pub struct Driver {
    pub client: tokio_postgres::Client,
    pub runtime: tokio::runtime::Runtime,
}

impl Driver {
    #[track_caller]
    pub fn simple(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.simple_query(sql)).map(drop)
    }
}

pub fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// Which of `files` hold `needle`.
pub fn holders<'a>(files: &'a [PathBuf], needle: &str) -> Vec<&'a PathBuf> {
    files.iter().filter(|file| holds(&fs::read(file).unwrap_or_default(), needle.as_bytes())).collect()
}

pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Whether `text` holds the password that `verifier` (as in `pg_authid`) was made from: every word
/// of the form that such passwords have is tried.
pub fn holds_password_of(text: &[u8], verifier: &str) -> bool {
    let mut parts = verifier.strip_prefix("SCRAM-SHA-256$").expect("a verifier").split([':', '$']);
    let iterations = parts.next().unwrap().parse().unwrap();
    let salt = data_encoding::BASE64.decode(parts.next().unwrap().as_bytes()).unwrap();
    let salt: [u8; 16] = salt.try_into().unwrap();
    let mut words: Vec<&[u8]> = text
        .split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')))
        .filter(|word| word.len() == PASSWORD_LENGTH)
        .collect();
    words.sort_unstable();
    words.dedup();
    words.into_iter().any(|word| {
        let word = std::str::from_utf8(word).unwrap();
        sallyport::crypto::scram::Verifier::derive(word, salt, iterations).to_postgres() == verifier
    })
}

/// 32 random bytes in base64.
const PASSWORD_LENGTH: usize = 43;

/// A psql told to be exact about errors, at work on one long statement.
pub fn psql_at_work(bastion: &Bastion, postgres: &Postgres, who: &str, target: &str) -> Running {
    let sql = "SELECT pg_sleep(600) /* at work */";
    let mut command = bastion.psql_command(who, target, &["-v", "VERBOSITY=verbose", "-c", sql]);
    let running = Running::start_quietly(&mut command);
    wait_until("the target is at work", || backends_at_work(postgres) == "1");
    running
}

/// How many server processes run what [`psql_at_work`] began.
pub fn backends_at_work(postgres: &Postgres) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* at work */' \
               AND pid <> pg_backend_pid()";
    postgres.value("postgres", sql)
}
