use support::sshd::HOST;

use super::{NOT_PROVED, by_key, fingerprint, make_key, public, support, unproved};
use support::Hosts;

const KINDS: [(&str, &[&str]); 5] = [
    ("ed25519", &["-t", "ed25519"]),
    ("ecdsa-256", &["-t", "ecdsa", "-b", "256"]),
    ("ecdsa-384", &["-t", "ecdsa", "-b", "384"]),
    ("ecdsa-521", &["-t", "ecdsa", "-b", "521"]),
    ("rsa-4096", &["-t", "rsa", "-b", "4096"]),
];

#[test]
fn a_registered_key_of_each_kind_lets_its_owner_in_until_it_is_removed() {
    let hosts = Hosts::start_for(support::Options::default(), &["alice"]);
    hosts.grant();
    for (number, (name, kind)) in KINDS.into_iter().enumerate() {
        let key = make_key(&hosts, name, kind);
        let user = format!("alice+{HOST}");
        let unknown = by_key(&hosts, &key, &user);
        assert_eq!(unknown.code(), NOT_PROVED, "{name} unregistered: {unknown:?}");
        hosts.bastion.run_as("alice", &["key", "add", public(&key).to_str().unwrap()]).success();
        let finished = by_key(&hosts, &key, &user);
        assert_eq!((finished.code(), finished.stdout.as_str()), (0, "in\n"), "{name}: {finished:?}");
        let others = by_key(&hosts, &key, &format!("bob+{HOST}"));
        assert_eq!(others.code(), NOT_PROVED, "{name} as somebody else: {others:?}");
        hosts.bastion.run_as("alice", &["key", "remove", &fingerprint(&key)]).success();
        let removed = by_key(&hosts, &key, &user);
        assert_eq!(removed.code(), NOT_PROVED, "{name} removed: {removed:?}");

        let refused = unproved(&hosts, 3 * (number + 1));
        let claimed: Vec<&str> = refused.iter().map(|(claimed, _)| claimed.as_str()).collect();
        let count = claimed.len();
        assert_eq!(claimed[count - 3..], [user.as_str(), "bob+web-1", &user], "{name}");
        for (_, why) in &refused[count - 3..] {
            assert!(why.contains("not registered") && why.contains(&fingerprint(&key)), "{name}: {why}");
        }
    }
    let connected = hosts.bastion.events("connection_opened");
    assert_eq!(connected.len(), KINDS.len());
    hosts.bastion.verify().success();
}

#[test]
fn a_key_that_an_operator_registers_and_removes_counts_at_once() {
    let hosts = Hosts::start_for(support::Options::default(), &["alice"]);
    hosts.grant();
    let key = make_key(&hosts, "laptop", &["-t", "ed25519"]);
    let config = hosts.bastion.config_file();
    let at = ["--config", config.to_str().unwrap()];
    let public = public(&key);
    let add = ["user", "key", "add", "alice", public.to_str().unwrap()];
    hosts.bastion.operator(&[&add[..], &at].concat()).success();
    let user = format!("alice+{HOST}");
    by_key(&hosts, &key, &user).success();
    let print = fingerprint(&key);
    hosts.bastion.operator(&[&["user", "key", "remove", "alice", &print][..], &at].concat()).success();
    assert_eq!(by_key(&hosts, &key, &user).code(), NOT_PROVED);
}
