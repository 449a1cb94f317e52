//! When the janitor looks where: everywhere every [`EVERY`], and at one server sooner where a credential may have been
//! left open there, or where the last look found trouble.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::time::Timestamp;

/// How often it looks everywhere.
pub(super) const EVERY: Duration = Duration::from_mins(5);
/// How soon it looks at a server where something may be wrong.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// How long it waits at most, however often it has found trouble at a server.
const LATEST: Duration = Duration::from_mins(1);

/// What a look came to, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Clean,
    /// Something could not be ended.
    Trouble,
    /// It could not be seen what there is.
    Unseen,
}

#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When it next looks everywhere, and at AWS: at once where nothing is said.
    round: Option<Timestamp>,
    roles: Option<Timestamp>,
    servers: BTreeMap<String, Due>,
}

/// A look at one server.
#[derive(Debug)]
struct Due {
    at: Timestamp,
    /// When it was last asked for; `None` where it is a round's alone.
    asked: Option<Timestamp>,
    /// How long the next one waits, should this one find trouble.
    pause: Duration,
    in_trouble: bool,
}

impl Looks {
    /// Something may be wrong at the server.
    pub(super) fn ask(&mut self, server: &str, now: Timestamp) {
        let soon = now.plus(SOON);
        let due = self.servers.entry(server.to_owned()).or_insert(Due {
            at: soon,
            asked: None,
            pause: SOON,
            in_trouble: false,
        });
        due.asked = Some(now);
        // Where the server does not answer, asking does not make it.
        if !due.in_trouble {
            due.at = due.at.min(soon);
        }
    }

    pub(super) fn is_round_due(&self, now: Timestamp) -> bool {
        self.round.is_none_or(|next| next <= now)
    }

    /// It is to look at all of `servers` now.
    pub(super) fn ask_all(&mut self, servers: impl Iterator<Item = String>, now: Timestamp) {
        for server in servers {
            let first = Due { at: now, asked: None, pause: SOON, in_trouble: false };
            let due = self.servers.entry(server).or_insert(first);
            due.at = due.at.min(now);
        }
    }

    /// A round was made, or could not be.
    pub(super) fn went_round(&mut self, was_made: bool, now: Timestamp) {
        self.round = Some(now.plus(if was_made { EVERY } else { SOON }));
    }

    pub(super) fn are_roles_due(&self, now: Timestamp) -> bool {
        self.roles.is_none_or(|next| next <= now)
    }

    /// All roles were looked at, or could not be.
    pub(super) fn went_over_roles(&mut self, was_made: bool, now: Timestamp) {
        self.roles = Some(now.plus(if was_made { EVERY } else { SOON }));
    }

    /// The servers that are to be looked at by now.
    pub(super) fn due(&self, now: Timestamp) -> Vec<String> {
        let due = self.servers.iter().filter(|(_, due)| due.at <= now);
        due.map(|(server, _)| server.clone()).collect()
    }

    pub(super) fn is_due(&self, server: &str, now: Timestamp) -> bool {
        self.servers.get(server).is_some_and(|due| due.at <= now)
    }

    /// The server was looked at, from `began` on.
    pub(super) fn looked(&mut self, server: &str, began: Timestamp, look: Look, now: Timestamp) {
        match look {
            Look::Clean => match self.servers.get_mut(server) {
                // What it was asked for came after it had looked, maybe.
                Some(due) if due.asked.is_some_and(|asked| asked >= began) => {
                    *due = Due { at: now.plus(SOON), asked: due.asked, pause: SOON, in_trouble: false };
                }
                _ => _ = self.servers.remove(server),
            },
            Look::Trouble | Look::Unseen => {
                let (asked, pause) =
                    self.servers.get(server).map_or((None, SOON), |due| (due.asked, due.pause));
                let (at, pause) = (now.plus(pause), (pause * 2).min(LATEST));
                let in_trouble = look == Look::Unseen;
                self.servers.insert(server.to_owned(), Due { at, asked, pause, in_trouble });
            }
        }
    }

    /// The server is none of ours any more.
    pub(super) fn forget(&mut self, server: &str) {
        self.servers.remove(server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_round_is_due_at_once_and_soon_again_where_it_could_not_be_made() {
        let mut looks = Looks::default();
        assert!(looks.is_round_due(at(0)));
        looks.went_round(false, at(0));
        assert!(!looks.is_round_due(at(4)) && looks.is_round_due(at(5)));
        looks.went_round(true, at(5));
        assert!(!looks.is_round_due(at(304)) && looks.is_round_due(at(305)));
    }

    #[test]
    fn what_is_asked_for_is_looked_at_soon_and_only_there() {
        let mut looks = Looks::default();
        looks.ask("one", at(0));
        // Asked again and again, it is put off by none of it.
        looks.ask("one", at(4));
        looks.ask("other", at(4));
        assert!(looks.due(at(4)).is_empty());
        assert_eq!(looks.due(at(5)), ["one"]);
        looks.looked("one", at(5), Look::Clean, at(6));
        assert_eq!(looks.due(at(100)), ["other"]);
    }

    #[test]
    fn a_round_looks_at_every_server_once() {
        let mut looks = Looks::default();
        looks.ask("one", at(0));
        looks.ask_all(["one", "other"].map(str::to_owned).into_iter(), at(1));
        assert_eq!(looks.due(at(1)), ["one", "other"]);
        for server in ["one", "other"] {
            looks.looked(server, at(1), Look::Clean, at(1));
        }
        assert!(looks.due(at(1000)).is_empty());
    }

    #[test]
    fn what_is_asked_for_during_a_look_is_looked_at_once_more() {
        let mut looks = Looks::default();
        looks.ask("one", at(0));
        looks.ask("one", at(7));
        looks.looked("one", at(5), Look::Clean, at(8));
        assert!(looks.due(at(12)).is_empty());
        assert_eq!(looks.due(at(13)), ["one"]);
        looks.looked("one", at(13), Look::Clean, at(14));
        assert!(looks.due(at(1000)).is_empty());
    }

    #[test]
    fn a_server_that_does_not_answer_is_looked_at_less_and_less_often_but_once_a_minute() {
        let mut looks = Looks::default();
        let (mut now, mut pauses) = (0, Vec::new());
        looks.looked("one", at(0), Look::Unseen, at(0));
        for _ in 0..6 {
            looks.ask("one", at(now));
            let pause = (0..1000).find(|pause| !looks.due(at(now + pause)).is_empty()).unwrap();
            pauses.push(pause);
            now += pause;
            looks.looked("one", at(now), Look::Unseen, at(now));
        }
        // Of one that does, what is asked for is looked at soon, whatever else is left there.
        looks.looked("other", at(0), Look::Trouble, at(0));
        looks.looked("other", at(5), Look::Trouble, at(5));
        looks.ask("other", at(6));
        assert!(looks.is_due("other", at(11)));
        looks.looked("other", at(11), Look::Clean, at(11));
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        looks.looked("one", at(now + 60), Look::Clean, at(now + 60));
        assert!(looks.due(at(now + 1000)).is_empty());
    }
}
