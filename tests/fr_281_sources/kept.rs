//! Passwords that Sallyport keeps: encrypted, injected, changed after each session where a command is configured.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use sallyport::failpoint;

use super::support::amazon::{Emulator, REGION};
use super::support::bastion::run_with_input;
use super::support::postgres::SUPERUSER_PASSWORD;
use super::support::{Bastion, Finished, Options, Postgres, wait_until};
use super::{
    FIRST, TARGET, USER, assert_nowhere, grant, last, lets_in, options, revoke, select, shared_user, target,
};

const NAME: &str = "ledger-app";

pub(super) fn keep(bastion: &Bastion, password: &str) -> Finished {
    let config = bastion.config_file();
    let arguments =
        ["secret", "set", NAME, "--user", USER, "--password-stdin", "--config", config.to_str().unwrap()];
    run_with_input(bastion.command(&arguments), password)
}

/// A program that changes the password as it is told by its input, unless there is a file that says not to; or later, while
/// there is one that says to wait.
fn command(postgres: &Postgres) -> PathBuf {
    let path = postgres.data().with_file_name("rotate");
    let script = format!(
        "#!/usr/bin/env python3\nimport json, os, subprocess, sys, time\ntask = json.load(sys.stdin)\n\
         while os.path.exists('{0}-waits'):\n    open('{0}-begun', 'w').close()\n    time.sleep(0.05)\n\
         if os.path.exists('{0}-refused'):\n    sys.exit('cannot change ' + task['password'] + ' to ' + task['new_password'])\n\
         if not os.path.exists('{0}-idle'):\n    subprocess.run(['psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', '127.0.0.1', \
         '-p', '{1}', '-U', 'postgres', '-d', 'postgres', '-c', 'ALTER ROLE ' + task['user'] + \" PASSWORD '\" + \
         task['new_password'] + \"'\"], env=dict(os.environ, PGPASSWORD='{2}', PGSSLMODE='require'), check=True)\n",
        path.display(),
        postgres.port,
        SUPERUSER_PASSWORD,
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A bastion that keeps the user's password and has it changed by a [`command`], which is given as well.
fn changing(postgres: &Postgres) -> (PathBuf, Bastion) {
    let program = command(postgres);
    let credential = ["kind = \"static\"".to_owned(), format!("rotate = [\"{}\"]", program.display())];
    let bastion = Bastion::start_with(postgres, options(target(postgres, NAME, &credential)));
    keep(&bastion, FIRST).success();
    (program, bastion)
}

#[test]
fn a_kept_password_is_injected_and_shown_nowhere() {
    let postgres = shared_user();
    let bastion =
        Bastion::start_with(&postgres, options(target(&postgres, NAME, &["kind = \"static\"".to_owned()])));
    let session = grant(&bastion);
    let refused = select(&bastion).failure();
    assert!(refused.stderr.contains("sallyport secret set ledger-app"), "{}", refused.stderr);
    keep(&bastion, FIRST).success();
    assert_eq!(select(&bastion).success().stdout, format!("{USER}|100\n"));
    revoke(&bastion, &session).success();
    assert_eq!(last(&bastion, "credential_destroyed")["detail"]["how"], "kept");
    assert_nowhere(&bastion, FIRST);

    let config = bastion.config_file();
    let run =
        |arguments: &[&str]| bastion.operator(&[arguments, &["--config", config.to_str().unwrap()]].concat());
    assert_eq!(run(&["secret", "list"]).success().stdout, format!("{NAME}\n"));
    // A sealed file moved under another name does not open: it was sealed for its own.
    let sealed = bastion.data().join("secrets").join(format!("{NAME}.sealed"));
    let before = fs::read(&sealed).unwrap();
    fs::copy(&sealed, sealed.with_file_name("other.sealed")).unwrap();
    let mut changed = before.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&sealed, &changed).unwrap();
    grant(&bastion);
    assert!(select(&bastion).failure().stderr.contains("changed since"));
    fs::write(&sealed, &before).unwrap();
    select(&bastion).success();
    run(&["secret", "remove", NAME]).success();
    run(&["secret", "remove", NAME]).failure();
    run(&["secret", "set", "../up", "--user", USER]).failure().says("no name to keep a password under");
}

#[test]
fn a_password_is_sent_as_an_md5_hash_only_where_that_is_allowed() {
    let postgres = shared_user();
    let hashed = format!("SET password_encryption = 'md5'; ALTER ROLE {USER} PASSWORD '{FIRST}'");
    postgres.query("postgres", &hashed).success();
    let asks = |how: &str| postgres.admit(&format!("hostssl all {USER} 127.0.0.1/32 {how}"));
    asks("md5");
    let kept = |more: &[&str]| {
        let lines = [&["kind = \"static\""], more].concat();
        target(&postgres, NAME, &lines.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let mut bastion = Bastion::start_with(&postgres, options(kept(&[])));
    keep(&bastion, FIRST).success();
    grant(&bastion);
    select(&bastion).failure().says("asks for an MD5 password, which is not accepted");
    bastion.set_targets(&kept(&["allow_md5 = true"]));
    bastion.stop();
    bastion.boot();
    assert_eq!(select(&bastion).success().stdout, format!("{USER}|100\n"));
    // Nothing weaker, and what is stronger as before.
    asks("password");
    select(&bastion).failure().says("asks for a password in clear, which is not accepted");
    asks("scram-sha-256");
    let proved = format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE {USER} PASSWORD '{FIRST}'");
    postgres.query("postgres", &proved).success();
    select(&bastion).success();
    // A wrong password is refused, hashed as well.
    postgres.query("postgres", &hashed).success();
    asks("md5");
    keep(&bastion, "another").success();
    select(&bastion).failure().says("password authentication failed");
    assert_nowhere(&bastion, FIRST);
}

#[test]
fn a_kept_password_is_changed_after_each_session() {
    let postgres = shared_user();
    let (program, mut bastion) = changing(&postgres);
    let session = grant(&bastion);
    select(&bastion).success();
    revoke(&bastion, &session).success();
    assert!(!lets_in(&postgres, FIRST), "it was changed");
    assert_eq!(last(&bastion, "credential_destroyed")["detail"]["how"], "rotated");

    // One that fails: told, not with the passwords; nobody gets in; tried again until it succeeds, after a crash too.
    let refused = program.with_file_name("rotate-refused");
    let session = grant(&bastion);
    select(&bastion).success();
    fs::write(&refused, "").unwrap();
    assert!(!revoke(&bastion, &session).status.success());
    let failed = last(&bastion, "credential_destruction_failed");
    let told = failed["detail"]["error"].as_str().unwrap();
    assert!(told.contains("cannot change [secret] to [secret]"), "{told}");
    grant(&bastion);
    assert!(select(&bastion).failure().stderr.contains("half changed"));
    bastion.kill();
    bastion.boot();
    fs::remove_file(&refused).unwrap();
    let destroyed = || bastion.events("credential_destroyed").len();
    wait_until("it is changed", || {
        bastion.advance(30);
        destroyed() == 2
    });
    select(&bastion).success();
    bastion.verify().success();
}

#[test]
fn a_change_that_takes_its_time_delays_no_other_credentials_end() {
    let postgres = shared_user();
    let (program, bastion) = changing(&postgres);
    let slow = bastion.grant("alice", TARGET, "readonly", 60, &[]).session;
    select(&bastion).success();
    let quick = bastion.grant("alice", "ledger-dev", "dba", 120, &[]).session;
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    let (waits, begun) = (program.with_file_name("rotate-waits"), program.with_file_name("rotate-begun"));
    fs::write(&waits, "").unwrap();
    let destroyed = || {
        let events = bastion.events("credential_destroyed");
        events.iter().map(|event| event["session"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    bastion.pass(60);
    wait_until("the change has begun", || begun.exists());
    bastion.pass(60);
    wait_until("the other credential is destroyed", || {
        bastion.pass(1);
        destroyed() == [quick.as_str()]
    });
    assert!(postgres.session_roles().is_empty() && lets_in(&postgres, FIRST));
    fs::remove_file(&waits).unwrap();
    wait_until("the password is changed", || destroyed() == [quick.as_str(), slow.as_str()]);
    assert!(!lets_in(&postgres, FIRST));
    bastion.verify().success();
}

/// The process dies before and after each step of a change.
#[test]
fn wherever_the_server_dies_the_password_is_known_and_changed() {
    let postgres = shared_user();
    let (_, mut bastion) = changing(&postgres);
    let mut environment = super::support::amazon::ENVIRONMENT.to_vec();
    for (round, place) in failpoint::KEPT.into_iter().enumerate() {
        bastion.stop();
        environment.push((failpoint::VARIABLE, place));
        bastion.set_environment(&environment);
        environment.pop();
        bastion.boot();
        let session = grant(&bastion);
        select(&bastion).success();
        let _died = revoke(&bastion, &session);
        wait_until(&format!("it dies at {place}"), || !bastion.server().is_running());
        bastion.kill();
        bastion.set_environment(&environment);
        bastion.boot();
        wait_until(&format!("it is changed after {place}"), || {
            bastion.advance(6);
            bastion.events("credential_destroyed").len() == round + 1
        });
    }
    assert!(!lets_in(&postgres, FIRST));
    grant(&bastion);
    select(&bastion).success();
    bastion.verify().success();
}

#[test]
fn a_command_that_changes_nothing_is_found_out() {
    let postgres = shared_user();
    let (program, bastion) = changing(&postgres);
    let session = grant(&bastion);
    select(&bastion).success();
    fs::write(program.with_file_name("rotate-idle"), "").unwrap();
    let revoked = revoke(&bastion, &session);
    assert!(!revoked.status.success());
    let failed = last(&bastion, "credential_destruction_failed");
    assert!(failed["detail"]["error"].as_str().unwrap().contains("refuses the new password"), "{failed}");
    assert!(lets_in(&postgres, FIRST));
}

#[test]
fn a_target_whose_kind_of_credentials_changed_destroys_nothing_it_does_not_know() {
    let postgres = shared_user();
    let admin = "[target.admin]\nuser = \"sallyport_admin\"\npassword_file = \"ADMIN-DIR/admin-password\"\n";
    let of_roles = target(&postgres, "ledger_readonly", &["kind = \"role\"".to_owned()]) + admin;
    let kept = target(&postgres, "ledger_readonly", &["kind = \"static\"".to_owned()]);
    let mut bastion = Bastion::start_with(&postgres, options(of_roles.clone()));
    let session = grant(&bastion);
    select(&bastion).success();
    assert_eq!(postgres.session_roles().len(), 1);
    bastion.set_targets(&kept);
    bastion.signal(rustix::process::Signal::HUP);
    wait_until("the configuration is read", || !bastion.events("configuration_reloaded").is_empty());
    assert!(select(&bastion).failure().stderr.contains("credentials of another kind"));
    let revoked = revoke(&bastion, &session);
    assert!(!revoked.status.success());
    assert_eq!(postgres.session_roles().len(), 1, "it is there, and nobody says that it is not");
    assert_eq!(bastion.events("credential_destroyed").len(), 0);
    bastion.set_targets(&of_roles);
    bastion.signal(rustix::process::Signal::HUP);
    wait_until("the role is gone", || {
        bastion.advance(6);
        postgres.session_roles().is_empty()
    });
}

#[test]
fn kept_passwords_open_with_the_key_in_kms_alone() {
    let postgres = shared_user();
    let amazon = Emulator::moto();
    let key = amazon.python("kms", "print(c.create_key()['KeyMetadata']['Arn'])").trim().to_owned();
    let settings = [
        ("server", format!("secrets_key = \"{key}\"")),
        ("server", format!("secrets_region = \"{REGION}\"")),
        ("server", format!("secrets_endpoint = \"{}\"", amazon.url())),
    ];
    let targets = target(&postgres, NAME, &["kind = \"static\"".to_owned()]);
    let options = Options { settings: settings.to_vec(), ..options(targets) };
    let mut bastion = Bastion::start_with(&postgres, options);
    // As an operator's shell has them.
    let config = bastion.config_file();
    let arguments =
        ["secret", "set", NAME, "--user", USER, "--password-stdin", "--config", config.to_str().unwrap()];
    let mut command = bastion.command(&arguments);
    command.envs(super::support::amazon::ENVIRONMENT);
    run_with_input(command, FIRST).success();
    let kept = fs::read_to_string(bastion.data().join("secrets.key")).unwrap();
    assert!(kept.starts_with("kms "), "{kept}");
    grant(&bastion);
    select(&bastion).success();
    // Once it has the key, the server goes on without KMS; it does not start again with kept passwords without it.
    drop(amazon);
    select(&bastion).success();
    bastion.stop();
    bastion.boot();
    grant(&bastion);
    let refused = select(&bastion).failure();
    assert!(refused.stderr.contains("KMS does not give the key"), "{}", refused.stderr);
}
