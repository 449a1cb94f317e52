//! Who has no session yet and asks on the spot: is told as well, and keeps nothing from ending.

use rustix::process::Signal;

use crate::support::sshd::ACCESS;
use crate::support::{Hosts, Options, Shell, wait_until};

const PROD: &str = "web-prod";

/// A terminal that has filed a request and waits.
fn asking(hosts: &Hosts) -> (Shell, String) {
    let mut ssh = hosts.through("ssh", "alice", PROD);
    let mut shell = Shell::start(ssh.args(["-tt", "localhost"]));
    shell.says("reason: ");
    shell.types("a test\r");
    shell.says("for how long");
    shell.types("\r");
    shell.says("waiting for");
    let said = shell.out();
    let request = said.split("request ").nth(1).and_then(|rest| rest.split(';').next()).unwrap().to_owned();
    (shell, request)
}

#[test]
fn who_asks_on_the_spot_is_let_go_with_the_reason() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice", "bob", "carol", "erin"]);

    // The account goes.
    let (mut shell, _) = asking(&hosts);
    let config = hosts.bastion.config_file();
    let user =
        |how: &str| hosts.bastion.operator(&["user", how, "alice", "--config", config.to_str().unwrap()]);
    user("disable").success();
    assert_eq!(shell.ends(), Some(255), "{}", shell.err());
    shell.says("this account is disabled");
    user("enable").success();
    hosts.bastion.log_in("alice").success();

    // ^C withdraws.
    let (mut shell, request) = asking(&hosts);
    shell.types("\x03");
    assert_eq!(shell.ends(), Some(77), "{}", shell.err());
    shell.says("is withdrawn");
    assert_eq!(hosts.bastion.request("alice", &request)["state"], "cancelled");

    // The session that was granted is revoked before or after it is used.
    let (mut shell, request) = asking(&hosts);
    for approver in ["bob", "carol"] {
        hosts.bastion.run_as(approver, &["approve", &request]).success();
    }
    let session = hosts.bastion.request("alice", &request)["session"].clone();
    crate::revoke(&hosts, session.as_str().unwrap());
    assert!(matches!(shell.ends(), Some(77 | 255)), "{}", shell.err());
    shell.says("revoked by erin: incident 42");
    assert_eq!(crate::live(&hosts.bastion), [""; 0]);

    // The gateway stops, and does not wait for an answer.
    let mut ssh = hosts.through("ssh", "alice", "");
    let mut shell = Shell::start(ssh.args(["-tt", "localhost"]));
    shell.says("host: ");
    hosts.bastion.signal(Signal::TERM);
    assert_eq!(shell.ends(), Some(255), "{}", shell.err());
    shell.says("sallyport: the gateway is shutting down");
    hosts.bastion.ended().success();
    assert!(!hosts.bastion.log().contains("did not end in time"), "{}", hosts.bastion.log());
    let accesses = hosts.bastion.events("request_created");
    assert!(accesses.iter().all(|event| event["access"] == ACCESS), "{accesses:?}");
    crate::all_is_well(&hosts.bastion);
}

#[test]
fn what_is_behind_a_jump_is_cut_and_recorded_like_any_other() {
    let mut hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let jump = |hosts: &Hosts| {
        let config = jump_config(hosts);
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-F").arg(config).args(["-tt", "web-1", "exec sh"]).env("HOME", hosts.bastion.scratch());
        let mut shell = Shell::start(&mut ssh);
        shell.types("echo pid[$$]\n");
        let pid = shell.value("pid");
        (shell, pid)
    };
    let session = hosts.grant().session;
    let (mut shell, pid) = jump(&hosts);
    let connection = crate::live(&hosts.bastion).pop().unwrap();
    crate::revoke(&hosts, &session);
    assert_eq!(shell.ends(), Some(255), "{}", shell.err());
    shell.says("sallyport: your session was revoked by erin: incident 42");
    assert_eq!(crate::end_of(&hosts.bastion, &connection)["end"], "revoked");
    wait_until("nothing runs on the host", || !crate::clients::runs(&pid));
    wait_until("the gateway holds no socket", || crate::sockets(&hosts.bastion) == 0);

    // A client that goes away with the outer connection.
    hosts.grant();
    let (shell, _) = jump(&hosts);
    let connection = crate::live(&hosts.bastion).pop().unwrap();
    shell.signal(Signal::KILL);
    drop(shell);
    wait_until("it is over", || crate::live(&hosts.bastion).is_empty());
    assert_eq!(crate::end_of(&hosts.bastion, &connection)["end"], "client_closed");

    // The gateway stops.
    let (mut shell, _) = jump(&hosts);
    let connection = crate::live(&hosts.bastion).pop().unwrap();
    hosts.bastion.signal(Signal::TERM);
    wait_until("nothing new is accepted", || {
        std::net::TcpStream::connect(("127.0.0.1", hosts.bastion.ssh_port)).is_err()
    });
    shell.types("echo goes[$((40 + 2))]\n");
    assert_eq!(shell.value("goes"), "42", "a drain leaves it alone");
    hosts.bastion.signal(Signal::TERM);
    assert_eq!(shell.ends(), Some(255), "{}", shell.err());
    shell.says("sallyport: the gateway is shutting down");
    hosts.bastion.ended().success();
    assert_eq!(crate::end_of(&hosts.bastion, &connection)["end"], "shutdown");
    crate::all_is_well(&hosts.bastion);
}

/// A configuration for `ssh web-1` by way of the gateway.
fn jump_config(hosts: &Hosts) -> std::path::PathBuf {
    let key = hosts.bastion.home("alice").join("ssh/id_ed25519");
    let path = hosts.bastion.scratch().join("jump_config");
    let common = format!(
        "  User alice\n  IdentityFile {key}\n  CertificateFile {key}-cert.pub\n  IdentitiesOnly yes\n  \
         StrictHostKeyChecking yes\n  {known}\n  BatchMode yes\n  LogLevel ERROR\n",
        key = key.display(),
        known = hosts.known_hosts().replacen('=', " ", 1),
    );
    let text = format!(
        "Host bastion\n  HostName localhost\n  Port {}\n{common}\nHost web-1\n  ProxyJump bastion\n{common}",
        hosts.bastion.ssh_port
    );
    std::fs::write(&path, text).unwrap();
    path
}
