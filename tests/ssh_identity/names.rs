use super::support::sshd::HOST;
use super::support::{Finished, Hosts, Options};
use super::{NO_SESSION, NOT_PROVED, find, unproved};

#[test]
fn a_name_that_is_none_lets_nobody_in_and_is_on_record() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    let key = hosts.bastion.home("alice").join("ssh/id_ed25519");
    let long = "a".repeat(300);
    for (count, (name, why)) in (1..).zip([
        ("nobody", "not for `nobody`"),
        ("bob+web-1", "not for `bob`"),
        ("", "no user was given"),
        ("alice+", "is not a target name"),
        ("+web-1", "is not a user name"),
        ("a+b+c+d", "more than three parts"),
        ("Alice+web-1", "`Alice` is not a user name"),
        ("alice+web 1", "`web 1` is not a target name"),
        (&long, "is not a user name"),
    ]) {
        // By `-l`, which takes what a configuration would not.
        let mut command = hosts.by_certificate("ssh", &key, "x");
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new("ssh");
        command.args(["-l", name]).args(arguments).env("HOME", hosts.bastion.scratch());
        let finished: Finished = command.args(["localhost", "true"]).output().unwrap().into();
        assert_eq!(finished.code(), NOT_PROVED, "`{name}`: {finished:?}");
        let (claimed, told) = unproved(&hosts, count).pop().unwrap();
        assert!(claimed == name || claimed.len() == 200, "`{claimed}`");
        assert!(told.contains(why), "`{name}`: {told}");
    }
}

#[test]
fn what_cannot_be_reached_by_ssh_says_how_it_can() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice"]);
    let postgres = format!(
        "[[target]]\nname = \"ledger-dev\"\nkind = \"postgres\"\naddress = \"localhost:1\"\n\
         ca_file = \"{}\"\nenvironment = \"dev\"\ndomain = \"bank-core\"\ndatabases = [\"ledger\"]\n\
         accesses = {{ readonly = \"ledger_readonly\" }}\n\n[target.admin]\nuser = \"admin\"\n\
         password_file = \"{}\"\n",
        hosts.bastion.ca_file().display(),
        hosts.bastion.scratch().join("admin-password").display(),
    );
    hosts.bastion.kill();
    let targets = hosts.sshd.target(HOST, "dev", "") + &postgres;
    hosts.bastion.set_targets(&targets);
    hosts.bastion.boot();
    for (target, says, code) in [
        ("nowhere", "there is no target `nowhere`. `sallyport targets` lists", "unknown_target"),
        (
            "ledger-dev",
            "`ledger-dev` is a PostgreSQL server. Connect with psql: sallyport psql",
            "other_protocol",
        ),
        (HOST, "sallyport request web-1 deploy --reason", "no_session"),
        ("web-1+nothing", "you have no active session for `web-1`", "no_session"),
    ] {
        for program in [&["true"][..], &[]] {
            let mut command = hosts.through("ssh", "alice", target);
            let finished: Finished = command.arg("localhost").args(program).output().unwrap().into();
            assert_eq!(finished.code(), NO_SESSION, "{target}: {finished:?}");
            finished.says(says);
            let refused = hosts.bastion.events("connection_refused").pop().unwrap();
            assert_eq!(find(&refused, "code").unwrap(), code, "{refused}");
        }
    }
    let finished = hosts.bastion.psql("alice", HOST, "SELECT 1").failure();
    finished.says("target `web-1` is an SSH host").says("Connect with ssh, as USER+web-1");
    let refused = hosts.bastion.events("connection_refused").pop().unwrap();
    assert_eq!(find(&refused, "code").unwrap(), "other_protocol", "{refused}");
}
