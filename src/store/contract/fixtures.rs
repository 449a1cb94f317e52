//! People, requests and sessions to test a store with, made through the domain's own functions.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{hex, random, sha256};
use crate::domain::account::{Account, Token};
use crate::domain::block::Block;
use crate::domain::connection::Connection;
use crate::domain::decision::Decision;
use crate::domain::event::{Action, Event};
use crate::domain::id::{BlockId, ConnectionId, LeaseId, NodeId, PrincipalId, RequestId, SessionId, TokenId};
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::principal::{Actor, Principal};
use crate::domain::request::{Ask, AskHash, Request};
use crate::domain::role_session::{RoleSession, RoleState};
use crate::domain::session::{Consent, Session};
use crate::domain::ssh_key::SshKey;
use crate::domain::time::Timestamp;
use crate::store::Store;

/// 2026-11-23T00:00:00Z.
pub const START: Timestamp = Timestamp::from_micros(1_795_392_000_000_000);

pub fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// The value of what must not fail here.
///
/// # Panics
/// With the error, when it did.
#[track_caller]
pub fn good<T, E: Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(&error),
    }
}

/// The value of what must be there.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn there<T>(option: Option<T>) -> T {
    good(option.ok_or("it is not there"))
}

#[track_caller]
#[expect(clippy::panic, reason = "a broken rule must fail the test that runs it")]
fn fail(error: &dyn Debug) -> ! {
    panic!("{error:?}")
}

fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    good(text.parse())
}

pub fn person(name_: &str) -> Principal {
    Principal {
        id: PrincipalId::from_random(random()),
        name: name(name_),
        domain: name("bank-core"),
        groups: BTreeSet::from([name("dba"), name("on-call")]),
    }
}

pub fn account(name: &str) -> Account {
    Account {
        principal: person(name),
        password_hash: "$argon2id$…".to_owned(),
        scram_salt: random(),
        disabled: false,
        created_at: START,
        ssh_certificates_void_before: None,
    }
}

pub fn ssh_key(account: &Account, mark: &str) -> SshKey {
    SshKey {
        fingerprint: format!("SHA256:{mark}"),
        principal: account.principal.id.clone(),
        line: format!("ssh-ed25519 {mark}"),
        comment: "alice’s laptop".to_owned(),
        added_at: START,
        added_by: "root".to_owned(),
    }
}

pub fn token(account: &Account, expires_at: Timestamp) -> Token {
    Token {
        id: TokenId::from_random(random()),
        principal: account.principal.id.clone(),
        hash: random(),
        stored_key: random(),
        server_key: random(),
        created_at: START,
        expires_at,
        revoked_at: None,
    }
}

pub fn ask_hash(ask: &Ask, requester: &Principal) -> AskHash {
    AskHash(hex(&sha256(&[ask.canonical(&requester.id).as_bytes()])))
}

pub fn request(requester: &Principal, at: Timestamp) -> Request {
    let ask = Ask {
        target: name("ledger-prod"),
        access: name("readonly"),
        duration: Duration::from_hours(1),
        reason: "Find out why “balances” drift ✓".to_owned(),
        ticket: Some("INC-4711".to_owned()),
        break_glass: false,
    };
    let hash = ask_hash(&ask, requester);
    Request::new(RequestId::from_random(random()), requester, ask, hash, at)
}

/// Approves in the policy's name.
pub fn activate(request: &Request, at: Timestamp) -> (Request, Session) {
    let allow = Decision::Allow { policies: vec!["FR-283".to_owned()] };
    let consent = good(Consent::from_decision(allow, request));
    let session = SessionId::from_random(random());
    good(request.clone().activate(session, &request.ask_hash.clone(), &consent, at))
}

/// A stored session, granted at `at`, of somebody new.
pub async fn stored_session(store: &Arc<dyn Store>, at: Timestamp) -> Session {
    let (request, session) = activate(&request(&person("alice"), at), at);
    good(store.create_granted(&request, &session, at, &[]).await);
    session
}

pub fn block(principal: &Principal, at: Timestamp) -> Block {
    Block {
        id: BlockId::from_random(random()),
        principal: Actor::from(principal),
        target: Some(name("ledger-prod")),
        why: "laptop stolen".to_owned(),
        by: Actor::from(&person("carol")),
        at,
        until: Some(at.plus(Duration::from_mins(1))),
        lifted: None,
    }
}

pub fn connection(session: &Session, at: Timestamp) -> Connection {
    Connection {
        id: ConnectionId::from_random(random()),
        session: session.id.clone(),
        principal: session.principal.clone(),
        target: session.target.clone(),
        node: NodeId::from_random([7; 10]),
        client: good("[2001:db8::1]:54321".parse()),
        opened_at: at,
        ended: None,
    }
}

pub fn lease(session: &Session, at: Timestamp) -> LeaseRecord {
    LeaseRecord {
        id: LeaseId::from_random(random()),
        session: session.id.clone(),
        target: session.target.clone(),
        access: session.access.clone(),
        handle: "sp_alice_7f3k".to_owned(),
        address: "ledger.db.example:5432".to_owned(),
        access_role: "ledger_readonly".to_owned(),
        ends_at: session.ends_at,
        state: LeaseState::Intended,
        changed_at: at,
        last_error: None,
    }
}

pub fn role_session(session: &Session, at: Timestamp) -> RoleSession {
    RoleSession {
        session: session.id.clone(),
        target: session.target.clone(),
        access: session.access.clone(),
        role: "arn:aws:iam::123456789012:role/ReadOnly".to_owned(),
        region: "eu-central-1".to_owned(),
        endpoint: None,
        iam_endpoint: Some("http://127.0.0.1:5000".to_owned()),
        deny_as: Some("arn:aws:iam::123456789012:role/SallyportDeny".to_owned()),
        identity: format!("alice@{}", session.id),
        policy: format!("sallyport-{}", session.id),
        // AWS gives nothing for less than 15 minutes: it may outlive its session.
        expires_at: session.ends_at.plus(Duration::from_mins(10)),
        state: RoleState::Open,
        changed_at: at,
        last_error: None,
    }
}

/// An event that can be told from others by `mark`.
pub fn event(mark: &str) -> Event {
    Event::done(Action::Read).with("mark", mark)
}

/// The marks of all events in the outbox, in order.
pub async fn marks(store: &Arc<dyn Store>) -> Vec<String> {
    let waiting = good(store.outbox(10_000).await);
    let mark = |outgoing: &crate::store::Outgoing| {
        outgoing.event.detail.get("mark").and_then(|mark| mark.as_str()).map(str::to_owned)
    };
    waiting.iter().filter_map(mark).collect()
}
