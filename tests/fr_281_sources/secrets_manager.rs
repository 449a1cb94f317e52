//! AWS Secrets Manager: rotated for a session, waited for as long as it takes, rotated away at its end.

use std::time::Duration;

use sallyport::failpoint;
use serde_json::json;

use super::support::amazon::{Emulator, REGION};
use super::support::calls::text;
use super::support::load::Moments;
use super::support::process::{PATIENCE, pause_for, wait_for};
use super::support::rotation::{Mishaps, Pace, Rotation};
use super::support::tap::field;
use super::support::{Bastion, Postgres, wait_until};
use super::{
    FIRST, USER, assert_nowhere, grant, last, lets_in, options, revoke, select, shared_user, target,
};

const SECRET: &str = "bank/ledger-app";

struct House {
    postgres: Postgres,
    amazon: Emulator,
    rotation: Rotation,
    bastion: Bastion,
}

impl House {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more lines in `[target.credential]`.
    fn with(more: &[&str]) -> Self {
        let (postgres, amazon) = (shared_user(), Emulator::moto());
        let value = json!({ "username": USER, "password": FIRST }).to_string();
        amazon.python("secretsmanager", &format!("c.create_secret(Name='{SECRET}', SecretString='{value}')"));
        let rotation = Rotation::before(&amazon, &postgres);
        let mut credential = vec![
            "kind = \"secrets-manager\"".to_owned(),
            format!("region = \"{REGION}\""),
            format!("endpoint = \"{}\"", rotation.url()),
        ];
        credential.extend(more.iter().map(|line| (*line).to_owned()));
        let bastion = Bastion::start_with(&postgres, options(target(&postgres, SECRET, &credential)));
        Self { postgres, amazon, rotation, bastion }
    }

    /// The password that is current.
    fn password(&self) -> String {
        let print = format!(
            "print(json.loads(c.get_secret_value(SecretId='{SECRET}', VersionStage='AWSCURRENT')['SecretString'])['password'])"
        );
        self.amazon.python("secretsmanager", &print).trim_end().to_owned()
    }

    /// Has time go by in steps, until `done`; gives how many seconds that were. A rotation of half a minute and what is
    /// waited for after each mishap are many steps, and on a busy machine each takes a while.
    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) -> u64 {
        let mut seconds = 0;
        wait_for(what, 4 * PATIENCE, || {
            self.bastion.advance(1);
            seconds += 1;
            pause_for(Duration::from_millis(30));
            done()
        });
        seconds
    }
}

#[test]
fn a_secret_is_rotated_for_each_session_and_away_at_its_end() {
    let house = House::new();
    let session = grant(&house.bastion);
    assert_eq!(select(&house.bastion).success().stdout, format!("{USER}|100\n"));
    let used = house.password();
    assert_ne!(used, FIRST);
    assert!(!lets_in(&house.postgres, FIRST), "the password from before the session");
    assert!(lets_in(&house.postgres, &used));
    select(&house.bastion).success();
    assert_eq!(house.rotation.begun(), 1, "a further connection rotates nothing");
    assert_eq!(
        last(&house.bastion, "credential_issued")["detail"]["handle"],
        format!("secrets-manager:{SECRET}")
    );

    revoke(&house.bastion, &session).success();
    assert!(!lets_in(&house.postgres, &used), "the session's password");
    assert_eq!(house.rotation.begun(), 2);
    let destroyed = last(&house.bastion, "credential_destroyed");
    assert_eq!(destroyed["detail"]["how"], "rotated");
    assert_eq!(destroyed["session"], json!(session));
    for secret in [FIRST, used.as_str(), house.password().as_str()] {
        assert_nowhere(&house.bastion, secret);
    }
}

#[test]
fn a_role_is_assumed_in_the_sessions_name_and_for_no_longer() {
    let house = House::with(&["role = \"arn:aws:iam::123456789012:role/rotates-ledger\""]);
    let session = grant(&house.bastion);
    select(&house.bastion).success();
    revoke(&house.bastion, &session).success();
    let ends_at = house.bastion.session("alice", &session)["ends_at"].as_str().unwrap().to_owned();
    let assumed = house.rotation.roles_assumed();
    assert_eq!(assumed.len(), 2, "{assumed:?}");
    // To the second.
    let policy = field(&assumed[0], "Policy").unwrap();
    let until = format!("\"DateGreaterThan\":{{\"aws:CurrentTime\":\"{}Z\"}}", &ends_at[..19]);
    assert!(policy.contains(&until), "{policy} {until}");
    for (asked, who) in assumed.iter().zip(["alice", "sallyport"]) {
        for named in ["RoleSessionName", "SourceIdentity"] {
            assert!(asked.contains(&format!("{named}={who}%40{session}")), "{asked}");
        }
        assert!(asked.contains("rotates-ledger") && asked.contains("DateGreaterThan"), "{asked}");
        let seconds = asked.split('&').find_map(|one| one.strip_prefix("DurationSeconds="));
        let seconds: u64 = seconds.and_then(|seconds| seconds.parse().ok()).unwrap();
        assert!((900..=3600).contains(&seconds), "{asked}");
    }
    let principal = "sallyport%3Aprincipal&Tags.member.3.Value=alice";
    assert!(assumed[0].contains(principal), "{}", assumed[0]);
    // What was handed out for each is on record, its secret is not.
    let issued = house.bastion.events("credential_issued");
    let destroyed = house.bastion.events("credential_destroyed");
    let marks = [&issued[0]["detail"]["assumed"][0], &destroyed[0]["detail"]["assumed"][0]];
    for assumed in marks {
        assert_eq!(assumed["role"], "arn:aws:iam::123456789012:role/rotates-ledger");
        assert!(text(&assumed["access_key_id"]).starts_with("ASIA"), "{assumed}");
        assert_eq!(text(&assumed["fingerprint"]).len(), 64);
        assert!(text(&assumed["valid_until"]).ends_with('Z'), "{assumed}");
    }
    assert_ne!(marks[0]["fingerprint"], marks[1]["fingerprint"]);
}

#[test]
fn a_rotation_is_waited_for_as_long_as_it_takes() {
    let house = House::new();
    for (round, delay) in [0, 2, 30].into_iter().enumerate() {
        let session = grant(&house.bastion);
        house.rotation.set(if delay == 0 { Pace::AtOnce } else { Pace::WhenLet }, Mishaps::default());
        let mut psql = house.bastion.psql_command("alice", super::TARGET, &["-c", "SELECT 1"]);
        let mut psql = super::support::process::Running::start(&mut psql);
        wait_until("the rotation begins", || house.rotation.begun() % 2 == 1);
        for _ in 0..delay {
            house.bastion.advance(1);
            assert!(psql.is_running(), "it waits for {delay} s");
        }
        house.rotation.finish();
        house.wait("the connection is made", || !psql.is_running());
        assert!(psql.child().wait().unwrap().success());

        // At the end nobody waits: what is under way is said to be, and is no failure.
        let used = house.password();
        let revoked = revoke(&house.bastion, &session);
        if delay == 0 {
            revoked.success();
        } else {
            assert!(!revoked.status.success());
            assert!(revoked.stdout.contains("is under way"), "{}{}", revoked.stdout, revoked.stderr);
            for _ in 0..delay {
                house.bastion.advance(1);
                assert_eq!(house.bastion.events("credential_destroyed").len(), round);
            }
            house.rotation.finish();
        }
        house.wait("the credential is destroyed", || {
            house.bastion.events("credential_destroyed").len() == round + 1
        });
        assert!(!lets_in(&house.postgres, &used));
    }
    assert_eq!(house.bastion.events("credential_destruction_failed").len(), 0);

    // One that does not come to its end is a failure after all.
    let session = grant(&house.bastion);
    house.rotation.set(Pace::AtOnce, Mishaps::default());
    select(&house.bastion).success();
    house.rotation.set(Pace::WhenLet, Mishaps::default());
    revoke(&house.bastion, &session);
    house.bastion.advance(301);
    let failed = last(&house.bastion, "credential_destruction_failed");
    assert!(failed["detail"]["error"].as_str().unwrap().contains("has not ended within 300 s"), "{failed}");
}

#[test]
fn a_session_that_ends_while_its_secret_is_rotated_opens_nothing() {
    let house = House::new();
    let session = grant(&house.bastion);
    house.rotation.set(Pace::WhenLet, Mishaps::default());
    let mut psql = house.bastion.psql_command("alice", super::TARGET, &["-c", "SELECT 1"]);
    let mut psql = super::support::process::Running::start(&mut psql);
    wait_until("the rotation begins", || house.rotation.is_under_way());
    // Virtual time stands still: neither waits for the rotation.
    let revoked = revoke(&house.bastion, &session);
    assert!(!revoked.status.success(), "what is not confirmed is no success");
    wait_until("the client is refused", || !psql.is_running());
    assert!(!psql.child().wait().unwrap().success());
    assert_eq!(house.bastion.events("credential_destroyed").len(), 0);

    // First the rotation that was asked for, then the one that ends it.
    house.wait("the credential is destroyed", || {
        house.rotation.finish();
        house.bastion.events("credential_destroyed").len() == 1
    });
    assert_eq!(house.rotation.begun(), 2);
}

/// Rotations that take 0, 2 or 30 s, requests that are lost or refused. `SALLYPORT_TEST_ROUNDS` says how many sessions.
#[test]
fn slow_rotations_lost_answers_and_refusals_do_no_harm() {
    let rounds = std::env::var("SALLYPORT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (mut moments, mut left) = (Moments(0x5a11_7006), rounds.unwrap_or(4));
    while left > 0 {
        // The record of many is read as often as time goes by.
        let some = left.min(25);
        rotate_slowly(some, &mut moments);
        left -= some;
    }
}

fn rotate_slowly(rounds: usize, moments: &mut Moments) {
    let house = House::new();
    let mishaps = Mishaps { unheard: 25, throttled: 25, ..Mishaps::default() };
    for round in 1..=rounds {
        let session = grant(&house.bastion);
        house.rotation.set(Pace::WhenLet, mishaps);
        let delays = [0, 1].map(|_| match moments.next() % 3 {
            0 => 0,
            1 => 2,
            _ => 30,
        });
        let mut seconds = 0;
        let mut let_after = |delay: u64| {
            seconds = if house.rotation.is_under_way() { seconds + 1 } else { 0 };
            if seconds > delay {
                house.rotation.finish();
            }
        };
        std::thread::scope(|scope| {
            // A connection that Amazon does not answer is refused, and made anew.
            let connecting = scope
                .spawn(|| wait_for("it connects", 4 * PATIENCE, || select(&house.bastion).status.success()));
            house.wait("it connects", || {
                let_after(delays[0]);
                connecting.is_finished()
            });
            connecting.join().unwrap();
        });
        let used = house.rotation.password();
        revoke(&house.bastion, &session);
        house.wait("it is destroyed", || {
            let_after(delays[1]);
            house.bastion.events("credential_destroyed").len() == round
        });
        assert!(!lets_in(&house.postgres, &used));
        assert_eq!(house.rotation.begun(), u32::try_from(2 * round).unwrap(), "each was asked for once");
    }
}

/// The process dies after each rotation, before that is written down.
#[test]
fn wherever_the_server_dies_the_secret_is_rotated_away() {
    let mut house = House::new();
    let environment = super::support::amazon::ENVIRONMENT;
    for (round, place) in failpoint::ROTATED.into_iter().enumerate() {
        house.bastion.stop();
        house.bastion.set_environment(&[&environment[..], &[(failpoint::VARIABLE, place)]].concat());
        house.bastion.boot();
        let session = grant(&house.bastion);
        let _died = select(&house.bastion);
        let _died = revoke(&house.bastion, &session);
        wait_until(&format!("it dies at {place}"), || !house.bastion.server().is_running());
        let used = house.password();
        house.bastion.kill();
        house.bastion.set_environment(&environment);
        house.bastion.boot();
        if place == "secret_rotated" {
            // The session goes on: what was rotated for it is its own.
            select(&house.bastion).success();
            assert_eq!(house.rotation.begun(), 1, "it is not rotated again");
            revoke(&house.bastion, &session).success();
            assert!(!lets_in(&house.postgres, &used));
        }
        house.wait("it is destroyed", || house.bastion.events("credential_destroyed").len() == round + 1);
        assert_eq!(house.rotation.begun(), 2 * u32::try_from(round + 1).unwrap(), "{place}");
    }
    house.bastion.verify().success();
}

#[test]
fn a_rotation_that_leaves_the_password_alone_is_no_destruction() {
    let house = House::new();
    let session = grant(&house.bastion);
    select(&house.bastion).success();
    let used = house.password();
    house.rotation.set(Pace::AtOnce, Mishaps { leaves_the_user: true, ..Mishaps::default() });
    let revoked = revoke(&house.bastion, &session);
    assert!(!revoked.status.success());
    assert!(
        revoked.stderr.contains("still opens the target")
            || revoked.stdout.contains("still opens the target")
    );
    assert!(lets_in(&house.postgres, &used));
    assert_eq!(house.bastion.events("credential_destroyed").len(), 0);
    house.postgres.query("ledger", &format!("ALTER ROLE {USER} PASSWORD 'something else'")).success();
    house.wait("the credential is destroyed", || house.bastion.events("credential_destroyed").len() == 1);
}

/// Given up more often than is tried anew at once, it is still tried every ten minutes.
#[test]
fn a_rotation_that_is_given_up_is_asked_for_anew_until_it_is_done() {
    let house = House::new();
    let session = grant(&house.bastion);
    select(&house.bastion).success();
    let used = house.password();
    house.rotation.set(Pace::WhenLet, Mishaps::default());
    assert!(!revoke(&house.bastion, &session).status.success());
    let before = house.rotation.begun();
    for attempt in 0..=20 {
        house.wait("it is begun", || house.rotation.begun() > before + attempt - 1);
        house.rotation.give_up();
    }
    house.wait("it is said that it was given up", || {
        let failed = house.bastion.events("credential_destruction_failed");
        failed.last().is_some_and(|event| event["detail"]["error"].to_string().contains("again and again"))
    });
    let begun = house.rotation.begun();
    house.bastion.advance(60);
    assert_eq!(house.rotation.begun(), begun, "not at once");
    house.rotation.set(Pace::AtOnce, Mishaps::default());
    house.bastion.advance(600);
    house.wait("it is destroyed", || house.bastion.events("credential_destroyed").len() == 1);
    assert_eq!(house.rotation.begun(), begun + 1);
    assert!(!lets_in(&house.postgres, &used));
    house.bastion.verify().success();
}

/// As where the rotation function has failed: the version stays pending.
#[test]
fn a_rotation_that_stays_under_way_is_asked_for_once_more() {
    let house = House::new();
    let session = grant(&house.bastion);
    select(&house.bastion).success();
    house.rotation.set(Pace::WhenLet, Mishaps::default());
    assert!(!revoke(&house.bastion, &session).status.success());
    let begun = house.rotation.begun();
    // Mended; and nobody but who asks anew has it go on.
    house.rotation.set(Pace::AtOnce, Mishaps::default());
    house.bastion.advance(290);
    assert!(house.rotation.is_under_way());
    house.bastion.advance(11);
    house.wait("it is destroyed", || house.bastion.events("credential_destroyed").len() == 1);
    assert_eq!(house.rotation.begun(), begun, "it is the same one");
}
