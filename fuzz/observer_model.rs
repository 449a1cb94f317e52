//! A model of the server's side of the query protocols, and clients that send anything in any order, against the observer:
//! every execution is recorded once, with the SQL that the server ran and what came of it, and every COPY with what passed.

#[path = "observer_server.rs"]
mod server;

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use sallyport::postgres::codec::CodecError;
use sallyport::postgres::codec::frame::Frame;
use sallyport::postgres::codec::walker::Walker;
use sallyport::postgres::observe::{
    Begun, Direction, Ended, Event, How, Observed, Observer, Outcome, Refusal,
};

use server::{OPS, Op, Sent, Server, bytes, sql};

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
