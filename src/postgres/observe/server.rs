//! The target's side: what came of what was forwarded.

use super::copy::Copy;
use super::pending::{Kind, Pending, Run, Undo};
use super::{Direction, Ended, Event, Observer, Outcome, sql};
use crate::postgres::codec::backend::{CommandTag, Report, TransactionStatus};
use crate::postgres::codec::frontend::Subject;
use crate::postgres::codec::walker::ServerMessage;
use crate::postgres::codec::{CodecError, Peer};
use crate::postgres::lexer::Strings;

impl Observer {
    /// Observes a stretch of the target's stream. An error means that the target answers what was
    /// not asked: nothing on record could be trusted from then on.
    pub fn server(
        &mut self,
        message: &ServerMessage<'_>,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Result<(), CodecError> {
        match message {
            ServerMessage::Notice(_) | ServerMessage::Notification => return Ok(()),
            ServerMessage::Parameter { name, value } => {
                self.strings = Strings::reported(name, value).unwrap_or(self.strings);
                out.push(Event::Parameter { name: name.clone(), value: value.clone() });
                return Ok(());
            }
            ServerMessage::Ready(status) => return self.ready(*status, now_us, out),
            _ => {}
        }
        if !self.held.is_empty() && !matches!(message, ServerMessage::Error(_)) {
            self.release(None, out);
        }
        self.pass_swallowed_syncs();
        let understood = match message {
            ServerMessage::Error(report) => self.error(report, now_us, out),
            ServerMessage::ParseComplete => self.settle(&Kind::Parse, now_us, out),
            ServerMessage::BindComplete => self.settle(&Kind::Bind, now_us, out),
            ServerMessage::CloseComplete => self.settle(&Kind::Close, now_us, out),
            ServerMessage::ParameterDescription(types) => self.learn_types(types),
            ServerMessage::RowDescription => self.is_query() || self.described(),
            ServerMessage::NoData => self.described(),
            ServerMessage::Rows { ended, bytes } => self.run().is_some_and(|run| {
                run.rows(*ended, *bytes, now_us);
                true
            }),
            ServerMessage::CommandComplete(tag) => self.completed(tag, now_us, out),
            ServerMessage::EmptyQuery => self.is_query() || self.executed(Outcome::Done, now_us, out),
            ServerMessage::PortalSuspended => self.executed(Outcome::Suspended, now_us, out),
            ServerMessage::CopyIn => self.begin_copy(&[Direction::In], out),
            ServerMessage::CopyOut => self.begin_copy(&[Direction::Out], out),
            ServerMessage::CopyBoth => self.begin_copy(&[Direction::In, Direction::Out], out),
            ServerMessage::CopyData { bytes, ended } => self.copied(bytes, *ended, now_us),
            ServerMessage::CopyDone => {
                self.copy.as_mut().is_some_and(|copy| copy.close(Direction::Out, true))
            }
            ServerMessage::FunctionResult => {
                self.queue.head().is_some_and(|item| item.kind == Kind::Function)
            }
            _ => false,
        };
        if understood {
            return Ok(());
        }
        Err(CodecError::Unexpected { peer: Peer::Target, tag: message.tag(), state: "that answers nothing" })
    }

    /// A `Sync` that a COPY swallowed is not answered: the answer is to what follows it.
    fn pass_swallowed_syncs(&mut self) {
        while self.queue.next_is_certain_sync() == Some(false) && self.queue.next_is_sync() {
            self.queue.pop();
        }
    }

    fn run(&mut self) -> Option<&mut Run> {
        let item = self.queue.head()?;
        matches!(item.kind, Kind::Query | Kind::Execute).then_some(item.run.as_deref_mut()).flatten()
    }

    fn is_query(&mut self) -> bool {
        self.queue.head().is_some_and(|item| item.kind == Kind::Query)
    }

    fn pop_kind(&mut self, kind: &Kind) -> Option<Pending> {
        if self.queue.head().is_none_or(|item| item.kind != *kind) {
            return None;
        }
        let item = self.queue.pop()?;
        if self.may_copy == Some(item.id) {
            self.may_copy = None;
        }
        Some(item)
    }

    /// The first pending message succeeded, and so its change is final.
    fn settle(&mut self, kind: &Kind, now_us: u64, out: &mut Vec<Event>) -> bool {
        let Some(item) = self.pop_kind(kind) else { return false };
        match &item.undo {
            Some(Undo::Statement(change)) => self.statements.settle(change),
            Some(Undo::Portal(change)) => self.portals.settle(change),
            None => {}
        }
        if let Some(run) = item.run {
            self.told(run.end(Outcome::Done, now_us), out);
        }
        true
    }

    /// Types that the client left to the target, of the statement that it asked about.
    fn learn_types(&mut self, types: &[u32]) -> bool {
        let Some(Pending { id, kind: Kind::Describe { subject: Subject::Statement, name }, .. }) =
            self.queue.head()
        else {
            return false;
        };
        if let Some(slot) = self.statements.slot_mut(name)
            && slot.version < *id
            && let Some(statement) = &mut slot.value
        {
            statement.types = types.into();
        }
        true
    }

    fn described(&mut self) -> bool {
        if !self.queue.head().is_some_and(|item| matches!(item.kind, Kind::Describe { .. })) {
            return false;
        }
        self.queue.pop();
        true
    }

    fn completed(&mut self, tag: &CommandTag, now_us: u64, out: &mut Vec<Event>) -> bool {
        let Some(item) = self.queue.head() else { return false };
        let (id, is_query) = (item.id, item.kind == Kind::Query);
        let Some(run) = self.run() else { return false };
        run.completed(tag, now_us, out);
        self.mark_uncertain(sql::tag_touches(&tag.0), id);
        self.end_copy(tag.rows(), out);
        is_query || self.executed(Outcome::Done, now_us, out)
    }

    fn executed(&mut self, outcome: Outcome, now_us: u64, out: &mut Vec<Event>) -> bool {
        let Some(item) = self.pop_kind(&Kind::Execute) else { return false };
        if let Some(run) = item.run {
            self.told(run.end(outcome, now_us), out);
        }
        true
    }

    fn error(&mut self, report: &Report, now_us: u64, out: &mut Vec<Event>) -> bool {
        self.end_copy(None, out);
        let Some(head) = self.queue.head() else {
            // Nobody asked: an idle connection is being ended.
            return true;
        };
        match head.kind {
            Kind::Sync { .. } => {
                let (sqlstate, message) = (report.sqlstate.clone(), report.message.clone());
                // Behind what it undid. A server says it once.
                if !self.held.iter().any(|event| matches!(event, Event::CommitFailed { .. })) {
                    self.held.push(Event::CommitFailed { sqlstate, message });
                }
            }
            Kind::Query | Kind::Function => {
                let refusal = head.refusal.take();
                let failure = self.failure(refusal.as_deref(), report);
                if let Some(run) = self.queue.head().and_then(|head| head.run.as_mut()) {
                    run.answered(now_us);
                    run.failure.get_or_insert(failure);
                }
            }
            _ => {
                if let Some(item) = self.queue.pop() {
                    let failure = self.failure(item.refusal.as_deref(), report);
                    self.skip(Some((item, failure)), now_us, out);
                }
                self.failed = !self.certain_sync_follows();
            }
        }
        true
    }

    /// Whether the `Sync`s now first in the queue include one that is certain to be answered.
    fn certain_sync_follows(&mut self) -> bool {
        let mut doubtful = Vec::new();
        while self.queue.next_is_certain_sync() == Some(false)
            && self.queue.next_is_sync()
            && let Some(item) = self.queue.pop()
        {
            doubtful.push(item);
        }
        let certain = self.queue.next_is_certain_sync() == Some(true);
        while let Some(item) = doubtful.pop() {
            self.queue.put_back(item);
        }
        certain
    }

    fn ready(
        &mut self,
        status: TransactionStatus,
        now_us: u64,
        out: &mut Vec<Event>,
    ) -> Result<(), CodecError> {
        let unasked = CodecError::Unexpected { peer: Peer::Target, tag: b'Z', state: "that answers nothing" };
        let Some(item) = self.queue.pop() else { return Err(unasked) };
        if !matches!(item.kind, Kind::Sync { .. } | Kind::Query | Kind::Function) {
            // What it runs is still to be ended.
            self.queue.put_back(item);
            return Err(unasked);
        }
        if let Kind::Sync { certain } = item.kind {
            self.failed = false;
            if !certain {
                self.queue.doubt_next_sync();
            }
        }
        self.release(Some(status), out);
        self.end_copy(None, out);
        if self.may_copy == Some(item.id) {
            self.may_copy = None;
        }
        if let Some(mut run) = item.run {
            let outcome = run.failure.take().unwrap_or(Outcome::Done);
            let ended = Ended { transaction: Some(status), ..run.end(outcome, now_us) };
            out.push(Event::StatementEnded(ended));
        }
        if status == TransactionStatus::Idle {
            self.portals.drop_until(item.batch);
        }
        self.status = Some(status);
        self.unsettled = self.queue.len() > 0;
        out.push(Event::TransactionState(status));
        Ok(())
    }

    fn begin_copy(&mut self, directions: &[Direction], out: &mut Vec<Event>) -> bool {
        let Some((n, of)) = self.run().map(|run| (run.n(), run.copy_of())) else { return false };
        self.end_copy(None, out);
        // Messages sent since would be eaten by a COPY that reads from the client.
        if directions.contains(&Direction::In) && !self.queue.doubt_syncs() {
            return false;
        }
        self.copy = Some(Copy::begin(n, of, directions, out));
        true
    }

    fn copied(&mut self, bytes: &[u8], ended: bool, now_us: u64) -> bool {
        let counted = self.copy.as_mut().is_some_and(|copy| copy.data(Direction::Out, bytes, ended.into()));
        if counted && let Some(run) = self.run() {
            run.copied(bytes.len() as u64, now_us);
        }
        counted
    }

    fn end_copy(&mut self, rows: Option<u64>, out: &mut Vec<Event>) {
        if let Some(copy) = self.copy.take() {
            copy.end(rows, out);
        }
    }
}
