//! A real `sshd` of the test's own, on a free loopback port, that trusts a gateway's authority; and the
//! real `ssh` through the gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::bastion::{Bastion, Options};
use super::postgres::{Postgres, free_port};
use super::process::{Finished, Running, wait_until};

/// The target in the tests, and what one may be there.
pub const HOST: &str = "web-1";
pub const ACCESS: &str = "deploy";

#[derive(Debug)]
pub struct Sshd {
    // Dropped first: the server must not outlive its directory.
    server: Option<Running>,
    dir: TempDir,
    pub port: u16,
}

impl Sshd {
    /// `authority`: the public key in whose certificates it believes.
    pub fn start(authority: &str) -> Self {
        Self::start_with(authority, "")
    }

    /// With lines of configuration of the test's own, which go before ours.
    pub fn start_with(authority: &str, settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sshd").tempdir().unwrap();
        let mut sshd = Self { server: None, dir, port: free_port() };
        sshd.make_key("host");
        sshd.make_key("direct");
        fs::write(sshd.path("authority.pub"), authority).unwrap();
        fs::copy(sshd.path("direct.pub"), sshd.path("authorized_keys")).unwrap();
        sshd.configure(settings);
        sshd.boot();
        sshd
    }

    fn make_key(&self, name: &str) {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(path);
        Finished::from(command.output().unwrap()).success();
    }

    /// Writes the configuration; in force after [`Self::restart`].
    pub fn configure(&self, settings: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "{settings}\nPort {}\nListenAddress 127.0.0.1\nHostKey {}\nTrustedUserCAKeys {}\n\
             AuthorizedKeysFile {}\nPermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv LANG LC_*\n\
             MaxSessions 500\nMaxStartups 1000\nLogLevel VERBOSE\nAllowStreamLocalForwarding yes\n\
             SetEnv HOME={}\nSubsystem sftp /usr/lib/openssh/sftp-server\nPrintMotd no\nPrintLastLog no\n",
            self.port,
            path("host"),
            path("authority.pub"),
            path("authorized_keys"),
            // What somebody's own start files say is not for a test.
            self.dir.path().display(),
        );
        fs::write(self.path("config"), text).unwrap();
    }

    fn boot(&mut self) {
        // Privilege separation wants it, and only a system's own start makes it.
        let _exists = fs::create_dir_all("/run/sshd");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "/usr/sbin/sshd", "-D", "-e", "-f"]).arg(self.path("config"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(Running::start(&mut command));
        wait_until("sshd listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub fn stop(&mut self) {
        drop(self.server.take());
    }

    pub fn restart(&mut self) {
        self.stop();
        self.boot();
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().pid()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub fn host_key(&self) -> String {
        fs::read_to_string(self.path("host.pub")).unwrap().trim().to_owned()
    }

    /// The `[[target]]` entry of this host under a name.
    pub fn target(&self, name: &str, environment: &str, labels: &str) -> String {
        format!(
            "[[target]]\nname = \"{name}\"\nkind = \"ssh\"\naddress = \"127.0.0.1:{}\"\n\
             environment = \"{environment}\"\ndomain = \"bank-core\"\n\
             accesses = {{ {ACCESS} = \"{}\" }}\nhost_keys = [\"{}\"]\nlabels = {{ {labels} }}\n\n",
            self.port,
            login(),
            self.host_key(),
        )
    }

    /// `ssh` straight to the host: what a client should notice no difference to.
    pub fn direct(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null", "-i"]).arg(self.path("direct"));
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", &format!("Port={}", self.port), "-o", &format!("User={}", login())]);
        command.args(["-o", "BatchMode=yes"]).stdin(Stdio::null());
        command
    }
}

/// Who the tests run as: the only account that an sshd without privileges can open.
pub fn login() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Everything that the default labels keep closed.
pub const OPEN: &str =
    "forward = \"any\", listen = \"allowed\", agent-forwarding = \"allowed\", subsystems = \"any\"";

/// A gateway with an SSH target behind it: `web-1` (dev), and `web-prod` (prod) at the same host.
#[derive(Debug)]
pub struct Hosts {
    pub bastion: Bastion,
    pub sshd: Sshd,
}

impl Hosts {
    pub fn start() -> Self {
        Self::start_for(Options::default(), &["alice", "bob", "carol", "erin", "frank"])
    }

    pub fn start_for(options: Options, people: &[&str]) -> Self {
        Self::boot(Bastion::prepare_hosts(None, options), people)
    }

    /// With the usual databases beside the hosts.
    pub fn start_beside(postgres: &Postgres, options: Options, people: &[&str]) -> Self {
        Self::boot(Bastion::prepare_hosts(Some(postgres), options), people)
    }

    fn boot(mut bastion: Bastion, people: &[&str]) -> Self {
        let authority = fs::read_to_string(bastion.data().join("ssh/login_ca.pub")).unwrap();
        let sshd = Sshd::start(&authority);
        let targets = sshd.target(HOST, "dev", OPEN)
            + &sshd.target("web-prod", "prod", "")
            + &sshd.target("web-closed", "dev", "");
        bastion.set_targets(&targets);
        bastion.boot();
        for name in people {
            bastion.log_in(name).success();
        }
        Self { bastion, sshd }
    }

    /// A session for alice on the development host.
    #[track_caller]
    pub fn grant(&self) -> super::bastion::Granted {
        self.bastion.grant("alice", HOST, ACCESS, 3600, &[])
    }

    /// `ssh`, `scp`, `sftp` through the gateway, with the certificate of a login.
    pub fn through(&self, program: &str, who: &str, target: &str) -> Command {
        let user = if target.is_empty() { who.to_owned() } else { format!("{who}+{target}") };
        self.by_certificate(program, &self.bastion.home(who).join("ssh/id_ed25519"), &user)
    }

    /// As whoever `user` says, with this key and the certificate beside it.
    pub fn by_certificate(&self, program: &str, key: &Path, user: &str) -> Command {
        let mut command = self.client(program, user);
        command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"]).arg(key);
        command.args(["-o", &format!("CertificateFile={}-cert.pub", key.display())]);
        command
    }

    /// A client that knows the way and has nothing to prove itself with.
    pub fn client(&self, program: &str, user: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", "StrictHostKeyChecking=yes", "-o", &self.known_hosts()]);
        command.args(["-o", &format!("Port={}", self.bastion.ssh_port), "-o", &format!("User={user}")]);
        command.env("HOME", self.bastion.scratch()).env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        command
    }

    /// The option that makes a client trust the gateway's host authority and nothing else.
    pub fn known_hosts(&self) -> String {
        let path = self.bastion.scratch().join("known_hosts");
        // Written once: clients may be reading it.
        if !path.exists() {
            let authority = fs::read_to_string(self.bastion.data().join("ssh/host_ca.pub")).unwrap();
            let (whole, made) = (
                format!("@cert-authority * {authority}"),
                tempfile::NamedTempFile::new_in(self.bastion.scratch()).unwrap(),
            );
            fs::write(made.path(), whole).unwrap();
            made.persist(&path).unwrap();
        }
        format!("UserKnownHostsFile={}", path.display())
    }

    /// Runs a command on the host, as alice, through the gateway.
    pub fn run(&self, command: &str) -> Finished {
        self.through("ssh", "alice", HOST).args(["localhost", command]).output().unwrap().into()
    }

    /// Runs a command on the host directly.
    pub fn run_directly(&self, command: &str) -> Finished {
        self.sshd.direct("ssh").args(["127.0.0.1", command]).output().unwrap().into()
    }

    /// How channels ended, once so many have: a client is gone before that is on record.
    #[track_caller]
    pub fn ended(&self, count: usize) -> Vec<serde_json::Value> {
        let mut records = Vec::new();
        wait_until("channels have ended", || {
            records = self.records("channel_ended");
            records.len() >= count
        });
        records
    }

    /// The records of the only recording of SSH there is, in order.
    pub fn records(&self, kind: &str) -> Vec<serde_json::Value> {
        self.bastion.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }
}
