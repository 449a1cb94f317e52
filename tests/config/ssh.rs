//! The SSH gateway's section and its hosts'.

use super::*;

#[test]
fn an_ssh_gateway_and_host_have_the_documented_defaults() {
    let home = Home::new();
    let config = home.load(&home.good_ssh()).unwrap();
    let ssh = config.ssh.as_ref().unwrap();
    assert_eq!(ssh.listen.to_string(), "127.0.0.1:2222");
    assert_eq!(ssh.public_address, None);
    let signs = sallyport::config::Signs::File(home.path("ssh/login_ca"));
    assert_eq!(ssh.login_ca, sallyport::config::AuthorityKeys { signs, trusted: Vec::new() });
    assert_eq!((ssh.max_connections, ssh.max_handshakes, ssh.max_channels), (2000, 400, 200));
    assert_eq!((ssh.handshake_timeout, ssh.idle_timeout), (Duration::from_secs(30), None));
    assert_eq!(ssh.stream_head_bytes, 1024 * 1024);
    assert_eq!(ssh.accept_env, ["LANG", "LC_*", "COLORTERM", "NO_COLOR", "TERM_PROGRAM"]);
    assert_eq!(ssh.certificate_lifetime, Duration::from_hours(8));
    let AnyTarget::Ssh(target) = &config.reloadable.targets[&"web-1".parse().unwrap()] else {
        panic!("{config:?}");
    };
    assert_eq!(target.address, Address { host: "web-1.bank.example".to_owned(), port: 22 });
    assert_eq!(target.logins[&"admin".parse().unwrap()], "root");
    assert_eq!(target.target.kind, TargetKind::Ssh);
    assert_eq!(target.target.accesses.len(), 2);
    assert_eq!(target.host_keys, [home.public("host_ed25519")]);
    assert_eq!((target.host_cas.len(), &target.source_address), (0, &None));
    assert!(
        config.summary().contains("target web-1 (prod, bank-core) at web-1.bank.example:22: admin, deploy")
    );
}

/// What replaces what in a good configuration with an SSH gateway, and what is then told.
const SSH_MISTAKES: &[(&str, &str, &str)] = &[
    ("[ssh]", "[ssh]\nlisten = \"22\"", "ssh.listen: `22` is not an address: write `127.0.0.1:2222`"),
    ("[ssh]", "[ssh]\nlisten = \"127.0.0.1:6432\"", "ssh.listen: is the same as postgres.listen"),
    ("[ssh]", "[ssh]\nlisten = \"127.0.0.1:8443\"", "ssh.listen: is the same as api.listen"),
    ("[ssh]", "[ssh]\nlsten = \"x\"", "ssh.lsten: is not a known key: did you mean `listen`?"),
    ("[ssh]", "[ssh]\npublic_address = \"bastion\"", "ssh.public_address: `bastion` is not an address"),
    ("[ssh]", "[ssh]\nmax_channels = 0", "ssh.max_channels: must be from 1 to 10000, not 0"),
    ("[ssh]", "[ssh]\nmax_handshakes = -1", "ssh.max_handshakes: must be from 1 to 100000, not -1"),
    ("[ssh]", "[ssh]\nhandshake_timeout = \"0s\"", "ssh.handshake_timeout: must be from"),
    ("[ssh]", "[ssh]\nidle_timeout = \"5h\"", "ssh.idle_timeout: must be from"),
    ("[ssh]", "[ssh]\nstream_head_bytes = \"1\"", "ssh.stream_head_bytes: must be a whole number"),
    ("[ssh]", "[ssh]\ncertificate_lifetime = \"30s\"", "ssh.certificate_lifetime: must be from"),
    ("[ssh]", "[ssh]\naccept_env = [\"A=B\"]", "ssh.accept_env[1]: `A=B` is not the name of a variable"),
    ("host_key = \"ssh/host_ed25519\"", "", "ssh.host_key: is missing: name the file with the gateway's own"),
    ("login_ca = \"ssh/login_ca\"", "", "ssh.login_ca: is missing"),
    ("ssh/user_ca", "ssh/none", "ssh.user_ca: `ssh/none` cannot be read"),
    ("ssh/user_ca", "ssh/user_ca.pub", "ssh.user_ca: `ssh/user_ca.pub` is open to everybody (mode 644)"),
    (
        "ssh/user_ca",
        "tls/api.key",
        "ssh.user_ca: `tls/api.key` cannot be used: not a private key in OpenSSH's",
    ),
    ("ssh/login_ca", "ssh/user_ca", "ssh.login_ca: is the same key as user_ca: make another"),
    (
        "kind = \"ssh\"",
        "kind = \"shh\"",
        "target[2].kind: `shh` is not a kind of target: there are `postgres`",
    ),
    (
        "web-1.bank.example:22",
        "web-1.bank.example",
        "target[2].address: `web-1.bank.example` is not an address",
    ),
    ("web-1.bank.example:22", "web_1!:22", "target[2].address: `web_1!` is not a host name or IP address"),
    ("kind = \"ssh\"", "kind = \"ssh\"\nca_file = \"x\"", "target[2].ca_file: is not a known key"),
    ("kind = \"ssh\"", "kind = \"ssh\"\ndatabases = []", "target[2].databases: is not a known key"),
    (
        "admin = \"root\"",
        "admin = \"-oProxyCommand=x\"",
        "target[2].accesses.admin: `-oProxyCommand=x` is not a user",
    ),
    ("admin = \"root\"", "Admin = \"root\"", "target[2].accesses.Admin: `Admin` is not an access name"),
    ("{ admin = \"root\", deploy = \"deploy\" }", "{}", "target[2].accesses: is empty"),
    ("host_keys = [\"KEY\"]", "", "target[2].host_keys: is missing: list the host's public keys"),
    ("host_keys = [\"KEY\"]", "host_keys = []", "target[2].host_keys: is empty"),
    (
        "host_keys = [\"KEY\"]",
        "host_ca = [\"x y\"]",
        "target[2].host_ca[1]: a public key begins with its type",
    ),
    ("[\"KEY\"]", "[\"ssh-ed25519 AAAA\"]", "target[2].host_keys[1]: the public key is damaged"),
    ("[\"KEY\"]", "[\"ssh-dss AAAA\"]", "target[2].host_keys[1]: DSA keys are not accepted"),
    ("[\"KEY\"]", "[\"KEY\", \"KEY again\"]", "target[2].host_keys: the key SHA256:"),
    (
        "host_keys = ",
        "source_address = \"10.0.0.5/8\"\nhost_keys = ",
        "target[2].source_address: `10.0.0.5/8` is neither an address nor a network",
    ),
    (
        "host_keys = ",
        "connect_to = \"10.0.0.5:22\"\nhost_keys = ",
        "target[2].connect_to: `10.0.0.5:22` is not an IP address",
    ),
];

#[test]
fn each_mistake_about_ssh_has_its_message_and_is_told_once() {
    let home = Home::new();
    let good = format!("{FIXED}{SSH}{TARGET}{SSH_TARGET}");
    for (from, to, expected) in SSH_MISTAKES {
        assert!(good.contains(from), "{from}");
        let told = home.mistakes(&home.with_key(&good.replacen(from, to, 1)));
        assert!(told.contains(expected), "{from} -> {to}\ntold:     {told}\nexpected: {expected}");
        assert_eq!(told.lines().count(), 1, "{from} -> {to}\n{told}");
        assert!(!told.contains("OPENSSH PRIVATE KEY-----\n"), "{told}");
    }
}

#[test]
fn an_ssh_key_must_be_protected_and_without_a_passphrase() {
    let home = Home::new();
    let keygen = |arguments: &[&str]| {
        let output = Command::new("ssh-keygen").current_dir(home.path("ssh")).args(arguments).output();
        assert!(output.expect("ssh-keygen, of Debian's openssh-client").status.success());
    };
    keygen(&["-q", "-p", "-N", "secret", "-f", "user_ca"]);
    let told = home.mistakes(&home.good_ssh());
    assert!(
        told.contains("ssh.user_ca: `ssh/user_ca` cannot be used: the private key has a passphrase"),
        "{told}"
    );
    keygen(&["-q", "-p", "-P", "secret", "-N", "", "-f", "user_ca"]);
    home.load(&home.good_ssh()).unwrap();
    fs::set_permissions(home.path("ssh/user_ca"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = home.mistakes(&home.good_ssh());
    assert!(told.contains("is open to everybody (mode 644): run `chmod 600 ssh/user_ca`"), "{told}");
}

#[test]
fn an_ssh_host_without_a_gateway_is_a_mistake() {
    let home = Home::new();
    let told = home.mistakes(&home.with_key(&format!("{FIXED}{TARGET}{SSH_TARGET}")));
    let expected =
        "sallyport.toml: ssh: is missing: the target `web-1` is an SSH host: say where the gateway listens";
    assert_eq!(told, expected);
}

#[test]
fn a_target_that_changes_its_kind_or_keys_is_changed_and_a_comment_changes_nothing() {
    let home = Home::new();
    let before = home.load(&home.good_ssh()).unwrap();
    let with = |from: &str, to: &str| {
        let text = format!("{FIXED}{SSH}{TARGET}{SSH_TARGET}").replacen(from, to, 1);
        before.diff(&home.load(&home.with_key(&text)).unwrap())
    };
    assert_eq!(with("KEY", "KEY of web-1"), sallyport::config::Diff::default());
    let web: Vec<TargetName> = vec!["web-1".parse().unwrap()];
    let other =
        format!("[\"KEY\", \"{}\"]", fs::read_to_string(home.path("ssh/host_ca.pub")).unwrap().trim());
    assert_eq!(with("[\"KEY\"]", &other).changed, web);
    assert_eq!(with("\"root\"", "\"toor\"").changed, web);
    assert_eq!(with("[ssh]", "[ssh]\nidle_timeout = \"5m\"").needs_restart, ["ssh.idle_timeout"]);
    let as_database = TARGET.replacen("ledger-prod", "web-1", 1);
    let changed = before.diff(&home.load(&format!("{FIXED}{TARGET}{as_database}")).unwrap());
    assert_eq!(changed.changed, web);
    assert_eq!(changed.needs_restart.len(), 11, "{changed:?}");
}
