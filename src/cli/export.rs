//! `sallyport export` and `sallyport audit export`: the audit log in the forms that others read, from the server
//! as far as one may read it, or from the files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;

use super::audit::Log;
use super::client::{Client, Stream};
use super::exit::{Exit, Failure, Outcome};
use super::out;
use super::output::{self, Output};
use super::when::{self, Edge};
use crate::access::credential::error_chain;
use crate::audit::asciicast::replay_asciicast;
use crate::audit::export::{self, ExportError, Filter, Format, Order};
use crate::audit::replay::{ReplayError, Source};
use crate::clock::Clock;
use crate::domain::name::TargetName;
use crate::domain::time::Timestamp;
use crate::http::api::export::{LEFT_OUT, WRITTEN};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// In which form
    #[arg(long, value_enum)]
    format: Form,
    /// Only what is about this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only what was done over this connection
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Only what somebody did; in registers, their sessions: a name or an id
    #[arg(long, value_name = "USER")]
    principal: Option<String>,
    /// Only what is about this target
    #[arg(long)]
    target: Option<TargetName>,
    /// From then on: a date, a date and time (RFC 3339), or so long ago, as in 2h
    #[arg(long, value_name = "WHEN", value_parser = from)]
    from: Option<Timestamp>,
    /// Until then, that instant or day included
    #[arg(long, value_name = "WHEN", value_parser = to)]
    to: Option<Timestamp>,
    /// Of an SSH connection, as asciicast: which channel [default: the first with a terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    channel: Option<u32>,
    /// The file to write; it must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn from(text: &str) -> Result<Timestamp, String> {
    when::parse(text, Clock::system().now(), Edge::Start)
}

fn to(text: &str) -> Result<Timestamp, String> {
    when::parse(text, Clock::system().now(), Edge::End)
}

/// `sallyport audit export`.
#[derive(Debug, clap::Args)]
pub(super) struct FromFiles {
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The records exactly as stored, one JSON object a line
    Jsonl,
    /// OCSF 1.8.0 events, one JSON object a line
    Ocsf,
    /// Who had access to what, when, why and by whose approval, as CSV
    AccessRegister,
    /// The same of the sessions that skipped approvals
    BreakGlassRegister,
    /// How long after a revocation or block each connection ended, as CSV
    RevocationLatency,
    /// The statements of one session or connection, as a file that psql runs
    Sql,
    /// One terminal of an SSH connection, for asciinema's and other players
    Asciicast,
}

impl Form {
    /// None is an asciicast, which is a replay.
    const fn format(self) -> Option<Format> {
        match self {
            Self::Jsonl => Some(Format::Jsonl),
            Self::Ocsf => Some(Format::Ocsf),
            Self::AccessRegister => Some(Format::AccessRegister),
            Self::BreakGlassRegister => Some(Format::BreakGlassRegister),
            Self::RevocationLatency => Some(Format::RevocationLatency),
            Self::Sql => Some(Format::Sql),
            Self::Asciicast => None,
        }
    }
}

impl Arguments {
    fn filter(&self) -> Result<Filter, Failure> {
        let malformed = |error: &dyn std::error::Error| Failure::usage(error.to_string());
        Ok(Filter {
            session: self
                .session
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error| malformed(&error))?,
            connection: self
                .connection
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error| malformed(&error))?,
            principal: self.principal.clone(),
            target: self.target.clone(),
            from: self.from,
            to: self.to,
        })
    }

    /// What there is to export: a form of the log, or the terminal of a connection.
    fn what(&self) -> Result<What, Failure> {
        let filter = self.filter()?;
        let Some(format) = self.form()? else {
            let Some(connection) = filter.connection else {
                return Err(Failure::usage("an asciicast is of one connection: give --connection"));
            };
            return Ok(What::Asciicast(connection));
        };
        filter.check(format).map_err(|error| failure(&error))?;
        Ok(What::Log(format, filter))
    }

    fn form(&self) -> Result<Option<Format>, Failure> {
        let format = self.format.format();
        if format.is_some() && self.channel.is_some() {
            return Err(Failure::usage("--channel is for an asciicast"));
        }
        Ok(format)
    }
}

enum What {
    Log(Format, Filter),
    Asciicast(crate::domain::id::ConnectionId),
}

/// From the files: whoever can read them may.
pub(super) fn from_files(arguments: FromFiles) -> Outcome {
    let FromFiles { arguments, log } = arguments;
    let what = arguments.what()?;
    let directory = log.directory()?;
    let mut output = Output::create(arguments.output)?;
    match what {
        What::Log(format, filter) => {
            let order = Order { directory: &directory, format, filter: &filter, size: None };
            let counts = export::write(&order, &mut |_| true, &mut output);
            let counts = counts.map_err(|error| failure(&error))?;
            output.finish()?;
            tell(format, counts.written, 0);
        }
        What::Asciicast(connection) => {
            let written =
                replay_asciicast(&Source::new(&directory, &connection), arguments.channel, &mut output);
            written.map_err(|error| match error {
                ReplayError::Write(error) => output::failure(&error),
                ReplayError::NoRecording(_) | ReplayError::NoTerminal { .. } => {
                    Failure::new(Exit::NotFound, error.to_string())
                }
                error => Failure::failed(error_chain(&error)),
            })?;
            output.finish()?;
        }
    }
    Ok(Exit::Done)
}

/// From the server.
pub(super) async fn from_server(mut arguments: Arguments, client: &Client) -> Outcome {
    if let Some(session) = &arguments.session {
        arguments.session = Some(client.session_id(session).await?);
    }
    if let Some(connection) = &arguments.connection {
        arguments.connection = Some(client.connection_id(connection).await?);
    }
    let what = arguments.what()?;
    let (path, format) = match what {
        What::Asciicast(connection) => {
            let channel = arguments.channel.map(|channel| channel.to_string());
            let query = query(&[("format", Some("asciicast".to_owned())), ("channel", channel)]);
            (format!("/pam/recordings/{connection}?{query}"), None)
        }
        What::Log(format, filter) => {
            let text = |id: Option<&dyn std::fmt::Display>| id.map(ToString::to_string);
            let query = query(&[
                ("format", Some(format.to_string())),
                ("session", text(filter.session.as_ref().map(|id| id as _))),
                ("connection", text(filter.connection.as_ref().map(|id| id as _))),
                ("principal", filter.principal.clone()),
                ("target", text(filter.target.as_ref().map(|name| name as _))),
                ("from", text(filter.from.as_ref().map(|at| at as _))),
                ("to", text(filter.to.as_ref().map(|at| at as _))),
            ]);
            (format!("/pam/export?{query}"), Some(format))
        }
    };
    let mut stream = client.stream(&path).await?;
    let count = |name| stream.header(name).and_then(|count| count.parse().ok()).unwrap_or_default();
    let (written, left_out) = (count(WRITTEN), count(LEFT_OUT));
    save(&mut stream, Output::create(arguments.output)?).await?;
    if let Some(format) = format {
        tell(format, written, left_out);
    }
    Ok(Exit::Done)
}

/// `sallyport bundle`.
#[derive(Debug, clap::Args)]
pub(super) struct Bundle {
    /// The session's id, or a unique beginning of it
    session: String,
    /// The file to write; it must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn bundle(arguments: Bundle, client: &Client) -> Outcome {
    let session = client.session_id(&arguments.session).await?;
    let mut stream = client.stream(&format!("/pam/sessions/{session}/bundle")).await?;
    save(&mut stream, Output::create(arguments.output)?).await?;
    Ok(Exit::Done)
}

async fn save(stream: &mut Stream<'_>, mut output: Output) -> Result<(), Failure> {
    while let Some(piece) = stream.next().await? {
        output.write_all(&piece).map_err(|error| output::failure(&error))?;
    }
    output.finish()
}

/// A query string of what there is.
fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        let Some(value) = value else { continue };
        let separator = if query.is_empty() { "" } else { "&" };
        query = query + separator + name + "=";
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    query.push(char::from(byte));
                }
                _ => _ = write!(query, "%{byte:02X}"),
            }
        }
    }
    query
}

fn tell(format: Format, written: u64, left_out: u64) {
    let counted = format.counted();
    match left_out {
        0 => out::note(format!("{written} {counted}")),
        left_out => {
            let what = if format == Format::Sql { "connections" } else { counted };
            out::note(format!("{written} {counted}; {left_out} {what} left out: you may not read them"));
        }
    }
}

fn failure(error: &ExportError) -> Failure {
    match error {
        ExportError::Unfit { .. } => Failure::usage(error.to_string()),
        ExportError::Damaged { .. } => Failure::new(Exit::Unverified, error.to_string()),
        ExportError::Write(error) => output::failure(error),
        ExportError::Read { .. } => Failure::failed(error_chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_there_is_and_nothing_of_it_ends_it() {
        let pairs = [("a", Some("x y&z=é".to_owned())), ("b", None), ("c", Some("ses-1".to_owned()))];
        assert_eq!(query(&pairs), "a=x%20y%26z%3D%C3%A9&c=ses-1");
    }
}
