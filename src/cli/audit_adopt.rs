//! `sallyport audit adopt`: finishes the log of a node that will not come back, and sends what the stream lacks of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use super::exit::{Exit, Failure, Outcome};
use super::{Form, audit, out};
use crate::access::credential::error_chain;
use crate::audit::kms::Kms;
use crate::audit::signer::Absent;
use crate::audit::stream::kinesis::{Address, Kinesis};
use crate::audit::stream::shipper::Health;
use crate::audit::stream::{Limits, Shipper};
use crate::audit::{Journal, JournalOptions, SigningKey, VerifyKey, newest_checkpoint};
use crate::clock::Clock;
use crate::config::KmsKey;
use crate::domain::id::ConnectionId;
use crate::lifecycle::{Asked, Signals};

/// As in a configuration that says nothing else.
const LIMITS: Limits = Limits { record: 1 << 20, request: 5 << 20 };

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The dead node's audit directory: its disk, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The log's public key [default: the one in DIR or beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The dead node's signing key: its file, or the ARN or alias of a key in Amazon KMS. Without it the log is not
    /// signed to its end
    #[arg(long, value_name = "FILE|ARN")]
    node_key: Option<String>,
    /// Another address than Amazon's own for a key in KMS
    #[arg(long, value_name = "URL", requires = "node_key")]
    kms_endpoint: Option<String>,
    /// Send what is missing to this stream: name or ARN of an Amazon Kinesis data stream
    #[arg(long)]
    stream: Option<String>,
    /// The stream's region, where it is not in the environment
    #[arg(long, requires = "stream")]
    region: Option<String>,
    /// Another address than Amazon's own for the stream
    #[arg(long, value_name = "URL", requires = "stream")]
    endpoint: Option<String>,
    /// The configuration of a server: send to its stream
    #[arg(long, value_name = "FILE", conflicts_with = "stream")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Adopted {
    node: String,
    /// In the log now.
    records: u64,
    /// Of them, vouched for by a checkpoint.
    covered: u64,
    /// Recordings that the crash had left open.
    ended: Vec<ConnectionId>,
    /// Bytes of a write that did not finish, kept beside the log.
    discarded: u64,
    /// Records that the stream lacked; none where no stream was given.
    sent: Option<u64>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::of("cannot listen for signals", &error))?;
    let dir = &arguments.dir;
    let public = audit::key(arguments.key.clone(), dir)?;
    let has_key = arguments.node_key.is_some();
    let signing_key = signing_key(arguments.node_key.as_deref(), arguments.kms_endpoint.clone(), &public)?;
    let stream = stream(&arguments)?;
    // A mistyped name must not become a new log.
    let checkpoint = |what: &str| {
        newest_checkpoint(dir, &public)
            .map_err(|error| Failure::of(format!("cannot read `{}`", dir.display()), &error))?
            .ok_or_else(|| Failure::failed(format!("`{}` {what}", dir.display())))
    };
    checkpoint("holds no audit log of this key's node")?;

    let clock = Clock::system();
    let options = JournalOptions::new(signing_key);
    let (journal, recovery) = Journal::open(dir, clock.clone(), options)
        .map_err(|error| Failure::failed(format!("cannot adopt the log: {}", error_chain(&error))))?;
    let (ended, discarded) =
        recovery.repaired.map_or((Vec::new(), 0), |done| (done.recordings, done.discarded));
    let sent = match stream {
        None => None,
        Some(stream) => Some(tokio::select! {
            sent = send(dir, &clock, &journal, stream, public.node()) => sent?,
            () = async { while signals.next().await == Asked::Reload {} } => {
                return Err(Failure::failed("stopped before the stream had all").hint("adopt it again: it goes on"));
            }
        }),
    };
    let records = journal.records();
    journal.close().await.map_err(|error| Failure::of("cannot close the log", &error))?;
    let covered = checkpoint("has lost its checkpoint")?.size;
    let node = public.node().to_string();
    let adopted = Adopted { node, records, covered, ended, discarded, sent };
    if arguments.form.json {
        out::json(&adopted)?;
    } else {
        adopted.print()?;
    }
    if covered < records && has_key {
        return Err(
            Failure::failed("the log is not signed to its end").hint("adopt it again when the key is there")
        );
    }
    Ok(Exit::Done)
}

impl Adopted {
    fn print(&self) -> Result<(), Failure> {
        let count = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let ended = u64::try_from(self.ended.len()).unwrap_or(u64::MAX);
        out::line(format!("{}: {}", self.node, count(self.records, "record")))?;
        out::line(format!("{} ended", count(ended, "recording")))?;
        match self.sent {
            Some(sent) => out::line(format!("{} sent to the stream", count(sent, "record")))?,
            None => out::note("nothing was sent: give --stream or --config"),
        }
        if self.discarded > 0 {
            out::note(format!(
                "{} of a write that did not finish: kept in torn-….bin",
                count(self.discarded, "byte")
            ));
        }
        if self.covered < self.records {
            out::note(format!("signed up to record {} alone: give --node-key", self.covered));
        }
        Ok(())
    }
}

/// Who signs for the node; it must be the key whose public half `public` is.
fn signing_key(
    given: Option<&str>,
    endpoint: Option<String>,
    public: &VerifyKey,
) -> Result<SigningKey, Failure> {
    let node = public.node().clone();
    let Some(given) = given else { return Ok(SigningKey::new(node, Arc::new(Absent(*public.public_key())))) };
    let unusable =
        |error: &dyn std::error::Error| Failure::of(format!("cannot use the key `{given}`"), error);
    let key = match KmsKey::parse(given) {
        Some(key) => {
            let kms = Kms::open(&KmsKey { endpoint, ..key }, None).map_err(|error| unusable(&error))?;
            SigningKey::new(node, Arc::new(kms))
        }
        None => SigningKey::load(Path::new(given), node).map_err(|error| unusable(&error))?,
    };
    if key.verify_key() != *public {
        return Err(Failure::failed(format!("`{given}` is not the key that signed this log"))
            .hint("give the dead node's own key, or leave --node-key out"));
    }
    Ok(key)
}

/// Where to send, if anywhere.
fn stream(arguments: &Arguments) -> Result<Option<(Address, Limits)>, Failure> {
    if let Some(path) = &arguments.config {
        let stream = audit::load(path)?.stream;
        let stream =
            stream.ok_or_else(|| Failure::usage("the configuration has no [stream]: give --stream"))?;
        let address = Address { stream: stream.kinesis, region: stream.region, endpoint: stream.endpoint };
        return Ok(Some((address, Limits { record: stream.record_bytes, request: stream.request_bytes })));
    }
    let (region, endpoint) = (arguments.region.clone(), arguments.endpoint.clone());
    Ok(arguments.stream.clone().map(|stream| (Address { stream, region, endpoint }, LIMITS)))
}

/// Sends what the stream lacks; gives how many records that were.
async fn send(
    dir: &Path,
    clock: &Clock,
    journal: &Journal,
    (address, limits): (Address, Limits),
    node: &crate::domain::id::NodeId,
) -> Result<u64, Failure> {
    let failed = |error| Failure::of("cannot send the log", &error);
    let kinesis = Kinesis::connect(&address).await;
    let (health, mut seen) = watch::channel(Health::default());
    let origin = (node.clone(), clock.clone());
    let shipper = Shipper::open(dir, origin, journal, (kinesis, limits), health).map_err(failed)?;
    let lacking = journal.backlog().behind().records;
    let complain = async {
        while seen.changed().await.is_ok() {
            let failing = seen.borrow_and_update().failing.clone();
            if let Some(why) = failing {
                out::note(format!("the stream does not take what is sent: {why}: trying again"));
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        finished = shipper.finish() => finished.map_err(failed)?,
        () = complain => {}
    }
    Ok(lacking)
}
