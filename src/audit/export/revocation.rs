//! The register of revocations: how long after a session was revoked, or somebody blocked, each connection ended
//! and the credential was destroyed.
//!
//! A line for each connection that was open when it was decided; one without a connection where none was. The
//! instants are those of the records: the decision's, that the connection's recording ended, that the target
//! confirmed the credential's end (of an AWS role's: that its deny was seen in force, or that it had expired).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::access::text;
use super::scan::{Found, Head, Scan};
use super::{Counts, ExportError, Filter, May, Order, Whose, csv};
use crate::audit::record::Ended;
use crate::domain::deny::EndReason;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::time::Timestamp;

const HEADINGS: [&str; 15] = [
    "cause",
    "decided_at",
    "by",
    "why",
    "session",
    "principal",
    "principal_id",
    "target",
    "connection",
    "connection_ended_at",
    "connection_latency_ms",
    "connection_end",
    "credential",
    "credential_destroyed_at",
    "credential_latency_ms",
];

/// An open connection.
#[derive(Debug, Clone)]
struct Open {
    session: String,
    principal: String,
    principal_id: String,
    target: String,
}

/// A connection that was cut, and when.
#[derive(Debug)]
struct Early {
    connection: String,
    of: Open,
    at: Timestamp,
    end: &'static str,
}

/// One line to be.
#[derive(Debug)]
struct Cut {
    cause: &'static str,
    decided_at: Timestamp,
    by: String,
    why: String,
    of: Open,
    connection: String,
    ended: Option<(Timestamp, &'static str)>,
    credential: Option<(String, Timestamp)>,
}

pub(super) fn write(order: &Order<'_>, may: May<'_>, to: &mut impl Write) -> Result<Counts, ExportError> {
    csv::row(to, HEADINGS).map_err(ExportError::Write)?;
    let mut register = Register::default();
    let mut counts = Counts::default();
    let mut scan = Scan::open(order.directory, order.size);
    while let Some(found) = scan.next()? {
        counts.log = found.n.saturating_add(1);
        register.record(&found)?;
    }
    for cut in &register.cuts {
        if !is_wanted(order.filter, cut) {
            continue;
        }
        let known = |text| Some(text).filter(|text: &&str| !text.is_empty());
        if !may(Whose { principal: known(&cut.of.principal_id), target: known(&cut.of.target) }) {
            counts.left_out += 1;
            continue;
        }
        counts.written += 1;
        csv::row(to, cells(cut).iter().map(String::as_str)).map_err(ExportError::Write)?;
    }
    Ok(counts)
}

fn is_wanted(filter: &Filter, cut: &Cut) -> bool {
    filter.session.as_ref().is_none_or(|wanted| wanted.as_str() == cut.of.session)
        && filter.target.as_ref().is_none_or(|wanted| wanted.as_str() == cut.of.target)
        && filter.is_about(Some(&cut.of.principal_id), Some(&cut.of.principal))
        && filter.covers(cut.decided_at)
}

/// What is open, and what was decided. Revocations are few: their lines are kept until the log's end.
#[derive(Debug, Default)]
struct Register {
    open: BTreeMap<String, Open>,
    /// Connections that were cut before the decision's own record came: both are written at the same time.
    early: Vec<Early>,
    /// Whose the sessions are that nothing may be open of any more.
    holders: BTreeMap<String, Open>,
    cuts: Vec<Cut>,
}

impl Register {
    fn record(&mut self, found: &Found<'_>) -> Result<(), ExportError> {
        let head = found.head()?;
        match head.kind.as_ref() {
            "opened" => {
                if let Some(open) = whose(&head) {
                    self.open.insert(head.rec.clone().into_owned(), open);
                }
            }
            "ended" => {
                let ended: Ended = found.read()?;
                let (of, end) = (self.open.remove(head.rec.as_ref()), ended.reason.code());
                let mut is_known = false;
                for cut in self.cuts.iter_mut().filter(|cut| cut.connection == head.rec) {
                    cut.ended.get_or_insert((head.at, end));
                    is_known = true;
                }
                let is_cut = matches!(ended.reason, EndReason::Revoked { .. } | EndReason::Blocked { .. });
                if let (Some(of), true, false) = (of, is_cut, is_known) {
                    let connection = head.rec.clone().into_owned();
                    self.early.push(Early { connection, of, at: head.at, end });
                }
            }
            "event" => {
                let event: Event = found.read()?;
                if event.outcome == Outcome::Done {
                    self.event(&head, &event);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, head: &Head<'_>, event: &Event) {
        let session = head.session.as_deref().unwrap_or_default();
        match event.action {
            Action::RequestCreated => {
                if let (Some(request), Some(open)) = (head.request.as_deref(), whose(head)) {
                    self.holders.insert(request.to_owned(), open);
                }
            }
            Action::RequestDenied
            | Action::RequestCancelled
            | Action::RequestLapsed
            | Action::SessionEnded => {
                self.holders.remove(head.request.as_deref().unwrap_or_default());
            }
            Action::SessionRevoked => {
                let holder = self.holders.remove(head.request.as_deref().unwrap_or_default());
                let of = Open {
                    session: session.to_owned(),
                    principal: text(event, "holder"),
                    principal_id: holder.map(|holder| holder.principal_id).unwrap_or_default(),
                    target: head.target.as_deref().unwrap_or_default().to_owned(),
                };
                self.decided("revoked", head, event, &of, |open| open.session == session);
            }
            Action::BlockAdded => {
                let (blocked, target) = (text(event, "blocked_id"), head.target.as_deref());
                let of = Open {
                    session: String::new(),
                    principal: text(event, "blocked"),
                    principal_id: blocked.clone(),
                    target: target.unwrap_or_default().to_owned(),
                };
                let is_cut = |open: &Open| {
                    open.principal_id == blocked && target.is_none_or(|target| target == open.target)
                };
                self.decided("blocked", head, event, &of, is_cut);
            }
            // A deny counts from when a call proved that it is in force; one that none proved, from the expiry.
            Action::CredentialDenied if text(event, "in_force") != "confirmed" => {}
            Action::CredentialDestroyed | Action::CredentialDenied => {
                for cut in self.cuts.iter_mut().filter(|cut| cut.of.session == session) {
                    cut.credential.get_or_insert((text(event, "handle"), head.at));
                }
            }
            _ => {}
        }
    }

    fn decided(
        &mut self,
        cause: &'static str,
        head: &Head<'_>,
        event: &Event,
        of: &Open,
        is_cut: impl Fn(&Open) -> bool,
    ) {
        let cut = |of: &Open, connection: &str| Cut {
            cause,
            decided_at: head.at,
            by: event.principal.as_ref().map(|who| who.name.to_string()).unwrap_or_default(),
            why: text(event, "why"),
            of: of.clone(),
            connection: connection.to_owned(),
            ended: None,
            credential: None,
        };
        let before = self.cuts.len();
        let at = head.at;
        let early = self.early.extract_if(.., |early| early.at >= at && is_cut(&early.of));
        self.cuts.extend(
            early
                .map(|early| Cut { ended: Some((early.at, early.end)), ..cut(&early.of, &early.connection) }),
        );
        self.cuts.extend(self.open.iter().filter(|(_, open)| is_cut(open)).map(|(id, open)| cut(open, id)));
        if self.cuts.len() == before {
            self.cuts.push(cut(of, ""));
        }
    }
}

fn whose(head: &Head<'_>) -> Option<Open> {
    let principal = head.principal.as_ref()?;
    Some(Open {
        session: head.session.as_deref().unwrap_or_default().to_owned(),
        principal: principal.name.clone().into_owned(),
        principal_id: principal.id.clone().into_owned(),
        target: head.target.as_deref().unwrap_or_default().to_owned(),
    })
}

fn cells(cut: &Cut) -> [String; HEADINGS.len()] {
    let after = |at: Timestamp| milliseconds(at.since(cut.decided_at));
    let (ended, credential) = (cut.ended, cut.credential.as_ref());
    [
        cut.cause.to_owned(),
        cut.decided_at.to_string(),
        cut.by.clone(),
        cut.why.clone(),
        cut.of.session.clone(),
        cut.of.principal.clone(),
        cut.of.principal_id.clone(),
        cut.of.target.clone(),
        cut.connection.clone(),
        ended.map(|(at, _)| at.to_string()).unwrap_or_default(),
        ended.map(|(at, _)| after(at)).unwrap_or_default(),
        ended.map(|(_, end)| end.to_owned()).unwrap_or_default(),
        credential.map(|(handle, _)| handle.clone()).unwrap_or_default(),
        credential.map(|(_, at)| at.to_string()).unwrap_or_default(),
        credential.map(|(_, at)| after(*at)).unwrap_or_default(),
    ]
}

fn milliseconds(duration: Duration) -> String {
    let micros = duration.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}
