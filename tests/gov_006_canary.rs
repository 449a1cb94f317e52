//! GOV-006: a recording made on purpose is fetched back from where the log goes and verified, every hour; what does not
//! come back as it was recorded raises the alarm.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use sallyport::audit::canary::{Canary, CanaryError, From};
use sallyport::audit::{ControlEntry, Journal, JournalOptions, SigningKey};
use sallyport::clock::Clock;
use sallyport::domain::event::{Action, Event};
use sallyport::domain::id::NodeId;
use sallyport::domain::time::Timestamp;
use support::amazon::{Emulator, FaultProxy, Faults, REGION};
use support::{Bastion, Options, Postgres, wait_until};

const STREAM: &str = "audit";
const AGE: &str = "sallyport_canary_age_seconds";
const PASSED: &str = "sallyport_canary_passed_total";
const FAILURES: &str = "sallyport_canary_failures_total";

fn streaming(url: &str) -> Options {
    let lines = [
        format!("kinesis = \"{STREAM}\""),
        format!("region = \"{REGION}\""),
        format!("endpoint = \"{url}\""),
        "record_bytes = 1024".to_owned(),
    ];
    Options { settings: lines.map(|line| ("stream", line)).into(), ..Options::default() }
}

/// Moves the clock to when the first canary is due, or the next after one that passed or failed.
fn until_due(bastion: &Bastion, seconds: u64) {
    bastion.advance(seconds + 1);
}

/// So many have come back, the last of them a short while ago.
fn are_back(bastion: &Bastion, count: u32) -> bool {
    bastion.metric(PASSED) >= f64::from(count) && bastion.metric(AGE) < 60.0
}

#[test]
fn a_canary_comes_back_through_the_stream_or_an_alarm_stands() {
    let postgres = Postgres::start();
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 3);
    let proxy = FaultProxy::before(&amazon, 0x5a11_7006);
    let mut bastion = Bastion::start_for(&postgres, streaming(&proxy.url()), &["alice", "erin"]);
    bastion.grant("alice", "ledger-dev", "readonly", 7200, &[]);
    let released = |bastion: &Bastion| bastion.events("canary").len();
    assert_eq!(released(&bastion), 0);
    until_due(&bastion, 60);
    wait_until("one is released", || released(&bastion) == 1);
    // Other recordings go on meanwhile, in pieces.
    let long = "x".repeat(5000);
    bastion.psql("alice", "ledger-dev", &format!("SELECT '{long}'")).success();
    wait_until("it is back", || are_back(&bastion, 1));
    assert!(bastion.metric(FAILURES) < 1.0);
    let canary = bastion.events("canary").remove(0);
    assert_eq!(canary["detail"]["text"].as_str().unwrap().len(), 32, "{canary}");
    assert!(canary.get("principal").is_none() && canary.get("connection").is_none(), "{canary}");

    // Nothing can be read or written.
    proxy.set(Faults { down: true, ..Faults::default() });
    until_due(&bastion, 3600);
    wait_until("the alarm is raised", || bastion.events("canary_failed").len() == 1);
    let alarm = bastion.events("canary_failed").remove(0);
    assert_eq!(
        (&alarm["outcome"], &alarm["detail"]["through"]),
        (&"failed".into(), &STREAM.into()),
        "{alarm}"
    );
    assert!(alarm["detail"]["why"].as_str().unwrap().contains("the stream cannot be read back"), "{alarm}");
    wait_until("it is measured", || bastion.metric(FAILURES) >= 1.0 && bastion.metric(AGE) >= 3600.0);

    // It can be read, and nothing arrives: within a minute and a half that is a failure too.
    proxy.set(Faults { throttled: 100, ..Faults::default() });
    let (before, failures) = (released(&bastion), bastion.metric(FAILURES));
    until_due(&bastion, 300);
    wait_until("the next is released", || released(&bastion) > before);
    wait_until("it is given up", || {
        bastion.advance(1);
        bastion.metric(FAILURES) > failures
    });
    assert_eq!(bastion.events("canary_failed").len(), 1, "once is enough");
    assert_eq!(bastion.events("canary_passed").len(), 0);

    proxy.set(Faults::default());
    until_due(&bastion, 300);
    wait_until("it is said to be over", || !bastion.events("canary_passed").is_empty());
    wait_until("it is back", || are_back(&bastion, 2));
    bastion.stop();
    bastion.verify().success();
}

#[test]
fn without_a_stream_a_canary_comes_back_from_the_journal_every_hour() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &["erin"]);
    until_due(&bastion, 60);
    wait_until("the first is back", || are_back(&bastion, 1));
    assert_eq!(bastion.events("canary").len(), 1);
    until_due(&bastion, 1800);
    wait_until("it is measured", || bastion.metric(AGE) >= 1800.0);
    assert_eq!(bastion.events("canary").len(), 1);
    until_due(&bastion, 1800);
    wait_until("the second is back", || are_back(&bastion, 2));
    bastion.stop();
    assert_eq!(bastion.events("canary_failed").len(), 0);
    bastion.verify().success();
}

/// Changes a byte of the first place in a file where `text` stands.
fn alter(path: &Path, text: &str) {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], u64::try_from(at).unwrap()).unwrap();
}

#[tokio::test]
async fn what_is_altered_between_recording_and_fetching_is_found() {
    let node = NodeId::from_random([1; 10]);
    let key = SigningKey::from_pem(&SigningKey::generate(), node).unwrap();
    for (file, text) in [
        ("", ""),
        ("journal-00000001.log", "canary"),
        ("journal-00000001.log", "text"),
        ("journal-00000001.log", "login"),
        ("checkpoint", "\u{2014}"),
        ("checkpoint", "\n\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_micros(1_795_468_800_000_000));
        let options =
            JournalOptions { file_size: 256 << 10, reserve: 16 << 10, ..JournalOptions::new(key.clone()) };
        let (journal, _) = Journal::open(dir.path(), clock.clone(), options).unwrap();
        let entry = |action| ControlEntry { outbox: None, at: clock.now(), event: Event::done(action) };
        journal.control(&[entry(Action::Logout)]).await.unwrap();
        let from = From::Journal(dir.path().to_owned());
        let mut canary = Canary::release(&journal, &key.verify_key(), from).await.unwrap();
        clock.advance(Duration::from_secs(1));
        journal.control(&[entry(Action::Login)]).await.unwrap();
        if !file.is_empty() {
            alter(&dir.path().join(file), text);
        }
        let found = canary.look().await;
        match file {
            "" => assert_eq!(found, Ok(true)),
            "checkpoint" => assert!(matches!(found, Err(CanaryError::BadCheckpoint(_))), "{text}: {found:?}"),
            _ => {
                assert!(matches!(found, Err(CanaryError::Altered { .. })), "{text}: {found:?}");
                assert!(found.unwrap_err().is_about_the_log());
            }
        }
    }
}
