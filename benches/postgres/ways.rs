//! The ways to the database that are measured beside each other, each with TLS wherever there is a wire: straight,
//! through `PgBouncer`, through `HAProxy`, and through Sallyport with its audit log on the disk and on a file system in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::bastion::{ADMIN_DIR, target};
use crate::support::postgres::{free_port, unprivileged};
use crate::support::process::{Running, wait_until};
use crate::support::{Bastion, Options, Postgres};

pub(crate) const TARGET: &str = "bench-dev";
const PASSWORD: &str = "measured";
/// Connections that a way must be able to hold.
pub(crate) const CONNECTIONS: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    PgBouncer,
    HaProxy,
    /// The audit log on the disk of `$TMPDIR`.
    Durable,
    /// The audit log in memory, where a sync costs nothing: what all but the disk costs.
    Memory,
}

pub(crate) const WAYS: [Way; 5] = [Way::Direct, Way::PgBouncer, Way::HaProxy, Way::Durable, Way::Memory];

impl Way {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer => "PgBouncer",
            Self::HaProxy => "HAProxy",
            Self::Durable => "Sallyport, durable",
            Self::Memory => "Sallyport, tmpfs",
        }
    }
}

#[derive(Debug)]
pub(crate) struct World {
    // Dropped first: they are in front of the server.
    bouncer: Running,
    haproxy: Running,
    bouncer_port: u16,
    haproxy_port: u16,
    durable: Bastion,
    memory: Bastion,
    postgres: Postgres,
    _directory: tempfile::TempDir,
    _audit: tempfile::TempDir,
}

impl World {
    pub(crate) fn start() -> Self {
        let connections = format!("max_connections={}", 2 * CONNECTIONS);
        let postgres =
            Postgres::start_with(&[&connections, "shared_buffers=256MB", "synchronous_commit=off"]);
        fill(&postgres);
        let directory = tempfile::Builder::new().prefix("ways").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (bouncer_port, haproxy_port) = (free_port(), free_port());
        let bouncer = bouncer(&postgres, directory.path(), bouncer_port);
        let haproxy = haproxy(&postgres, directory.path(), haproxy_port);
        let audit = tempfile::Builder::new().prefix("audit").tempdir_in("/dev/shm").unwrap();
        let durable = gateway(&postgres, None);
        let memory = gateway(&postgres, Some(audit.path()));
        let world = Self {
            bouncer,
            haproxy,
            bouncer_port,
            haproxy_port,
            durable,
            memory,
            postgres,
            _directory: directory,
            _audit: audit,
        };
        for way in WAYS {
            wait_until(way.name(), || {
                world.client(way, "psql").args(["-c", "SELECT 1"]).output().unwrap().status.success()
            });
        }
        world
    }

    pub(crate) fn bastion(&self, way: Way) -> Option<&Bastion> {
        match way {
            Way::Durable => Some(&self.durable),
            Way::Memory => Some(&self.memory),
            Way::Direct | Way::PgBouncer | Way::HaProxy => None,
        }
    }

    /// A program of PostgreSQL's that goes this way.
    pub(crate) fn client(&self, way: Way, program: &str) -> Command {
        let port = match way {
            Way::Direct => self.postgres.port,
            Way::PgBouncer => self.bouncer_port,
            Way::HaProxy => self.haproxy_port,
            Way::Durable | Way::Memory => return self.bastion(way).unwrap().client(program, "alice", TARGET),
        };
        let mut command = self.postgres.client(program, "ledger");
        command
            .env("PGHOST", "localhost")
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGPORT", port.to_string())
            .env("PGUSER", "bench")
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.postgres.ca_file());
        command
    }

    /// The process in the middle.
    pub(crate) fn pid(&self, way: Way) -> Option<u32> {
        match way {
            Way::Direct => None,
            Way::PgBouncer => Some(self.bouncer.pid()),
            Way::HaProxy => Some(self.haproxy.pid()),
            Way::Durable | Way::Memory => self.bastion(way).map(Bastion::pid),
        }
    }

    /// User and system time of what is in the middle.
    pub(crate) fn cpu(&self, way: Way) -> Duration {
        let Some(pid) = self.pid(way) else { return Duration::ZERO };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // proc(5): utime, stime, in hundredths of a second.
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub(crate) fn resident_kib(&self, way: Way) -> u64 {
        self.status_kib(way, "VmRSS:")
    }

    /// The most that was resident since [`Self::forget_peak`].
    pub(crate) fn peak_kib(&self, way: Way) -> u64 {
        self.status_kib(way, "VmHWM:")
    }

    pub(crate) fn forget_peak(&self, way: Way) {
        // proc(5): 5 resets the peak to what is resident now.
        fs::write(format!("/proc/{}/clear_refs", self.pid(way).unwrap()), "5").unwrap();
    }

    fn status_kib(&self, way: Way, field: &str) -> u64 {
        let Some(pid) = self.pid(way) else { return 0 };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Puts everything that is there on the cores of this list (as `taskset` writes it).
    pub(crate) fn pin(&self, cores: &str) {
        let mut pids: Vec<u32> = WAYS.iter().filter_map(|way| self.pid(*way)).collect();
        pids.push(self.postgres.pid());
        pids.push(std::process::id());
        for pid in pids {
            let done = Command::new("taskset").args(["-acp", cores, &pid.to_string()]).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
    }

    /// Connections that are idle after this query.
    pub(crate) fn idle(&self, query: &str) -> usize {
        let query = query.replace('\'', "''");
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query = '{query};'");
        self.postgres.value("postgres", &sql).parse().unwrap()
    }

    /// Ends those that a pool keeps.
    pub(crate) fn clear(&self, query: &str) {
        let query = query.replace('\'', "''");
        let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = '{query};'");
        self.postgres.query("postgres", &sql).success();
    }

    pub(crate) fn verify(&self) {
        self.durable.verify().success();
        self.memory.verify().success();
    }
}

fn fill(postgres: &Postgres) {
    let role = format!("CREATE ROLE bench LOGIN PASSWORD '{PASSWORD}' IN ROLE ledger_readonly");
    postgres.query("ledger", &role).success();
    let mut pgbench = postgres.client("pgbench", "ledger");
    let made = pgbench.args(["-i", "-q", "-s", "10"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    postgres
        .query(
            "ledger",
            "GRANT SELECT ON pgbench_accounts, pgbench_branches TO ledger_readonly;
             CREATE UNLOGGED TABLE sink (line text); ALTER TABLE sink ALTER line SET STORAGE PLAIN;
             GRANT INSERT, SELECT, TRUNCATE ON sink TO ledger_readonly",
        )
        .success();
}

fn bouncer(postgres: &Postgres, directory: &Path, port: u16) -> Running {
    let users = write(directory, "users.txt", &format!("\"bench\" \"{PASSWORD}\"\n"));
    let data = postgres.data();
    let config = format!(
        "[databases]\nledger = host=127.0.0.1 port={server} dbname=ledger\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\npool_mode = session\n\
         max_client_conn = {most}\ndefault_pool_size = {most}\nserver_tls_sslmode = verify-ca\nserver_tls_ca_file = {ca}\n\
         client_tls_sslmode = require\nclient_tls_cert_file = {data}/server.crt\nclient_tls_key_file = {data}/server.key\n\
         server_reset_query =\nlog_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n",
        server = postgres.port,
        users = users.display(),
        most = 2 * CONNECTIONS,
        ca = postgres.ca_file().display(),
        data = data.display(),
    );
    let file = write(directory, "pgbouncer.ini", &config);
    Running::start_quietly(unprivileged(Path::new("pgbouncer")).arg("-q").arg(file))
}

fn haproxy(postgres: &Postgres, directory: &Path, port: u16) -> Running {
    let config = format!(
        "global\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n\
         listen ledger\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{}\n",
        postgres.port
    );
    let file = write(directory, "haproxy.cfg", &config);
    Running::start_quietly(unprivileged(Path::new("haproxy")).args(["-db", "-f"]).arg(file))
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

fn gateway(postgres: &Postgres, audit: Option<&Path>) -> Bastion {
    let entry = target(TARGET, "dev", "bank-core", postgres, Path::new(ADMIN_DIR));
    let most = format!("connection_limit = {CONNECTIONS}");
    let mut options =
        Options { targets: entry.replace("connection_limit = 250", &most), ..Options::default() };
    options.settings.push(("audit", "segment_bytes = 67108864".to_owned()));
    if let Some(directory) = audit {
        options.settings.push(("audit", format!("directory = \"{}\"", directory.display())));
        options.audit_dir = Some(directory.to_owned());
    }
    let bastion = Bastion::start_for(postgres, options, &["alice"]);
    bastion.grant("alice", TARGET, "readonly", 14_400, &[]);
    bastion
}
