use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::bastion::run_with_input;
use super::support::sshd::HOST;
use super::support::{Finished, Hosts, Options, Terminal};
use super::{NO_SESSION, NOT_PROVED, find, make_key, unproved};

/// A copy of somebody's key and certificate: a logout takes the certificate away.
fn stolen(hosts: &Hosts, who: &str) -> PathBuf {
    let (from, to) = (hosts.bastion.home(who).join("ssh"), hosts.bastion.scratch().join(who));
    fs::create_dir(&to).unwrap();
    for name in ["id_ed25519", "id_ed25519.pub", "id_ed25519-cert.pub"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    to.join("id_ed25519")
}

fn by_certificate(hosts: &Hosts, key: &Path, user: &str) -> Finished {
    hosts.by_certificate("ssh", key, user).args(["localhost", "echo in"]).output().unwrap().into()
}

#[test]
fn a_logins_certificate_ends_with_the_login() {
    let hosts = Hosts::start();
    hosts.grant();
    let config = hosts.bastion.config_file();
    let at = ["--config", config.to_str().unwrap()];
    let keys: Vec<PathBuf> =
        ["alice", "bob", "carol", "erin", "frank"].iter().map(|who| stolen(&hosts, who)).collect();
    hosts.run("true").success();
    let opened = &hosts.records("opened");
    assert_eq!(find(&opened[0], "auth").unwrap(), "certificate", "{opened:?}");

    let operator = |arguments: &[&str]| hosts.bastion.operator(&[arguments, &at].concat()).success();
    let passwd = || {
        let binary = env!("CARGO_BIN_EXE_sallyport");
        let mut command = Command::new(binary);
        command.args(["user", "passwd", "frank", "--password-stdin"]).args(at);
        run_with_input(command, "another password for frank").success()
    };
    let cases: [(&str, &Path, &dyn Fn() -> Finished); 4] = [
        ("bob", &keys[1], &|| hosts.bastion.run_as("bob", &["logout"]).success()),
        ("carol", &keys[2], &|| operator(&["user", "logout", "carol"])),
        ("erin", &keys[3], &|| operator(&["user", "disable", "erin"])),
        ("frank", &keys[4], &passwd),
    ];
    for (count, (who, key, end)) in (1..).zip(cases) {
        let user = format!("{who}+{HOST}");
        let before = by_certificate(&hosts, key, &user);
        assert_eq!(before.code(), NO_SESSION, "{who}, known: {before:?}");
        end();
        let after = by_certificate(&hosts, key, &user);
        assert_eq!(after.code(), NOT_PROVED, "{who}, logged out: {after:?}");
        let (claimed, why) = unproved(&hosts, count).pop().unwrap();
        assert_eq!(claimed, user);
        assert!(why.contains("log in again") || why.contains("disabled"), "{who}: {why}");
    }
    operator(&["user", "enable", "erin"]);
    assert_eq!(by_certificate(&hosts, &keys[3], "erin+web-1").code(), NOT_PROVED, "enabled again");

    // Half a day and an hour later.
    hosts.bastion.advance(13 * 3600);
    assert_eq!(by_certificate(&hosts, &keys[0], "alice+web-1").code(), NOT_PROVED);
    let (_, why) = unproved(&hosts, 6).pop().unwrap();
    assert!(why.contains("the certificate expired at"), "{why}");
}

/// What somebody may try who has the authority's key itself, and what one may who has not.
#[test]
fn a_certificate_is_for_one_person_and_of_our_making() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "bob"]);
    let key = make_key(&hosts, "mine", &["-t", "ed25519"]);
    let other_ca = make_key(&hosts, "other-ca", &["-t", "ed25519"]);
    let ours = hosts.bastion.data().join("ssh/user_ca");
    let hours = ["-V", "-1h:+1h"];
    let cases: [(&str, &Path, Vec<&str>, &str); 7] = [
        ("of another authority", &other_ca, [&["-n", "alice"][..], &hours].concat(), "is not trusted here"),
        ("for somebody else", &ours, [&["-n", "bob"][..], &hours].concat(), "is not for `alice`"),
        ("for nobody", &ours, hours.to_vec(), "names nobody"),
        ("a host's", &ours, [&["-h", "-n", "alice"][..], &hours].concat(), ""),
        (
            "with an option",
            &ours,
            [&["-n", "alice", "-O", "force-command=id"][..], &hours].concat(),
            "the option `force-command`",
        ),
        (
            "from elsewhere",
            &ours,
            [&["-n", "alice", "-O", "source-address=192.0.2.0/24"][..], &hours].concat(),
            "may not be used from",
        ),
        ("of no login", &ours, [&["-n", "alice"][..], &hours].concat(), ""),
    ];
    for (count, (what, ca, options, why)) in (1..).zip(cases) {
        let mut command = Command::new("ssh-keygen");
        command.arg("-q").arg("-s").arg(ca).args(["-I", "an id"]).args(options);
        Finished::from(command.arg(format!("{}.pub", key.display())).output().unwrap()).success();
        let finished = by_certificate(&hosts, &key, "alice+web-1");
        assert_eq!(finished.code(), NOT_PROVED, "{what}: {finished:?}");
        let told = unproved(&hosts, count).pop().unwrap().1;
        assert!(told.contains(why), "{what}: {told}");
    }
    // Bob's own, as Alice.
    let bobs = hosts.bastion.home("bob").join("ssh/id_ed25519");
    assert_eq!(by_certificate(&hosts, &bobs, "alice+web-1").code(), NOT_PROVED);
    assert!(unproved(&hosts, 8).pop().unwrap().1.contains("is not for `alice`"));
}

/// The library refuses by the system's clock before we see the certificate (docs/ssh.md); what is then
/// on record is the key, which the client offers next.
#[test]
fn a_certificate_that_the_systems_clock_has_ended_is_refused_and_on_record() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    let key = make_key(&hosts, "mine", &["-t", "ed25519"]);
    let mut command = Command::new("ssh-keygen");
    command.arg("-q").arg("-s").arg(hosts.bastion.data().join("ssh/user_ca"));
    command.args(["-I", "an id", "-n", "alice", "-V", "-2h:-1h"]).arg(format!("{}.pub", key.display()));
    Finished::from(command.output().unwrap()).success();
    assert_eq!(by_certificate(&hosts, &key, "alice+web-1").code(), NOT_PROVED);
    assert!(unproved(&hosts, 1).pop().unwrap().1.contains("not registered"));
    // Whoever is asked for a password then is told what to do.
    let mut command = hosts.client("ssh", "alice+web-1");
    command.arg("-i").arg(&key).args(["-o", &format!("CertificateFile={}-cert.pub", key.display())]);
    let mut terminal = Terminal::start(command.args(["localhost", "true"]));
    terminal.shows("no certificate of it is valid: `sallyport login` obtains one");
    terminal.shows("Password: ");
}
