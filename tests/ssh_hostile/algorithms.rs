//! What the gateway offers, as `ssh-audit` judges it.

use std::process::Command;

use serde_json::Value;

use crate::support::{Finished, Hosts, Options};

/// What `ssh-audit` warns of and is offered all the same; the reasons are in `docs/ssh.md`.
const ACCEPTED_WARNINGS: &[&str] = &["curve25519-sha256", "curve25519-sha256@libssh.org"];

fn audit(hosts: &Hosts) -> Value {
    let mut command = Command::new(crate::python("ssh-audit"));
    command.args(["--json", "--port", &hosts.bastion.ssh_port.to_string(), "127.0.0.1"]);
    let finished: Finished = command.output().unwrap().into();
    finished.json()
}

fn names(report: &Value, kind: &str) -> Vec<String> {
    let entries = report[kind].as_array().unwrap();
    entries.iter().map(|entry| entry["algorithm"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nothing_weak_is_offered_and_the_best_comes_first() {
    let hosts = Hosts::start_for(Options::default(), &[]);
    let report = audit(&hosts);
    let mut warned = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        for entry in report[kind].as_array().unwrap() {
            let name = entry["algorithm"].as_str().unwrap();
            assert!(entry["notes"]["fail"].is_null(), "{entry}");
            if !entry["notes"]["warn"].is_null() {
                warned.push(name.to_owned());
            }
        }
    }
    assert_eq!(warned, ACCEPTED_WARNINGS, "{report:#}");
    let kex = names(&report, "kex");
    assert_eq!(kex[0], "mlkem768x25519-sha256");
    assert!(kex.contains(&"kex-strict-s-v00@openssh.com".to_owned()), "{kex:?}");
    let ciphers = names(&report, "enc");
    let at = |name: &str| ciphers.iter().position(|cipher| cipher == name).unwrap();
    assert!(at("aes128-gcm@openssh.com") < at("chacha20-poly1305@openssh.com"), "{ciphers:?}");
    assert_eq!(report["compression"], serde_json::json!(["none"]));
    let keys = names(&report, "key");
    assert!(!keys.iter().any(|key| key == "ssh-rsa" || key == "ssh-dss"), "{keys:?}");
    crate::nothing_broke(&hosts.bastion);
}
