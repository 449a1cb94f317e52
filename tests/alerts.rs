//! Tier 1: whoever is on call is told of what must not wait, once it happens and until they could be told.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::amazon::read_request;
use support::{Bastion, Options, Postgres, wait_until};
use tempfile::TempDir;

/// Where alerts are posted to.
#[derive(Debug)]
struct Webhook {
    dir: TempDir,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    takes_none: bool,
    /// Whatever names it is refused for good.
    refuses: String,
    refused: usize,
    taken: Vec<Value>,
}

impl Webhook {
    fn start() -> Self {
        let (dir, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let webhook = Self { dir, seen: Arc::default() };
        let address = format!("http://{}/T0/secret-path\n", listener.local_addr().unwrap());
        fs::write(webhook.file(), address).unwrap();
        fs::set_permissions(webhook.file(), fs::Permissions::from_mode(0o600)).unwrap();
        let seen = Arc::clone(&webhook.seen);
        // Ends with the process.
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let Some(request) = read_request(&client) else { continue };
                assert!(request.head.starts_with("POST /T0/secret-path HTTP/1.1"), "{}", request.head);
                let mut seen = seen.lock().unwrap();
                let body = String::from_utf8_lossy(&request.body);
                let status = if seen.takes_none {
                    seen.refused += 1;
                    "503 Service Unavailable"
                } else if !seen.refuses.is_empty() && body.contains(&seen.refuses) {
                    seen.refused += 1;
                    "413 Content Too Large"
                } else {
                    seen.taken.push(serde_json::from_slice(&request.body).unwrap());
                    "200 OK"
                };
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let _ = client.write_all(head.as_bytes());
            }
        });
        webhook
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("webhook")
    }

    fn takes(&self, takes: bool) {
        self.seen.lock().unwrap().takes_none = !takes;
    }

    fn refuses(&self, what: &str) {
        what.clone_into(&mut self.seen.lock().unwrap().refuses);
    }

    fn refused(&self) -> usize {
        self.seen.lock().unwrap().refused
    }

    fn taken(&self) -> Vec<Value> {
        self.seen.lock().unwrap().taken.clone()
    }

    fn options(&self, format: &str) -> Options {
        let file = format!("webhook_file = \"{}\"", self.file().display());
        let settings = vec![("alerts", file), ("alerts", format!("format = \"{format}\""))];
        // All that the server can say: the address may not be in it.
        let environment = vec![("SALLYPORT_LOG", "trace".to_owned())];
        Options { settings, environment, ..Options::default() }
    }
}

#[test]
fn a_broken_glass_is_told_until_somebody_takes_it() {
    let (postgres, webhook) = (Postgres::start(), Webhook::start());
    let mut bastion = Bastion::start_with(&postgres, webhook.options("json"));
    webhook.takes(false);
    let granted = bastion.break_glass("ledger-prod");
    bastion.psql("olga", "ledger-prod", "SELECT 1").success();
    wait_until("it is told", || {
        bastion.pass(1);
        webhook.refused() > 0
    });
    wait_until("that is counted", || bastion.metric("sallyport_alert_failures_total") >= 1.0);
    // It waits in the store, whatever becomes of the process.
    bastion.kill();
    bastion.boot();
    wait_until("it is told again", || webhook.refused() > 1);
    wait_until("it waits", || bastion.metric("sallyport_alerts_waiting") > 0.9);
    webhook.takes(true);
    wait_until("it is taken", || {
        bastion.pass(10);
        !webhook.taken().is_empty()
    });
    let told = &webhook.taken()[0];
    assert_eq!((&told["tier"], &told["event"]["break_glass"]), (&1.into(), &true.into()), "{told}");
    assert_eq!(told["event"]["session"], granted.session.as_str());
    let text = told["text"].as_str().unwrap();
    assert!(text.contains("glass broken") && text.contains("by olga on ledger-prod"), "{text}");
    wait_until("none waits", || {
        bastion.pass(1);
        bastion.metric("sallyport_alerts_waiting").abs() < 0.1
    });
    // Beside that the start's clock was behind that of the test.
    let of_it = |told: &&Value| told["event"]["break_glass"] == true;
    let told = webhook.taken().iter().filter(of_it).count();
    assert_eq!(told, 1, "what else is done under it is on record, and told to nobody");
    assert!(!bastion.log().contains("secret-path"), "who has the address can tell lies");
    bastion.verify().success();
}

#[test]
fn a_credential_that_cannot_be_destroyed_is_told_once() {
    let (postgres, webhook) = (Postgres::start(), Webhook::start());
    let bastion = Bastion::start_with(&postgres, webhook.options("slack"));
    let granted = bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    postgres.query("postgres", "ALTER ROLE sallyport_admin NOLOGIN").success();
    bastion.run_as("bob", &["revoke", &granted.session, "--why", "over"]).failure();
    for _ in 0..5 {
        bastion.advance(6);
    }
    wait_until("it is told", || {
        bastion.pass(1);
        !webhook.taken().is_empty()
    });
    let told = webhook.taken();
    assert_eq!(told.len(), 1, "once, not at every try: {told:?}");
    assert_eq!(told[0].as_object().unwrap().len(), 1, "{told:?}");
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.starts_with("[Tier 1] credential destruction failed"), "{text}");
    assert!(text.contains(&granted.session) && text.contains("on ledger-dev"), "{text}");
    postgres.query("postgres", "ALTER ROLE sallyport_admin LOGIN").success();
    bastion.advance(6);
    assert!(postgres.session_roles().is_empty());
    wait_until("none waits", || {
        bastion.pass(1);
        bastion.metric("sallyport_alerts_waiting").abs() < 0.1
    });
    assert_eq!(webhook.taken().len(), 1, "{:?}", webhook.taken());
}

/// What one receiver does not take (too long for it, say) keeps nothing else from it.
#[test]
fn an_alert_that_is_refused_keeps_no_other_waiting() {
    let (postgres, webhook) = (Postgres::start(), Webhook::start());
    let bastion = Bastion::start_with(&postgres, webhook.options("json"));
    webhook.refuses("ledger-prod");
    bastion.break_glass("ledger-prod");
    wait_until("the first is refused", || {
        bastion.pass(1);
        webhook.refused() > 0
    });
    bastion.break_glass("ledger-dev");
    wait_until("the other is taken", || {
        bastion.pass(1);
        !webhook.taken().is_empty()
    });
    assert_eq!(webhook.taken()[0]["event"]["target"], "ledger-dev");
    webhook.refuses("nothing");
    wait_until("both are", || {
        bastion.pass(60);
        webhook.taken().len() == 2
    });
}

#[test]
fn an_address_that_cannot_be_used_is_told_before_anything_starts() {
    let (postgres, webhook) = (Postgres::start(), Webhook::start());
    let mut bastion = Bastion::prepare(&postgres, webhook.options("json"));
    fs::write(webhook.file(), "http://hooks.example/T0/secret-path").unwrap();
    let refused = bastion.refuses_to_start().says("use `https://`");
    assert!(!refused.stderr.contains("secret-path"), "{}", refused.stderr);
}
