//! A recording as text for people.
//!
//! One line for each record, whatever a peer wrote in it; what may take several lines is SQL, and
//! each of its further lines begins with a bar, which no line of a record does.

mod event;
mod ssh;

use std::io::{self, Write};
use std::time::Duration;

use crate::audit::record::{
    Body, Context, Direction, Ended, Opened, Parameter, Sql, Statement, StatementEnd, StatementOutcome, Value,
};
use crate::audit::replay::{Content, Entry};
use crate::domain::text::{on_lines, on_one_line};
use crate::domain::time::{Timestamp, humane};

/// Writes record after record; keeps the parts of a split statement until it is whole.
#[derive(Debug, Default)]
pub struct Transcript {
    opened_at: Option<Timestamp>,
    sql: Vec<u8>,
    params: Vec<Parameter>,
    channels: ssh::Channels,
    /// When the last record was made.
    last: Offset,
}

impl Transcript {
    pub fn write(&mut self, entry: &Entry, to: &mut impl Write) -> io::Result<()> {
        let start = *self.opened_at.get_or_insert(entry.at);
        let offset = Offset(entry.at.since(start));
        self.last = offset;
        match &entry.content {
            Content::Opened(opened) => {
                let (context, opened) = opened.as_ref();
                header(context, opened, entry.at, to)
            }
            Content::Ended(ended) => {
                self.channels.finish(&offset, to)?;
                footer(ended, &offset, to)
            }
            Content::Body(body) => self.body(body, &offset, to),
        }
    }

    /// Shows what is under way when there is nothing more to read.
    pub fn still_open(mut self, to: &mut impl Write) -> io::Result<()> {
        self.channels.finish(&self.last, to)?;
        writeln!(to, "(no end is recorded: the connection is live, or the node stopped)")
    }

    fn body(&mut self, body: &Body, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        match body {
            Body::SqlPart(part) => {
                self.sql.extend_from_slice(&part.sql.bytes());
                Ok(())
            }
            Body::ParameterPart(part) => {
                self.params.extend_from_slice(&part.params);
                Ok(())
            }
            Body::Statement(statement) => self.statement(statement, offset, to),
            Body::StatementEnd(end) => statement_end(end, offset, to),
            Body::CopyEnd(copy) => {
                let direction = match copy.direction {
                    Direction::In => "to the target",
                    Direction::Out => "from the target",
                };
                let rows = copy.rows.map(|rows| format!("{rows} rows, ")).unwrap_or_default();
                let table = copy.table.as_deref().map(|table| format!(" ({})", on_one_line(table)));
                let table = table.unwrap_or_default();
                writeln!(
                    to,
                    "{offset}  [{}] copied {direction}{table}: {rows}{} bytes, sha256 {}",
                    copy.n,
                    copy.bytes,
                    on_one_line(&copy.sha256)
                )
            }
            Body::Cancel(cancel) => {
                let from = cancel.from.map_or_else(|| "the gateway".to_owned(), |from| from.to_string());
                let of = cancel.n.map(|n| format!(" of [{n}]")).unwrap_or_default();
                writeln!(to, "{offset}  cancel{of} asked by {from}: {}", on_one_line(&cancel.why))
            }
            Body::Notice(notice) => writeln!(to, "{offset}  notice: {}", on_one_line(&notice.text)),
            Body::Credential(credential) => {
                let detail = credential.detail.as_deref().map(|text| format!(": {}", on_one_line(text)));
                writeln!(
                    to,
                    "{offset}  credential {} {}{}",
                    on_one_line(&credential.mark.handle),
                    on_one_line(&credential.step),
                    detail.unwrap_or_default()
                )
            }
            Body::ChannelOpened(_)
            | Body::ChannelRefused(_)
            | Body::Pty(_)
            | Body::Env(_)
            | Body::Program(_)
            | Body::Input(_)
            | Body::Output(_)
            | Body::Resize(_)
            | Body::Signal(_)
            | Body::Eof(_)
            | Body::StreamEnd(_)
            | Body::StreamSoFar(_)
            | Body::File(_)
            | Body::Listen(_)
            | Body::ChannelEnded(_) => self.channels.record(body, offset, to),
        }
    }

    fn statement(&mut self, statement: &Statement, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        let mut whole = std::mem::take(&mut self.sql);
        whole.extend_from_slice(&statement.sql.bytes());
        let mut params = std::mem::take(&mut self.params);
        params.extend_from_slice(&statement.params);
        let sql = match Sql::new(&whole) {
            Sql::Text { sql } => on_lines(&sql),
            Sql::Bytes { b64 } => format!("(not text, base64) {b64}"),
        };
        let uncertain = if statement.certain { "" } else { " (uncertain)" };
        let mut lines = sql.split('\n');
        writeln!(to, "{offset}  [{}]{uncertain} {}", statement.n, lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(to, "                | {line}")?;
        }
        for (number, parameter) in (1..).zip(&params) {
            writeln!(to, "                  ${number} = {}", parameter_text(parameter))?;
        }
        Ok(())
    }
}

/// Time since the recording's start.
#[derive(Debug, Default, Clone, Copy)]
struct Offset(Duration);

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, self.0.subsec_millis())
    }
}

fn parameter_text(parameter: &Parameter) -> String {
    let text = match &parameter.value {
        Value::Text { text } => format!("'{}'", on_one_line(text)),
        Value::Bytes { b64 } => format!("base64 {b64}"),
        Value::Null { .. } => "NULL".to_owned(),
    };
    match parameter.length {
        Some(length) => format!("{text}… ({length} bytes)"),
        None => text,
    }
}

fn header(context: &Context, opened: &Opened, at: Timestamp, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "recording   {}", context.connection)?;
    writeln!(
        to,
        "who         {} ({}) from {}",
        context.principal.name, context.principal.id, context.client
    )?;
    writeln!(
        to,
        "where       {} as {} ({}, {})",
        context.target, context.access, context.environment, context.domain
    )?;
    writeln!(to, "why         {}", on_one_line(&opened.reason))?;
    if let Some(ticket) = &opened.ticket {
        writeln!(to, "ticket      {}", on_one_line(ticket))?;
    }
    if context.break_glass {
        writeln!(to, "BREAK-GLASS approvals were skipped")?;
    }
    for approval in &opened.approvals {
        writeln!(to, "approved by {} ({}) at {}", approval.by.name, approval.domain, approval.at)?;
    }
    writeln!(
        to,
        "session     {}, from {} for {}",
        context.session,
        opened.granted_at,
        humane(opened.ends_at.since(opened.granted_at))
    )?;
    if let Some(database) = &opened.database {
        writeln!(to, "database    {}", on_one_line(database))?;
    }
    if let Some(application) = &opened.application {
        writeln!(to, "application {}", on_one_line(application))?;
    }
    if let Some(client) = &opened.client_ssh {
        let key = client.key.as_deref().map(|key| format!(" {}", on_one_line(key)));
        let (software, auth) = (on_one_line(&client.software), on_one_line(&client.auth));
        writeln!(to, "client      {software}, by {auth}{}", key.unwrap_or_default())?;
    }
    if let Some(credential) = &opened.credential {
        writeln!(to, "credential  {}", on_one_line(&credential.handle))?;
    }
    writeln!(to, "opened      {at}\n")
}

fn statement_end(end: &StatementEnd, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
    let outcome = match end.outcome {
        StatementOutcome::Done => "done",
        StatementOutcome::Failed => "FAILED",
        StatementOutcome::Skipped => "skipped",
        StatementOutcome::Cancelled => "cancelled",
        StatementOutcome::Unknown => "outcome unknown",
    };
    let stopped = if end.suspended { " so far" } else { "" };
    write!(to, "{offset}  [{}] {outcome}{stopped}", end.n)?;
    if let Some(tag) = &end.tag {
        write!(to, ": {}", on_one_line(tag))?;
    }
    if let Some(rows) = end.rows {
        write!(to, ", {rows} rows")?;
    }
    if let Some(sqlstate) = &end.sqlstate {
        write!(to, " {}", on_one_line(sqlstate))?;
    }
    if let Some(message) = &end.message {
        write!(to, " {}", on_one_line(message))?;
    }
    if let Some(after) = end.after {
        write!(to, " after [{after}] failed")?;
    }
    if let Some(duration) = end.duration_us {
        write!(to, " ({}.{:03} ms)", duration / 1000, duration % 1000)?;
    }
    writeln!(to)
}

fn footer(ended: &Ended, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "{offset}  ended: {}", on_one_line(&ended.reason.to_string()))?;
    if let Some(totals) = &ended.totals {
        let what = match totals.channels {
            0 => format!("{} statements", totals.statements),
            1 => "1 channel".to_owned(),
            channels => format!("{channels} channels"),
        };
        writeln!(
            to,
            "              {what}, {} bytes from the client, {} bytes from the target",
            totals.bytes_from_client, totals.bytes_from_target
        )?;
    }
    Ok(())
}
