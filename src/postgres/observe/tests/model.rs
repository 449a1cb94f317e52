//! A model of the server's side of the query protocols, and random clients against it.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Parse(&'static str),
    Bind(&'static str, &'static str),
    Describe(u8, &'static str),
    Execute(&'static str),
    Close(u8, &'static str),
    Sync,
    Query,
    Begin,
    Commit,
    /// SQL's own `DEALLOCATE` and `PREPARE` of a name.
    Deallocate(&'static str),
    Prepare(&'static str),
}

/// One operation, the SQL that it brings, whether the server lets it fail.
#[derive(Debug, Clone)]
struct Step {
    op: Op,
    id: usize,
    fails: bool,
}

impl Step {
    fn sql(&self) -> String {
        match self.op {
            Op::Begin => "BEGIN".to_owned(),
            Op::Commit => "COMMIT".to_owned(),
            Op::Deallocate(name) => format!("DEALLOCATE {name} -- {}", self.id),
            Op::Prepare(name) => format!("PREPARE {name} AS SELECT {}", self.id),
            _ => format!("SELECT {}", self.id),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self.op {
            Op::Parse(name) => parse(name, &self.sql(), &[]),
            Op::Bind(portal, statement) => bind(portal, statement, 0, &[]),
            Op::Describe(subject, name) => named(b'D', subject, name),
            Op::Execute(portal) => execute(portal, 0),
            Op::Close(subject, name) => named(b'C', subject, name),
            Op::Sync => sync(),
            Op::Query | Op::Begin | Op::Commit | Op::Deallocate(_) | Op::Prepare(_) => query(&self.sql()),
        }
    }
}

#[derive(Debug, Default)]
struct Server {
    statements: HashMap<&'static str, String>,
    portals: HashMap<&'static str, String>,
    in_transaction: bool,
    skips: bool,
    /// What each `Execute` or `Query` ran, and whether it succeeded.
    ran: HashMap<usize, (String, bool)>,
}

impl Server {
    fn answer(&mut self, step: &Step) -> Vec<u8> {
        if self.skips && !matches!(step.op, Op::Sync) {
            return Vec::new();
        }
        match step.op {
            Op::Sync => {
                self.skips = false;
                return self.ready();
            }
            Op::Query | Op::Begin | Op::Commit | Op::Deallocate(_) | Op::Prepare(_) => {
                return self.simple(step);
            }
            _ => {}
        }
        let answer = if step.fails { None } else { self.extended(step) };
        if let (Op::Execute(portal), true) = (&step.op, step.fails)
            && let Some(sql) = self.portals.get(portal)
        {
            self.ran.insert(step.id, (sql.clone(), false));
        }
        if let (Op::Parse(""), None) = (&step.op, &answer) {
            self.statements.remove("");
        }
        self.skips = answer.is_none();
        answer.unwrap_or_else(|| error("XX000"))
    }

    /// `None` is an error.
    fn extended(&mut self, step: &Step) -> Option<Vec<u8>> {
        match step.op {
            Op::Parse(name) => {
                if !name.is_empty() && self.statements.contains_key(name) {
                    return None;
                }
                self.statements.insert(name, step.sql());
                Some(message(b'1', b""))
            }
            Op::Bind(portal, statement) => {
                if !portal.is_empty() && self.portals.contains_key(portal) {
                    return None;
                }
                self.portals.insert(portal, self.statements.get(statement)?.clone());
                Some(message(b'2', b""))
            }
            Op::Describe(b'S', name) => {
                self.statements.get(name)?;
                Some([message(b't', b"\0\0"), message(b'T', b"\0\0")].concat())
            }
            Op::Describe(_, name) => self.portals.get(name).map(|_| message(b'n', b"")),
            Op::Execute(portal) => {
                self.ran.insert(step.id, (self.portals.get(portal)?.clone(), true));
                Some([message(b'D', b"\0\0"), complete("SELECT 1")].concat())
            }
            Op::Close(b'S', name) => {
                self.statements.remove(name);
                Some(message(b'3', b""))
            }
            Op::Close(_, name) => {
                self.portals.remove(name);
                Some(message(b'3', b""))
            }
            _ => None,
        }
    }

    fn simple(&mut self, step: &Step) -> Vec<u8> {
        self.statements.remove("");
        self.portals.remove("");
        self.ran.insert(step.id, (step.sql(), !step.fails));
        let answer = match step.op {
            _ if step.fails => error("XX000"),
            Op::Deallocate(name) => {
                self.statements.remove(name);
                complete("DEALLOCATE")
            }
            Op::Prepare(name) => {
                self.statements.entry(name).or_insert_with(|| step.sql());
                complete("PREPARE")
            }
            Op::Begin => {
                self.in_transaction = true;
                complete("BEGIN")
            }
            Op::Commit => {
                self.in_transaction = false;
                complete("COMMIT")
            }
            _ => complete("SELECT 0"),
        };
        [answer, self.ready()].concat()
    }

    fn ready(&mut self) -> Vec<u8> {
        if !self.in_transaction {
            self.portals.clear();
        }
        ready(if self.in_transaction { b'T' } else { b'I' })
    }
}

/// What travels: messages to the server, answers to the observer.
#[derive(Debug, Default)]
struct World {
    watch: Watch,
    server: Server,
    to_server: VecDeque<Step>,
    to_observer: VecDeque<Vec<u8>>,
    /// The number that the observer gave to each run.
    numbers: HashMap<usize, u64>,
}

impl World {
    fn send(&mut self, step: &Step, forward_at_once: bool) {
        let before = self.watch.events.len();
        match self.watch.try_client(&step.bytes()).unwrap() {
            Observed::Forward => {}
            Observed::Hold { .. } => {
                assert_eq!(self.watch.events.len(), before, "a held message changes nothing");
                self.settle();
                assert_eq!(self.watch.try_client(&step.bytes()), Ok(Observed::Forward), "held for good");
            }
        }
        if let Some(Event::StatementBegun(begun)) = self.watch.events.get(before..).and_then(<[_]>::last)
            && begun.how != How::Prepare
        {
            self.numbers.insert(step.id, begun.n);
        }
        if forward_at_once {
            self.watch.observer.flush(self.watch.now, &mut self.watch.events);
        }
        self.to_server.push_back(step.clone());
    }

    fn serve(&mut self, count: usize) {
        for _ in 0..count {
            let Some(step) = self.to_server.pop_front() else { return };
            let answer = self.server.answer(&step);
            self.to_observer.push_back(answer);
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(answer) = self.to_observer.pop_front() else { return };
            self.watch.try_server(&answer).unwrap();
        }
    }

    fn settle(&mut self) {
        self.watch.observer.flush(self.watch.now, &mut self.watch.events);
        self.serve(usize::MAX);
        self.deliver(usize::MAX);
    }

    fn check(&self, sql_touches_names: bool) {
        let begun: HashMap<u64, &Begun> =
            self.watch.begun().into_iter().map(|begun| (begun.n, begun)).collect();
        let ended: HashMap<u64, &Ended> =
            self.watch.ended().into_iter().map(|ended| (ended.n, ended)).collect();
        assert_eq!(begun.len(), ended.len(), "everything that began has ended");
        for (step, n) in &self.numbers {
            let done = ended[n].outcome == Outcome::Done;
            match self.server.ran.get(step) {
                Some((sql, succeeded)) => {
                    assert_eq!(done, *succeeded, "{:?}", begun[n]);
                    if begun[n].certain || !sql_touches_names {
                        assert_eq!(begun[n].sql, sql.as_bytes(), "{:?}", begun[n]);
                    }
                }
                None => assert!(!done, "{:?}", begun[n]),
            }
        }
        for step in self.server.ran.keys() {
            assert!(self.numbers.contains_key(step), "a run without a record");
        }
    }
}

fn op(sql_touches_names: bool) -> impl Strategy<Value = Op> {
    let statement = || prop::sample::select(vec!["", "a", "b"]);
    let portal = || prop::sample::select(vec!["", "p"]);
    let moved = move |op| if sql_touches_names { op } else { Op::Query };
    prop_oneof![
        4 => statement().prop_map(Op::Parse),
        5 => (portal(), statement()).prop_map(|(portal, statement)| Op::Bind(portal, statement)),
        1 => statement().prop_map(|name| Op::Describe(b'S', name)),
        1 => portal().prop_map(|name| Op::Describe(b'P', name)),
        6 => portal().prop_map(Op::Execute),
        1 => statement().prop_map(|name| Op::Close(b'S', name)),
        1 => portal().prop_map(|name| Op::Close(b'P', name)),
        4 => Just(Op::Sync),
        1 => Just(Op::Query),
        1 => prop_oneof![Just(Op::Begin), Just(Op::Commit)],
        1 => prop::sample::select(vec!["a", "b"]).prop_map(move |name| moved(Op::Deallocate(name))),
        1 => prop::sample::select(vec!["a", "b"]).prop_map(move |name| moved(Op::Prepare(name))),
    ]
}

type Script = Vec<(Op, bool, bool, usize, usize)>;

fn script(sql_touches_names: bool) -> impl Strategy<Value = Script> {
    let step = (op(sql_touches_names), prop::bool::weighted(0.12), any::<bool>(), 0..4usize, 0..4usize);
    prop::collection::vec(step, 1..60)
}

fn run(script: Script, sql_touches_names: bool) {
    let mut world = World::default();
    let last = script.len();
    for (id, (op, fails, flush, serve, deliver)) in script.into_iter().enumerate() {
        world.send(&Step { op, id, fails }, flush);
        world.serve(if flush { serve } else { 0 });
        world.deliver(deliver);
    }
    world.send(&Step { op: Op::Sync, id: last, fails: false }, true);
    world.settle();
    world.check(sql_touches_names);
    assert_eq!(world.watch.observer.queue.len(), 0, "everything is answered");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn each_execution_is_recorded_with_the_sql_that_the_server_ran(script in script(false)) {
        run(script, false);
    }

    #[test]
    fn what_is_called_certain_is_what_ran_even_when_sql_moves_names(script in script(true)) {
        run(script, true);
    }

    #[test]
    fn what_is_kept_is_given_back(script in script(false)) {
        let mut world = World::default();
        for (id, (op, fails, ..)) in script.into_iter().enumerate() {
            world.send(&Step { op, id, fails }, true);
        }
        world.settle();
        for name in ["", "a", "b"] {
            world.send(&Step { op: Op::Sync, id: 9999, fails: false }, true);
            world.send(&Step { op: Op::Close(b'S', name), id: 9999, fails: false }, true);
        }
        world.server.in_transaction = false;
        world.send(&Step { op: Op::Sync, id: 9999, fails: false }, true);
        world.settle();
        prop_assert_eq!(world.watch.observer.meter.bytes(), 0);
    }
}
