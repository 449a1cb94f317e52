//! FR-284: revocation cuts what is live at once, destroys the credential before the call returns, and
//! lets nobody in afterwards; so do blocks, and so does whatever else takes a right away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells its story in one piece"
)]

#[path = "fr_284_revocation/blocks.rs"]
mod blocks;
#[path = "fr_284_revocation/changes.rs"]
mod changes;
#[path = "fr_284_revocation/cuts.rs"]
mod cuts;
#[path = "fr_284_revocation/rights.rs"]
mod rights;
mod support;
#[path = "fr_284_revocation/trouble.rs"]
mod trouble;

use serde_json::{Value, json};
use support::calls::text;
use support::wire::{self, Wire};
use support::{Bastion, Options, Postgres};

fn start(people: &[&str]) -> (Postgres, Bastion) {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), people);
    (postgres, bastion)
}

/// A session on a development target, which needs no approval.
#[track_caller]
fn dev_session(bastion: &Bastion, who: &str, access: &str) -> String {
    bastion.grant(who, "ledger-dev", access, 3600, &[]).session
}

fn try_revoke(bastion: &Bastion, who: &str, session: &str, why: &str) -> (u16, Value) {
    bastion.post(who, "/pam/revoke", json!({ "session": session, "why": why }))
}

#[track_caller]
fn revoke(bastion: &Bastion, who: &str, session: &str, why: &str) -> Value {
    let (status, body) = try_revoke(bastion, who, session, why);
    assert_eq!(status, 200, "{body}");
    body
}

#[track_caller]
fn block(bastion: &Bastion, body: Value) -> Value {
    let (status, body) = bastion.post("erin", "/pam/block", body);
    assert_eq!(status, 201, "{body}");
    body
}

/// Connections that the gateway believes are up, in order.
fn live(bastion: &Bastion) -> Vec<String> {
    let (status, body) = bastion.api(Some("erin"), "GET", "/pam/connections", None);
    assert_eq!(status, 200, "{body}");
    let mut ids: Vec<String> =
        body["items"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect();
    ids.sort_unstable();
    ids
}

/// The connections that an answer says were cut and are over, in order.
#[track_caller]
fn cut(answer: &Value) -> Vec<String> {
    let cuts = answer["cuts"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(cuts.iter().all(|cut| cut["ended"] == true), "{answer}");
    let mut ids: Vec<String> = cuts.iter().map(|cut| text(&cut["connection"])).collect();
    ids.sort_unstable();
    ids
}

/// Server processes that work for anybody's session.
fn backends(postgres: &Postgres) -> String {
    postgres.value("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'")
}

/// How a login is refused: SQLSTATE, message, hint.
#[track_caller]
fn refusal(bastion: &Bastion, who: &str, target: &str) -> (String, String, String) {
    let mut wire = Wire::connect(bastion);
    let user = format!("{who}+{target}");
    let refused = wire.log_in(&[("user", &user)], &bastion.token(who)).expect_err("was let in");
    wire::error(Some(refused))
}

#[track_caller]
fn is_served(wire: &mut Wire) {
    wire.send(&wire::query("SELECT 'served'"));
    assert!(wire.until(b'D').ends_with(b"served"));
    wire.until(b'Z');
}

#[track_caller]
fn is_let_in(bastion: &Bastion, who: &str, target: &str) {
    is_served(&mut Wire::session(bastion, who, target).0);
}
