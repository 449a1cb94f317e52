//! `sallyport audit consume`: reads the audit stream, puts the nodes' logs together again and keeps them in an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;

use super::exit::{Exit, Failure, Outcome};
use super::out;
use crate::access::credential::error_chain;
use crate::audit::VerifyKey;
use crate::audit::consume::Alarm;
use crate::audit::consume::archive::Sealing;
use crate::audit::consume::consumer::{Consumer, Settings};
use crate::audit::consume::log_group::LogGroup;
use crate::audit::consume::node::Patience;
use crate::audit::consume::objects::{Destination, Objects};
use crate::audit::stream::Got;
use crate::audit::stream::kinesis::{Address, NotRead, Reader, sdk_config};
use crate::clock::Clock;
use crate::domain::time::{Timestamp, parse_duration};
use crate::lifecycle::{Asked, Signals};

/// How long to wait when there was nothing to read.
const IDLE: Duration = Duration::from_millis(500);
/// How long to wait when reading failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked for shards that are new.
const SHARDS_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name or ARN of the Amazon Kinesis data stream
    #[arg(long)]
    stream: String,
    /// The stream's region, where it is not in the environment
    #[arg(long)]
    region: Option<String>,
    /// Another address than Amazon's own
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where the archive is kept; made if it is not there
    #[arg(long, value_name = "DIR")]
    archive: PathBuf,
    /// The public key of a node's log; may be given several times
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Read what there is and stop; exit code 10 when there was something wrong
    #[arg(long)]
    once: bool,
    /// Records may wait so long for those before them until that is an alarm
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    gap_after: Duration,
    /// A node may be silent for so long; a node that runs is heard every ten seconds
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    silent_after: Duration,
    /// Close and compress a file of the archive when it is so large, in bytes …
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    segment_bytes: u64,
    /// … or so old
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    segment_age: Duration,
    /// Also store closed files in a bucket, as in `s3://bucket/prefix`; never over another object
    #[arg(long, value_name = "URL")]
    s3: Option<Destination>,
    /// Lock objects for so long (Object Lock, mode COMPLIANCE): the bucket must have Object Lock
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "s3")]
    retain: Option<Duration>,
    /// Also write control records to this log group of Amazon's `CloudWatch`
    #[arg(long, value_name = "NAME")]
    log_group: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut signals = Signals::listen().map_err(|error| Failure::of("cannot listen for signals", &error))?;
    let clock = Clock::system();
    let mut keys = Vec::new();
    for path in &arguments.key {
        let key = VerifyKey::load(path);
        keys.push(key.map_err(|error| Failure::of(format!("cannot use `{}`", path.display()), &error))?);
    }
    let settings = Settings {
        directory: arguments.archive.clone(),
        stream: arguments.stream.clone(),
        keys,
        patience: Patience { gap: arguments.gap_after, silence: arguments.silent_after },
        sealing: Sealing { bytes: arguments.segment_bytes, age: arguments.segment_age },
    };
    let address =
        Address { stream: arguments.stream, region: arguments.region, endpoint: arguments.endpoint };
    let unusable = format!("cannot use the archive `{}`", arguments.archive.display());
    let consumer =
        Consumer::open(settings, clock.now()).map_err(|error| Failure::of(unusable.as_str(), &error))?;
    let reader = Reader::connect(&address).await;
    let config = sdk_config(&address).await.into_builder().retry_config(RetryConfig::standard()).build();
    let open = |destination| Objects::open(&config, destination, arguments.retain, &arguments.archive);
    let objects = arguments.s3.map(open).transpose();
    let open = |group| LogGroup::open(&config, group, &arguments.archive);
    let log_group = arguments.log_group.map(open).transpose();
    let mut reading = Reading {
        reader,
        consumer,
        objects: objects.map_err(|error| Failure::of(unusable.as_str(), &error))?,
        log_group: log_group.map_err(|error| Failure::of(unusable.as_str(), &error))?,
        begun: clock.now(),
        clock,
        iterators: BTreeMap::new(),
        up_to_date: BTreeSet::new(),
        looked: None,
        was_wrong: false,
    };
    let once = arguments.once;
    let ended = tokio::select! {
        ended = reading.run(once) => ended,
        () = async { while signals.next().await == Asked::Reload {} } => Ok(()),
    };
    ended?;
    let (records, nodes) = reading.consumer.holds();
    out::note(format!("the archive holds {records} records of {nodes} node{}", plural(nodes)));
    if once && reading.was_wrong { Ok(Exit::Unverified) } else { Ok(Exit::Done) }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The stream, as far as it was read.
struct Reading {
    reader: Reader,
    consumer: Consumer,
    objects: Option<Objects>,
    log_group: Option<LogGroup>,
    clock: Clock,
    begun: Timestamp,
    /// Where to read on in each shard; none where it was read to its end.
    iterators: BTreeMap<String, Option<String>>,
    /// When it was last looked which shards there are.
    looked: Option<Timestamp>,
    /// Shards that were read up to when this began.
    up_to_date: BTreeSet<String>,
    was_wrong: bool,
}

impl Reading {
    /// Reads until it is stopped, or with `once` what there is: nodes that go on writing are not followed.
    async fn run(&mut self, once: bool) -> Result<(), Failure> {
        loop {
            let read = self.round().await;
            let (is_tip, failed) = match read {
                Ok(is_tip) => (is_tip, None),
                Err(Trouble::Archive(error)) => return Err(Failure::of("cannot keep the archive", &error)),
                Err(Trouble::Stream(error)) => (false, Some(error)),
            };
            let is_up_to_date = failed.is_none() && self.up_to_date.len() == self.iterators.len();
            let is_last = once && (is_tip || is_up_to_date);
            let settled = self.consumer.settle(self.clock.now(), is_last);
            let alarms = settled.map_err(|error| Failure::of("cannot keep the archive", &error))?;
            self.tell(&alarms)?;
            if self.consumer.begins_again() {
                (self.looked, self.iterators, self.up_to_date) = (None, BTreeMap::new(), BTreeSet::new());
                continue;
            }
            let failed = match self.pass_on().await {
                Ok(()) => failed,
                Err(failure) if once => return Err(failure),
                Err(failure) => {
                    out::note(format!("{}: {}: trying again", failure.what, failure.why.join(": ")));
                    self.clock.sleep(TRY_AGAIN).await;
                    failed
                }
            };
            match failed {
                Some(error) if once => return Err(Failure::of("cannot read the stream", &error)),
                Some(error) => {
                    out::note(format!("cannot read the stream: {}: trying again", error_chain(&error)));
                    self.clock.sleep(TRY_AGAIN).await;
                }
                None if is_last => return Ok(()),
                None if is_tip => self.clock.sleep(IDLE).await,
                None => {}
            }
        }
    }

    /// Looks once into every shard; whether there was nothing more anywhere.
    async fn round(&mut self) -> Result<bool, Trouble> {
        let now = self.clock.now();
        if self.looked.is_none_or(|looked| now.since(looked) >= SHARDS_EVERY) {
            for shard in self.reader.shards().await? {
                if !self.iterators.contains_key(&shard) {
                    let iterator = self.reader.iterator(&shard, self.consumer.after(&shard)).await?;
                    self.iterators.insert(shard, iterator);
                }
            }
            self.looked = Some(now);
        }
        let mut all = true;
        for (shard, place) in &mut self.iterators {
            let Some(iterator) = place.as_deref() else { continue };
            let page = match self.reader.get(iterator).await {
                Ok(page) => page,
                Err(NotRead::Expired) => {
                    // From what the archive holds: what comes again is recognised.
                    *place = self.reader.iterator(shard, self.consumer.after(shard)).await?;
                    all = false;
                    continue;
                }
                Err(NotRead::Throttled) => {
                    all = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for got in &page.records {
                self.consumer.take(shard, got, self.clock.now()).map_err(Trouble::Archive)?;
            }
            let is_new = |got: &Got| got.arrived >= self.begun;
            if page.is_tip || page.next.is_none() || page.records.iter().any(is_new) {
                self.up_to_date.insert(shard.clone());
            }
            all &= page.is_tip || page.next.is_none();
            place.clone_from(&page.next);
        }
        Ok(all)
    }

    /// Stores closed files and writes control records elsewhere, where that is asked for.
    async fn pass_on(&mut self) -> Result<(), Failure> {
        let mut alarms = Vec::new();
        if let Some(objects) = &mut self.objects {
            for (node, file) in self.consumer.sealed(|node| objects.wanted(node)) {
                let stored = objects.store(&node, &file, self.clock.now()).await;
                alarms.extend(
                    stored.map_err(|error| Failure::of("cannot store a file in the bucket", &error))?,
                );
            }
        }
        if let Some(group) = &mut self.log_group {
            for node in self.consumer.nodes() {
                let refused = group.write(&node).await;
                let refused = refused.map_err(|error| Failure::of("cannot write control records", &error))?;
                if refused > 0 {
                    out::note(format!("the log group took {refused} records of {node} not, for their age"));
                }
            }
        }
        if !alarms.is_empty() {
            let kept = self.consumer.tell(&alarms);
            kept.map_err(|error| Failure::of("cannot keep the archive", &error))?;
        }
        self.tell(&alarms)
    }

    fn tell(&mut self, alarms: &[Alarm]) -> Result<(), Failure> {
        for alarm in alarms {
            self.was_wrong |= alarm.kind.is_wrong();
            let line = serde_json::to_string(alarm)
                .map_err(|error| Failure::of("cannot say what is wrong", &error))?;
            out::line(line)?;
        }
        out::flush()?;
        Ok(())
    }
}

/// What went wrong in a round.
enum Trouble {
    Archive(std::io::Error),
    Stream(NotRead),
}

impl From<NotRead> for Trouble {
    fn from(error: NotRead) -> Self {
        Self::Stream(error)
    }
}
