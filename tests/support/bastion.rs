//! The real `sallyport` binary as a child process, with people who are logged in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::postgres::{ADMIN_PASSWORD, Postgres, free_port};
use super::process::{Finished, PATIENCE, Running, wait_until};

/// Everybody's.
pub const PASSWORD: &str = "correct horse battery staple";

/// Everybody in the tests: name, home domain, groups.
pub const PEOPLE: [(&str, &str, &[&str]); 8] = [
    ("alice", "bank-core", &["requesters"]),
    ("bob", "bank-core", &["approvers"]),
    ("carol", "bank-core", &["approvers"]),
    ("dave", "bank-kyc", &["approvers"]),
    ("erin", "bank-core", &["admins", "security"]),
    ("frank", "bank-core", &["compliance"]),
    ("olga", "bank-core", &["requesters", "oncall"]),
    ("kim", "bank-kyc", &["requesters"]),
];

/// Stands in [`Options::targets`] for the directory where the admin's password is.
pub const ADMIN_DIR: &str = "ADMIN-DIR";

/// What a test wants otherwise than usual.
#[derive(Debug, Default)]
pub struct Options {
    /// Lines for sections: `("postgres", "max_handshakes = 5")`.
    pub settings: Vec<(&'static str, String)>,
    /// Whole `[[target]]` entries beside the usual ones.
    pub targets: String,
    /// Wraps the server's command line, for example in `unshare`.
    pub wrapper: Vec<String>,
    /// For the server's environment.
    pub environment: Vec<(&'static str, String)>,
    /// Where the audit log can be read, when it is not in the data directory.
    pub audit_dir: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Bastion {
    server: Option<Running>,
    dir: TempDir,
    options: Options,
    /// `[[target]]` entries of the usual databases, where there are any.
    databases: String,
    has_ssh: bool,
    runtime: tokio::runtime::Runtime,
    pub postgres_port: u16,
    pub api_port: u16,
    pub ssh_port: u16,
}

/// A request that was approved, and its session.
#[derive(Debug, Clone)]
pub struct Granted {
    pub request: String,
    pub session: String,
}

impl Bastion {
    pub fn start(postgres: &Postgres) -> Self {
        Self::start_with(postgres, Options::default())
    }

    pub fn start_with(postgres: &Postgres, options: Options) -> Self {
        let mut bastion = Self::prepare(postgres, options);
        bastion.boot();
        bastion.log_everybody_in();
        bastion
    }

    /// With these people logged in and no others.
    pub fn start_for(postgres: &Postgres, options: Options, people: &[&str]) -> Self {
        let mut bastion = Self::prepare(postgres, options);
        bastion.boot();
        for name in people {
            bastion.log_in(name).success();
        }
        bastion
    }

    /// Everything but the running server.
    pub fn prepare(postgres: &Postgres, options: Options) -> Self {
        Self::prepare_for(Some(postgres), options, false)
    }

    /// As [`Self::prepare`], with an SSH gateway; without databases where there is no server for them.
    pub fn prepare_hosts(postgres: Option<&Postgres>, options: Options) -> Self {
        Self::prepare_for(postgres, options, true)
    }

    fn prepare_for(postgres: Option<&Postgres>, options: Options, has_ssh: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("sallyport").tempdir().unwrap();
        // With a thread of its own: connections that are kept must notice that the server closes.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let [postgres_port, api_port, ssh_port] = [free_port(), free_port(), free_port()];
        let databases = postgres.map_or_else(String::new, |postgres| databases(postgres, dir.path()));
        let server = None;
        let bastion =
            Self { server, dir, options, databases, has_ssh, runtime, postgres_port, api_port, ssh_port };
        bastion.operator(&["init", bastion.data().to_str().unwrap()]).success();
        let secret = bastion.dir.path().join("admin-password");
        fs::write(&secret, ADMIN_PASSWORD).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        bastion.write_config();
        for (name, domain, groups) in PEOPLE {
            bastion.add_user(name, domain, groups);
        }
        bastion
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.data().join("sallyport.toml")
    }

    pub fn audit_dir(&self) -> PathBuf {
        self.options.audit_dir.clone().unwrap_or_else(|| self.data().join("audit"))
    }

    pub fn verify_key(&self) -> PathBuf {
        self.data().join("audit-verify.key")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.data().join("tls/ca.crt")
    }

    /// A directory of the test's own beside the server's.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The usual targets and those of the options.
    pub fn write_config(&self) {
        let (data, dir) = (self.data(), self.dir.path());
        let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let tls = |name: &str| {
            vec![format!("certificate = \"tls/{name}.crt\""), format!("key = \"tls/{name}.key\"")]
        };
        sections.insert("server", vec!["name = \"test\"".into(), "data_dir = \".\"".into()]);
        sections.insert("api", tls("api"));
        sections.insert("postgres", tls("postgres"));
        sections.entry("api").or_default().extend([
            format!("listen = \"127.0.0.1:{}\"", self.api_port),
            format!("public_url = \"https://localhost:{}\"", self.api_port),
        ]);
        sections
            .entry("postgres")
            .or_default()
            .push(format!("listen = \"127.0.0.1:{}\"", self.postgres_port));
        if self.has_ssh {
            sections.insert("ssh", self.ssh_section());
        }
        // Small files: a test's log is short, and a full 64 MiB for each would fill the disk.
        sections.insert("audit", vec!["segment_bytes = 4194304".into()]);
        for (section, line) in &self.options.settings {
            let key = line.split('=').next().unwrap().trim().to_owned();
            let lines = sections.entry(section).or_default();
            lines.retain(|existing| existing.split('=').next().unwrap().trim() != key);
            lines.push(line.clone());
        }
        let mut text = String::new();
        for (section, lines) in sections {
            writeln!(text, "[{section}]\n{}\n", lines.join("\n")).unwrap();
        }
        text += &self.databases;
        text += &self.options.targets.replace(ADMIN_DIR, dir.to_str().unwrap());
        fs::write(data.join("sallyport.toml"), text).unwrap();
    }

    fn ssh_section(&self) -> Vec<String> {
        let key = |name: &str, file: &str| format!("{name} = \"ssh/{file}\"");
        vec![
            format!("listen = \"127.0.0.1:{}\"", self.ssh_port),
            key("host_key", "host_ed25519"),
            key("host_ca", "host_ca"),
            key("user_ca", "user_ca"),
            key("login_ca", "login_ca"),
        ]
    }

    /// Other targets than those in the options; in force at the next start or reload.
    pub fn set_targets(&mut self, targets: &str) {
        targets.clone_into(&mut self.options.targets);
        self.write_config();
    }

    /// Another environment; from the next start on.
    pub fn set_environment(&mut self, environment: &[(&'static str, &str)]) {
        let owned = environment.iter().map(|(name, value)| (*name, (*value).to_owned()));
        self.options.environment = owned.collect();
    }

    pub fn add_user(&self, name: &str, domain: &str, groups: &[&str]) {
        let config = self.config_file();
        let mut arguments = vec!["user", "add", name, "--config", config.to_str().unwrap()];
        arguments.extend(["--domain", domain, "--password-stdin"]);
        for group in groups {
            arguments.extend(["--group", group]);
        }
        run_with_input(self.command(&arguments), PASSWORD).success();
    }

    /// Starts the server and waits until it says that it is ready (`sd_notify`).
    pub fn boot(&mut self) {
        let socket = self.dir.path().join("notify");
        let _ = fs::remove_file(&socket);
        let ready = UnixDatagram::bind(&socket).unwrap();
        ready.set_read_timeout(Some(PATIENCE)).unwrap();
        self.spawn(&socket);
        let mut message = [0; 64];
        let length = loop {
            match ready.recv(&mut message) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.unwrap_or_else(|error| panic!("{error}: {}", self.log())),
            }
        };
        assert!(message[..length].starts_with(b"READY=1"), "{:?}", &message[..length]);
    }

    /// Starts the server without waiting for it.
    pub fn spawn(&mut self, notify: &Path) {
        let binary = env!("CARGO_BIN_EXE_sallyport");
        let mut line = vec!["setpriv".to_owned(), "--pdeathsig".into(), "KILL".into()];
        line.extend(self.options.wrapper.iter().cloned());
        line.extend([binary.to_owned(), "serve".into(), "--config".into()]);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(self.config_file()).env("NOTIFY_SOCKET", notify);
        command.envs(super::amazon::ENVIRONMENT);
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(Running::start(&mut command));
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn server(&mut self) -> &mut Running {
        self.server.as_mut().expect("the server was started")
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server was started").pid()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        self.server.as_ref().expect("the server was started").signal(signal);
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> Finished {
        self.signal(rustix::process::Signal::TERM);
        self.server.take().unwrap().finish()
    }

    /// Waits for an end that was already asked for, or that the server chose itself.
    pub fn ended(&mut self) -> Finished {
        self.server.take().unwrap().finish()
    }

    /// Starts a server that is expected to refuse, and gives its end. What it said is in the log.
    pub fn refuses_to_start(&mut self) -> Finished {
        let before = self.log().len();
        self.spawn(Path::new("/nonexistent"));
        let finished = self.ended();
        Finished { stderr: self.log()[before..].to_owned(), ..finished }.failure()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.server.take());
    }

    fn log_everybody_in(&self) {
        for (name, ..) in PEOPLE {
            self.log_in(name).success();
        }
    }

    pub fn log_in(&self, name: &str) -> Finished {
        let server = format!("https://localhost:{}", self.api_port);
        let ca = self.ca_file();
        let arguments =
            ["login", "--server", &server, "--ca", ca.to_str().unwrap(), "--user", name, "--password-stdin"];
        let mut command = self.command(&arguments);
        command.env("SALLYPORT_HOME", self.home(name));
        run_with_input(command, PASSWORD)
    }

    /// Where a person's client keeps its state.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    pub fn token(&self, name: &str) -> String {
        let state = fs::read_to_string(self.home(name).join("client.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["token"].as_str().expect("logged in").to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(arguments).env("HOME", self.dir.path()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `sallyport …` on the server's host.
    pub fn operator(&self, arguments: &[&str]) -> Finished {
        self.command(arguments).output().unwrap().into()
    }

    pub fn command_as(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("SALLYPORT_HOME", self.home(who));
        command
    }

    /// `sallyport …` as somebody who is logged in.
    pub fn run_as(&self, who: &str, arguments: &[&str]) -> Finished {
        self.command_as(who, arguments).output().unwrap().into()
    }

    /// A call of the API: status and body.
    pub fn api(&self, who: Option<&str>, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = who.map(|who| self.token(who));
        self.runtime.block_on(async {
            let ca = reqwest::Certificate::from_pem(&fs::read(self.ca_file()).unwrap()).unwrap();
            let client = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
            let url = format!("https://localhost:{}{path}", self.api_port);
            let mut request = client.request(method.parse().unwrap(), url).timeout(PATIENCE);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.json(&body);
            }
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// The value of a metric without labels; NaN when there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.api(Some("erin"), "GET", "/metrics", None);
        assert_eq!(status, 200, "{text}");
        let lines = text.as_str().unwrap().lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().map_or(f64::NAN, |value| value.parse().unwrap())
    }

    /// Waits until the stream has all that is durable. A call that fails is made again after a while by the server's clock,
    /// which therefore moves.
    #[track_caller]
    pub fn until_sent(&self) {
        let mut looks = 0;
        wait_until("the stream has it", || {
            looks += 1;
            if looks % 50 == 0 {
                self.pass(1);
            }
            self.metric("sallyport_stream_backlog_records") == 0.0
        });
    }

    /// Moves the server's clock and lets it do what time brings.
    pub fn advance(&self, seconds: u64) {
        let (status, body) =
            self.api(None, "POST", "/testing/clock", Some(json!({ "advance_seconds": seconds })));
        assert_eq!(status, 200, "{body}");
    }

    /// Moves the server's clock; what time brings comes with the server's own rounds.
    pub fn pass(&self, seconds: u64) {
        let body = json!({ "advance_seconds": seconds, "leave": true });
        let (status, body) = self.api(None, "POST", "/testing/clock", Some(body));
        assert_eq!(status, 200, "{body}");
    }

    /// Asks without waiting for anybody; gives the request's id.
    #[track_caller]
    pub fn ask(&self, who: &str, target: &str, access: &str, seconds: u64) -> String {
        let duration = format!("{seconds}s");
        let arguments = ["request", target, access, "--for", &duration, "--reason", "a test", "--json"];
        let finished = self.run_as(who, &arguments).success();
        finished.json()["request"]["id"].as_str().unwrap_or_else(|| panic!("{}", finished.stdout)).to_owned()
    }

    /// Asks, has `approvers` approve, and gives the session.
    #[track_caller]
    pub fn grant(&self, who: &str, target: &str, access: &str, seconds: u64, approvers: &[&str]) -> Granted {
        let request = self.ask(who, target, access, seconds);
        for approver in approvers {
            self.run_as(approver, &["approve", &request]).success();
        }
        let (status, body) = self.api(Some(who), "GET", &format!("/pam/requests/{request}"), None);
        assert_eq!(status, 200, "{body}");
        let view = body.get("request").unwrap_or(&body);
        assert_eq!(view["state"], "approved", "{body}");
        Granted { request, session: view["session"].as_str().unwrap().to_owned() }
    }

    /// A session for alice on a production target, approved by the two who can.
    #[track_caller]
    pub fn grant_prod(&self, access: &str) -> Granted {
        self.grant("alice", "ledger-prod", access, 3600, &["bob", "carol"])
    }

    /// The connection string for `who` on `target`.
    pub fn conninfo(&self, who: &str, target: &str) -> String {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={who}+{target} dbname=ledger sslmode=verify-full \
             sslrootcert={}",
            self.postgres_port,
            self.ca_file().display()
        )
    }

    pub fn psql_command(&self, who: &str, target: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("psql");
        command
            .arg(self.conninfo(who, target))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
            .args(arguments)
            .env("PGPASSWORD", self.token(who))
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Any program of PostgreSQL's, through the gateway: libpq takes its settings from the environment.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>, who: &str, target: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", "localhost")
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGPORT", self.postgres_port.to_string())
            .env("PGUSER", format!("{who}+{target}"))
            .env("PGPASSWORD", self.token(who))
            .env("PGDATABASE", "ledger")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.ca_file())
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// The real psql, through the gateway.
    pub fn psql(&self, who: &str, target: &str, sql: &str) -> Finished {
        self.psql_command(who, target, &["-c", sql]).output().unwrap().into()
    }

    /// A psql that runs one long statement; returns once the target is at work on it.
    pub fn psql_sleeping(&self, postgres: &Postgres, who: &str, target: &str) -> Running {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let mark = format!("nap {}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let sql = format!("SELECT pg_sleep(600) /* {mark} */");
        let running = Running::start_quietly(&mut self.psql_command(who, target, &["-c", &sql]));
        let at_work = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{mark} */' \
             AND pid <> pg_backend_pid()"
        );
        wait_until("the target is at work", || postgres.value("postgres", &at_work) == "1");
        running
    }

    /// Every record of the audit log, as JSON, in order.
    pub fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        self.each_record(|record| records.push(record));
        records
    }

    /// As [`Self::records`], one after the other: for logs that are long.
    pub fn each_record(&self, mut each: impl FnMut(Value)) {
        for file in journal_files(&self.audit_dir()) {
            let bytes = fs::read(file).unwrap();
            let begun = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            // A line may be read while it is being written.
            let written = bytes[..begun].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            for line in bytes[..written].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let json = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap();
                each(serde_json::from_slice(json).unwrap());
            }
        }
    }

    /// The control events of one action, in order.
    pub fn events(&self, action: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["action"] == action).collect()
    }

    /// The records of one recording, in order.
    pub fn recording(&self, connection: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["rec"] == connection).collect()
    }

    /// Statements of all recordings, in order.
    pub fn statements(&self) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == "statement").collect()
    }

    #[track_caller]
    pub fn verify(&self) -> Finished {
        let (dir, key) = (self.audit_dir(), self.verify_key());
        self.operator(&["audit", "verify", dir.to_str().unwrap(), "--key", key.to_str().unwrap()])
    }

    /// Resident memory of the server, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The files that hold a log's lines, compressed or not, in order.
pub fn journal_files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("journal-"))
        .collect();
    files.sort();
    files
}

/// One database, four faces.
fn databases(postgres: &Postgres, dir: &Path) -> String {
    [
        ("ledger-prod", "prod", "bank-core"),
        ("kyc-prod", "prod", "bank-kyc"),
        ("ledger-uat", "uat", "bank-core"),
        ("ledger-dev", "dev", "bank-core"),
    ]
    .map(|(name, environment, domain)| target(name, environment, domain, postgres, dir))
    .concat()
}

/// A `[[target]]` entry.
pub fn target(name: &str, environment: &str, domain: &str, postgres: &Postgres, dir: &Path) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nkind = \"postgres\"\naddress = \"localhost:{}\"\n\
         connect_to = \"127.0.0.1\"\nca_file = \"{}\"\nenvironment = \"{environment}\"\n\
         domain = \"{domain}\"\ndatabases = [\"ledger\", \"archive\"]\nconnection_limit = 250\n\
         accesses = {{ readonly = \"ledger_readonly\", dba = \"ledger_owner\" }}\n\n\
         [target.admin]\nuser = \"sallyport_admin\"\npassword_file = \"{}\"\n\n",
        postgres.port,
        postgres.ca_file().display(),
        dir.join("admin-password").display(),
    )
}

pub fn run_with_input(mut command: Command, input: &str) -> Finished {
    use std::io::Write as _;
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{input}").unwrap();
    child.wait_with_output().unwrap().into()
}
