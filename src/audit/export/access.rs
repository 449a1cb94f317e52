//! The registers of accesses: a line for each session, with who asked for it and why, who approved, when it began
//! and how it ended, and what was connected under it.
//!
//! A line is written when its session is over and nothing of it is open any more; what is still going on at the
//! log's end comes last, in the order in which it was granted.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use super::scan::{Found, Head, Scan};
use super::{Counts, ExportError, Filter, May, Order, Whose, csv};
use crate::audit::record::{Ended, Totals};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::time::Timestamp;

/// Which sessions a register has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    BreakGlass,
}

const HEADINGS: [&str; 25] = [
    "session",
    "request",
    "principal",
    "principal_id",
    "target",
    "environment",
    "domain",
    "access",
    "break_glass",
    "reason",
    "ticket",
    "requested_at",
    "approvals",
    "granted_at",
    "ends_at",
    "ended_at",
    "ended_by",
    "end_reason",
    "connections",
    "first_connected_at",
    "last_disconnected_at",
    "statements",
    "channels",
    "bytes_from_client",
    "bytes_from_target",
];

/// What the log said of a request until it was granted.
#[derive(Debug, Default)]
struct Asked {
    principal: String,
    principal_id: String,
    reason: String,
    ticket: String,
    at: Option<Timestamp>,
    approvals: Vec<String>,
}

#[derive(Debug)]
struct Session {
    id: String,
    request: String,
    asked: Asked,
    target: String,
    environment: String,
    domain: String,
    access: String,
    break_glass: bool,
    granted_at: Timestamp,
    ends_at: String,
    over: Option<Over>,
    /// Connections that are open.
    open: u64,
    connections: u64,
    first_connected_at: Option<Timestamp>,
    last_disconnected_at: Option<Timestamp>,
    totals: Totals,
}

#[derive(Debug)]
struct Over {
    at: String,
    by: String,
    why: String,
}

pub(super) fn write(
    order: &Order<'_>,
    which: Which,
    may: May<'_>,
    to: &mut impl Write,
) -> Result<Counts, ExportError> {
    csv::row(to, HEADINGS).map_err(ExportError::Write)?;
    let mut register =
        Register { filter: order.filter, which, may, to, asked: HashMap::new(), sessions: BTreeMap::new() };
    let mut counts = Counts::default();
    let mut scan = Scan::open(order.directory, order.size);
    while let Some(found) = scan.next()? {
        counts.log = found.n.saturating_add(1);
        register.record(&found, &mut counts)?;
    }
    register.finish(counts)
}

struct Register<'a, W> {
    filter: &'a Filter,
    which: Which,
    may: May<'a>,
    to: &'a mut W,
    asked: HashMap<String, Asked>,
    sessions: BTreeMap<String, Session>,
}

impl<W: Write> Register<'_, W> {
    fn record(&mut self, found: &Found<'_>, counts: &mut Counts) -> Result<(), ExportError> {
        let head = found.head()?;
        match head.kind.as_ref() {
            "event" => {
                let event: Event = found.read()?;
                if event.outcome == Outcome::Done {
                    self.event(&head, &event, counts)?;
                }
            }
            "opened" => {
                if let Some(session) = self.session(&head) {
                    session.open += 1;
                    session.connections += 1;
                    session.first_connected_at.get_or_insert(head.at);
                }
            }
            "ended" => {
                let Some(session) = self.session(&head) else { return Ok(()) };
                let ended: Ended = found.read()?;
                session.open = session.open.saturating_sub(1);
                session.last_disconnected_at = Some(head.at);
                session.totals = sum(session.totals, ended.totals.unwrap_or_default());
                self.close(&head, counts)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn session(&mut self, head: &Head<'_>) -> Option<&mut Session> {
        self.sessions.get_mut(head.session.as_deref()?)
    }

    fn event(&mut self, head: &Head<'_>, event: &Event, counts: &mut Counts) -> Result<(), ExportError> {
        let Some(request) = head.request.as_deref() else { return Ok(()) };
        match event.action {
            Action::RequestCreated => {
                let asked = Asked {
                    principal: event.principal.as_ref().map(|who| who.name.to_string()).unwrap_or_default(),
                    principal_id: event.principal.as_ref().map(|who| who.id.to_string()).unwrap_or_default(),
                    reason: text(event, "reason"),
                    ticket: text(event, "ticket"),
                    at: Some(head.at),
                    approvals: Vec::new(),
                };
                self.asked.insert(request.to_owned(), asked);
            }
            Action::RequestApproved => {
                if let (Some(asked), Some(by)) = (self.asked.get_mut(request), &event.principal) {
                    let domain = text(event, "approver_domain");
                    asked.approvals.push(format!("{} ({domain}) {}", by.name, head.at));
                }
            }
            Action::RequestDenied | Action::RequestCancelled | Action::RequestLapsed => {
                self.asked.remove(request);
            }
            Action::SessionActivated => self.activated(head, event, request),
            Action::SessionRevoked => {
                let by = event.principal.as_ref().map(|who| who.name.to_string()).unwrap_or_default();
                let over = Over { at: head.at.to_string(), by, why: text(event, "why") };
                self.over(head, over, counts)?;
            }
            Action::SessionEnded => {
                let over = Over { at: text(event, "ended_at"), by: String::new(), why: text(event, "why") };
                self.over(head, over, counts)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn activated(&mut self, head: &Head<'_>, event: &Event, request: &str) {
        let Some(id) = head.session.as_deref() else { return };
        let mut asked = self.asked.remove(request).unwrap_or_default();
        if asked.principal.is_empty() {
            asked.principal = text(event, "holder");
        }
        let named = |name: Option<String>| name.unwrap_or_default();
        let session = Session {
            id: id.to_owned(),
            request: request.to_owned(),
            asked,
            target: named(event.target.as_ref().map(ToString::to_string)),
            environment: named(event.environment.map(|environment| environment.to_string())),
            domain: named(event.domain.as_ref().map(ToString::to_string)),
            access: named(event.access.as_ref().map(ToString::to_string)),
            break_glass: event.break_glass,
            granted_at: text(event, "granted_at").parse().unwrap_or(head.at),
            ends_at: text(event, "ends_at"),
            over: None,
            open: 0,
            connections: 0,
            first_connected_at: None,
            last_disconnected_at: None,
            totals: Totals::default(),
        };
        self.sessions.insert(id.to_owned(), session);
    }

    fn over(&mut self, head: &Head<'_>, over: Over, counts: &mut Counts) -> Result<(), ExportError> {
        if let Some(session) = self.session(head) {
            session.over.get_or_insert(over);
        }
        self.close(head, counts)
    }

    /// Writes the line of a session of which nothing more comes.
    fn close(&mut self, head: &Head<'_>, counts: &mut Counts) -> Result<(), ExportError> {
        let Some(id) = head.session.as_deref() else { return Ok(()) };
        let is_closed = |session: &Session| session.over.is_some() && session.open == 0;
        if self.sessions.get(id).is_some_and(is_closed)
            && let Some(session) = self.sessions.remove(id)
        {
            self.line(&session, counts)?;
        }
        Ok(())
    }

    fn finish(mut self, mut counts: Counts) -> Result<Counts, ExportError> {
        let mut rest: Vec<Session> = std::mem::take(&mut self.sessions).into_values().collect();
        rest.sort_by(|a, b| (a.granted_at, &a.id).cmp(&(b.granted_at, &b.id)));
        rest.iter().try_for_each(|session| self.line(session, &mut counts))?;
        Ok(counts)
    }

    fn line(&mut self, session: &Session, counts: &mut Counts) -> Result<(), ExportError> {
        let (filter, asked) = (self.filter, &session.asked);
        let wanted = (self.which == Which::All || session.break_glass)
            && filter.session.as_ref().is_none_or(|wanted| wanted.as_str() == session.id)
            && filter.target.as_ref().is_none_or(|wanted| wanted.as_str() == session.target)
            && filter.is_about(Some(&asked.principal_id), Some(&asked.principal))
            && filter.covers(session.granted_at);
        if !wanted {
            return Ok(());
        }
        let known = |text| Some(text).filter(|text: &&str| !text.is_empty());
        if !(self.may)(Whose { principal: known(&asked.principal_id), target: known(&session.target) }) {
            counts.left_out += 1;
            return Ok(());
        }
        counts.written += 1;
        let cells = cells(session);
        csv::row(self.to, cells.iter().map(String::as_str)).map_err(ExportError::Write)
    }
}

fn cells(session: &Session) -> [String; HEADINGS.len()] {
    let (asked, over, totals) = (&session.asked, session.over.as_ref(), &session.totals);
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let of_end = |text: fn(&Over) -> &String| over.map(text).cloned().unwrap_or_default();
    [
        session.id.clone(),
        session.request.clone(),
        asked.principal.clone(),
        asked.principal_id.clone(),
        session.target.clone(),
        session.environment.clone(),
        session.domain.clone(),
        session.access.clone(),
        session.break_glass.to_string(),
        asked.reason.clone(),
        asked.ticket.clone(),
        at(asked.at),
        asked.approvals.join("; "),
        session.granted_at.to_string(),
        session.ends_at.clone(),
        of_end(|over| &over.at),
        of_end(|over| &over.by),
        of_end(|over| &over.why),
        session.connections.to_string(),
        at(session.first_connected_at),
        at(session.last_disconnected_at),
        totals.statements.to_string(),
        totals.channels.to_string(),
        totals.bytes_from_client.to_string(),
        totals.bytes_from_target.to_string(),
    ]
}

fn sum(a: Totals, b: Totals) -> Totals {
    Totals {
        statements: a.statements.saturating_add(b.statements),
        bytes_from_client: a.bytes_from_client.saturating_add(b.bytes_from_client),
        bytes_from_target: a.bytes_from_target.saturating_add(b.bytes_from_target),
        channels: a.channels.saturating_add(b.channels),
    }
}

/// A text of the event's detail; empty where there is none.
pub(super) fn text(event: &Event, key: &str) -> String {
    event.detail.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
