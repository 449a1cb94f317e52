//! The client's side: what is about to be forwarded.

use std::sync::Arc;

use bytes::Bytes;

use super::change::{Portal, Reading, Slot, Statement};
use super::clause::Clauses;
use super::pending::{Kind, Pending, Run, Undo};
use super::{
    Begun, Direction, Event, How, MOST_PENDING, Observed, Observer, Outcome, Param, Unrecorded, detached,
    param,
};
use crate::postgres::codec::frame::{Frame, Piece};
use crate::postgres::codec::frontend::{Bind, ClientMessage, FunctionCall, Parse, Subject};
use crate::postgres::codec::{CodecError, Peer};

impl Observer {
    /// Observes a piece of the client's stream. [`Piece::CopyBody`] is never held.
    pub fn piece(
        &mut self,
        piece: &Piece,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Result<Observed, CodecError> {
        match piece {
            Piece::Frame(frame) => self.client(frame, now_us, out),
            Piece::CopyStart { .. } => self.copy_data(&[], 1),
            Piece::CopyBody { bytes, .. } => {
                if let Some(copy) = &mut self.copy {
                    copy.data(Direction::In, bytes, 0);
                }
                Ok(Observed::Forward)
            }
        }
    }

    /// Observes one of the client's messages before it is forwarded.
    pub fn client(
        &mut self,
        frame: &Frame,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Result<Observed, CodecError> {
        let message = ClientMessage::read(frame)?;
        if self.terminated {
            return Err(unexpected(frame.tag, "after it ended the connection"));
        }
        match message {
            ClientMessage::CopyData(bytes) => return self.copy_data(&bytes, 1),
            ClientMessage::CopyDone => return self.copy_end(frame.tag, true),
            ClientMessage::CopyFail { .. } => return self.copy_end(frame.tag, false),
            ClientMessage::Flush => {
                self.asked = self.last_id;
                return Ok(Observed::Forward);
            }
            ClientMessage::Terminate => {
                self.terminated = true;
                return Ok(Observed::Forward);
            }
            ClientMessage::Sync => return Ok(self.sync(now_us, out)),
            _ => {}
        }
        if let Some(hold) = self.check_state(frame.tag, now_us, out)? {
            return Ok(hold);
        }
        if self.is_ambiguous(&message) {
            return Ok(Observed::Hold { flush: true });
        }
        self.last_id += 1;
        match message {
            ClientMessage::Query { sql } => self.query(sql, now_us, out),
            ClientMessage::Parse(parse) => self.parse(parse, frame.raw.len())?,
            ClientMessage::Bind(bind) => self.bind(&bind)?,
            ClientMessage::Describe { subject, name } => {
                self.push(Kind::Describe { subject, name: detached(&name) }, None, None);
            }
            ClientMessage::Execute { portal, .. } => self.execute(&portal, now_us, out),
            ClientMessage::Close { subject, name } => self.close(subject, &name),
            ClientMessage::FunctionCall(call) => self.function(&call, now_us, out),
            _ => {}
        }
        Ok(Observed::Forward)
    }

    /// Whether a message of the query protocols may be forwarded now.
    fn check_state(
        &mut self,
        tag: u8,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Result<Option<Observed>, CodecError> {
        if self.copy.as_ref().is_some_and(|copy| copy.reads_client() || copy.is_both()) {
            return Err(unexpected(tag, "during COPY"));
        }
        if self.failed {
            if self.queue.next_is_sync() {
                // Whether the target took that Sync for the end of the batch cannot be known.
                return Err(unexpected(tag, "after a failed COPY, before `Sync`"));
            }
            if self.queue.len() >= MOST_PENDING {
                self.skip(None, now_us, out);
            }
            return Ok(None);
        }
        let hold = self.may_copy.is_some() || self.queue.len() >= MOST_PENDING;
        Ok(hold.then_some(Observed::Hold { flush: true }))
    }

    /// Whether the message uses a name whose definition, in an earlier batch, is unanswered.
    fn is_ambiguous(&self, message: &ClientMessage) -> bool {
        if self.failed {
            return false;
        }
        let statement = |name: &Bytes| self.is_unresolved(self.statements.version(name));
        let portal = |name: &Bytes| self.is_unresolved(self.portals.version(name));
        match message {
            // What is unnamed is replaced whatever it was.
            ClientMessage::Parse(parse) => !parse.name.is_empty() && statement(&parse.name),
            ClientMessage::Bind(bind) => {
                statement(&bind.statement) || (!bind.portal.is_empty() && portal(&bind.portal))
            }
            ClientMessage::Describe { subject: Subject::Statement, name }
            | ClientMessage::Close { subject: Subject::Statement, name } => statement(name),
            ClientMessage::Execute { portal: name, .. }
            | ClientMessage::Describe { name, .. }
            | ClientMessage::Close { name, .. } => portal(name),
            _ => false,
        }
    }

    fn push(&mut self, kind: Kind, undo: Option<Undo>, run: Option<Run>) {
        let run = run.map(Box::new);
        let runs = matches!(kind, Kind::Parse | Kind::Execute | Kind::Query | Kind::Function);
        let refusal = if runs { self.refusal.take() } else { None };
        self.unsettled = true;
        self.queue.push(Pending { id: self.last_id, batch: self.batch, kind, undo, run, refusal });
    }

    fn query(&mut self, sql: Bytes, now_us: u64, out: &mut Vec<Event>) {
        // PostgreSQL drops the unnamed statement and portal at the start of a simple query.
        self.statements.mark_unnamed_uncertain();
        self.portals.mark_unnamed_uncertain();
        if self.by_name.may_copy_in(&sql) {
            self.may_copy = Some(self.last_id);
        }
        let Reading { fingerprint, clauses } = Reading::of(&sql, self.strings);
        let begun = Begun { how: How::Simple, sql, fingerprint, certain: !self.failed, ..blank() };
        let run = self.begin(begun, [0, 0], clauses, now_us, out);
        self.push(Kind::Query, None, Some(run));
        self.asked = self.last_id;
        self.batch += 1;
    }

    fn function(&mut self, call: &FunctionCall, now_us: u64, out: &mut Vec<Event>) {
        let params: Arc<[Param]> = param::read(&call.arguments, &call.formats, &[], false).into();
        let how = How::Function(call.function);
        let begun = Begun { how, params, certain: !self.failed, ..blank() };
        if self.refusal.is_some() {
            // A simple query goes in its place, and that drops what has no name.
            self.statements.mark_unnamed_uncertain();
            self.portals.mark_unnamed_uncertain();
        }
        let run = self.begin(begun, [0, 0], None, now_us, out);
        self.push(Kind::Function, None, Some(run));
        self.asked = self.last_id;
        self.batch += 1;
    }

    fn parse(&mut self, parse: Parse, frame: usize) -> Result<(), CodecError> {
        self.statements.check_room("prepared statements")?;
        let share = self.meter.charge(frame + size_of::<Pending>())?;
        let (name, sql) = if parse.name.is_empty() {
            (parse.name, parse.sql)
        } else {
            (detached(&parse.name), detached(&parse.sql))
        };
        if !name.is_empty() {
            self.by_name.prepared(&sql);
        }
        let reading = Reading::of(&sql, self.strings);
        let begun = Begun {
            statement: name.clone(),
            sql: sql.clone(),
            fingerprint: reading.fingerprint,
            certain: !self.failed,
            ..blank()
        };
        let value = Statement { sql, reading, types: parse.types.into(), _charge: share };
        let certain = is_exact(&name);
        let slot = Slot { version: self.last_id, batch: self.batch, certain, value: Some(value) };
        let change = self.statements.set(name, slot);
        self.unrecorded.insert(self.last_id, Unrecorded { begun, versions: [self.last_id, 0] });
        self.push(Kind::Parse, Some(Undo::Statement(change)), None);
        Ok(())
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), CodecError> {
        self.portals.check_room("portals")?;
        let slot = self.statements.slot(&bind.statement);
        let known = slot.and_then(|slot| slot.value.as_ref());
        let (sql, reading, types) = known.map_or_else(Default::default, |known| {
            (known.sql.clone(), known.reading.clone(), known.types.clone())
        });
        let certain = known.is_some() && slot.is_some_and(|slot| slot.certain) && is_exact(&bind.portal);
        let statement_version = slot.map_or(0, |slot| slot.version);
        let params: Arc<[Param]> =
            param::read(&bind.values, &bind.formats, &types, !bind.portal.is_empty()).into();
        let kept = params.iter().map(Param::kept).sum::<usize>();
        let share = self.meter.charge(kept + size_of::<Pending>())?;
        let begun = Begun {
            statement: detached(&bind.statement),
            portal: detached(&bind.portal),
            sql: sql.clone(),
            fingerprint: reading.fingerprint,
            params: params.clone(),
            certain: certain && !self.failed,
            ..blank()
        };
        let (statement, name) = (begun.statement.clone(), begun.portal.clone());
        let value =
            Portal { statement, statement_version, sql, reading, params, first: None, _charge: share };
        let slot = Slot { version: self.last_id, batch: self.batch, certain, value: Some(value) };
        let change = self.portals.set(name, slot);
        let versions = [statement_version, self.last_id];
        self.unrecorded.insert(self.last_id, Unrecorded { begun, versions });
        self.push(Kind::Bind, Some(Undo::Portal(change)), None);
        Ok(())
    }

    fn execute(&mut self, name: &Bytes, now_us: u64, out: &mut Vec<Event>) {
        let n = self.last_n + 1;
        let mut begun = Begun { how: How::Extended, portal: detached(name), ..blank() };
        let (mut versions, mut clauses) = ([0, 0], None);
        if let Some(slot) = self.portals.slot_mut(name)
            && let Some(portal) = &mut slot.value
        {
            versions = [portal.statement_version, slot.version];
            begun.statement = portal.statement.clone();
            begun.sql = portal.sql.clone();
            begun.fingerprint = portal.reading.fingerprint;
            clauses.clone_from(&portal.reading.clauses);
            begun.params = portal.params.clone();
            begun.certain = slot.certain && !self.failed;
            begun.resumes = portal.first;
            portal.first.get_or_insert(n);
        }
        for version in versions {
            self.unrecorded.remove(&version);
        }
        if !begun.certain || self.by_name.may_copy_in(&begun.sql) {
            self.may_copy = Some(self.last_id);
        }
        // What the target may have run instead is not in this text.
        let clauses = clauses.filter(|_| begun.certain);
        let run = self.begin(begun, versions, clauses, now_us, out);
        self.push(Kind::Execute, None, Some(run));
    }

    fn begin(
        &mut self,
        mut begun: Begun,
        versions: [u64; 2],
        clauses: Clauses,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Run {
        self.mark_uncertain(self.by_name.touches(&begun.sql), self.last_id);
        self.last_n += 1;
        begun.n = self.last_n;
        out.push(Event::StatementBegun(begun));
        Run::new(self.last_n, now_us, versions, clauses)
    }

    fn close(&mut self, subject: Subject, name: &Bytes) {
        let (name, version, batch) = (detached(name), self.last_id, self.batch);
        let undo = match subject {
            Subject::Statement => {
                let gone = Slot { version, batch, certain: true, value: None };
                Undo::Statement(self.statements.set(name, gone))
            }
            Subject::Portal => {
                let gone = Slot { version, batch, certain: true, value: None };
                Undo::Portal(self.portals.set(name, gone))
            }
        };
        self.push(Kind::Close, Some(undo), None);
    }

    fn sync(&mut self, now_us: u64, out: &mut Vec<Event>) -> Observed {
        if self.queue.len() >= MOST_PENDING && !self.failed {
            return Observed::Hold { flush: true };
        }
        if self.failed {
            if !self.queue.next_is_sync() {
                self.skip(None, now_us, out);
            }
            self.failed = false;
        }
        self.last_id += 1;
        let certain = !self.copy.as_ref().is_some_and(super::copy::Copy::reads_client);
        self.push(Kind::Sync { certain }, None, None);
        self.asked = self.last_id;
        self.batch += 1;
        Observed::Forward
    }

    fn copy_data(&mut self, bytes: &[u8], chunks: u64) -> Result<Observed, CodecError> {
        if self.terminated {
            return Err(unexpected(b'd', "after it ended the connection"));
        }
        if let Some(copy) = &mut self.copy
            && copy.data(Direction::In, bytes, chunks)
        {
            return Ok(Observed::Forward);
        }
        Ok(self.stray_copy())
    }

    fn copy_end(&mut self, tag: u8, complete: bool) -> Result<Observed, CodecError> {
        if let Some(copy) = &mut self.copy {
            if copy.is_both() && !complete {
                return Err(unexpected(tag, "during replication"));
            }
            if copy.close(Direction::In, complete) {
                return Ok(Observed::Forward);
            }
        }
        Ok(self.stray_copy())
    }

    /// Copy messages without a COPY: PostgreSQL ignores those that a client sent before it knew
    /// that its COPY had failed. They wait while a COPY may be about to begin.
    fn stray_copy(&self) -> Observed {
        if self.may_copy.is_some() && !self.failed {
            return Observed::Hold { flush: true };
        }
        Observed::Forward
    }

    /// The target skips what is pending up to the next `Sync`: undoes it and ends it. `failed` is
    /// the message that failed, with its outcome.
    pub(super) fn skip(&mut self, failed: Option<(Pending, Outcome)>, now_us: u64, out: &mut Vec<Event>) {
        let mut skipped = Vec::new();
        while !self.queue.next_is_sync()
            && let Some(item) = self.queue.pop()
        {
            skipped.push(item);
        }
        for item in skipped.iter_mut().rev() {
            self.undo(item);
        }
        let mut reason = None;
        if let Some((mut item, outcome)) = failed {
            self.undo(&mut item);
            let depends = |run: &&Run| run.versions.contains(&item.id);
            let mut later = skipped.iter().filter_map(|item| item.run.as_deref());
            self.failed_by = item.run.as_deref().or_else(|| later.find(depends)).map(Run::n);
            if let Some(run) = item.run.take() {
                self.told(run.end(outcome.clone(), now_us), out);
            }
            reason = Some((item.id, outcome));
        }
        for run in skipped.into_iter().filter_map(|item| item.run) {
            let outcome = match &reason {
                Some((id, outcome)) if run.versions.contains(id) => outcome.clone(),
                _ => Outcome::Skipped { after: self.failed_by },
            };
            self.told(run.end(outcome, now_us), out);
        }
    }
}

/// Whether two names of this kind are the same to PostgreSQL only if they are the same here. It converts others from
/// the client's encoding, which may change, and cuts them then; none becomes one of ASCII alone.
fn is_exact(name: &Bytes) -> bool {
    name.is_ascii()
}

fn blank() -> Begun {
    Begun {
        n: 0,
        how: How::Prepare,
        statement: Bytes::new(),
        portal: Bytes::new(),
        sql: Bytes::new(),
        fingerprint: None,
        params: Arc::new([]),
        certain: false,
        resumes: None,
    }
}

fn unexpected(tag: u8, state: &'static str) -> CodecError {
    CodecError::Unexpected { peer: Peer::Client, tag, state }
}
