//! `sallyport audit`: proves that the log is whole, from files and public keys alone, and follows it.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::audit_report::Verified;
use super::exit::{Exit, Failure, Outcome};
use super::output::{self, Output};
use super::{Form, audit_adopt, audit_consume, audit_witness, export, out, search};
use crate::access::credential::error_chain;
use crate::app::VERIFY_KEY_FILE;
use crate::audit::VerifyKey;
use crate::audit::bundle::{self, BundleError, Order, Redaction};
use crate::audit::tail::Tail;
use crate::audit::tiles;
use crate::audit::verify::{self, Options};
use crate::clock::Clock;
use crate::config::Config;
use crate::crypto::Hash;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::crypto::hasher::HashingReader;
use crate::domain::id::SessionId;

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Prove that nothing in the log, or in a bundle, was changed, removed, inserted or cut off
    Verify(Verify),
    /// Put what the log holds of a session into one file that proves itself
    Bundle(Bundle),
    /// Write the log's Merkle tree as tiles (C2SP tlog-tiles), for proofs with other tools
    Tiles(TilesArguments),
    /// Write the log in the forms that others read: JSON lines, OCSF, registers, SQL, asciicast
    Export(export::FromFiles),
    /// Watch over somebody else's logs: cosign the checkpoints of those that only grow
    Witness(audit_witness::Arguments),
    /// Read the audit stream, put the nodes' logs together again and keep them in an archive
    Consume(audit_consume::Arguments),
    /// Find who did what, where, when, from the files alone: reads all of the log
    Search(SearchArguments),
    /// Finish the log of a node that will not come back, and send what the stream lacks of it
    Adopt(audit_adopt::Arguments),
    /// Show the log's records, one JSON object a line
    Tail(TailArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The audit log's directory, or a bundle
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The log's public key; best a copy that was kept elsewhere [default: the one in PATH or beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A checkpoint that was copied elsewhere earlier; may be given several times
    #[arg(long, value_name = "FILE")]
    pin: Vec<PathBuf>,
    /// A witness's key, as `audit witness` prints it: it must have cosigned; may be given several times
    #[arg(long, value_name = "KEY")]
    witness_key: Vec<WitnessVerifyKey>,
    /// Also write what was found to this new file, as one page to print
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Bundle {
    /// The session
    session: SessionId,
    #[command(flatten)]
    log: Log,
    /// The log's public key [default: the one in the audit log's directory or beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Replace records by their hashes: RECORDING:SEQ or RECORDING:FIRST-LAST; may be given several times
    #[arg(long, value_name = "RECORDS")]
    redact: Vec<Redaction>,
    /// The file to write; it must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct TilesArguments {
    #[command(flatten)]
    log: Log,
    /// The log's public key [default: the one in the audit log's directory or beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The directory to write to; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
}

/// Where the log is.
#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// The audit log's directory
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    audit_dir: Option<PathBuf>,
    /// The server's configuration, which names the directory
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: Option<PathBuf>,
}

impl Log {
    pub(super) fn directory(self) -> Result<PathBuf, Failure> {
        match (self.audit_dir, self.config) {
            (Some(dir), _) => Ok(dir),
            (None, Some(path)) => Ok(load(&path)?.audit.directory),
            (None, None) => Err(Failure::usage("give --audit-dir or --config")),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct SearchArguments {
    #[command(flatten)]
    wanted: search::Wanted,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct TailArguments {
    #[command(flatten)]
    log: Log,
    /// Begin at the end, and go on as the log grows
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(command: Audit) -> Outcome {
    match command {
        Audit::Verify(arguments) => verify(arguments),
        Audit::Bundle(arguments) => bundle(arguments),
        Audit::Tiles(arguments) => tiles(arguments),
        Audit::Export(arguments) => export::from_files(arguments),
        Audit::Witness(arguments) => audit_witness::run(arguments).await,
        Audit::Consume(arguments) => audit_consume::run(arguments).await,
        Audit::Search(SearchArguments { wanted, log, form }) => {
            search::offline(wanted, &log.directory()?, form)
        }
        Audit::Adopt(arguments) => audit_adopt::run(arguments).await,
        Audit::Tail(arguments) => tail(arguments).await,
    }
}

fn verify(arguments: Verify) -> Outcome {
    let Verify { path, key: given, pin, witness_key, report, form } = arguments;
    let is_own = given.is_none();
    let key_file = given.unwrap_or_else(|| own_key(&path));
    let key = key(Some(key_file.clone()), &path)?;
    let (found, whole, json, bundle) = if path.is_file() {
        if !pin.is_empty() || !witness_key.is_empty() {
            let what = "a bundle has its own checkpoint: --pin and --witness-key are for the whole log";
            return Err(Failure::usage(what));
        }
        let (found, hash) = verify_bundle(&path, &key)
            .map_err(|error| Failure::of(format!("cannot read the bundle `{}`", path.display()), &error))?;
        (found.to_string(), found.is_whole(), serde_json::to_value(&found), Some(hash))
    } else {
        let options = Options { directory: &path, key: &key, pins: &pin, witnesses: &witness_key };
        let found = verify_log(&options, form)?;
        (found.to_string(), found.is_whole(), serde_json::to_value(&found), None)
    };
    if form.json {
        out::json(&json.map_err(|error| Failure::of("cannot write what was found", &error))?)?;
    } else {
        out::line(found.trim_end())?;
        out::line(format!("public key: `{}`", key_file.display()))?;
    }
    if is_own {
        out::note(format!(
            "the public key `{}` stands with what was verified: who can write both can make both. Give a copy that was kept elsewhere with --key",
            key_file.display()
        ));
    }
    if let Some(to) = report {
        let at = Clock::system().now();
        let (pins, witnesses) = (&pin, &witness_key);
        Verified { path: &path, bundle, key: &key, pins, witnesses, at, found: &found }.write(&to)?;
    }
    Ok(if whole { Exit::Done } else { Exit::Unverified })
}

/// What is found in a bundle, and the file's hash.
fn verify_bundle(path: &Path, key: &VerifyKey) -> io::Result<(bundle::Report, Hash)> {
    let mut reader = BufReader::new(HashingReader::new(File::open(path)?));
    let found = bundle::check(&mut reader, key)?;
    Ok((found, reader.into_inner().finish()?))
}

fn verify_log(options: &Options<'_>, form: Form) -> Result<verify::Report, Failure> {
    let shows = io::stderr().is_terminal() && !form.json;
    let mut told = 0;
    let mut progress = |records: u64| {
        if shows && records >= told + 1_000_000 {
            told = records;
            out::note(format!("{records} records checked"));
        }
    };
    verify::verify(options, &mut progress).map_err(|error| Failure::failed(error_chain(&error)))
}

fn bundle(arguments: Bundle) -> Outcome {
    let Bundle { session, log, key: path, redact, output } = arguments;
    let directory = log.directory()?;
    let key = key(path, &directory)?;
    let order = Order { directory: &directory, key: &key, session: &session, redactions: &redact };
    let mut output = Output::create(output)?;
    bundle::write(&order, &mut output).map_err(|error| match error {
        BundleError::Write(error) => output::failure(&error),
        error => Failure::failed(error_chain(&error)),
    })?;
    output.finish()?;
    Ok(Exit::Done)
}

fn tiles(arguments: TilesArguments) -> Outcome {
    let directory = arguments.log.directory()?;
    let key = key(arguments.key, &directory)?;
    let written = tiles::write(&directory, &key, &arguments.output);
    let size = written.map_err(|error| Failure::failed(error_chain(&error)))?;
    out::note(format!("the tiles cover {size} records"));
    Ok(Exit::Done)
}

/// The log's public key: the one that was given, or the server's own.
pub(super) fn key(given: Option<PathBuf>, log: &Path) -> Result<VerifyKey, Failure> {
    let path = given.unwrap_or_else(|| own_key(log));
    VerifyKey::load(&path).map_err(|error| {
        Failure::of(format!("cannot use the log's public key `{}`", path.display()), &error)
            .hint("give it with --key; `sallyport init` wrote it into the data directory")
    })
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
    let dir = arguments.log.directory()?;
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
