//! What an SQL `EXECUTE` may run: everything that was prepared under its name on this connection, by SQL or by the protocol,
//! whatever became of it. A name that was prepared twice, or was given up and made anew, may stand for either.

use std::collections::HashMap;

use crate::policy::StatementFacts;

/// So many names are remembered. A connection that has more cannot run any by SQL, where there is a rule.
const MOST_NAMES: usize = 256;
/// So many different statements of one name.
const MOST_OF_ONE: usize = 4;
/// What names more relations is remembered as not known.
const MOST_TABLES: usize = 64;
/// What the protocol prepares may be any command, and `EXECUTE` runs it. Of these it is known what they do by their
/// texts alone; others may change what names stand for, or begin a COPY, and are not known then.
const RUNNABLE: [&str; 8] = ["delete", "insert", "merge", "prepare", "select", "table", "update", "values"];
/// The server cuts longer names.
const LONGEST_NAME: usize = 63;

#[derive(Debug, Default)]
pub(super) struct PreparedNames {
    names: HashMap<String, Vec<StatementFacts>>,
    /// Something may have been prepared that is not among them.
    is_lost: bool,
}

impl PreparedNames {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.is_lost
    }

    /// It can no longer be told what a name stands for.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
        self.names.clear();
    }

    /// A statement under a name, as the server finds it; lost where there is none.
    pub(super) fn learn(&mut self, name: Option<&str>, facts: &StatementFacts) {
        let is_exact = |name: &&str| name.is_ascii() && name.len() <= LONGEST_NAME;
        let Some(name) = name.filter(is_exact) else { return self.lose() };
        if self.is_lost {
            return;
        }
        if self.names.len() >= MOST_NAMES && !self.names.contains_key(name) {
            return self.lose();
        }
        let is_runnable = facts.kinds.iter().all(|kind| RUNNABLE.contains(&kind.as_str()));
        let is_kept = is_runnable && facts.tables.len() <= MOST_TABLES;
        let facts = if is_kept { facts.clone() } else { StatementFacts::default() };
        let all = self.names.entry(name.to_owned()).or_default();
        if all.contains(&facts) {
            return;
        }
        if all.len() >= MOST_OF_ONE {
            *all = vec![StatementFacts::default()];
        } else {
            all.push(facts);
        }
    }

    /// What `name` may stand for, with what `news` has of it; nothing where that cannot be told.
    pub(super) fn of<'a>(&'a self, news: &'a Self, name: &str) -> Vec<&'a StatementFacts> {
        if self.is_lost || news.is_lost {
            return Vec::new();
        }
        [self, news].into_iter().filter_map(|names| names.names.get(name)).flatten().collect()
    }

    pub(super) fn absorb(&mut self, news: Self) {
        if news.is_lost {
            self.lose();
        }
        for (name, all) in news.names {
            for facts in all {
                self.learn(Some(&name), &facts);
            }
        }
    }
}

/// What an `EXECUTE` does that runs `prepared`.
pub(super) fn run(execute: &StatementFacts, prepared: &StatementFacts) -> StatementFacts {
    let mut kinds = &execute.kinds | &prepared.kinds;
    kinds.remove("prepare");
    StatementFacts {
        known: prepared.known,
        kinds,
        tables: &execute.tables | &prepared.tables,
        has_where: execute.has_where && prepared.has_where,
        in_transaction: execute.in_transaction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kinds: &[&str]) -> std::collections::BTreeSet<String> {
        kinds.iter().map(|kind| (*kind).to_owned()).collect()
    }

    fn facts(kind: &str) -> StatementFacts {
        StatementFacts { known: true, kinds: set(&[kind]), has_where: true, ..StatementFacts::default() }
    }

    #[test]
    fn a_name_stands_for_all_that_it_ever_stood_for() {
        let (mut names, mut news) = (PreparedNames::default(), PreparedNames::default());
        names.learn(Some("a"), &facts("select"));
        names.learn(Some("a"), &facts("select"));
        news.learn(Some("a"), &facts("delete"));
        assert_eq!(names.of(&news, "a"), [&facts("select"), &facts("delete")]);
        assert_eq!(names.of(&PreparedNames::default(), "a"), [&facts("select")]);
        assert!(names.of(&news, "A").is_empty());
        names.absorb(news);
        assert_eq!(names.of(&PreparedNames::default(), "a").len(), 2);
        for kind in ["insert", "update", "merge"] {
            names.learn(Some("a"), &facts(kind));
        }
        assert_eq!(names.of(&PreparedNames::default(), "a"), [&StatementFacts::default()], "one too many");
    }

    #[test]
    fn what_is_more_than_a_query_is_not_known() {
        let none = PreparedNames::default();
        for kind in ["copy_from", "commit", "deallocate", "prepare_transaction", "create", "explain"] {
            let mut names = PreparedNames::default();
            names.learn(Some("a"), &StatementFacts { kinds: set(&["select", kind]), ..facts("select") });
            assert_eq!(names.of(&none, "a"), [&StatementFacts::default()], "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_told_of_one_cannot_be_told_of_any() {
        let none = PreparedNames::default();
        for name in [None, Some("\u{e4}"), Some(&*"x".repeat(64))] {
            let mut names = PreparedNames::default();
            names.learn(Some("a"), &facts("select"));
            names.learn(name, &facts("select"));
            names.learn(Some("a"), &facts("select"));
            assert!(names.of(&none, "a").is_empty() && !names.is_empty(), "{name:?}");
        }
        let mut many = PreparedNames::default();
        for number in 0..=MOST_NAMES {
            assert_eq!(many.of(&none, "0").len(), usize::from(number > 0));
            many.learn(Some(&number.to_string()), &facts("select"));
        }
        assert!(many.of(&none, "0").is_empty() && many.names.is_empty());
    }

    #[test]
    fn what_is_run_is_what_was_prepared_and_what_its_arguments_do() {
        let mut deletes = facts("delete");
        deletes.kinds.insert("prepare".to_owned());
        deletes.tables.insert("t".to_owned());
        deletes.has_where = false;
        let ran = run(&StatementFacts { known: false, in_transaction: true, ..facts("execute") }, &deletes);
        assert_eq!(ran.kinds, ["delete", "execute"].map(str::to_owned).into());
        assert!(ran.known && !ran.has_where && ran.in_transaction && ran.tables.contains("t"));
    }
}
