//! The domain against a reference model: people ask, approve, deny, cancel, revoke, block and
//! connect in any order while time passes. The model keeps nothing but a list of what happened and
//! answers every question by reading that list from the start, in the most naive way.

#[cfg(test)]
mod model {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
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

    const MINUTE: u64 = 60_000_000;
    const START: i64 = 1_795_392_000_000_000;

    /// Name, domain, groups. The second bob is another person of the same name.
    const PEOPLE: [(&str, &str, &[&str]); 6] = [
        ("alice", "bank-core", &["dba"]),
        ("bob", "bank-core", &["dba-leads", "on-call-leads"]),
        ("carol", "bank-kyc", &["dba-leads"]),
        ("dave", "bank-kyc", &["dba", "dba-leads"]),
        ("erin", "bank-core", &["dba-leads"]),
        ("bob", "bank-kyc", &["dba-leads"]),
    ];
    const TARGETS: [(&str, Environment, &str); 5] = [
        ("ledger-prod", Environment::Prod, "bank-core"),
        ("cases-prod", Environment::Prod, "bank-kyc"),
        ("ledger-uat", Environment::Uat, "bank-core"),
        ("cases-uat", Environment::Uat, "bank-kyc"),
        ("ledger-dev", Environment::Dev, "bank-core"),
    ];

    #[derive(Debug, Clone)]
    enum Step {
        Ask {
            who: usize,
            target: usize,
            minutes: u64,
        },
        /// Somebody edits a pending request, with or without its hash.
        Edit {
            request: usize,
            minutes: u64,
            with_hash: bool,
        },
        Approve {
            who: usize,
            request: usize,
        },
        Deny {
            who: usize,
            request: usize,
        },
        Cancel {
            request: usize,
        },
        Lapse {
            request: usize,
        },
        Activate {
            request: usize,
        },
        Revoke {
            who: usize,
            session: usize,
        },
        Block {
            who: usize,
            target: Option<usize>,
            minutes: Option<u64>,
        },
        Unblock {
            block: usize,
        },
        Pass {
            micros: u64,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let index = || 0..100_usize;
        // Mostly a few, so that approvals of one request meet.
        let request = || prop_oneof![4 => 0..3_usize, 1 => 0..100_usize];
        let minutes = || prop_oneof![Just(1_u64), Just(59), Just(60), Just(240), Just(241), Just(100_000)];
        let micros = prop_oneof![
            Just(1_u64),
            Just(MINUTE),
            Just(MINUTE * 59),
            Just(MINUTE * 60 - 1),
            Just(MINUTE * 60),
            Just(MINUTE * 240 - 1),
            0..MINUTE * 30
        ];
        let step = prop_oneof![
            3 => (index(), index(), minutes())
                .prop_map(|(who, target, minutes)| Step::Ask { who, target, minutes }),
            1 => (request(), minutes(), any::<bool>())
                .prop_map(|(request, minutes, with_hash)| Step::Edit { request, minutes, with_hash }),
            10 => (index(), request()).prop_map(|(who, request)| Step::Approve { who, request }),
            1 => (index(), request()).prop_map(|(who, request)| Step::Deny { who, request }),
            1 => request().prop_map(|request| Step::Cancel { request }),
            1 => request().prop_map(|request| Step::Lapse { request }),
            5 => request().prop_map(|request| Step::Activate { request }),
            1 => (index(), index()).prop_map(|(who, session)| Step::Revoke { who, session }),
            1 => (index(), prop::option::of(index()), prop::option::of(minutes()))
                .prop_map(|(who, target, minutes)| Step::Block { who, target, minutes }),
            1 => index().prop_map(|block| Step::Unblock { block }),
            2 => micros.prop_map(|micros| Step::Pass { micros }),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// What happened, as the model remembers it. Numbers are positions in order of creation.
    #[derive(Debug, Clone, Copy)]
    enum Fact {
        Asked { request: usize, who: usize, target: usize, minutes: u64 },
        Edited { request: usize, minutes: u64, with_hash: bool },
        Approved { request: usize, who: usize, minutes: u64 },
        Closed { request: usize },
        Granted { request: usize, session: usize },
        Revoked { session: usize },
        Blocked { block: usize, who: usize, target: Option<usize>, until: Option<i64> },
        Lifted { block: usize },
    }

    #[derive(Debug, Default)]
    struct Model {
        facts: Vec<(i64, Fact)>,
    }

    impl Model {
        /// When, who, what.
        fn asked(&self, wanted: usize) -> (i64, usize, usize) {
            for (at, fact) in &self.facts {
                if let Fact::Asked { request, who, target, .. } = fact
                    && *request == wanted
                {
                    return (*at, *who, *target);
                }
            }
            panic!("request {wanted} was never made");
        }

        /// The minutes that are asked for now, and those that the hash stands for.
        fn minutes(&self, wanted: usize) -> (u64, u64) {
            let mut now = (0, 0);
            for (_, fact) in &self.facts {
                match fact {
                    Fact::Asked { request, minutes, .. } if *request == wanted => now = (*minutes, *minutes),
                    Fact::Edited { request, minutes, with_hash } if *request == wanted => {
                        now = (*minutes, if *with_hash { *minutes } else { now.1 });
                    }
                    _ => {}
                }
            }
            now
        }

        fn is_pending(&self, wanted: usize, now: i64) -> bool {
            let closed = self.facts.iter().any(|(_, fact)| {
                matches!(fact, Fact::Closed { request } | Fact::Granted { request, .. } if *request == wanted)
            });
            !closed && now < self.asked(wanted).0 + micros(60)
        }

        fn approved(&self, wanted: usize, person: usize) -> bool {
            let standing = self.minutes(wanted).1;
            self.facts.iter().any(|(_, fact)| {
                matches!(fact, Fact::Approved { request, who, minutes }
                    if *request == wanted && *who == person && *minutes == standing)
            })
        }

        /// How many people approved what is asked now, and how many of them are of `domain`.
        fn count(&self, wanted: usize, domain: &str) -> (u32, u32) {
            let requester = self.asked(wanted).1;
            let (mut people, mut of_domain) = (0, 0);
            for (person, (_, home, _)) in PEOPLE.iter().enumerate() {
                if person != requester && self.approved(wanted, person) {
                    people += 1;
                    of_domain += u32::from(*home == domain);
                }
            }
            (people, of_domain)
        }

        fn may_activate(&self, wanted: usize, now: i64) -> bool {
            let (_, requester, target) = self.asked(wanted);
            let (_, environment, domain) = TARGETS[target];
            let cross = u32::from(PEOPLE[requester].1 != domain);
            let standard = match environment {
                Environment::Prod => 2,
                Environment::Uat => 1,
                Environment::Dev => 0,
            };
            let (people, of_domain) = self.count(wanted, domain);
            let (asked, hashed) = self.minutes(wanted);
            self.is_pending(wanted, now)
                && people >= standard + cross
                && of_domain >= cross
                && asked == hashed
        }

        /// Which request it came from, when, and until when it lasts.
        fn granted(&self, wanted: usize) -> (usize, i64, i64) {
            for (at, fact) in &self.facts {
                if let Fact::Granted { request, session } = fact
                    && *session == wanted
                {
                    return (*request, *at, at + micros(self.minutes(*request).0.min(240)));
                }
            }
            panic!("session {wanted} was never granted");
        }

        fn is_revoked(&self, wanted: usize) -> bool {
            self.facts.iter().any(|(_, fact)| matches!(fact, Fact::Revoked { session } if *session == wanted))
        }

        fn is_blocked(&self, person: usize, place: usize, now: i64) -> bool {
            let lifted = |wanted: usize| {
                self.facts.iter().any(|(_, fact)| matches!(fact, Fact::Lifted { block } if *block == wanted))
            };
            self.facts.iter().any(|(_, fact)| {
                matches!(fact, Fact::Blocked { block, who, target, until } if *who == person
                    && target.is_none_or(|target| target == place)
                    && until.is_none_or(|until| now < until)
                    && !lifted(*block))
            })
        }

        fn may_connect(&self, session: usize, person: usize, place: usize, now: i64) -> bool {
            let (request, from, until) = self.granted(session);
            let (_, requester, target) = self.asked(request);
            requester == person
                && target == place
                && (from..until).contains(&now)
                && !self.is_revoked(session)
                && !self.is_blocked(person, place, now)
        }
    }

    fn micros(minutes: u64) -> i64 {
        i64::try_from(minutes * MINUTE).unwrap()
    }

    fn bytes(kind: u8, number: usize) -> [u8; 10] {
        let mut bytes = [kind; 10];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn person(number: usize) -> Principal {
        let (name, domain, groups) = PEOPLE[number];
        Principal {
            id: PrincipalId::from_random(bytes(0, number)),
            name: name.parse().unwrap(),
            domain: domain.parse().unwrap(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        }
    }

    fn target(number: usize) -> Target {
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

    fn hash(ask: &Ask, requester: &PrincipalId) -> AskHash {
        AskHash(hex(&sha256(&[ask.canonical(requester).as_bytes()])))
    }

    /// FR-283 and DT-001 over the domain's own count.
    fn decide(quorum: Quorum, requester_domain: &str, target: &Target) -> Decision {
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
    struct World {
        clock: Clock,
        model: Model,
        requests: Vec<Request>,
        sessions: Vec<Session>,
        blocks: Vec<Block>,
    }

    impl World {
        fn new() -> Self {
            Self {
                clock: Clock::manual(Timestamp::from_micros(START)),
                model: Model::default(),
                requests: Vec::new(),
                sessions: Vec::new(),
                blocks: Vec::new(),
            }
        }

        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        fn note(&mut self, fact: Fact) {
            self.model.facts.push((self.now().as_micros(), fact));
        }

        fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
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

        fn ask(&mut self, who: usize, place: usize, minutes: u64) {
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

        fn block(&mut self, who: usize, place: Option<usize>, minutes: Option<u64>) {
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

        fn revoke(&mut self, who: usize, session: usize) -> Result<(), TestCaseError> {
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

        fn step_request(&mut self, step: &Step, number: usize) -> Result<(), TestCaseError> {
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
                Step::Deny { who, .. } => {
                    request.deny(&person(who % PEOPLE.len()), "no".to_owned(), now).ok()
                }
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

        fn edit(&mut self, number: usize, minutes: u64, with_hash: bool) {
            let request = &mut self.requests[number];
            request.ask.duration = Duration::from_mins(minutes);
            if with_hash {
                request.ask_hash = hash(&request.ask, &request.requester.id);
            }
            self.note(Fact::Edited { request: number, minutes, with_hash });
        }

        fn approve(&mut self, number: usize, who: usize) -> Result<(), TestCaseError> {
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

        fn activate(&mut self, number: usize) -> Result<(), TestCaseError> {
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

        /// Everybody tries to connect everywhere under every session.
        fn check_permits(&self) -> Result<(), TestCaseError> {
            let now = self.now();
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

        /// What was decided stays as it was, and no request has two sessions.
        fn check_history(&self, before: &History) -> Result<(), TestCaseError> {
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

    struct History {
        requests: Vec<Request>,
        sessions: Vec<Session>,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

        #[test]
        fn under_any_interleaving_only_what_was_approved_is_permitted(steps in steps()) {
            let mut world = World::new();
            for step in &steps {
                let before =
                    History { requests: world.requests.clone(), sessions: world.sessions.clone() };
                world.take(step)?;
                world.check_permits()?;
                world.check_history(&before)?;
            }
        }
    }

    /// The random steps are worth something only if they get far.
    #[test]
    fn the_random_steps_reach_sessions_on_production_and_every_kind_of_end() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (mut cross_domain, mut revoked, mut edited) = (0, 0, 0);
        for _ in 0..600 {
            let drawn = steps().new_tree(&mut runner).unwrap().current();
            let mut world = World::new();
            for step in &drawn {
                world.take(step).unwrap();
            }
            for session in &world.sessions {
                let prod = session.target.as_str().ends_with("-prod");
                cross_domain += u32::from(prod && session.approvals.len() >= 3);
                revoked += u32::from(session.revoked.is_some());
            }
            edited +=
                world.model.facts.iter().filter(|(_, fact)| matches!(fact, Fact::Edited { .. })).count();
        }
        assert!(cross_domain > 20 && revoked > 20 && edited > 20, "{cross_domain} {revoked} {edited}");
    }
}
