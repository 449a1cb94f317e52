//! Has each witness cosign each checkpoint, and raises the alarm when one falls silent or refuses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::alarm::Alarm;
use crate::access::Access;
use crate::audit::witness::{Asker, NotCosigned};
use crate::audit::{CHECKPOINT_EVERY, VerifyKey};
use crate::domain::event::Action;
use crate::domain::time::Timestamp;

/// A witness that has not cosigned for so long is silent.
const SILENT_AFTER: Duration = Duration::from_mins(1);

impl App {
    /// One task for each witness, until `stop`.
    pub(super) fn ask_witnesses(
        &self,
        log: &VerifyKey,
        upkeep: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<()> {
        for peer in &self.config.witnesses {
            let name = peer.key.name().to_string();
            let asker = Asker::new(&self.config.audit.directory, log.clone(), peer.clone())
                .with_context(|| format!("cannot ask the witness `{name}`"))?;
            let (access, stop) = (std::sync::Arc::clone(&self.access), stop.clone());
            let alarm = Alarm::new("witness", name.clone(), Action::WitnessBack);
            let watch = Watch { name, since: access.now(), alarm };
            upkeep.spawn(async move { stop.run_until_cancelled(watch.run(&access, asker)).await });
        }
        Ok(())
    }
}

/// What is known of a witness.
#[derive(Debug)]
struct Watch {
    name: String,
    /// When it last cosigned, or the node started.
    since: Timestamp,
    alarm: Alarm,
}

impl Watch {
    async fn run(mut self, access: &Access, mut asker: Asker) {
        loop {
            let outcome = asker.ask().await;
            let now = access.now();
            let (alarm, detail) = match outcome {
                Ok(size) => {
                    self.since = now;
                    (None, format!("{size} records"))
                }
                Err(NotCosigned::NoCheckpoint) => (self.alarm.raised(), String::new()),
                Err(error) => {
                    let why = crate::access::credential::error_chain(&error);
                    let silent = now.since(self.since) >= SILENT_AFTER;
                    let alarm = if error.is_about_the_log() {
                        Some(Action::WitnessRefused)
                    } else if silent {
                        Some(Action::WitnessSilent)
                    } else {
                        self.alarm.raised()
                    };
                    tracing::warn!(witness = self.name, error = why, "no cosignature");
                    (alarm, why)
                }
            };
            self.alarm.tell(access, alarm, &[("why", detail.into())]).await;
            let seconds = now.since(self.since).as_secs();
            metrics::gauge!("sallyport_witness_silent_seconds", "witness" => self.name.clone())
                .set(f64::from(u32::try_from(seconds).unwrap_or(u32::MAX)));
            access.clock.sleep(CHECKPOINT_EVERY).await;
        }
    }
}
