//! AWS refuses, and the gateway dies: nothing is handed out that is not ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sallyport::failpoint;
use serde_json::json;

use crate::support::tap::{is_call, refused};
use crate::support::wait_until;
use crate::world::{LIFTED, World};

#[test]
fn a_deny_that_cannot_be_put_is_tried_until_it_is_there() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let world = World::with("", move |body| {
        let fails = is_call(body, "PutRolePolicy") && is_down.load(Ordering::SeqCst);
        fails.then(|| {
            refused("LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role ReadOnly")
        })
    });
    let granted = world.grant_dev(3600);
    world.credential();
    let revoked = world.bastion.run_as("bob", &["revoke", &granted.session, "--why", "over"]).failure();
    revoked.says("NOT DESTROYED YET").says("Maximum policy size");
    world.bastion.advance(6);
    world.bastion.advance(6);
    let life = ["credential_intended", "credential_issued", "credential_destruction_failed failed"];
    assert_eq!(world.life(&granted.session), life, "once, not at every try");
    down.store(false, Ordering::SeqCst);
    world.bastion.advance(6);
    world.assert_denied(&granted.session);
    assert_eq!(world.life(&granted.session).last().unwrap(), "credential_denied");
}

#[test]
fn a_refusal_of_sts_is_told_and_nothing_is_handed_out() {
    let world = World::with("", |body| {
        let message = "not authorized to perform: sts:SetSourceIdentity";
        is_call(body, "AssumeRole").then(|| refused("AccessDenied", message))
    });
    let granted = world.grant_dev(3600);
    world.bastion.run_as("alice", &["aws", "logs-dev"]).failure().says("sts:SetSourceIdentity");
    assert_eq!(world.life(&granted.session), ["credential_intended", "credential_issued failed"]);
    assert_eq!(world.revoke(&granted.session).1["credential"]["state"], "destroyed");
    assert!(world.policies("ReadOnly").is_empty());
}

#[test]
fn an_answer_of_sts_that_is_lost_counts_as_handed_out() {
    let world = World::with("", |body| is_call(body, "AssumeRole").then(Vec::new));
    let granted = world.grant_dev(3600);
    world.bastion.run_as("alice", &["aws", "logs-dev"]).failure().says("AWS cannot be reached");
    assert_eq!(world.life(&granted.session), ["credential_intended", "credential_issued failed"]);
    assert_eq!(world.revoke(&granted.session).1["credential"]["state"], "denied");
    world.assert_denied(&granted.session);
    assert_eq!(world.bastion.events("credential_denied").len(), 1, "nobody can tell when it is in force");
}

/// The process dies at one place after the other, while a credential is handed out and denied.
#[test]
fn wherever_the_server_dies_nothing_outlives_its_session_undenied() {
    let mut world = World::start();
    for place in failpoint::ROLE {
        world.bastion.stop();
        world.bastion.set_environment(&[(failpoint::VARIABLE, place)]);
        world.bastion.boot();
        let granted = world.grant_dev(3600);
        let _died = world.bastion.run_as("alice", &["aws", "logs-dev"]);
        let _died = world.bastion.run_as("bob", &["revoke", &granted.session, "--why", "over"]);
        if place == "deny_removed" {
            // The call is not answered any more.
            let clock = format!("https://localhost:{}/testing/clock", world.bastion.api_port);
            let later = json!({ "advance_seconds": 3600 + LIFTED }).to_string();
            let mut curl = std::process::Command::new("curl");
            curl.args(["-sk", "-H", "content-type: application/json", "-d", &later, &clock]);
            let _died = curl.output().unwrap();
        }
        wait_until(&format!("it dies at {place}"), || !world.bastion.server().is_running());
        world.bastion.kill();
        world.bastion.set_environment(&[]);
        world.bastion.boot();
        // As it died before, or the answer got lost.
        let (status, _) = world.revoke(&granted.session);
        assert_eq!(status, 200, "{place}");
        if place != "deny_removed" {
            world.assert_denied(&granted.session);
        }
        // For the last place as well: it may have died before it had kept how late it was.
        world.bastion.advance(3700 + LIFTED);
        wait_until(&format!("the deny is gone after {place}"), || world.policies("ReadOnly").is_empty());
        wait_until(&format!("all is over after {place}"), || {
            world.life(&granted.session).last().is_some_and(|action| action == "credential_destroyed")
        });
        let life = world.life(&granted.session);
        assert_eq!(
            life.iter().filter(|action| *action == "credential_destroyed").count(),
            1,
            "{place}: {life:?}"
        );
        for name in ["alice", "bob"] {
            world.bastion.log_in(name).success();
        }
    }
    world.bastion.stop();
    world.bastion.verify().success();
}

#[test]
fn a_target_that_is_taken_away_takes_with_it_what_was_handed_out() {
    let mut world = World::start();
    let granted = world.grant_dev(3600);
    world.credential();
    world.bastion.set_targets("");
    world.bastion.signal(rustix::process::Signal::HUP);
    wait_until("it is denied", || !world.policies("ReadOnly").is_empty());
    world.assert_denied(&granted.session);
    world.bastion.advance(3600 + LIFTED);
    assert!(world.policies("ReadOnly").is_empty());
    assert_eq!(world.life(&granted.session).last().unwrap(), "credential_destroyed");
}

#[test]
fn a_deny_that_no_session_has_is_found_recorded_and_removed_when_nothing_needs_it() {
    let world = World::start();
    let granted = world.grant_dev(3600);
    world.credential();
    world.revoke(&granted.session);
    let ours = world.policies("ReadOnly").into_keys().next().unwrap();
    // As a store that was restored from a copy has forgotten it; and somebody else's, which is none of ours.
    let lost = ours.replace(&granted.session, "ses-0123456789abcdef");
    for name in [lost.as_str(), "sallyport-0000000000000000-ses-0123456789abcdef"] {
        world.put_deny(name);
    }
    world.bastion.advance(301);
    let found = world.bastion.events("credential_orphaned");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["detail"]["handle"], lost.as_str());
    assert_eq!(world.policies("ReadOnly").len(), 3, "what it denies may be good still");

    // As long as AWS issues any.
    world.bastion.advance(11 * 3600);
    world.bastion.advance(301);
    assert!(world.policies("ReadOnly").contains_key(&lost));
    world.bastion.advance(3600 + LIFTED);
    world.bastion.advance(301);
    let left: Vec<String> = world.policies("ReadOnly").into_keys().collect();
    assert_eq!(left, ["sallyport-0000000000000000-ses-0123456789abcdef"]);
    assert_eq!(world.bastion.events("credential_orphaned").len(), 1, "told once");
    let gone = world.bastion.events("credential_destroyed");
    assert!(gone.iter().any(|event| event["detail"]["handle"] == lost.as_str()), "{gone:?}");
    world.bastion.verify().success();
}

/// The process dies at one place after the other, while the janitor removes a deny that no session has.
#[test]
fn wherever_the_janitor_dies_a_deny_is_found_and_removed_once() {
    let mut world = World::start();
    let granted = world.grant_dev(900);
    world.credential();
    world.revoke(&granted.session);
    let ours = world.policies("ReadOnly").into_keys().next().unwrap();
    let all_is_over = "the clean-up has removed its own";
    world.bastion.advance(900 + LIFTED);
    wait_until(all_is_over, || world.policies("ReadOnly").is_empty());
    for place in failpoint::FOUND_DENY {
        world.bastion.stop();
        world.bastion.set_environment(&[(failpoint::VARIABLE, place)]);
        world.bastion.boot();
        // Of a session whose credentials are all over: removed at once.
        world.put_deny(&ours);
        world.bastion.pass(301);
        wait_until(&format!("it dies at {place}"), || !world.bastion.server().is_running());
        world.bastion.kill();
        world.bastion.set_environment(&[]);
        world.bastion.boot();
        let of_it = |action: &str| {
            let events = world.bastion.events(action);
            events.iter().filter(|event| event["detail"]["handle"] == ours.as_str()).count()
        };
        let times = 1 + usize::from(place == failpoint::FOUND_DENY[1]);
        wait_until(&format!("it is gone after {place}"), || {
            world.bastion.advance(301);
            world.policies("ReadOnly").is_empty() && of_it("credential_destroyed") == times
        });
        assert_eq!(of_it("credential_orphaned"), times, "{place}");
    }
    world.bastion.stop();
    world.bastion.verify().success();
}

#[test]
fn a_deny_that_is_left_where_no_target_is_any_more_is_told() {
    let mut world = World::start();
    let granted = world.grant_dev(900);
    world.credential();
    world.revoke(&granted.session);
    let ours = world.policies("ReadOnly").into_keys().next().unwrap();
    let lost = ours.replace(&granted.session, "ses-0123456789abcdef");
    world.put_deny(&lost);
    world.bastion.advance(301);
    assert_eq!(world.bastion.events("credential_orphaned").len(), 1);
    world.bastion.set_targets("");
    world.bastion.signal(rustix::process::Signal::HUP);
    wait_until("it is told that nobody looks there", || {
        world.bastion.advance(301);
        let failed = world.bastion.events("credential_destruction_failed");
        let of_it = failed.iter().filter(|event| event["detail"]["handle"] == lost.as_str());
        let errors: Vec<String> = of_it.map(|event| event["detail"]["error"].to_string()).collect();
        assert!(errors.len() < 2, "once: {errors:?}");
        errors
            .iter()
            .any(|error| error.contains("no target is at arn:aws:iam::123456789012:role/ReadOnly any more"))
    });
    world.bastion.verify().success();
}
