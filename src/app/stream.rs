//! Has the audit log shipped to its stream, and raises the alarm when the stream falls behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::alarm::Alarm;
use crate::access::Access;
use crate::audit::backlog::{Backlog, Bounds, StreamRule, StreamRules};
use crate::audit::stream::kinesis::{Address, Kinesis};
use crate::audit::stream::shipper::Health;
use crate::audit::stream::{Limits, Shipper};
use crate::config;
use crate::domain::event::Action;

/// How often it is looked how far behind the stream is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a shipper waits that could not read the log.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// What a stop waits for the stream. What it does not have then is shipped after the next start.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// What the journal asks of the stream, by environment.
pub(super) fn rules(stream: Option<&config::Stream>) -> StreamRules {
    let rule = |rule: &config::stream::EnvironmentRule| StreamRule {
        limit: Bounds { bytes: rule.limit.bytes, age: rule.limit.age },
        confirmed: rule.confirmed,
    };
    stream.into_iter().flat_map(|stream| &stream.rules).map(|(name, of)| (*name, rule(of))).collect()
}

/// How the stream is reached.
pub(super) fn address(stream: &config::Stream) -> Address {
    let (region, endpoint) = (stream.region.clone(), stream.endpoint.clone());
    Address { stream: stream.kinesis.clone(), region, endpoint }
}

/// The shipper, at work.
#[derive(Debug)]
pub(super) struct Shipping {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shipping {
    /// Waits until the stream has all of a journal that is closed, or no longer than is decent.
    pub(super) async fn finish(self, backlog: &Backlog) {
        let confirmed = async {
            while !backlog.is_settled() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LAST_WAIT, confirmed).await.is_err() {
            tracing::warn!(behind = %backlog.behind(), "the audit stream lacks this: it is sent after the next start");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl App {
    /// Begins to ship. `stop` ends the watch over it; the shipper itself goes on until [`Shipping::finish`].
    pub(super) async fn ship(
        &self,
        upkeep: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Option<Shipping>> {
        let Some(stream) = &self.config.stream else { return Ok(None) };
        let kinesis = Kinesis::connect(&address(stream)).await;
        let limits = Limits { record: stream.record_bytes, request: stream.request_bytes };
        let (health, seen) = watch::channel(Health::default());
        let feed = Feed {
            access: Arc::clone(&self.access),
            directory: self.config.audit.directory.clone(),
            stream: (kinesis, limits),
            health,
        };
        // What cannot be begun now would not be later: it is said at the start.
        let shipper = feed.open().context("cannot ship the audit log")?;
        let shipping = Shipping { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let until = shipping.stop.clone();
        shipping.tasks.spawn(async move { until.run_until_cancelled(feed.run(shipper)).await });
        let (access, stop, bounds) = (Arc::clone(&self.access), stop.clone(), &stream.alarm);
        let bounds = Bounds { bytes: bounds.bytes, age: bounds.age };
        let name = stream.kinesis.clone();
        upkeep
            .spawn(async move { stop.run_until_cancelled(watch_backlog(&access, name, bounds, seen)).await });
        Ok(Some(shipping))
    }
}

/// What a shipper is made from, again if need be.
struct Feed {
    access: Arc<Access>,
    directory: std::path::PathBuf,
    stream: (Kinesis, Limits),
    health: watch::Sender<Health>,
}

impl Feed {
    fn open(&self) -> Result<Shipper<Kinesis>, crate::audit::stream::NotShipped> {
        let access = &self.access;
        let (node, clock) = (access.node.clone(), access.clock.clone());
        let health = self.health.clone();
        Shipper::open(&self.directory, (node, clock), &access.journal, self.stream.clone(), health)
    }

    /// Ships for ever. A log that cannot be read now is tried again: the backlog's bounds say how long that is borne.
    async fn run(self, first: Shipper<Kinesis>) {
        let mut shipper = Ok(first);
        loop {
            let outcome = match shipper {
                Ok(shipper) => shipper.run().await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                let why = crate::access::credential::error_chain(&error);
                tracing::error!(error = why, "cannot ship the audit log");
                self.health.send_modify(|health| health.failing = Some(why));
            }
            self.access.clock.sleep(TRY_AGAIN).await;
            shipper = self.open();
        }
    }
}

/// Measures how far behind the stream is, and raises the alarm past `bounds`.
async fn watch_backlog(access: &Access, stream: String, bounds: Bounds, health: watch::Receiver<Health>) {
    let mut alarm = Alarm::new("stream", stream, Action::StreamCaughtUp);
    let mut said = None;
    loop {
        let behind = access.journal.backlog().behind();
        let Health { failing, confirmed, repeated } = health.borrow().clone();
        metrics::gauge!("sallyport_stream_backlog_bytes").set(precise(behind.bytes));
        metrics::gauge!("sallyport_stream_backlog_records").set(precise(behind.records));
        metrics::gauge!("sallyport_stream_backlog_seconds").set(behind.age.as_secs_f64());
        metrics::counter!("sallyport_stream_confirmed_total").absolute(confirmed);
        metrics::counter!("sallyport_stream_repeated_total").absolute(repeated);
        if failing != said {
            if let Some(why) = &failing {
                tracing::warn!(error = why, %behind, "the audit stream does not take what is sent");
            }
            said.clone_from(&failing);
        }
        let is_past = behind.is_past(&bounds);
        let details: [(&'static str, Value); 4] = [
            ("records", behind.records.into()),
            ("bytes", behind.bytes.into()),
            ("seconds", behind.age.as_secs().into()),
            ("why", failing.unwrap_or_else(|| "nothing failed".to_owned()).into()),
        ];
        alarm.tell(access, is_past.then_some(Action::StreamBehind), &details).await;
        access.clock.sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
fn precise(value: u64) -> f64 {
    value as f64
}
