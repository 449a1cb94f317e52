//! Releases a canary every hour, and raises the alarm when one does not come back as it was recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alarm::Alarm;
use super::{App, stream};
use crate::access::Access;
use crate::audit::VerifyKey;
use crate::audit::canary::{Canary, CanaryError, From};
use crate::audit::stream::kinesis::Reader;
use crate::domain::event::Action;
use crate::domain::time::Timestamp;

/// After the start: once all that was left of the last run is under way.
const FIRST_AFTER: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_hours(1);
/// After one that failed.
const AGAIN_AFTER: Duration = Duration::from_mins(5);
/// One must be back by then.
const BACK_WITHIN: Duration = Duration::from_secs(90);
/// How often it is looked whether it is back, and how long ago the last one was.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl App {
    /// One task, until `stop`.
    pub(super) async fn release_canaries(
        &self,
        key: VerifyKey,
        upkeep: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (from, about) = match &self.config.stream {
            None => (From::Journal(self.config.audit.directory.clone()), "the journal".to_owned()),
            Some(of) => {
                (From::Stream(Reader::connect_patient(&stream::address(of)).await), of.kinesis.clone())
            }
        };
        let alarm = Alarm::new("through", about, Action::CanaryPassed);
        let access = Arc::clone(&self.access);
        let watch = Watch { key, from, alarm, passed: access.now() };
        let stop = stop.clone();
        upkeep.spawn(async move { stop.run_until_cancelled(watch.run(&access)).await });
    }
}

#[derive(Debug)]
struct Watch {
    key: VerifyKey,
    from: From,
    alarm: Alarm,
    /// When the last good one was released, or the node started.
    passed: Timestamp,
}

impl Watch {
    async fn run(mut self, access: &Access) {
        metrics::counter!("sallyport_canary_passed_total").absolute(0);
        metrics::counter!("sallyport_canary_failures_total").absolute(0);
        let mut due = access.now().plus(FIRST_AFTER);
        loop {
            let now = access.now();
            if now >= due {
                due = match self.fly(access).await {
                    Ok(()) => {
                        self.passed = now;
                        metrics::counter!("sallyport_canary_passed_total").increment(1);
                        self.alarm.tell(access, None, &[]).await;
                        now.plus(EVERY)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a canary has not come back");
                        metrics::counter!("sallyport_canary_failures_total").increment(1);
                        let details = [("why", error.to_string().into())];
                        self.alarm.tell(access, Some(Action::CanaryFailed), &details).await;
                        access.now().plus(AGAIN_AFTER)
                    }
                };
            }
            self.measure(access);
            access.clock.sleep(LOOK_EVERY).await;
        }
    }

    fn measure(&self, access: &Access) {
        let age = access.now().since(self.passed);
        metrics::gauge!("sallyport_canary_age_seconds").set(age.as_secs_f64());
    }

    /// Releases one, and waits for it.
    async fn fly(&self, access: &Access) -> Result<(), CanaryError> {
        let mut why = CanaryError::NotBack;
        tokio::select! {
            back = self.until_back(access, &mut why) => back,
            () = access.clock.wait(BACK_WITHIN) => Err(CanaryError::NotBack),
        }
        .map_err(|error| if error == CanaryError::NotBack { why } else { error })
    }

    /// Looks until it is back; what it could not be read for goes to `why`.
    async fn until_back(&self, access: &Access, why: &mut CanaryError) -> Result<(), CanaryError> {
        let mut canary = Canary::release(&access.journal, &self.key, self.from.clone()).await?;
        loop {
            match canary.look().await {
                Ok(true) => return Ok(()),
                Ok(false) => *why = CanaryError::NotBack,
                Err(error) if error.is_about_the_log() => return Err(error),
                Err(error) => *why = error,
            }
            self.measure(access);
            access.clock.sleep(LOOK_EVERY).await;
        }
    }
}
