//! The reference model: a list of what happened, and naive questions to it.

use sallyport::domain::target::Environment;

pub(crate) const MINUTE: u64 = 60_000_000;
pub(crate) const START: i64 = 1_795_392_000_000_000;

/// Name, domain, groups. The second bob is another person of the same name.
pub(crate) const PEOPLE: [(&str, &str, &[&str]); 6] = [
    ("alice", "bank-core", &["dba"]),
    ("bob", "bank-core", &["dba-leads", "on-call-leads"]),
    ("carol", "bank-kyc", &["dba-leads"]),
    ("dave", "bank-kyc", &["dba", "dba-leads"]),
    ("erin", "bank-core", &["dba-leads"]),
    ("bob", "bank-kyc", &["dba-leads"]),
];
pub(crate) const TARGETS: [(&str, Environment, &str); 5] = [
    ("ledger-prod", Environment::Prod, "bank-core"),
    ("cases-prod", Environment::Prod, "bank-kyc"),
    ("ledger-uat", Environment::Uat, "bank-core"),
    ("cases-uat", Environment::Uat, "bank-kyc"),
    ("ledger-dev", Environment::Dev, "bank-core"),
];

/// What happened, as the model remembers it. Numbers are positions in order of creation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fact {
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
pub(crate) struct Model {
    pub(crate) facts: Vec<(i64, Fact)>,
}

impl Model {
    /// When, who, what.
    pub(crate) fn asked(&self, wanted: usize) -> (i64, usize, usize) {
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
    pub(crate) fn minutes(&self, wanted: usize) -> (u64, u64) {
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

    pub(crate) fn is_pending(&self, wanted: usize, now: i64) -> bool {
        let closed = self.facts.iter().any(|(_, fact)| {
            matches!(fact, Fact::Closed { request } | Fact::Granted { request, .. } if *request == wanted)
        });
        !closed && now < self.asked(wanted).0 + micros(60)
    }

    pub(crate) fn approved(&self, wanted: usize, person: usize) -> bool {
        let standing = self.minutes(wanted).1;
        self.facts.iter().any(|(_, fact)| {
            matches!(fact, Fact::Approved { request, who, minutes }
                if *request == wanted && *who == person && *minutes == standing)
        })
    }

    /// How many people approved what is asked now, and how many of them are of `domain`.
    pub(crate) fn count(&self, wanted: usize, domain: &str) -> (u32, u32) {
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

    pub(crate) fn may_activate(&self, wanted: usize, now: i64) -> bool {
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
        self.is_pending(wanted, now) && people >= standard + cross && of_domain >= cross && asked == hashed
    }

    /// Which request it came from, when, and until when it lasts.
    pub(crate) fn granted(&self, wanted: usize) -> (usize, i64, i64) {
        for (at, fact) in &self.facts {
            if let Fact::Granted { request, session } = fact
                && *session == wanted
            {
                return (*request, *at, at + micros(self.minutes(*request).0.min(240)));
            }
        }
        panic!("session {wanted} was never granted");
    }

    pub(crate) fn is_revoked(&self, wanted: usize) -> bool {
        self.facts.iter().any(|(_, fact)| matches!(fact, Fact::Revoked { session } if *session == wanted))
    }

    pub(crate) fn is_blocked(&self, person: usize, place: usize, now: i64) -> bool {
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

    pub(crate) fn may_connect(&self, session: usize, person: usize, place: usize, now: i64) -> bool {
        let (request, from, until) = self.granted(session);
        let (_, requester, target) = self.asked(request);
        requester == person
            && target == place
            && (from..until).contains(&now)
            && !self.is_revoked(session)
            && !self.is_blocked(person, place, now)
    }
}

pub(crate) fn micros(minutes: u64) -> i64 {
    i64::try_from(minutes * MINUTE).unwrap()
}
