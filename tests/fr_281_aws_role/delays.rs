//! FR-284 where AWS takes its time: it applies a deny after 0, 2 or 30 s, and refuses calls meanwhile.

#![expect(clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::probed;
use crate::support::process::wait_until;
use crate::support::tap::{is_call, refused};
use crate::world::{LIFTED, World};

/// What AWS does, by the clock of the test.
#[derive(Debug, Default)]
struct Amazon {
    random: u64,
    second: u64,
    delay: u64,
    put: Option<u64>,
    /// Whether a call was refused because of the deny.
    has_denied: bool,
}

impl Amazon {
    fn happens(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    fn answer(&mut self, body: &str) -> Option<Vec<u8>> {
        let is_put = is_call(body, "PutRolePolicy");
        if (is_put || is_call(body, "AssumeRole")) && self.happens(30) {
            // Once lost, once refused.
            let refusal = refused("AccessDenied", "not now");
            return Some(if self.happens(50) { refusal } else { Vec::new() });
        }
        if is_put {
            self.put.get_or_insert(self.second);
        }
        is_call(body, "DecodeAuthorizationMessage").then(|| {
            let applies = self.put.is_some_and(|put| put + self.delay <= self.second);
            self.has_denied |= applies;
            probed(applies)
        })
    }
}

/// `SALLYPORT_TEST_ROUNDS` says how many sessions for each delay.
#[test]
fn a_deny_is_confirmed_when_aws_applies_it_and_no_sooner() {
    let rounds = std::env::var("SALLYPORT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (mut seed, mut left) = (0x5a11_9027, rounds.unwrap_or(1));
    while left > 0 {
        // The record of many is read as often as time goes by.
        let some = left.min(8);
        seed = revoked_in_one_world(some, seed);
        left -= some;
    }
}

/// Gives the next seed.
fn revoked_in_one_world(rounds: u32, seed: u64) -> u64 {
    let amazon = Arc::new(Mutex::new(Amazon { random: seed, ..Amazon::default() }));
    let asked = Arc::clone(&amazon);
    let world = World::with("", move |body| asked.lock().unwrap().answer(body));
    for _ in 0..rounds {
        for delay in [0, 2, 30] {
            revoked_with(delay, &world, &amazon);
        }
    }
    world.bastion.verify().success();
    let amazon = amazon.lock().unwrap();
    amazon.random
}

fn revoked_with(delay: u64, world: &World, amazon: &Mutex<Amazon>) {
    let random = amazon.lock().unwrap().random;
    *amazon.lock().unwrap() = Amazon { random, delay, ..Amazon::default() };
    // Time goes by: their logins end with the day.
    for name in ["alice", "bob"] {
        world.bastion.log_in(name).success();
    }
    let granted = world.grant_dev(3600);
    let get = || world.bastion.run_as("alice", &["aws", "logs-dev"]).status.success();
    wait_until("a credential is handed out", get);
    let told = || {
        let events = world.bastion.events("credential_denied");
        events.into_iter().filter(|event| event["session"] == json!(granted.session)).collect::<Vec<Value>>()
    };
    let pass = || {
        world.bastion.advance(1);
        amazon.lock().unwrap().second += 1;
    };
    std::thread::scope(|scope| {
        let revoking = scope.spawn(|| world.revoke(&granted.session));
        while !revoking.is_finished() {
            pass();
        }
        let (status, answer) = revoking.join().unwrap();
        assert!([200, 202].contains(&status), "{status} {answer}");
        if answer["credential"]["window_ms"].is_u64() {
            assert!(amazon.lock().unwrap().has_denied, "{answer}");
        }
    });
    let confirmed = |event: &Value| event["detail"]["in_force"] == "confirmed";
    wait_until(&format!("it is confirmed, {delay} s"), || {
        // In this order: it may come to it in between.
        let told = told();
        let has_denied = amazon.lock().unwrap().has_denied;
        assert!(has_denied || !told.iter().any(confirmed), "{told:?}");
        pass();
        told.iter().any(confirmed)
    });
    let told = told();
    assert_eq!(told.len(), 2, "{told:?}");
    let window = told[1]["detail"]["window_ms"].as_u64().unwrap();
    // The deny may be put just before the test's clock moves.
    assert!(window + 2_000 >= delay * 1_000, "{delay} {window}");
    world.assert_denied(&granted.session);
    world.bastion.advance(3600 + LIFTED);
    wait_until("the deny is gone", || {
        world.bastion.advance(6);
        world.policies("ReadOnly").is_empty()
    });
    assert_eq!(world.life(&granted.session).last().unwrap(), "credential_destroyed");
}
