//! Has checkpoints signed, and raises the alarm when one cannot be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::alarm::Alarm;
use super::{App, SIGNING_KEY_FILE};
use crate::access::Access;
use crate::audit::Signed;
use crate::domain::event::Action;

/// How often it is looked how old the newest checkpoint is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl App {
    /// Two tasks until `stop`: one signs, one watches over it.
    pub(super) fn keep_signing(&self, upkeep: &TaskTracker, stop: &CancellationToken) {
        let (signed, seen) = watch::channel(Signed { at: self.access.now(), failing: None });
        let (journal, until) = (self.access.journal.clone(), stop.clone());
        upkeep.spawn(async move {
            if let Err(error) = journal.checkpoints(until, signed).await {
                tracing::error!(%error, "no more checkpoints");
            }
        });
        let key = self.config.audit.signing_key.as_ref();
        let key = key.map_or_else(|| SIGNING_KEY_FILE.to_owned(), |key| key.key.clone());
        let (access, stop) = (Arc::clone(&self.access), stop.clone());
        upkeep.spawn(async move { stop.run_until_cancelled(watch_signing(&access, key, seen)).await });
    }
}

async fn watch_signing(access: &Access, key: String, signed: watch::Receiver<Signed>) {
    let mut alarm = Alarm::new("key", key, Action::CheckpointSigned);
    loop {
        let Signed { at, failing } = signed.borrow().clone();
        let age = access.now().since(at);
        metrics::gauge!("sallyport_checkpoint_age_seconds").set(age.as_secs_f64());
        let why = failing.as_ref().map_or_else(String::new, ToString::to_string);
        let details = [("seconds", age.as_secs().into()), ("why", why.into())];
        alarm.tell(access, failing.is_some().then_some(Action::CheckpointUnsigned), &details).await;
        access.clock.sleep(LOOK_EVERY).await;
    }
}
