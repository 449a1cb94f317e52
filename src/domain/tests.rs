//! The rules on approvals, lifetimes, revocations and blocks, one test each. Most of them were
//! broken by some product of this field; `tests/domain_model.rs` mixes them at random.

use std::collections::BTreeSet;
use std::time::Duration;

use super::approval::Quorum;
use super::block::{Block, Lift};
use super::decision::{Decision, Rule};
use super::deny::Deny;
use super::id::{BlockId, PrincipalId, RequestId, SessionId};
use super::principal::{Actor, Principal};
use super::request::{
    Ask, AskHash, LONGEST_DURATION, MalformedAsk, PENDING_FOR, RefusedStep, Request, RequestState,
};
use super::session::{Consent, Session, SessionStatus};
use super::target::{Environment, Target, TargetKind};
use super::time::Timestamp;

const START: Timestamp = Timestamp::from_micros(1_795_392_000_000_000);
const MINUTE: Duration = Duration::from_mins(1);

fn after(minutes: u32) -> Timestamp {
    START.plus(MINUTE * minutes)
}

fn person(number: u8, name: &str, domain: &str, groups: &[&str]) -> Principal {
    Principal {
        id: PrincipalId::from_random([number; 10]),
        name: name.parse().unwrap(),
        domain: domain.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
    }
}

fn alice() -> Principal {
    person(1, "alice", "bank-core", &["dba", "admin"])
}

fn bob() -> Principal {
    person(2, "bob", "bank-core", &["dba-leads", "on-call-leads"])
}

fn carol() -> Principal {
    person(3, "carol", "bank-kyc", &["dba-leads"])
}

fn dave() -> Principal {
    person(4, "dave", "bank-core", &["dba-leads"])
}

fn ledger() -> Target {
    let name = |text: &str| text.parse().unwrap();
    Target {
        name: "ledger-prod".parse().unwrap(),
        kind: TargetKind::Postgres,
        environment: Environment::Prod,
        domain: "bank-core".parse().unwrap(),
        labels: [].into(),
        accesses: BTreeSet::from(["readonly".parse().unwrap(), "dba".parse().unwrap()]),
        requesters: BTreeSet::from([name("dba")]),
        approvers: BTreeSet::from([name("dba-leads")]),
    }
}

fn ask(duration: Duration) -> Ask {
    Ask {
        target: "ledger-prod".parse().unwrap(),
        access: "readonly".parse().unwrap(),
        duration,
        reason: "balances drift".to_owned(),
        ticket: None,
        break_glass: false,
    }
}

/// The text itself does as its hash: no two asks share it.
fn hash(ask: &Ask, requester: &Principal) -> AskHash {
    AskHash(ask.canonical(&requester.id))
}

fn asked(number: u8, duration: Duration) -> Request {
    let ask = ask(duration);
    let hash = hash(&ask, &alice());
    Request::new(RequestId::from_random([number; 10]), &alice(), ask, hash, START)
}

fn approved_by(request: Request, people: &[Principal], at: Timestamp) -> Request {
    people.iter().fold(request, |request, person| request.approve(person, String::new(), at).unwrap())
}

/// The rule for production, in the simplest words.
fn two_people(quorum: Quorum) -> Decision {
    if quorum.people >= 2 {
        return Decision::Allow { policies: vec!["FR-283".to_owned()] };
    }
    Decision::Refuse { rules: vec![Rule { id: "FR-283".to_owned(), needs: "one more approver".to_owned() }] }
}

fn consent(request: &Request) -> Result<Consent, Vec<Rule>> {
    Consent::from_decision(two_people(request.quorum(&ledger().domain)), request)
}

fn activate(request: &Request, now: Timestamp) -> Result<(Request, Session), RefusedStep> {
    let consent = consent(request).expect("there are approvals enough");
    let asked = hash(&request.ask, &alice());
    request.clone().activate(SessionId::from_random([9; 10]), &asked, &consent, now)
}

fn session(duration: Duration, granted_at: Timestamp) -> Session {
    activate(&approved_by(asked(1, duration), &[bob(), carol()], START), granted_at).unwrap().1
}

fn allow() -> Decision {
    Decision::Allow { policies: vec!["FR-284".to_owned()] }
}

fn block(target: Option<&str>, until: Option<Timestamp>) -> Block {
    Block {
        id: BlockId::from_random([1; 10]),
        principal: Actor::from(&alice()),
        target: target.map(|target| target.parse().unwrap()),
        why: "laptop stolen".to_owned(),
        by: Actor::from(&carol()),
        at: START,
        until,
        lifted: None,
    }
}

#[test]
fn one_person_in_two_approver_groups_counts_once() {
    let once = approved_by(asked(1, MINUTE), &[bob()], START);
    let twice = approved_by(once.clone(), &[bob()], after(1));
    assert_eq!(twice, once);
    assert_eq!(twice.quorum(&ledger().domain), Quorum { people: 1, from_target_domain: 1 });
    assert!(consent(&twice).is_err());
}

#[test]
fn one_person_under_two_names_or_domains_counts_once() {
    let moved = Principal { id: bob().id, ..person(0, "robert", "bank-kyc", &[]) };
    let mut request = approved_by(asked(1, MINUTE), &[bob()], START);
    assert_eq!(approved_by(request.clone(), std::slice::from_ref(&moved), START), request);
    // Even where the rows are there.
    let mut second = request.approvals[0].clone();
    second.by = Actor::from(&moved);
    second.domain = moved.domain;
    request.approvals.push(second);
    assert_eq!(request.quorum(&ledger().domain).people, 1);
}

#[test]
fn more_approvals_than_needed_still_activate() {
    let request = approved_by(asked(1, MINUTE), &[bob(), carol(), dave()], START);
    assert_eq!(request.quorum(&ledger().domain), Quorum { people: 3, from_target_domain: 2 });
    assert!(activate(&request, after(1)).is_ok());
}

#[test]
fn nobody_approves_their_own_whatever_their_groups() {
    let mut admin = alice();
    admin.groups.extend(ledger().approvers);
    let result = asked(1, MINUTE).approve(&admin, String::new(), START);
    assert_eq!(result, Err(RefusedStep::OwnRequest));
    // Even where such a row is there, it does not count.
    let mut forged = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    forged.approvals[0].by = Actor::from(&admin);
    assert_eq!(forged.quorum(&ledger().domain).people, 1);
}

#[test]
fn people_are_told_apart_by_subject_id_and_never_by_name() {
    let renamed = Principal { name: "somebody-else".parse().unwrap(), ..alice() };
    let result = asked(1, MINUTE).approve(&renamed, String::new(), START);
    assert_eq!(result, Err(RefusedStep::OwnRequest));
    let namesake = Principal { id: dave().id, ..alice() };
    let request = approved_by(asked(1, MINUTE), &[namesake.clone(), bob()], START);
    assert_eq!(request.quorum(&ledger().domain).people, 2);
    let session = session(MINUTE, START);
    let refused = session.permit(&namesake, &ledger(), &allow(), &[], START);
    assert!(matches!(refused, Err(Deny::NoSession { .. })));
}

#[test]
fn approving_again_neither_changes_nor_extends_what_was_granted() {
    let request = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    let again = approved_by(request.clone(), &[bob()], after(30));
    assert_eq!((again.lapses_at, again.version), (request.lapses_at, request.version));
    let (granted, session) = activate(&again, after(30)).unwrap();
    for person in [bob(), dave()] {
        let result = granted.clone().approve(&person, String::new(), after(30));
        assert!(matches!(result, Err(RefusedStep::AlreadyDecided { state: "approved", .. })));
    }
    assert!(activate(&granted, after(30)).is_err(), "there is one session");
    assert_eq!(session.ends_at, after(31));
}

#[test]
fn the_rule_of_two_groups_can_be_said() {
    // One of the target's domain *and* one other: from_target_domain and people are both there.
    let both = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    assert_eq!(both.quorum(&"bank-kyc".parse().unwrap()), Quorum { people: 2, from_target_domain: 1 });
    let only = approved_by(asked(1, MINUTE), &[bob(), dave()], START);
    assert_eq!(only.quorum(&"bank-kyc".parse().unwrap()), Quorum { people: 2, from_target_domain: 0 });
}

#[test]
fn a_session_ends_by_the_grant_however_late_one_connects() {
    let session = session(MINUTE * 30, after(10));
    assert_eq!(session.ends_at, after(40));
    let late = session.permit(&alice(), &ledger(), &allow(), &[], after(39)).unwrap();
    assert_eq!(late.ends_at(), after(40));
    let just_before = Timestamp::from_micros(after(40).as_micros() - 1);
    assert!(session.permit(&alice(), &ledger(), &allow(), &[], just_before).is_ok());
    let refused = session.permit(&alice(), &ledger(), &allow(), &[], after(40));
    assert!(matches!(refused, Err(Deny::Expired { at, .. }) if at == after(40)));
    assert_eq!(session.status(after(40)), SessionStatus::Expired);
}

#[test]
fn a_session_is_never_longer_than_the_longest_nor_than_what_was_asked() {
    let year = Duration::from_hours(24 * 365);
    assert_eq!(session(year, START).ends_at, START.plus(LONGEST_DURATION));
    assert_eq!(session(Duration::MAX, START).ends_at, START.plus(LONGEST_DURATION));
    assert_eq!(session(LONGEST_DURATION, START).ends_at, START.plus(LONGEST_DURATION));
    let fraction = Duration::from_millis(90_999);
    assert_eq!(session(fraction, START).ends_at, START.plus(Duration::from_secs(90)));
}

#[test]
fn a_long_session_on_one_target_gives_nothing_on_another() {
    let session = session(LONGEST_DURATION, START);
    let other = Target { name: "cards-prod".parse().unwrap(), ..ledger() };
    let refused = session.permit(&alice(), &other, &allow(), &[], START);
    assert!(matches!(refused, Err(Deny::NoSession { .. })));
}

#[test]
fn revoking_ends_the_right_although_the_request_stays_approved() {
    let request = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    let (request, session) = activate(&request, START).unwrap();
    let revoked = session.revoke(Actor::from(&carol()), "enough".to_owned(), START).unwrap();
    assert!(matches!(request.state_at(START), RequestState::Approved { .. }));
    assert_eq!(revoked.status(START), SessionStatus::Revoked);
    let refused = revoked.permit(&alice(), &ledger(), &allow(), &[], START);
    assert!(matches!(refused, Err(Deny::Revoked { why, .. }) if why == "enough"));
    // What was decided cannot be decided otherwise; ending it is revoking.
    assert!(request.clone().deny(&bob(), "no".to_owned(), START).is_err());
    assert!(request.cancel(&alice(), START).is_err());
    assert!(revoked.revoke(Actor::from(&bob()), "too".to_owned(), START).is_none(), "the first stays");
}

#[test]
fn no_session_comes_from_what_was_denied_cancelled_or_lapsed() {
    let request = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    let denied = request.clone().deny(&dave(), "no".to_owned(), after(1)).unwrap();
    let cancelled = request.clone().cancel(&alice(), after(1)).unwrap();
    let end = START.plus(PENDING_FOR);
    let lapsed = request.clone().lapse(end).unwrap();
    for decided in [&denied, &cancelled, &lapsed] {
        assert!(activate(decided, after(1)).is_err(), "{}", decided.state.as_str());
        assert!(decided.clone().approve(&dave(), String::new(), after(1)).is_err());
        assert!(decided.clone().lapse(after(9_999)).is_none());
        assert_eq!(decided.approvals, request.approvals, "history is kept");
    }
    // That it lapsed needs nobody to write it down.
    assert_eq!(activate(&request, end), Err(RefusedStep::Lapsed { at: end }));
    assert!(activate(&request, Timestamp::from_micros(end.as_micros() - 1)).is_ok());
    assert!(request.lapse(Timestamp::from_micros(end.as_micros() - 1)).is_none());
}

#[test]
fn history_survives_the_end() {
    let session = session(MINUTE, START);
    let by: Vec<_> = session.approvals.iter().map(|approval| approval.by.clone()).collect();
    assert_eq!(by, [Actor::from(&bob()), Actor::from(&carol())]);
    let revoked = session.clone().revoke(Actor::from(&bob()), "late".to_owned(), after(60)).unwrap();
    assert_eq!((revoked.granted_at, revoked.ends_at), (session.granted_at, session.ends_at));
    assert_eq!(revoked.approvals, session.approvals);
}

#[test]
fn a_policy_that_refuses_gives_no_consent_and_no_permit() {
    let rules = consent(&asked(1, MINUTE)).unwrap_err();
    assert_eq!(rules[0].to_string(), "FR-283: one more approver");
    let refuse = Decision::Refuse { rules };
    let refused = session(MINUTE, START).permit(&alice(), &ledger(), &refuse, &[], START);
    assert!(matches!(refused, Err(Deny::PolicyRefused { rules }) if rules.len() == 1));
}

#[test]
fn an_approval_is_not_carried_to_a_changed_ask() {
    let request = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    let bends: [fn(&mut Ask); 6] = [
        |ask| ask.access = "dba".parse().unwrap(),
        |ask| ask.target = "cards-prod".parse().unwrap(),
        |ask| ask.duration += MINUTE,
        |ask| ask.reason.push('!'),
        |ask| ask.ticket = Some(String::new()),
        |ask| ask.break_glass = true,
    ];
    for bend in bends {
        // Changed behind the hash's back: nothing is activated.
        let mut changed = request.clone();
        bend(&mut changed.ask);
        assert_eq!(activate(&changed, START), Err(RefusedStep::AskChanged), "{:?}", changed.ask);
        // Changed with its hash: the approvals do not count, until people approve what is asked now.
        changed.ask_hash = hash(&changed.ask, &alice());
        assert_eq!(changed.quorum(&ledger().domain), Quorum::default());
        let stale = consent(&request).unwrap();
        let asked = changed.ask_hash.clone();
        let session = SessionId::from_random([9; 10]);
        let result = changed.clone().activate(session, &asked, &stale, START);
        assert_eq!(result, Err(RefusedStep::AskChanged));
        let anew = approved_by(changed, &[bob(), carol()], START);
        assert_eq!(anew.quorum(&ledger().domain).people, 2);
        assert!(activate(&anew, START).is_ok());
    }
}

#[test]
fn approvals_of_one_request_do_not_grant_another_that_asks_for_the_same() {
    let first = approved_by(asked(1, MINUTE), &[bob(), carol()], START);
    let second = asked(2, MINUTE);
    assert_eq!(first.ask_hash, second.ask_hash);
    let consent = consent(&first).unwrap();
    let asked = second.ask_hash.clone();
    let result = second.activate(SessionId::from_random([9; 10]), &asked, &consent, START);
    assert_eq!(result, Err(RefusedStep::AskChanged));
}

#[test]
fn a_block_covers_its_principal_on_its_target_until_its_end() {
    let (ledger_name, other) = (ledger().name, "cards-prod".parse().unwrap());
    let everywhere = block(None, None);
    let here = block(Some("ledger-prod"), Some(after(10)));
    let just_before = Timestamp::from_micros(after(10).as_micros() - 1);
    for target in [&ledger_name, &other] {
        assert!(everywhere.covers(&alice().id, target, after(9_999)));
        assert!(!everywhere.covers(&bob().id, target, START));
    }
    assert!(here.covers(&alice().id, &ledger_name, just_before));
    assert!(!here.covers(&alice().id, &ledger_name, after(10)));
    assert!(!here.covers(&alice().id, &other, START));
    let lifted = Block { lifted: Some(Lift { by: Actor::from(&bob()), at: START }), ..everywhere };
    assert!(!lifted.covers(&alice().id, &ledger_name, START));
}

#[test]
fn a_block_refuses_whoever_holds_a_session_and_says_who_to_speak_with() {
    let session = session(MINUTE, START);
    let blocks = [block(Some("cards-prod"), None), block(None, Some(after(1)))];
    let refused = session.permit(&alice(), &ledger(), &allow(), &blocks, START);
    assert!(matches!(refused, Err(Deny::Blocked { until, by, .. })
        if until == Some(after(1)) && by.as_str() == "carol"));
    assert!(session.permit(&alice(), &ledger(), &allow(), &blocks[..1], START).is_ok());
}

#[test]
fn a_session_does_not_open_an_access_that_the_target_no_longer_offers() {
    let mut target = ledger();
    target.accesses.remove(&"readonly".parse().unwrap());
    let refused = session(MINUTE, START).permit(&alice(), &target, &allow(), &[], START);
    assert!(matches!(refused, Err(Deny::AccessGone { .. })));
}

#[test]
fn a_clock_behind_the_grant_opens_nothing() {
    let before = Timestamp::from_micros(START.as_micros() - 1);
    let refused = session(MINUTE, START).permit(&alice(), &ledger(), &allow(), &[], before);
    assert!(matches!(refused, Err(Deny::NotYet { .. })));
}

#[test]
fn an_ask_that_nobody_could_decide_on_is_refused_at_once() {
    let check = |bend: fn(&mut Ask)| {
        let mut ask = ask(MINUTE);
        bend(&mut ask);
        ask.check(&ledger())
    };
    assert_eq!(check(|_| {}), Ok(()));
    assert_eq!(check(|ask| ask.reason = "line\n\tline ✓ é 日本".to_owned()), Ok(()));
    assert!(matches!(check(|ask| ask.reason = " \t\n".to_owned()), Err(MalformedAsk::NoReason { .. })));
    assert_eq!(check(|ask| ask.reason = "é".repeat(2_000)), Ok(()));
    assert_eq!(check(|ask| ask.reason = "é".repeat(2_001)), Err(MalformedAsk::LongReason));
    assert_eq!(check(|ask| ask.ticket = Some("x".repeat(201))), Err(MalformedAsk::LongTicket));
    assert_eq!(check(|ask| ask.duration = Duration::from_secs(59)), Err(MalformedAsk::TooShort));
    assert!(matches!(
        check(|ask| ask.access = "root".parse().unwrap()),
        Err(MalformedAsk::UnknownAccess { known, .. }) if known == "`dba`, `readonly`"
    ));
}

#[test]
fn a_reason_cannot_repaint_an_approvers_terminal() {
    for text in ["\u{1b}[2Jdba", "a\rb", "a\u{0}b", "\u{9b}1A", "safe \u{202e}dorp", "\u{2066}x"] {
        let mut ask = ask(MINUTE);
        ask.reason = text.to_owned();
        assert_eq!(ask.check(&ledger()), Err(MalformedAsk::Unprintable { field: "reason" }), "{text:?}");
        let mut ask = self::ask(MINUTE);
        ask.ticket = Some(text.to_owned());
        assert_eq!(ask.check(&ledger()), Err(MalformedAsk::Unprintable { field: "ticket" }), "{text:?}");
    }
}

#[test]
fn a_target_of_another_protocol_says_how_to_connect() {
    for (kind, message, hint) in [
        (TargetKind::Postgres, "target `x` is a PostgreSQL server", "sallyport psql x"),
        (TargetKind::Ssh, "target `x` is an SSH host", "ssh USER+x@GATEWAY"),
        (TargetKind::Aws, "target `x` is a role at AWS", "sallyport aws x"),
    ] {
        let deny = Deny::OtherProtocol { target: "x".parse().unwrap(), kind };
        assert_eq!(deny.to_string(), message);
        assert!(deny.hint().ends_with(hint), "{}", deny.hint());
    }
}
