//! `sallyport audit`: proves that the log is whole, from files and public keys alone, and follows it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{Exit, Failure, Outcome};
use super::{Form, out};
use crate::access::credential::error_chain;
use crate::app::VERIFY_KEY_FILE;
use crate::audit::VerifyKey;
use crate::audit::replay::Tail;
use crate::audit::verify::{self, Options};
use crate::clock::Clock;
use crate::config::Config;

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Prove that nothing in the log was changed, removed, inserted or cut off
    Verify(Verify),
    /// Show the log's records, one JSON object a line
    Tail(TailArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The audit log's directory
    dir: PathBuf,
    /// The log's public key; best a copy that was kept elsewhere [default: the one in DIR or beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A checkpoint that was copied elsewhere earlier; may be given several times
    #[arg(long, value_name = "FILE")]
    pin: Vec<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct TailArguments {
    /// The audit log's directory
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    audit_dir: Option<PathBuf>,
    /// The server's configuration, which names the directory
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: Option<PathBuf>,
    /// Begin at the end, and go on as the log grows
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(command: Audit) -> Outcome {
    match command {
        Audit::Verify(arguments) => verify(arguments),
        Audit::Tail(arguments) => tail(arguments).await,
    }
}

fn verify(arguments: Verify) -> Outcome {
    let path = arguments.key.unwrap_or_else(|| own_key(&arguments.dir));
    let key = VerifyKey::load(&path).map_err(|error| {
        Failure::of(format!("cannot use the log's public key `{}`", path.display()), &error)
            .hint("give it with --key; `sallyport init` wrote it into the data directory")
    })?;
    let options = Options { directory: &arguments.dir, key: &key, pins: &arguments.pin };
    let shows = std::io::stderr().is_terminal() && !arguments.form.json;
    let mut told = 0;
    let mut progress = |records: u64| {
        if shows && records >= told + 1_000_000 {
            told = records;
            out::note(format!("{records} records checked"));
        }
    };
    let report =
        verify::verify(&options, &mut progress).map_err(|error| Failure::failed(error_chain(&error)))?;
    if arguments.form.json {
        out::json(&report)?;
    } else {
        out::line(report.to_string().trim_end())?;
    }
    Ok(if report.is_whole() { Exit::Done } else { Exit::Unverified })
}

/// Where the public key is on the server's own host.
fn own_key(dir: &Path) -> PathBuf {
    let inside = dir.join(VERIFY_KEY_FILE);
    let beside = std::path::absolute(dir).ok().and_then(|dir| Some(dir.parent()?.join(VERIFY_KEY_FILE)));
    match beside {
        Some(beside) if !inside.exists() => beside,
        _ => inside,
    }
}

async fn tail(arguments: TailArguments) -> Outcome {
    let dir = match (arguments.audit_dir, arguments.config) {
        (Some(dir), _) => dir,
        (None, Some(path)) => load(&path)?.audit.directory,
        (None, None) => return Err(Failure::usage("give --audit-dir or --config")),
    };
    let failed = |error| Failure::failed(error_chain(&error));
    let mut tail =
        if arguments.follow { Tail::from_end(&dir).map_err(failed)? } else { Tail::from_start(&dir) };
    let clock = Clock::system();
    loop {
        while let Some(mut record) = tail.poll().map_err(failed)? {
            record.push(b'\n');
            out::bytes(&record)?;
        }
        out::flush()?;
        if !arguments.follow {
            return Ok(Exit::Done);
        }
        clock.sleep(LOOK_EVERY).await;
    }
}

/// The configuration, or every mistake in it.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|errors| {
        let mut failure = Failure::failed("the configuration cannot be used");
        failure.why = errors.to_string().lines().map(str::to_owned).collect();
        failure.hint(format!("correct it, then: sallyport check-config --config {}", path.display()))
    })
}
