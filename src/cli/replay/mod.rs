//! `sallyport replay`: from the server, or from the files alone.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::Home;
use super::ids::{self, Candidate};
use super::out;
use crate::access::credential::error_chain;
use crate::audit::replay::{self, ReplayError, Replayed};
use crate::domain::id::ConnectionId;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connection's id, or a unique beginning of it
    connection: String,
    /// The records exactly as stored, one JSON object a line
    #[arg(long)]
    json: bool,
    /// Read the files of this audit log instead of asking the server
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    if let Some(dir) = &arguments.audit_dir {
        return from_files(dir, &arguments.connection, arguments.json);
    }
    let client = Client::from_home(&Home::from_environment()?)?;
    from_server(&client, &arguments.connection, arguments.json).await
}

async fn from_server(client: &Client, given: &str, json: bool) -> Outcome {
    let id = client.connection_id(given).await?;
    let format = if json { "json" } else { "text" };
    let mut stream = client.stream(&format!("/pam/recordings/{id}?format={format}")).await?;
    while let Some(piece) = stream.next().await? {
        out::bytes(&piece)?;
    }
    out::flush()?;
    Ok(Exit::Done)
}

fn from_files(dir: &Path, given: &str, json: bool) -> Outcome {
    let id = find(dir, given)?;
    let mut writer = BufWriter::new(io::stdout().lock());
    let replayed = if json {
        replay::replay_json(dir, &id, &mut writer)
    } else {
        replay::replay_text(dir, &id, &mut writer)
    };
    let replayed = replayed.and_then(|replayed| {
        writer.flush().map_err(ReplayError::Write)?;
        Ok(replayed)
    });
    match replayed.map_err(|error| failure(&error))? {
        Replayed::Whole => {}
        Replayed::StillOpen => {
            out::note("the recording has no end yet: the connection is live, or the node stopped");
        }
    }
    Ok(Exit::Done)
}

fn find(dir: &Path, given: &str) -> Result<ConnectionId, Failure> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let candidates: Vec<Candidate> = replay::list(dir)
        .map_err(|error| failure(&error))?
        .into_iter()
        .map(|summary| Candidate {
            id: summary.context.connection.to_string(),
            about: format!("{} {}", summary.context.principal.name, summary.context.target),
        })
        .collect();
    let id = ids::expand("connection", "con", given, &candidates)?;
    id.parse().map_err(|error| Failure::of("cannot use the connection's id", &error))
}

fn failure(error: &ReplayError) -> Failure {
    let exit = match error {
        ReplayError::NoRecording(_) => Exit::NotFound,
        ReplayError::Damaged { .. } => Exit::Unverified,
        ReplayError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Failure::new(Exit::Done, "");
        }
        _ => Exit::Failed,
    };
    Failure::new(exit, error_chain(error))
}
