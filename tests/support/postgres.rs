//! A real PostgreSQL server of the test's own: TLS, scram-sha-256, a free port, a temporary cluster.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::process::{Finished, Running, wait_until};

pub const SUPERUSER_PASSWORD: &str = "owner of everything";
pub const ADMIN_PASSWORD: &str = "makes and drops roles";

/// What the target's databases start with.
const SETUP: &str = "
CREATE ROLE ledger_readonly NOLOGIN;
CREATE ROLE ledger_owner NOLOGIN;
CREATE ROLE sallyport_admin LOGIN CREATEROLE PASSWORD 'makes and drops roles';
GRANT pg_signal_backend TO sallyport_admin;
GRANT ledger_readonly, ledger_owner TO sallyport_admin WITH ADMIN OPTION;
CREATE DATABASE ledger OWNER ledger_owner;
CREATE DATABASE archive OWNER ledger_owner;
\\c ledger
GRANT ALL ON SCHEMA public TO ledger_owner;
SET ROLE ledger_owner;
CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL);
INSERT INTO accounts SELECT n, 'customer ' || n, n * 10 FROM generate_series(1, 100) n;
GRANT SELECT ON accounts TO ledger_readonly;
";

#[derive(Debug)]
pub struct Postgres {
    // Dropped first: the server must not outlive its directory.
    server: Option<Running>,
    dir: TempDir,
    pub port: u16,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With settings (`name=value`) of the test's own.
    pub fn start_with(settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let template = template();
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(&template).arg(&data));
        let mut postgres = Self { server: None, dir, port: free_port() };
        postgres.boot(settings);
        postgres
    }

    /// A standby that follows this server, and serves reads.
    pub fn start_standby(&self) -> Self {
        let anybody = "hostssl all all 127.0.0.1/32 scram-sha-256";
        self.admit(&format!("{anybody}\nhostssl replication postgres 127.0.0.1/32 scram-sha-256"));
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let owner = self.data().metadata().unwrap();
        std::os::unix::fs::chown(&data, Some(owner.uid()), Some(owner.gid())).unwrap();
        let mut copy = unprivileged(&server_program("pg_basebackup"));
        copy.arg("-D").arg(&data).args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d"]);
        copy.arg(format!("host=127.0.0.1 port={} user=postgres sslmode=require", self.port));
        run(copy.env("PGPASSWORD", SUPERUSER_PASSWORD).env("HOME", dir.path()));
        let mut standby = Self { server: None, dir, port: free_port() };
        standby.boot(&[]);
        standby
    }

    fn boot(&mut self, settings: &[&str]) {
        let mut command = unprivileged(&server_program("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        // A standby's connection to its primary looks there for certificates.
        command.arg("-k").arg(self.data()).env("HOME", self.dir.path());
        for setting in settings {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(Running::start(&mut command));
        wait_until("PostgreSQL answers", || self.query("postgres", "SELECT 1").status.success());
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().pid()
    }

    /// Stops it at once; connections break.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::QUIT);
            server.finish();
        }
    }

    pub fn restart(&mut self) {
        self.stop();
        self.boot(&[]);
    }

    /// Who may log in how: lines of `pg_hba.conf` beside the superuser's own, in force on return.
    pub fn admit(&self, lines: &str) {
        let path = self.data().join("pg_hba.conf");
        fs::write(path, format!("hostssl all postgres 127.0.0.1/32 scram-sha-256\n{lines}\n")).unwrap();
        self.reload();
    }

    /// Has the server read its configuration anew.
    pub fn reload(&self) {
        let loaded = || self.value("postgres", "SELECT pg_conf_load_time()");
        let before = loaded();
        self.query("postgres", "SELECT pg_reload_conf()").success();
        // New connections are forked from the process that reads the configuration.
        wait_until("the configuration is read anew", || loaded() != before);
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.data().join("ca.crt")
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Any program of PostgreSQL's past the gateway, as the superuser.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>, database: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", SUPERUSER_PASSWORD)
            .env("PGDATABASE", database)
            .env("PGSSLMODE", "require")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// A query past the gateway, as the superuser.
    pub fn query(&self, database: &str, sql: &str) -> Finished {
        let mut psql = self.client("psql", database);
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap().into()
    }

    /// The first column of the first row.
    #[track_caller]
    pub fn value(&self, database: &str, sql: &str) -> String {
        self.query(database, sql).success().stdout.trim_end().to_owned()
    }

    /// The roles that Sallyport made and has not dropped.
    /// Has server processes stand still that `which`, a condition on `pg_stat_activity`, picks, until it is dropped.
    pub fn stand_still(&self, which: &str) -> StandingStill {
        let of = format!("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE {which}");
        let pids = self.value("postgres", &of);
        let pids = pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
        let still = StandingStill(pids);
        assert!(!still.0.is_empty(), "{which}");
        still.0.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
        still
    }

    pub fn session_roles(&self) -> Vec<String> {
        let sql = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'sp\\_%' ORDER BY 1";
        self.value("postgres", sql).lines().map(str::to_owned).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nothing listens on. The kernel's own choice could be taken for somebody's outgoing connection
/// before it is used: this is none of those, and each test process begins elsewhere.
/// Server processes that do nothing, not even end, until this is dropped.
pub struct StandingStill(Vec<Pid>);

impl Drop for StandingStill {
    fn drop(&mut self) {
        for pid in &self.0 {
            // Fails where it is gone.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    let begin = std::process::id().wrapping_mul(157);
    for _ in PORTS {
        let next = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into());
        let port = PORTS.start + u16::try_from(next % u32::from(PORTS.end - PORTS.start)).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free")
}

/// PostgreSQL refuses to run as root.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `program`, run as somebody who is not root, and killed should the test die.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(program).env("LC_ALL", "C");
    command
}

/// Debian keeps the server's programs out of the path. `SALLYPORT_TEST_POSTGRES` names a directory with others.
pub fn server_program(name: &str) -> PathBuf {
    let other = std::env::var_os("SALLYPORT_TEST_POSTGRES").map(|directory| Path::new(&directory).join(name));
    if let Some(other) = other.filter(|program| program.exists()) {
        return other;
    }
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions
                .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
                .filter(|program| program.exists())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

#[track_caller]
fn run(command: &mut Command) -> Finished {
    let finished: Finished = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")).into();
    finished.success()
}

/// A cluster that was set up once and is copied by every test.
fn template() -> PathBuf {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // One of another version's is of no use.
    let version = run(Command::new(server_program("postgres")).arg("--version")).stdout;
    let version = version.trim().replace(|char: char| !char.is_ascii_alphanumeric(), "-");
    let (ready, lock) = (home.join(format!("pg-template-3-{version}")), home.join("pg-template.lock"));
    let lock = fs::File::create(lock).unwrap();
    lock.lock().unwrap();
    if !ready.exists() {
        let building = home.join(format!("pg-template-{}", std::process::id()));
        let _ = fs::remove_dir_all(&building);
        build_template(&building);
        fs::rename(&building, &ready).unwrap();
    }
    ready
}

fn build_template(data: &Path) {
    // Made where an unprivileged user may write, then moved.
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let cluster = scratch.path().join("data");
    let password_file = scratch.path().join("password");
    fs::write(&password_file, SUPERUSER_PASSWORD).unwrap();
    let mut initdb = unprivileged(&server_program("initdb"));
    initdb.args(["-U", "postgres", "--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]);
    initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&cluster);
    run(&mut initdb);
    let config = "listen_addresses = '127.0.0.1'\nssl = on\nssl_cert_file = 'server.crt'\n\
        ssl_key_file = 'server.key'\nfsync = off\nmax_connections = 300\nlogging_collector = off\n\
        shared_buffers = 32MB\n";
    let path = cluster.join("postgresql.conf");
    fs::write(&path, fs::read_to_string(&path).unwrap() + config).unwrap();
    fs::write(cluster.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    write_certificates(&cluster);
    let owner = cluster.metadata().unwrap();
    for name in ["ca.crt", "server.crt", "server.key"] {
        std::os::unix::fs::chown(cluster.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    set_up(&cluster);
    run(Command::new("cp").arg("-a").arg(&cluster).arg(data));
}

/// Runs [`SETUP`] in the fresh cluster.
fn set_up(cluster: &Path) {
    let port = free_port();
    let mut command = unprivileged(&server_program("postgres"));
    command.arg("-D").arg(cluster).args(["-p", &port.to_string()]).arg("-k").arg(cluster);
    let server = Running::start_quietly(&mut command);
    let psql = |arguments: &[&str], input: &str| -> Finished {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let script = cluster.with_file_name(format!("script-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&script, input).unwrap();
        let url = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=require");
        let mut psql = Command::new("psql");
        psql.arg(url).args(["-Xq", "-v", "ON_ERROR_STOP=1"]).args(arguments).arg("-f").arg(&script);
        psql.env("PGPASSWORD", SUPERUSER_PASSWORD).output().unwrap().into()
    };
    wait_until("the template's server answers", || psql(&[], "SELECT 1").status.success());
    psql(&[], SETUP).success();
    // A smart shutdown waits for nobody here and leaves a clean cluster.
    server.signal(Signal::TERM);
    server.finish();
}

/// An authority of the target's own, and a certificate for `localhost`.
fn write_certificates(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // With another name than the certificate: to OpenSSL, one that is issued by its own name has signed itself.
    authority.distinguished_name.push(DnType::CommonName, "the target's authority");
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.crt"), authority_certificate.pem()).unwrap();
    fs::write(dir.join("server.crt"), certificate.pem()).unwrap();
    fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
}
