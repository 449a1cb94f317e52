//! `sallyport replay`: from the server, or from the files alone; as text, as stored, as an asciicast, or
//! played in the terminal.

mod filter;
mod gather;
mod player;
mod terminal;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::Home;
use super::ids::{self, Candidate};
use super::out;
use crate::access::credential::error_chain;
use crate::audit::asciicast::replay_asciicast;
use crate::audit::replay::{self, Content, Entry, ReplayError, Replayed, Source};
use crate::domain::id::ConnectionId;
use gather::{Gathering, Otherwise, Recorded};
use player::Player;

const STILL_OPEN: &str = "the recording has no end yet: the connection is live, or the node stopped";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connection's id, or a unique beginning of it
    connection: String,
    /// How to show it [default: a terminal's recording is played where there is a terminal; else text]
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Which channel of an SSH connection to play or export [default: the first with a terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    channel: Option<u32>,
    /// How fast to play: 2 is twice as fast as it was
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// No pause is longer than this when played
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration)]
    idle: Duration,
    /// Begin to play here: so long after the recording's opening, as the transcript counts
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = super::duration)]
    from: Duration,
    /// Read the files of this audit log instead of asking the server
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As people read it
    Text,
    /// The records exactly as stored, one JSON object a line
    Json,
    /// One terminal of an SSH connection, for asciinema's and other players
    Asciicast,
    /// Played in this terminal. Space pauses, `.` steps, → and ← seek 10 s, + and - change the speed,
    /// q quits
    Terminal,
}

/// What is to be done, once it is known where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Streamed(Form),
    Played(Otherwise),
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.1..=50.0).contains(speed));
    speed.ok_or_else(|| "give a number from 0.1 to 50".to_owned())
}

fn shown(arguments: &Arguments, on_terminal: bool) -> Result<Shown, Failure> {
    let form = if arguments.json { Some(Form::Json) } else { arguments.format };
    match form {
        Some(Form::Terminal) if on_terminal => Ok(Shown::Played(Otherwise::Nothing)),
        Some(Form::Terminal) => Err(Failure::usage("there is no terminal here to play in")
            .hint("give --format asciicast to write what a terminal showed to a file")),
        Some(form) => Ok(Shown::Streamed(form)),
        None if on_terminal => Ok(Shown::Played(Otherwise::Transcript)),
        None => Ok(Shown::Streamed(Form::Text)),
    }
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let shown = shown(&arguments, on_terminal)?;
    if let Some(dir) = &arguments.audit_dir {
        let id = find(dir, &arguments.connection)?;
        return match shown {
            Shown::Streamed(form) => stream_files(dir, &id, form, arguments.channel),
            Shown::Played(otherwise) => {
                let recorded = gather_files(dir, &id, arguments.channel, otherwise)?;
                play(recorded, &arguments, &id, otherwise).await
            }
        };
    }
    let client = Client::from_home(&Home::from_environment()?)?;
    let id = client.connection_id(&arguments.connection).await?;
    match shown {
        Shown::Streamed(form) => stream_server(&client, &id, form, arguments.channel).await,
        Shown::Played(otherwise) => {
            let recorded = gather_server(&client, &id, arguments.channel, otherwise).await?;
            let id = id.parse().map_err(|error| Failure::of("cannot use the connection's id", &error))?;
            play(recorded, &arguments, &id, otherwise).await
        }
    }
}

async fn play(
    recorded: Option<Recorded>,
    arguments: &Arguments,
    connection: &ConnectionId,
    otherwise: Otherwise,
) -> Outcome {
    let Some(recorded) = recorded else {
        return match otherwise {
            Otherwise::Transcript => Ok(Exit::Done),
            Otherwise::Nothing => {
                let (connection, channel) = (connection.clone(), arguments.channel);
                Err(failure(&ReplayError::NoTerminal { connection, channel }))
            }
        };
    };
    if !recorded.others.is_empty() {
        let others: Vec<String> = recorded.others.iter().map(ToString::to_string).collect();
        let (channel, others) = (recorded.channel, others.join(", "));
        out::note(format!("this is channel {channel}; --channel plays another with a terminal: {others}"));
    }
    if !recorded.is_whole {
        out::note(STILL_OPEN);
    }
    let (cols, rows) = recorded.size();
    if terminal::size().is_some_and(|(width, height)| width < cols || height < rows) {
        out::note(format!("the recorded terminal was {cols}x{rows}: make this one as large to see it right"));
    }
    let player = Player::new(recorded.begins, recorded.events, arguments.idle, arguments.speed);
    terminal::play(player, arguments.from).await
}

async fn stream_server(client: &Client, id: &str, form: Form, channel: Option<u32>) -> Outcome {
    let format = match form {
        Form::Text | Form::Terminal => "text",
        Form::Json => "json",
        Form::Asciicast => "asciicast",
    };
    let channel = channel.map(|channel| format!("&channel={channel}")).unwrap_or_default();
    let mut stream = client.stream(&format!("/pam/recordings/{id}?format={format}{channel}")).await?;
    while let Some(piece) = stream.next().await? {
        out::bytes(&piece)?;
    }
    out::flush()?;
    Ok(Exit::Done)
}

async fn gather_server(
    client: &Client,
    id: &str,
    channel: Option<u32>,
    otherwise: Otherwise,
) -> Result<Option<Recorded>, Failure> {
    let unwritten = |error| failure(&ReplayError::Write(error));
    let mut stream = client.stream(&format!("/pam/recordings/{id}?format=json")).await?;
    let mut gathering = Gathering::new(channel, otherwise);
    let (mut line, mut is_whole) = (Vec::new(), false);
    while let Some(piece) = stream.next().await? {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                let entry = Entry::parse(&line).map_err(|error| {
                    Failure::of("the server's records are not what this version expects", &error)
                        .hint("use the client of the server's version")
                })?;
                is_whole = matches!(entry.content, Content::Ended(_));
                gathering.record(&entry, &mut io::stdout().lock()).map_err(unwritten)?;
                line.clear();
            }
        }
    }
    let recorded = gathering.finish(is_whole, &mut io::stdout().lock()).map_err(unwritten)?;
    out::flush()?;
    Ok(recorded)
}

fn gather_files(
    dir: &Path,
    id: &ConnectionId,
    channel: Option<u32>,
    otherwise: Otherwise,
) -> Result<Option<Recorded>, Failure> {
    let mut gathering = Gathering::new(channel, otherwise);
    let mut writer = BufWriter::new(io::stdout().lock());
    let recorded = replay::replay(&Source::new(dir, id), |entry| gathering.record(entry, &mut writer))
        .and_then(|replayed| {
            let recorded = gathering.finish(replayed == Replayed::Whole, &mut writer);
            let recorded = recorded.and_then(|recorded| writer.flush().map(|()| recorded));
            recorded.map_err(ReplayError::Write)
        });
    recorded.map_err(|error| failure(&error))
}

fn stream_files(dir: &Path, id: &ConnectionId, form: Form, channel: Option<u32>) -> Outcome {
    let mut writer = BufWriter::new(io::stdout().lock());
    let source = Source::new(dir, id);
    let replayed = match form {
        Form::Text | Form::Terminal => replay::replay_text(&source, &mut writer),
        Form::Json => replay::replay_json(&source, &mut writer),
        Form::Asciicast => replay_asciicast(&source, channel, &mut writer),
    };
    let replayed = replayed.and_then(|replayed| {
        writer.flush().map_err(ReplayError::Write)?;
        Ok(replayed)
    });
    match replayed.map_err(|error| failure(&error))? {
        Replayed::Whole => {}
        Replayed::StillOpen => out::note(STILL_OPEN),
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
        ReplayError::NoRecording(_) | ReplayError::NoTerminal { .. } => Exit::NotFound,
        ReplayError::Damaged { .. } => Exit::Unverified,
        ReplayError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Failure::new(Exit::Done, "");
        }
        _ => Exit::Failed,
    };
    Failure::new(exit, error_chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Replay {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        let words = std::iter::once("replay").chain(line.split(' '));
        <Replay as clap::Parser>::parse_from(words).arguments
    }

    #[test]
    fn where_there_is_no_terminal_nothing_is_played() {
        for (line, on_terminal, expected) in [
            ("con-1", true, Shown::Played(Otherwise::Transcript)),
            ("con-1", false, Shown::Streamed(Form::Text)),
            ("con-1 --format terminal", true, Shown::Played(Otherwise::Nothing)),
            ("con-1 --format text", true, Shown::Streamed(Form::Text)),
            ("con-1 --json", true, Shown::Streamed(Form::Json)),
            ("con-1 --format asciicast", true, Shown::Streamed(Form::Asciicast)),
        ] {
            assert_eq!(shown(&arguments(line), on_terminal).unwrap(), expected, "{line}");
        }
        let refused = shown(&arguments("con-1 --format terminal"), false).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
    }

    #[test]
    fn a_speed_is_a_number_within_reason() {
        assert_eq!((speed("2"), speed("0.5")), (Ok(2.0), Ok(0.5)));
        for text in ["0", "-1", "1000", "NaN", "inf", "fast"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
