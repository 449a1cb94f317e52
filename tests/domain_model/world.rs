//! The real thing: the domain's values, as a store would hold them, beside the model.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use sallyport::clock::Clock;
use sallyport::crypto::{hex, sha256};
use sallyport::domain::approval::Quorum;
use sallyport::domain::block::{Block, Lift};
use sallyport::domain::decision::{Decision, Rule};
use sallyport::domain::deny::Deny;
use sallyport::domain::id::{BlockId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::{Actor, Principal};
use sallyport::domain::request::{Ask, AskHash, RefusedStep, Request, RequestState};
use sallyport::domain::session::{Consent, Session};
use sallyport::domain::target::{Environment, Target, TargetKind};
use sallyport::domain::time::Timestamp;

use super::reference::{Fact, Model, PEOPLE, START, TARGETS};
use super::steps::Step;

pub(crate) fn bytes(kind: u8, number: usize) -> [u8; 10] {
    let mut bytes = [kind; 10];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(crate) fn person(number: usize) -> Principal {
    let (name, domain, groups) = PEOPLE[number];
    Principal {
        id: PrincipalId::from_random(bytes(0, number)),
        name: name.parse().unwrap(),
        domain: domain.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
    }
}

pub(crate) fn target(number: usize) -> Target {
    let (name, environment, domain) = TARGETS[number];
    Target {
        name: name.parse().unwrap(),
        kind: TargetKind::Postgres,
        environment,
        domain: domain.parse().unwrap(),
        labels: [].into(),
        accesses: BTreeSet::from(["readonly".parse().unwrap()]),
        requesters: BTreeSet::from(["dba".parse().unwrap()]),
        approvers: BTreeSet::from(["dba-leads".parse().unwrap()]),
    }
}

pub(crate) fn hash(ask: &Ask, requester: &PrincipalId) -> AskHash {
    AskHash(hex(&sha256(&[ask.canonical(requester).as_bytes()])))
}

/// FR-283 and DT-001 over the domain's own count.
pub(crate) fn decide(quorum: Quorum, requester_domain: &str, target: &Target) -> Decision {
    let cross = u32::from(requester_domain != target.domain.as_str());
    let needed = cross
        + match target.environment {
            Environment::Prod => 2,
            Environment::Uat => 1,
            Environment::Dev => 0,
        };
    if quorum.people >= needed && quorum.from_target_domain >= cross {
        return Decision::Allow { policies: vec!["FR-283".to_owned()] };
    }
    let needs = "more approvers".to_owned();
    Decision::Refuse { rules: vec![Rule { id: "FR-283".to_owned(), needs }] }
}

/// The real thing: the domain's values, as a store would hold them.
pub(crate) struct World {
    clock: Clock,
    pub(crate) model: Model,
    pub(crate) requests: Vec<Request>,
    pub(crate) sessions: Vec<Session>,
    blocks: Vec<Block>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::manual(Timestamp::from_micros(START)),
            model: Model::default(),
            requests: Vec::new(),
            sessions: Vec::new(),
            blocks: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn note(&mut self, fact: Fact) {
        self.model.facts.push((self.now().as_micros(), fact));
    }

    pub(crate) fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        match *step {
            Step::Pass { micros } => self.clock.advance(Duration::from_micros(micros)),
            Step::Ask { who, target, minutes } => {
                self.ask(who % PEOPLE.len(), target % TARGETS.len(), minutes);
            }
            Step::Block { who, target, minutes } => {
                self.block(who % PEOPLE.len(), target.map(|target| target % TARGETS.len()), minutes);
            }
            Step::Unblock { block } if !self.blocks.is_empty() => {
                let block = block % self.blocks.len();
                self.blocks[block].lifted = Some(Lift { by: Actor::from(&person(1)), at: now });
                self.note(Fact::Lifted { block });
            }
            Step::Revoke { who, session } if !self.sessions.is_empty() => {
                self.revoke(who % PEOPLE.len(), session % self.sessions.len())?;
            }
            Step::Edit { request, .. }
            | Step::Approve { request, .. }
            | Step::Deny { request, .. }
            | Step::Cancel { request }
            | Step::Lapse { request }
            | Step::Activate { request }
                if !self.requests.is_empty() =>
            {
                self.step_request(step, request % self.requests.len())?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn ask(&mut self, who: usize, place: usize, minutes: u64) {
        let number = self.requests.len();
        let requester = person(who);
        let ask = Ask {
            target: target(place).name,
            access: "readonly".parse().unwrap(),
            duration: Duration::from_mins(minutes),
            reason: "balances drift".to_owned(),
            ticket: None,
            break_glass: false,
        };
        let hash = hash(&ask, &requester.id);
        let id = RequestId::from_random(bytes(1, number));
        self.requests.push(Request::new(id, &requester, ask, hash, self.now()));
        self.note(Fact::Asked { request: number, who, target: place, minutes });
    }

    pub(crate) fn block(&mut self, who: usize, place: Option<usize>, minutes: Option<u64>) {
        let number = self.blocks.len();
        let until = minutes.map(|minutes| self.now().plus(Duration::from_mins(minutes)));
        self.blocks.push(Block {
            id: BlockId::from_random(bytes(2, number)),
            principal: Actor::from(&person(who)),
            target: place.map(|place| target(place).name),
            why: "laptop stolen".to_owned(),
            by: Actor::from(&person(1)),
            at: self.now(),
            until,
            lifted: None,
        });
        let until = until.map(Timestamp::as_micros);
        self.note(Fact::Blocked { block: number, who, target: place, until });
    }

    pub(crate) fn revoke(&mut self, who: usize, session: usize) -> Result<(), TestCaseError> {
        let before = self.model.is_revoked(session);
        let by = Actor::from(&person(who));
        let revoked = self.sessions[session].clone().revoke(by, "enough".to_owned(), self.now());
        prop_assert_eq!(revoked.is_none(), before, "revoked once and never again");
        if let Some(revoked) = revoked {
            self.sessions[session] = revoked;
            self.note(Fact::Revoked { session });
        }
        Ok(())
    }

    pub(crate) fn step_request(&mut self, step: &Step, number: usize) -> Result<(), TestCaseError> {
        let now = self.now();
        let request = self.requests[number].clone();
        let pending = self.model.is_pending(number, now.as_micros());
        let next = match *step {
            Step::Edit { minutes, with_hash, .. } => {
                if pending {
                    self.edit(number, minutes, with_hash);
                }
                return Ok(());
            }
            Step::Approve { who, .. } => return self.approve(number, who % PEOPLE.len()),
            Step::Activate { .. } => return self.activate(number),
            Step::Deny { who, .. } => request.deny(&person(who % PEOPLE.len()), "no".to_owned(), now).ok(),
            Step::Cancel { .. } => request.cancel(&person(0), now).ok(),
            _ => {
                let lapsed = request.lapse(now);
                if let Some(lapsed) = lapsed {
                    prop_assert!(!pending);
                    self.requests[number] = lapsed;
                    self.note(Fact::Closed { request: number });
                }
                return Ok(());
            }
        };
        prop_assert_eq!(next.is_some(), pending, "only what is pending can be decided");
        if let Some(next) = next {
            self.requests[number] = next;
            self.note(Fact::Closed { request: number });
        }
        Ok(())
    }

    pub(crate) fn edit(&mut self, number: usize, minutes: u64, with_hash: bool) {
        let request = &mut self.requests[number];
        request.ask.duration = Duration::from_mins(minutes);
        if with_hash {
            request.ask_hash = hash(&request.ask, &request.requester.id);
        }
        self.note(Fact::Edited { request: number, minutes, with_hash });
    }

    pub(crate) fn approve(&mut self, number: usize, who: usize) -> Result<(), TestCaseError> {
        let now = self.now();
        let own = self.model.asked(number).1 == who;
        let pending = self.model.is_pending(number, now.as_micros());
        let already = self.model.approved(number, who);
        let before = self.requests[number].clone();
        let result = before.clone().approve(&person(who), String::new(), now);
        prop_assert_eq!(result.is_ok(), pending && !own);
        if pending && own {
            prop_assert_eq!(&result, &Err(RefusedStep::OwnRequest));
        }
        if let Ok(approved) = result {
            prop_assert_eq!(already, approved == before, "approving again changes nothing");
            prop_assert_eq!(approved.lapses_at, before.lapses_at, "nor does approving extend");
            let minutes = self.model.minutes(number).1;
            self.requests[number] = approved;
            self.note(Fact::Approved { request: number, who, minutes });
        }
        Ok(())
    }

    pub(crate) fn activate(&mut self, number: usize) -> Result<(), TestCaseError> {
        let now = self.now();
        let request = self.requests[number].clone();
        let (_, requester, place) = self.model.asked(number);
        let target = target(place);
        let quorum = request.quorum(&target.domain);
        let (people, from_target_domain) = self.model.count(number, target.domain.as_str());
        prop_assert_eq!(quorum, Quorum { people, from_target_domain });

        let may = self.model.may_activate(number, now.as_micros());
        let decision = decide(quorum, PEOPLE[requester].1, &target);
        let session = SessionId::from_random(bytes(3, self.sessions.len()));
        let result = Consent::from_decision(decision, &request).ok().and_then(|consent| {
            let asked = hash(&request.ask, &request.requester.id);
            request.activate(session, &asked, &consent, now).ok()
        });
        prop_assert_eq!(result.is_some(), may, "activated if and only if the rules are met");
        if let Some((approved, session)) = result {
            self.requests[number] = approved;
            let granted = Fact::Granted { request: number, session: self.sessions.len() };
            self.sessions.push(session);
            self.note(granted);
        }
        Ok(())
    }

    /// Everybody tries to connect everywhere under every session, at `now`.
    pub(crate) fn check_permits(&self, now: Timestamp) -> Result<(), TestCaseError> {
        let allow = Decision::Allow { policies: Vec::new() };
        for (number, session) in self.sessions.iter().enumerate() {
            for who in 0..PEOPLE.len() {
                for place in 0..TARGETS.len() {
                    let permit = session.permit(&person(who), &target(place), &allow, &self.blocks, now);
                    let may = self.model.may_connect(number, who, place, now.as_micros());
                    prop_assert_eq!(permit.is_ok(), may, "session {} {} {}", number, who, place);
                    if let Ok(permit) = permit {
                        let end = self.model.granted(number).2;
                        prop_assert_eq!(permit.ends_at().as_micros(), end, "counted from the grant");
                    } else if self.model.is_revoked(number) {
                        let expired = matches!(permit, Err(Deny::Expired { .. }));
                        prop_assert!(!expired, "the revocation is what is told");
                    }
                }
            }
        }
        Ok(())
    }

    /// The same at every instant at which a right may begin or end, and just before it.
    pub(crate) fn check_permits_at_edges(&self) -> Result<(), TestCaseError> {
        let of_sessions = self.sessions.iter().flat_map(|session| [session.granted_at, session.ends_at]);
        let of_blocks = self.blocks.iter().filter_map(|block| block.until);
        for edge in of_sessions.chain(of_blocks) {
            self.check_permits(edge)?;
            self.check_permits(Timestamp::from_micros(edge.as_micros() - 1))?;
        }
        Ok(())
    }

    /// What was decided stays as it was, and no request has two sessions.
    pub(crate) fn check_history(&self, before: &History) -> Result<(), TestCaseError> {
        for (old, new) in before.requests.iter().zip(&self.requests) {
            prop_assert!(new.approvals.starts_with(&old.approvals));
            prop_assert_eq!(old.lapses_at, new.lapses_at);
            prop_assert!(new.version >= old.version);
            if old.state != RequestState::Pending {
                prop_assert_eq!(old, new);
            }
        }
        for (old, new) in before.sessions.iter().zip(&self.sessions) {
            let same = Session { revoked: new.revoked.clone(), ..old.clone() };
            prop_assert_eq!(&same, new);
            prop_assert!(old.revoked.is_none() || old.revoked == new.revoked);
        }
        let mut seen = BTreeSet::new();
        for session in &self.sessions {
            prop_assert!(seen.insert(session.request.clone()), "a second session for a request");
            let request = self.requests.iter().find(|request| request.id == session.request);
            let names_it = matches!(request.map(|request| &request.state),
                Some(RequestState::Approved { session: id, .. }) if *id == session.id);
            prop_assert!(names_it, "a revoked session's request stays approved as it");
        }
        Ok(())
    }
}

pub(crate) struct History {
    pub(crate) requests: Vec<Request>,
    pub(crate) sessions: Vec<Session>,
}
