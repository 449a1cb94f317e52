//! The three ways to use a host that a cut must reach: a terminal, a command, a forward.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::support::postgres::free_port;
use crate::support::sshd::HOST;
use crate::support::{Finished, Hosts, Shell, wait_until};

pub(crate) struct Clients {
    pub(crate) shell: Shell,
    pub(crate) command: Shell,
    pub(crate) forward: Shell,
    through_forward: TcpStream,
    on_host: Vec<String>,
    pub(crate) connections: Vec<String>,
}

/// `ssh -tt`, as alice; ready for a line.
pub(crate) fn shell(hosts: &Hosts) -> (Shell, String) {
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let mut shell = Shell::start(ssh.args(["-tt", "localhost", "exec sh"]));
    shell.types("echo pid[$$]\n");
    let pid = shell.value("pid");
    (shell, pid)
}

/// A command without a terminal that says something from time to time.
pub(crate) fn command(hosts: &Hosts) -> (Shell, String) {
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let program = "echo pid[$$]; while :; do echo tick; sleep 0.05; done";
    let command = Shell::start(ssh.args(["localhost", program]));
    let pid = command.value("pid");
    (command, pid)
}

/// `-N -L` to the host's own sshd, and a connection through it.
fn forward(hosts: &Hosts) -> (Shell, TcpStream) {
    let port = free_port();
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let to = format!("127.0.0.1:{port}:127.0.0.1:{}", hosts.sshd.port);
    let forward = Shell::start(ssh.args(["-N", "-L", &to, "localhost"]));
    let mut connected = None;
    wait_until("the forward listens", || {
        connected = TcpStream::connect(("127.0.0.1", port)).ok();
        connected.is_some()
    });
    let connected = connected.unwrap();
    let mut banner = String::new();
    BufReader::new(&connected).read_line(&mut banner).unwrap();
    assert!(banner.starts_with("SSH-2.0-OpenSSH"), "{banner}");
    (forward, connected)
}

/// Whether a process is there and not only waits to be reaped.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub(crate) fn signal(pid: &str, signal: &str) {
    let sent: Finished = Command::new("kill").args(["-s", signal, pid]).output().unwrap().into();
    sent.success();
}

impl Clients {
    pub(crate) fn start(hosts: &Hosts) -> Self {
        let (shell, in_shell) = shell(hosts);
        let (command, in_command) = command(hosts);
        let (forward, through_forward) = forward(hosts);
        wait_until("all are up", || crate::live(&hosts.bastion).len() == 3);
        let connections = crate::live(&hosts.bastion);
        let on_host = vec![in_shell, in_command];
        Self { shell, command, forward, through_forward, on_host, connections }
    }

    /// Holds the one program that speaks by itself.
    pub(crate) fn say_nothing(&self) {
        signal(&self.on_host[1], "STOP");
    }

    pub(crate) fn speak_again(&self) {
        signal(&self.on_host[1], "CONT");
    }

    /// All read `why`, and nothing of them is left anywhere.
    #[track_caller]
    pub(crate) fn are_cut(&mut self, hosts: &Hosts, why: &str) {
        let line = format!("sallyport: {why}");
        for client in [&mut self.shell, &mut self.command, &mut self.forward] {
            assert_eq!(client.ends(), Some(255), "{}", client.err());
            client.says(&line);
        }
        let mut rest = Vec::new();
        self.through_forward.set_read_timeout(Some(crate::support::process::PATIENCE)).unwrap();
        let _closed_or_reset = self.through_forward.read_to_end(&mut rest);
        wait_until("the gateway holds no socket", || crate::sockets(&hosts.bastion) == 0);
        for pid in &self.on_host {
            wait_until("nothing runs on the host", || !runs(pid));
        }
        assert_eq!(crate::live(&hosts.bastion), [""; 0]);
    }
}
