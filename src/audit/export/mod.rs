//! The log in the forms that others read: its records as stored, OCSF events, registers as CSV, SQL.
//!
//! 1. [`scan`] reads the log, checking its chain on the way: a log that was altered is not exported.
//! 2. What the [`Filter`] wants and the reader may read goes to one of the forms: [`ocsf`], [`access`] (the
//!    registers of accesses), [`revocation`], [`mod@sql`]; records as stored need none.
//! 3. [`Counts`] says how much was written, and how much was left out because the reader may not read it.
//!
//! Memory is what is under way at a time (requests, sessions, connections), whatever the log's size.

mod access;
mod csv;
pub mod ocsf;
mod revocation;
mod scan;
mod sql;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::id::{ConnectionId, RequestId, SessionId};
use crate::domain::name::TargetName;
use crate::domain::time::Timestamp;
use scan::{Found, Head, Scan};

/// In which form the log is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The records exactly as stored, one JSON object a line.
    Jsonl,
    /// One event of the Open Cybersecurity Schema Framework a record, one JSON object a line.
    Ocsf,
    /// Who had access to what, when, why and by whose approval: CSV, a line for each session.
    AccessRegister,
    /// The same of the sessions that skipped approvals.
    BreakGlassRegister,
    /// How long after a revocation or block each connection ended: CSV.
    RevocationLatency,
    /// The statements of one session or connection, as a file that psql runs.
    Sql,
}

impl Format {
    pub const ALL: [Self; 6] = [
        Self::Jsonl,
        Self::Ocsf,
        Self::AccessRegister,
        Self::BreakGlassRegister,
        Self::RevocationLatency,
        Self::Sql,
    ];

    /// The word that the command line and the API use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Ocsf => "ocsf",
            Self::AccessRegister => "access-register",
            Self::BreakGlassRegister => "break-glass-register",
            Self::RevocationLatency => "revocation-latency",
            Self::Sql => "sql",
        }
    }

    /// What it is made of, in the plural: what [`Counts`] counts.
    pub const fn counted(self) -> &'static str {
        match self {
            Self::Jsonl => "records",
            Self::Ocsf => "events",
            Self::AccessRegister | Self::BreakGlassRegister => "sessions",
            Self::RevocationLatency => "cuts",
            Self::Sql => "statements",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a form: use one of {known}", known = Format::ALL.map(Format::as_str).join(", "))]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| UnknownFormat(text.chars().take(80).collect()))
    }
}

/// Which part of the log is wanted; what is not said is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Somebody's name or id: what they did. In registers: whose the session was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// From this instant on. In registers: sessions granted, and revocations decided, from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Until this instant, included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Whether it can be used with a form.
    pub fn check(&self, format: Format) -> Result<(), ExportError> {
        let unfit = |what| Err(ExportError::Unfit { format, what });
        match format {
            Format::Sql if self.session.is_none() && self.connection.is_none() => {
                unfit("name a session or a connection: a transcript is of one")
            }
            Format::AccessRegister | Format::BreakGlassRegister | Format::RevocationLatency
                if self.connection.is_some() =>
            {
                unfit("a register is of sessions: name a session instead of a connection")
            }
            _ => Ok(()),
        }
    }

    /// Whether something that happened then is asked for.
    fn covers(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to)
    }

    fn is_about(&self, id: Option<&str>, name: Option<&str>) -> bool {
        let Some(wanted) = self.principal.as_deref() else { return true };
        id == Some(wanted) || name == Some(wanted)
    }
}

/// Whose something is and where: what decides whether somebody may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    /// The id of who did it; `None` is the gateway itself or somebody not known.
    pub principal: Option<&'a str>,
    pub target: Option<&'a str>,
}

/// What is exported.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The audit log's directory.
    pub directory: &'a Path,
    pub format: Format,
    pub filter: &'a Filter,
    /// Read only records of a lower index in the log.
    pub size: Option<u64>,
}

/// How much was exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of what the form [is made of](Format::counted).
    pub written: u64,
    /// Of the same, or for `sql` connections: what the reader may not read.
    pub left_out: u64,
    /// How far the log was read: the index of the record that would have come next.
    pub log: u64,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the log is damaged at record {n}: {what}: run `sallyport audit verify`")]
    Damaged { n: u64, what: String },
    #[error("`{format}` cannot be made of this: {what}")]
    Unfit { format: Format, what: &'static str },
    #[error("cannot write the export")]
    Write(#[source] io::Error),
}

/// Whether what is somebody's may be read.
pub type May<'a> = &'a mut dyn FnMut(Whose<'_>) -> bool;

/// Writes what is asked for and may be read.
pub fn write(order: &Order<'_>, may: May<'_>, to: &mut impl Write) -> Result<Counts, ExportError> {
    order.filter.check(order.format)?;
    let counts = match order.format {
        Format::Jsonl => records(order, may, to)?,
        Format::Ocsf => ocsf::write(order, may, to)?,
        Format::AccessRegister => access::write(order, access::Which::All, may, to)?,
        Format::BreakGlassRegister => access::write(order, access::Which::BreakGlass, may, to)?,
        Format::RevocationLatency => revocation::write(order, may, to)?,
        Format::Sql => sql::write(order, may, to)?,
    };
    to.flush().map_err(ExportError::Write)?;
    Ok(counts)
}

/// What [`write()`] would write.
pub fn count(order: &Order<'_>, may: May<'_>) -> Result<Counts, ExportError> {
    match order.format {
        // One for each record, whatever it looks like.
        Format::Jsonl | Format::Ocsf => each_chosen(order, may, |_, _, _| Ok(())),
        _ => write(order, may, &mut io::sink()),
    }
}

fn records(order: &Order<'_>, may: May<'_>, to: &mut impl Write) -> Result<Counts, ExportError> {
    each_chosen(order, may, |found, _, chosen| {
        if chosen {
            to.write_all(found.json).and_then(|()| to.write_all(b"\n")).map_err(ExportError::Write)?;
        }
        Ok(())
    })
}

/// Gives every record to `each`, with whether it is asked for and may be read.
fn each_chosen(
    order: &Order<'_>,
    may: May<'_>,
    mut each: impl FnMut(&Found<'_>, &Head<'_>, bool) -> Result<(), ExportError>,
) -> Result<Counts, ExportError> {
    let request = request_of(order)?;
    let mut counts = Counts::default();
    let mut scan = Scan::open(order.directory, order.size);
    while let Some(found) = scan.next()? {
        let head = found.head()?;
        let wanted = is_wanted(order.filter, request.as_ref(), &head);
        let chosen = wanted && may(head.whose());
        counts.log = found.n.saturating_add(1);
        counts.written += u64::from(chosen);
        counts.left_out += u64::from(wanted && !chosen);
        each(&found, &head, chosen)?;
    }
    Ok(counts)
}

fn is_wanted(filter: &Filter, request: Option<&RequestId>, head: &Head<'_>) -> bool {
    let is = |wanted: Option<&str>, found: Option<&str>| wanted.is_none() || wanted == found;
    let principal = head.principal.as_ref();
    let of_request = request.is_some() && head.request.as_deref() == request.map(RequestId::as_str);
    (of_request || is(filter.session.as_ref().map(SessionId::as_str), head.session.as_deref()))
        && is(filter.connection.as_ref().map(ConnectionId::as_str), head.connection.as_deref())
        && is(filter.target.as_ref().map(TargetName::as_str), head.target.as_deref())
        && filter.is_about(principal.map(|who| who.id.as_ref()), principal.map(|who| who.name.as_ref()))
        && filter.covers(head.at)
}

/// The request that the session which is asked for comes from: what was decided about it is about the session.
fn request_of(order: &Order<'_>) -> Result<Option<RequestId>, ExportError> {
    let Some(session) = &order.filter.session else { return Ok(None) };
    let mut scan = Scan::open(order.directory, order.size);
    while let Some(found) = scan.next()? {
        let head = found.head()?;
        if head.session.as_deref() == Some(session.as_str())
            && let Some(request) = head.request
        {
            return Ok(request.parse().ok());
        }
    }
    Ok(None)
}
