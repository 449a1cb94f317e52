//! The statements of a session or connection as a file that psql runs: what was done is SQL, all else is comment.
//!
//! Statements that failed, were skipped, cancelled or not seen to their end are comments: running the file does
//! what was done. So are those that cannot be run from a file (COPY from the client, function calls, values that
//! were not kept) and those whose text [could be read as something else](lexer). Each says why.
//!
//! A statement with parameters becomes `PREPARE` and `EXECUTE`. One connection comes after the other.

mod lexer;
mod literal;
mod statement;

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::scan::Scan;
use super::{Counts, ExportError, May, Order};
use crate::audit::files::{Lines, Place, Read};
use crate::audit::line::parse_line;
use crate::audit::record::{Body, Context, Direction, Ended, Opened};
use crate::audit::replay::{Content, Entry};
use crate::domain::id::ConnectionId;
use crate::domain::text::on_one_line;
use crate::domain::time::{Timestamp, humane};
use statement::{Fate, Held};

/// Statements are kept until it is known what came of them, up to so many bytes; beyond that, the oldest is
/// written without.
const MOST_HELD: usize = 16 << 20;

/// A connection that is asked for.
struct Found {
    connection: ConnectionId,
    place: Place,
    n: u64,
}

pub(super) fn write(order: &Order<'_>, may: May<'_>, to: &mut impl Write) -> Result<Counts, ExportError> {
    let mut counts = Counts::default();
    let mut connections = Vec::new();
    let filter = order.filter;
    let mut scan = Scan::open(order.directory, order.size);
    while let Some(found) = scan.next()? {
        counts.log = found.n.saturating_add(1);
        let head = found.head()?;
        if head.kind != "opened"
            || !super::is_wanted(&super::Filter { from: None, to: None, ..filter.clone() }, None, &head)
        {
            continue;
        }
        if !may(head.whose()) {
            counts.left_out += 1;
            continue;
        }
        let connection = head.rec.parse().map_err(|error| found.unreadable(&error))?;
        connections.push(Found { connection, place: found.place, n: found.n });
    }
    preamble(order, to).map_err(ExportError::Write)?;
    for found in &connections {
        counts.written += connection(order, found, counts.log, to)?;
    }
    Ok(counts)
}

fn preamble(order: &Order<'_>, to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "-- What was done under a session, as Sallyport recorded it. Run it against a copy, never where it was done."
    )?;
    let filter = order.filter;
    for (name, id) in [
        ("session", filter.session.as_ref().map(ToString::to_string)),
        ("connection", filter.connection.as_ref().map(ToString::to_string)),
    ] {
        if let Some(id) = id {
            writeln!(to, "-- {name} {id}")?;
        }
    }
    writeln!(to, "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;")
}

/// Writes one connection; gives the number of its statements.
fn connection(order: &Order<'_>, found: &Found, size: u64, to: &mut impl Write) -> Result<u64, ExportError> {
    let mut lines = Lines::follow_from(order.directory, found.place);
    let start = format!(r#"{{"v":1,"rec":"{}","#, found.connection);
    let mut transcript = Transcript::new(order, to);
    for n in found.n..size {
        let damaged = |what: String| ExportError::Damaged { n, what };
        let read = lines.next();
        match read.map_err(|source| ExportError::Read { path: order.directory.to_owned(), source })? {
            Read::Line(_) => {}
            Read::End(_) | Read::Unfinished(_) => break,
            Read::Bad { what, .. } => return Err(damaged(what.to_string())),
        }
        let line = parse_line(lines.line()).map_err(|error| damaged(error.to_string()))?;
        if !line.json.starts_with(start.as_bytes()) {
            continue;
        }
        let entry = Entry::parse(line.json).map_err(|error| damaged(error.to_string()))?;
        let is_last = matches!(entry.content, Content::Ended(_));
        transcript.record(&entry).map_err(ExportError::Write)?;
        if is_last {
            return Ok(transcript.statements);
        }
    }
    transcript.still_open().map_err(ExportError::Write)?;
    Ok(transcript.statements)
}

/// A line of comment, whatever somebody else wrote in it. (psql reads line by line: nothing takes the line's end with
/// it, in any encoding.)
fn comment(to: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(to, "-- {}", on_one_line(text))
}

struct Transcript<'a, W> {
    order: &'a Order<'a>,
    to: &'a mut W,
    who: String,
    held: BTreeMap<u64, Held>,
    bytes: usize,
    /// Parts of the statement that comes next.
    sql: statement::Text,
    params: statement::Params,
    statements: u64,
}

impl<'a, W: Write> Transcript<'a, W> {
    fn new(order: &'a Order<'a>, to: &'a mut W) -> Self {
        Self {
            order,
            to,
            who: String::new(),
            held: BTreeMap::new(),
            bytes: 0,
            sql: statement::Text::default(),
            params: statement::Params::default(),
            statements: 0,
        }
    }

    fn record(&mut self, entry: &Entry) -> io::Result<()> {
        match &entry.content {
            Content::Opened(opened) => self.opened(&opened.0, &opened.1, entry.at),
            Content::Body(body) => self.body(body, entry.at),
            Content::Ended(ended) => self.ended(ended, entry.at),
        }
    }

    fn opened(&mut self, context: &Context, opened: &Opened, at: Timestamp) -> io::Result<()> {
        self.who = context.principal.name.to_string();
        writeln!(self.to)?;
        self.comment(at, &format!("connection {} opened", context.connection))?;
        let mut told = vec![
            format!(
                "who       {} ({}) from {}",
                context.principal.name, context.principal.id, context.client
            ),
            format!(
                "where     {} as {} ({}, {})",
                context.target, context.access, context.environment, context.domain
            ),
            format!("why       {}", opened.reason),
            format!(
                "session   {} from {} for {}",
                context.session,
                opened.granted_at,
                humane(opened.ends_at.since(opened.granted_at))
            ),
        ];
        told.extend(opened.ticket.as_ref().map(|ticket| format!("ticket    {ticket}")));
        told.extend(context.break_glass.then(|| "BREAK-GLASS: approvals were skipped".to_owned()));
        let approved = |approval: &crate::domain::approval::Approval| {
            format!("approved  by {} ({}) at {}", approval.by.name, approval.domain, approval.at)
        };
        told.extend(opened.approvals.iter().map(approved));
        told.extend(opened.database.as_ref().map(|database| format!("database  {database}")));
        if opened.client_ssh.is_some() {
            told.push(format!("This is an SSH connection: sallyport replay {}", context.connection));
        }
        told.iter().try_for_each(|line| comment(self.to, &format!("  {line}")))
    }

    fn body(&mut self, body: &Body, at: Timestamp) -> io::Result<()> {
        match body {
            Body::SqlPart(part) => self.sql.push(&part.sql.bytes()),
            Body::ParameterPart(part) => self.params.push(&part.params),
            Body::Statement(begun) => {
                let mut sql = std::mem::take(&mut self.sql);
                sql.push(&begun.sql.bytes());
                let mut params = std::mem::take(&mut self.params);
                params.push(&begun.params);
                let held = Held::new(begun, sql, params, at);
                self.bytes = self.bytes.saturating_add(held.bytes());
                self.held.insert(begun.n, held);
                while self.bytes > MOST_HELD {
                    self.write_first()?;
                }
            }
            Body::StatementEnd(end) => match self.held.get_mut(&end.n) {
                Some(held) => {
                    held.fate = Some(Fate { at, end: end.clone() });
                    while self.held.first_key_value().is_some_and(|(_, held)| held.fate.is_some()) {
                        self.write_first()?;
                    }
                }
                None => self.comment(at, &format!("[{}] {}", end.n, statement::outcome(end)))?,
            },
            Body::CopyEnd(copy) => {
                if let (Direction::In, Some(held)) = (copy.direction, self.held.get_mut(&copy.n)) {
                    held.copied_in = true;
                }
                let way = if copy.direction == Direction::In { "to the target" } else { "from the target" };
                self.comment(
                    at,
                    &format!("[{}] copied {way}: {} bytes, sha256 {}", copy.n, copy.bytes, copy.sha256),
                )?;
            }
            Body::Cancel(cancel) => self.comment(at, &format!("a cancel was asked for: {}", cancel.why))?,
            Body::Notice(notice) => self.comment(at, &format!("notice: {}", notice.text))?,
            _ => {}
        }
        Ok(())
    }

    fn write_first(&mut self) -> io::Result<()> {
        let Some((_, held)) = self.held.pop_first() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(held.bytes());
        if !self.order.filter.covers(held.at) {
            return Ok(());
        }
        self.statements += 1;
        held.write(&self.who, self.to)
    }

    fn ended(&mut self, ended: &Ended, at: Timestamp) -> io::Result<()> {
        self.rest()?;
        self.comment(at, &format!("ended: {}", ended.reason))
    }

    fn still_open(&mut self) -> io::Result<()> {
        self.rest()?;
        writeln!(self.to, "-- (no end is recorded: the connection is live, or the node stopped)")
    }

    fn rest(&mut self) -> io::Result<()> {
        while !self.held.is_empty() {
            self.write_first()?;
        }
        Ok(())
    }

    /// A line by itself, whatever somebody else wrote in it.
    fn comment(&mut self, at: Timestamp, text: &str) -> io::Result<()> {
        comment(self.to, &format!("{at} {text}"))
    }
}
