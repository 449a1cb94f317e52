//! What the command line writes so that plain `ssh` finds its way, as OpenSSH itself reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use sallyport::crypto::ssh::{self, Certificate};

use crate::support::postgres::free_port;
use crate::support::{Bastion, Options, Postgres};

/// A server with an SSH gateway and the SSH target `web-1`.
fn start(postgres: &Postgres) -> (Bastion, u16) {
    let port = free_port();
    let host_key = ssh::public_line(ssh::generate_ed25519().public_key(), "");
    let key = |name: &str, file: &str| ("ssh", format!("{name} = \"ssh/{file}\""));
    let options = Options {
        settings: vec![
            ("ssh", format!("listen = \"127.0.0.1:{port}\"")),
            key("host_key", "host_ed25519"),
            key("host_ca", "host_ca"),
            key("user_ca", "user_ca"),
            key("login_ca", "login_ca"),
        ],
        targets: format!(
            "[[target]]\nname = \"web-1\"\nkind = \"ssh\"\naddress = \"web-1.example:22\"\n\
             environment = \"prod\"\ndomain = \"bank-core\"\naccesses = {{ root = \"root\" }}\n\
             host_keys = [\"{host_key}\"]\n\n"
        ),
        ..Options::default()
    };
    (Bastion::start_for(postgres, options, &["alice"]), port)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_login_brings_a_certificate_and_a_logout_takes_it() {
    let postgres = Postgres::start();
    let (bastion, _) = start(&postgres);
    let dir = bastion.home("alice").join("ssh");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let certificate = || Certificate::from_openssh(read("id_ed25519-cert.pub").trim()).unwrap();
    let first = certificate();
    assert_eq!(first.valid_principals(), ["alice"]);
    assert_eq!(mode(&dir.join("id_ed25519")), 0o600);
    let key = ssh::parse_private(&read("id_ed25519")).unwrap();
    assert_eq!(key.public_key().key_data(), first.public_key());

    bastion.run_as("alice", &["logout"]).success();
    assert!(!dir.join("id_ed25519-cert.pub").exists());
    bastion.log_in("alice").success();
    assert_eq!(certificate().public_key(), first.public_key(), "the key stays");
    assert_ne!(certificate().serial(), first.serial());
    let issued = bastion.events("ssh_certificate_issued");
    assert_eq!(issued.len(), 2);
    assert_eq!(issued[0]["detail"]["serial"], first.serial().to_string());
    assert_eq!(issued[0]["detail"]["key"], ssh::fingerprint(key.public_key()));
}

#[test]
fn openssh_is_led_through_the_gateway() {
    let postgres = Postgres::start();
    let (bastion, port) = start(&postgres);
    let user_config = bastion.scratch().join(".ssh/config");
    fs::create_dir_all(user_config.parent().unwrap()).unwrap();
    fs::write(&user_config, "Host mine\n    User me\n").unwrap();
    let shown = bastion.run_as("alice", &["config", "ssh", "--print"]).success().stdout;
    let dir = bastion.home("alice").join("ssh");
    assert!(!dir.join("config").exists(), "it was only to be shown");
    for _ in 0..2 {
        bastion.run_as("alice", &["config", "ssh"]).success().says("connect: ssh web-1");
    }
    for file in ["config", "known_hosts"] {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        assert!(shown.contains(text.trim_end()), "{file} is not in\n{shown}");
    }
    let text = fs::read_to_string(&user_config).unwrap();
    assert_eq!(text.matches("Include").count(), 1, "{text}");
    assert!(text.ends_with("Host mine\n    User me\n"), "{text}");

    let known = fs::read_to_string(dir.join("known_hosts")).unwrap();
    let host_ca = fs::read_to_string(bastion.data().join("ssh/host_ca.pub")).unwrap();
    let host_ca = host_ca.split(' ').nth(1).unwrap();
    let names =
        format!("@cert-authority localhost,[localhost]:{port},web-1,web-1.prod ssh-ed25519 {host_ca}");
    assert!(known.starts_with(&names), "{known}");

    let read = |host: &str| {
        let output = Command::new("ssh").arg("-F").arg(&user_config).args(["-G", host]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for host in ["web-1", "web-1.prod"] {
        let read = read(host);
        for line in ["user alice+web-1\n", "hostname localhost\n", &format!("port {port}\n")] {
            assert!(read.contains(line), "{line} is not in\n{read}");
        }
    }
    assert!(read("mine").contains("user me\n"));
}

#[test]
fn a_host_is_told_to_trust_the_login_authority() {
    let postgres = Postgres::start();
    let (bastion, _) = start(&postgres);
    let script = bastion.run_as("alice", &["target", "bootstrap", "ssh", "web-1"]).success().stdout;
    let login_ca = fs::read_to_string(bastion.data().join("ssh/login_ca.pub")).unwrap();
    assert!(script.contains(login_ca.split(' ').nth(1).unwrap()), "{script}");
    let checked = crate::support::bastion::run_with_input(shell(), &script);
    checked.success();
    bastion.run_as("alice", &["target", "bootstrap", "ssh", "ledger-dev"]).failure();
}

/// Reads a script and does nothing of it.
fn shell() -> Command {
    let mut command = Command::new("sh");
    command.arg("-n").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}
