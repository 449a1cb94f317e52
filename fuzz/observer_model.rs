//! A model of the server's side of the query protocols, and clients that send anything in any order, against the observer:
//! every execution is recorded once, with the SQL that the server ran and what came of it, and every COPY with what passed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use sallyport::crypto::{Hash, sha256};
use sallyport::postgres::codec::CodecError;
use sallyport::postgres::codec::frame::Frame;
use sallyport::postgres::codec::walker::Walker;
use sallyport::postgres::observe::{
    Begun, Direction, Ended, Event, How, Observed, Observer, Outcome, Refusal,
};

/// What the server does with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Select,
    CopyIn,
    CopyOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Parse(&'static str, Text),
    Bind(&'static str, &'static str),
    Describe(u8, &'static str),
    Execute(&'static str),
    Close(u8, &'static str),
    Sync,
    Query(Text),
    Function,
    Begin,
    Commit,
    /// SQL's own `DEALLOCATE` and `PREPARE` of a name.
    Deallocate(&'static str),
    Prepare(&'static str),
    /// So many bytes of copied data.
    Data(u8),
    CopyDone,
    CopyFail,
}

/// Every kind of operation, the commoner more than once.
pub(crate) const OPS: [Op; 47] = {
    use Op::*;
    use Text::*;
    [
        Parse("", Select),
        Parse("a", Select),
        Parse("a", Select),
        Parse("b", Select),
        Parse("", CopyIn),
        Parse("a", CopyIn),
        Parse("b", CopyOut),
        Bind("", ""),
        Bind("", "a"),
        Bind("", "a"),
        Bind("", "b"),
        Bind("p", ""),
        Bind("p", "a"),
        Bind("p", "b"),
        Describe(b'S', ""),
        Describe(b'S', "a"),
        Describe(b'P', ""),
        Describe(b'P', "p"),
        Execute(""),
        Execute(""),
        Execute(""),
        Execute(""),
        Execute("p"),
        Execute("p"),
        Execute("p"),
        Close(b'S', ""),
        Close(b'S', "a"),
        Close(b'P', ""),
        Close(b'P', "p"),
        Sync,
        Sync,
        Sync,
        Sync,
        Query(Select),
        Query(CopyIn),
        Query(CopyOut),
        Function,
        Begin,
        Commit,
        Data(1),
        Data(200),
        Data(200),
        CopyDone,
        CopyDone,
        CopyFail,
        Deallocate("a"),
        Prepare("a"),
    ]
};

impl Op {
    fn is_copying(self) -> bool {
        matches!(self, Self::Data(_) | Self::CopyDone | Self::CopyFail)
    }

    /// Whether SQL moves names that the protocol's messages use too.
    pub(crate) fn moves_names(self) -> bool {
        matches!(self, Self::Deallocate(_) | Self::Prepare(_))
    }
}

/// One thing that the client does, and what happens around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// The server lets it fail.
    pub(crate) fails: bool,
    /// A rule refuses it, if it runs anything.
    pub(crate) refused: bool,
    /// It is forwarded at once.
    pub(crate) flush: bool,
    /// So many messages the server answers then, and so many answers are observed.
    pub(crate) serve: u8,
    pub(crate) deliver: u8,
}

impl Step {
    /// Two bytes say all of it.
    pub(crate) fn read([op, around]: [u8; 2]) -> Self {
        let op = OPS.get(usize::from(op) % OPS.len()).copied().unwrap_or(Op::Sync);
        let chance = around % 16;
        let (serve, deliver) = ((around >> 4) % 4, (around >> 6) % 4);
        Self { op, fails: chance < 2, refused: chance == 2, flush: chance % 2 == 0, serve, deliver }
    }
}

fn sql(op: Op, id: usize) -> String {
    match op {
        Op::Begin => "BEGIN".to_owned(),
        Op::Commit => "COMMIT".to_owned(),
        Op::Deallocate(name) => format!("DEALLOCATE {name} -- {id}"),
        Op::Prepare(name) => format!("PREPARE {name} AS SELECT {id}"),
        Op::Parse(_, Text::CopyIn) | Op::Query(Text::CopyIn) => format!("COPY t{id} FROM STDIN"),
        Op::Parse(_, Text::CopyOut) | Op::Query(Text::CopyOut) => format!("COPY t{id} TO STDOUT"),
        _ => format!("SELECT {id}"),
    }
}

fn text_of(sql: &str) -> Text {
    match sql {
        sql if sql.ends_with("FROM STDIN") => Text::CopyIn,
        sql if sql.ends_with("TO STDOUT") => Text::CopyOut,
        _ => Text::Select,
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).unwrap_or_default();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn named(tag: u8, subject: u8, name: &str) -> Vec<u8> {
    message(tag, &[&[subject], name.as_bytes(), &[0]].concat())
}

fn error(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{sqlstate}\0Mno\0\0").as_bytes())
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// A `CopyInResponse` or `CopyOutResponse` of one column.
fn copies(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 1, 0, 0])
}

/// What the client puts in a `CopyData`.
fn data(id: usize, length: u8) -> Vec<u8> {
    format!("{id} ").into_bytes().into_iter().cycle().take(usize::from(length)).collect()
}

fn bytes(op: Op, id: usize) -> Vec<u8> {
    let text = sql(op, id);
    match op {
        Op::Parse(name, _) => message(b'P', format!("{name}\0{text}\0\0\0").as_bytes()),
        Op::Bind(portal, statement) => {
            message(b'B', &[portal.as_bytes(), b"\0", statement.as_bytes(), &[0; 7]].concat())
        }
        Op::Describe(subject, name) => named(b'D', subject, name),
        Op::Execute(portal) => message(b'E', &[portal.as_bytes(), &[0; 5]].concat()),
        Op::Close(subject, name) => named(b'C', subject, name),
        Op::Sync => message(b'S', b""),
        Op::Function => message(b'F', &[0, 0, 4, 210, 0, 0, 0, 0, 0, 0]),
        Op::Data(length) => message(b'd', &data(id, length)),
        Op::CopyDone => message(b'c', b""),
        Op::CopyFail => message(b'f', b"no\0"),
        Op::Query(_) | Op::Begin | Op::Commit | Op::Deallocate(_) | Op::Prepare(_) => {
            message(b'Q', format!("{text}\0").as_bytes())
        }
    }
}

/// What reached the server, perhaps in place of something else.
#[derive(Debug, Clone, Copy)]
struct Sent {
    op: Op,
    id: usize,
    fails: bool,
    refused: bool,
}

#[derive(Debug)]
struct Copying {
    id: usize,
    sql: String,
    is_simple: bool,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Server {
    statements: HashMap<&'static str, String>,
    portals: HashMap<&'static str, String>,
    in_transaction: bool,
    skips: bool,
    copying: Option<Copying>,
    /// What was run, by who asked for it, and whether it succeeded.
    ran: HashMap<usize, (String, bool)>,
    /// What was copied to the end.
    copied: HashMap<usize, (Direction, Hash)>,
    /// COPYs from the client that began, and those that failed.
    reading: HashSet<usize>,
    failed: HashSet<usize>,
    /// Whose stand-in it could not parse.
    unparsed: BTreeSet<usize>,
}

impl Server {
    fn answer(&mut self, sent: Sent) -> Vec<u8> {
        if let Some(copying) = self.copying.take() {
            return self.copy(copying, sent);
        }
        if sent.op.is_copying() || (self.skips && sent.op != Op::Sync) {
            return Vec::new();
        }
        match sent.op {
            Op::Sync => {
                self.skips = false;
                self.ready()
            }
            Op::Parse(..) | Op::Bind(..) | Op::Describe(..) | Op::Execute(_) | Op::Close(..) => {
                let answer = if sent.refused { self.parse_garbage(sent) } else { self.extended(sent) };
                self.skips = answer.is_none();
                answer.unwrap_or_else(|| error(if sent.refused { "42601" } else { "XX000" }))
            }
            _ => self.simple(sent),
        }
    }

    /// What is refused is replaced by a `Parse` that fails: under its own name, or one of the gateway's.
    fn parse_garbage(&mut self, sent: Sent) -> Option<Vec<u8>> {
        if matches!(sent.op, Op::Parse("", _)) {
            self.statements.remove("");
        }
        self.unparsed.insert(sent.id);
        None
    }

    /// `None` is an error.
    fn extended(&mut self, sent: Sent) -> Option<Vec<u8>> {
        match sent.op {
            Op::Parse(name, _) => {
                if sent.fails || (!name.is_empty() && self.statements.contains_key(name)) {
                    if name.is_empty() {
                        self.statements.remove("");
                    }
                    return None;
                }
                self.statements.insert(name, sql(sent.op, sent.id));
                Some(message(b'1', b""))
            }
            Op::Execute(portal) => {
                let sql = self.portals.get(portal)?.clone();
                self.run(sent, sql, false)
            }
            _ if sent.fails => None,
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

    /// Runs a text up to where the client has to say something; `None` is an error.
    fn run(&mut self, sent: Sent, sql: String, is_simple: bool) -> Option<Vec<u8>> {
        if sent.fails {
            self.ran.insert(sent.id, (sql, false));
            return None;
        }
        let text = text_of(&sql);
        if text == Text::CopyIn {
            self.reading.insert(sent.id);
            self.copying = Some(Copying { id: sent.id, sql, is_simple, data: Vec::new() });
            return Some(copies(b'G'));
        }
        self.ran.insert(sent.id, (sql, true));
        Some(match text {
            Text::CopyOut => {
                let row = data(sent.id, 90);
                self.copied.insert(sent.id, (Direction::Out, sha256(&[&row, &row])));
                let row = message(b'd', &row);
                [copies(b'H'), row.clone(), row, message(b'c', b""), complete("COPY 2")].concat()
            }
            _ => [message(b'D', b"\0\0"), complete("SELECT 1")].concat(),
        })
    }

    fn simple(&mut self, sent: Sent) -> Vec<u8> {
        if sent.op != Op::Function || sent.refused {
            self.statements.remove("");
            self.portals.remove("");
        }
        let answer = match sent.op {
            _ if sent.refused => {
                self.unparsed.insert(sent.id);
                error("42601")
            }
            Op::Function => {
                self.ran.insert(sent.id, (String::new(), !sent.fails));
                if sent.fails { error("XX000") } else { message(b'V', &[0, 0, 0, 1, b'7']) }
            }
            _ => {
                let answer = self.run(sent, sql(sent.op, sent.id), true);
                if self.copying.is_some() {
                    return answer.unwrap_or_default();
                }
                if answer.is_some() { self.done(sent.op) } else { None }
                    .or(answer)
                    .unwrap_or_else(|| error("XX000"))
            }
        };
        [answer, self.ready()].concat()
    }

    /// What SQL does to names and transactions.
    fn done(&mut self, op: Op) -> Option<Vec<u8>> {
        match op {
            Op::Deallocate(name) => {
                self.statements.remove(name);
                Some(complete("DEALLOCATE"))
            }
            Op::Prepare(name) => {
                self.statements.entry(name).or_insert_with(|| "moved".to_owned());
                Some(complete("PREPARE"))
            }
            Op::Begin | Op::Commit => {
                self.in_transaction = op == Op::Begin;
                Some(complete(if op == Op::Begin { "BEGIN" } else { "COMMIT" }))
            }
            _ => None,
        }
    }

    /// What comes while the server reads a COPY's data: a `Sync` means nothing then.
    fn copy(&mut self, mut copying: Copying, sent: Sent) -> Vec<u8> {
        let failure = match sent.op {
            Op::Data(length) if !sent.fails => {
                copying.data.extend(data(sent.id, length));
                self.copying = Some(copying);
                return Vec::new();
            }
            Op::CopyDone if !sent.fails => None,
            Op::Data(_) | Op::CopyDone => Some("22P04"),
            Op::CopyFail => Some("57014"),
            op => {
                assert_eq!(op, Op::Sync, "nothing else is forwarded");
                self.copying = Some(copying);
                return Vec::new();
            }
        };
        let Copying { id, sql, is_simple, data } = copying;
        self.ran.insert(id, (sql, failure.is_none()));
        if failure.is_none() {
            self.copied.insert(id, (Direction::In, sha256(&[&data])));
        } else {
            self.failed.insert(id);
        }
        self.skips = !is_simple && failure.is_some();
        let answer = failure.map_or_else(|| complete("COPY 1"), error);
        if is_simple { [answer, self.ready()].concat() } else { answer }
    }

    fn ready(&mut self) -> Vec<u8> {
        if !self.in_transaction {
            self.portals.clear();
        }
        message(b'Z', &[if self.in_transaction { b'T' } else { b'I' }])
    }
}

/// What travels: messages to the server, answers to the observer.
#[derive(Debug, Default)]
pub(crate) struct World {
    observer: Observer,
    events: Vec<Event>,
    now: u64,
    server: Server,
    to_server: VecDeque<Sent>,
    to_observer: VecDeque<Vec<u8>>,
    /// The number that the observer gave to each run.
    numbers: HashMap<usize, u64>,
    /// With their text.
    refused: HashMap<usize, String>,
    /// Whose refusals took the place of an error.
    told: BTreeSet<usize>,
    /// The target is known to read data.
    reads_data: bool,
    /// The observer ended the connection.
    is_cut: bool,
}

impl World {
    /// Does all of `steps`, a `Sync`, and checks what is on record; then that nothing is kept when every name has been closed.
    /// Gives how many COPYs were done and how many refusals told.
    pub(crate) fn run(steps: &[Step]) -> (usize, usize) {
        let mut world = Self::default();
        for (id, step) in steps.iter().enumerate() {
            world.step(id, *step);
        }
        world.come_to_rest(steps.len());
        world.check(steps);
        world.close_all(steps.len() + 2);
        (world.server.copied.len(), world.told.len())
    }

    fn close_all(&mut self, mut id: usize) {
        self.server.in_transaction = false;
        for name in ["", "a", "b"] {
            for op in [Op::Sync, Op::Close(b'S', name)] {
                id += 1;
                self.send(id, op, false, false);
            }
        }
        self.come_to_rest(id + 1);
        assert!(
            self.is_cut || self.observer.kept_bytes() == 0,
            "{} bytes are kept",
            self.observer.kept_bytes()
        );
    }

    fn come_to_rest(&mut self, id: usize) {
        self.settle();
        if self.reads_data {
            self.send(id, Op::CopyDone, false, false);
        }
        self.send(id + 1, Op::Sync, false, false);
        self.settle();
        if self.is_cut {
            self.observer.finish(self.now, &mut self.events);
        }
    }

    fn step(&mut self, id: usize, step: Step) {
        self.send(id, step.op, step.fails, step.refused);
        if step.flush {
            self.observer.flush(self.now, &mut self.events);
            self.serve(step.serve.into());
        }
        self.deliver(step.deliver.into());
    }

    fn observe(&mut self, frame: &Frame) -> Result<Observed, CodecError> {
        self.now += 1;
        self.observer.client(frame, self.now, &mut self.events)
    }

    fn send(&mut self, id: usize, op: Op, fails: bool, refused: bool) {
        let raw = Bytes::from(bytes(op, id));
        let frame = Frame { tag: raw.first().copied().unwrap_or_default(), raw };
        if self.is_out_of_turn(op) {
            return;
        }
        let refused = refused && self.observer.to_run(&frame).is_some();
        self.observer.refuse_next(refused.then(|| refusal(id)));
        let before = self.events.len();
        let mut seen = self.observe(&frame);
        if matches!(seen, Ok(Observed::Hold { .. })) {
            assert_eq!(self.events.len(), before, "a held message changes nothing");
            self.settle();
            if self.is_out_of_turn(op) {
                self.observer.refuse_next(None);
                return;
            }
            seen = self.observe(&frame);
        }
        if let Err(why) = &seen {
            assert!(why.to_string().contains("after a failed COPY"), "{why}");
            assert!(!self.server.failed.is_empty(), "no COPY failed");
            self.is_cut = true;
            return;
        }
        assert_eq!(seen, Ok(Observed::Forward), "held for good");
        if let Some(Event::StatementBegun(begun)) = self.events.get(before..).and_then(<[_]>::last)
            && begun.how != How::Prepare
        {
            self.numbers.insert(id, begun.n);
        }
        if refused {
            self.refused.insert(id, sql(op, id));
        }
        self.reads_data &= !matches!(op, Op::CopyDone | Op::CopyFail);
        self.to_server.push_back(Sent { op, id, fails, refused });
    }

    /// No client sends anything else while it copies.
    fn is_out_of_turn(&self, op: Op) -> bool {
        self.is_cut || (self.reads_data && !op.is_copying() && op != Op::Sync)
    }

    fn serve(&mut self, count: usize) {
        for _ in 0..count {
            let Some(sent) = self.to_server.pop_front() else { return };
            let answer = self.server.answer(sent);
            self.to_observer.push_back(answer);
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(answer) = self.to_observer.pop_front() else { return };
            let before = self.events.len();
            let (mut walker, mut at) = (Walker::new(), 0);
            while let Some(message) = walker.next(&answer, &mut at).unwrap_or_default() {
                self.now += 1;
                let seen = self.observer.server(&message, self.now, &mut self.events);
                assert_eq!(seen, Ok(()), "what the server says is understood");
                if let Some(replacement) = self.observer.replacement() {
                    let of =
                        std::str::from_utf8(&replacement).ok().and_then(|text| text.strip_prefix("ours "));
                    let id = of.and_then(|id| id.parse().ok());
                    assert!(id.is_some_and(|id| self.told.insert(id)), "{replacement:?} is told once");
                }
            }
            for event in self.events.get(before..).unwrap_or_default() {
                match event {
                    Event::CopyBegun { direction: Direction::In, .. } => self.reads_data = true,
                    Event::CopyEnded { direction: Direction::In, .. } => self.reads_data = false,
                    _ => {}
                }
            }
        }
    }

    fn settle(&mut self) {
        self.observer.flush(self.now, &mut self.events);
        self.serve(usize::MAX);
        self.deliver(usize::MAX);
    }

    fn begun<'a>(&'a self) -> HashMap<u64, &'a Begun> {
        let begun =
            |event: &'a Event| if let Event::StatementBegun(begun) = event { Some(begun) } else { None };
        self.events.iter().filter_map(begun).map(|begun| (begun.n, begun)).collect()
    }

    fn ended<'a>(&'a self) -> HashMap<u64, &'a Ended> {
        let ended =
            |event: &'a Event| if let Event::StatementEnded(ended) = event { Some(ended) } else { None };
        self.events.iter().filter_map(ended).map(|ended| (ended.n, ended)).collect()
    }

    fn check(&self, steps: &[Step]) {
        let moves_names = steps.iter().any(|step| step.op.moves_names());
        let (begun, ended) = (self.begun(), self.ended());
        let count = |is_one: fn(&Event) -> bool| self.events.iter().filter(|event| is_one(event)).count();
        assert_eq!(begun.len(), ended.len(), "everything that began has ended");
        assert_eq!(begun.len(), count(|event| matches!(event, Event::StatementBegun(_))), "once");
        assert_eq!(ended.len(), count(|event| matches!(event, Event::StatementEnded(_))), "once");
        let runs = begun.values().filter(|begun| begun.how != How::Prepare).count();
        assert_eq!(runs, self.numbers.len(), "nothing else is told to have been run");
        for (step, n) in &self.numbers {
            let known = begun.get(n).zip(ended.get(n));
            assert!(known.is_some(), "what has a number has begun and ended");
            let Some((begun, Ended { outcome, .. })) = known else { continue };
            if *outcome == Outcome::Unresolved {
                assert!(self.is_cut, "{begun:?}");
                continue;
            }
            let done = *outcome == Outcome::Done;
            match self.server.ran.get(step) {
                Some((sql, succeeded)) => {
                    assert_eq!(done, *succeeded, "{begun:?}");
                    if begun.certain || !moves_names {
                        assert_eq!(begun.sql, sql.as_bytes(), "{begun:?}");
                    }
                }
                None => assert!(!done, "{begun:?}"),
            }
            self.check_refusal(*step, begun, outcome);
            self.check_copy(*step, *n);
        }
        for step in self.server.ran.keys() {
            assert!(self.numbers.contains_key(step), "a run without a record");
        }
        assert_eq!(
            self.told, self.server.unparsed,
            "the client is told of each refusal, and of nothing else"
        );
        let is_doubtful = !self.server.reading.is_empty();
        assert!(is_doubtful || self.observer.unanswered() == 0, "everything is answered");
    }

    /// What was refused has failed as a refusal, and nothing else has.
    fn check_refusal(&self, step: usize, begun: &Begun, outcome: &Outcome) {
        let Outcome::Failed { sqlstate, .. } = outcome else { return };
        let is_refusal = sqlstate == "42501";
        if self.refused.contains_key(&step) {
            assert!(is_refusal || !self.told.contains(&step), "{begun:?}: {outcome:?}");
        }
        // Or what it was to execute was refused when it was prepared.
        let is_refused_text = |text: &String| begun.sql == text.as_bytes();
        let refused_before = self.refused.values().any(is_refused_text);
        assert!(!is_refusal || self.refused.contains_key(&step) || refused_before, "{begun:?}");
    }

    /// What was copied to the end is on record, by its hash.
    fn check_copy(&self, step: usize, n: u64) {
        let ends = self.events.iter().filter_map(|event| match event {
            Event::CopyEnded { n: of, direction, sha256, complete, .. } if *of == n => {
                Some((*direction, *sha256, *complete))
            }
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        match self.server.copied.get(&step) {
            Some((direction, hash)) => assert_eq!(ends, [(*direction, *hash, true)]),
            None if self.server.reading.contains(&step) => assert_eq!(ends.len(), 1, "{ends:?}"),
            None => assert!(ends.is_empty(), "{ends:?}"),
        }
    }
}

fn refusal(id: usize) -> Refusal {
    Refusal {
        report: Bytes::from(format!("ours {id}")),
        sqlstate: Bytes::from_static(b"42501"),
        message: Bytes::from_static(b"a rule refuses it"),
    }
}
