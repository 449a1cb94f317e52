//! Keeps the search index up to date while the node runs. Whoever searches brings it up to date as well: this is
//! so that there is little left to do then.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use crate::access::credential::error_chain;
use crate::audit::search::{Index, Progress};
use crate::clock::Clock;

/// How often it is looked what the log has more.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So much is taken in at once, in bytes of the log; in between it can be stopped.
const AT_ONCE: u64 = 8 << 20;
/// How long until it is tried again after it failed.
const TRY_AGAIN: Duration = Duration::from_secs(30);

impl App {
    pub(super) fn keep_index(&self, upkeep: &TaskTracker, stop: &CancellationToken) {
        let (index, clock, stop) = (Arc::clone(&self.search), self.access.clock.clone(), stop.clone());
        let blocking = upkeep.clone();
        upkeep.spawn(async move { stop.run_until_cancelled(keep(index, &clock, &blocking)).await });
    }
}

async fn keep(index: Arc<Index>, clock: &Clock, blocking: &TaskTracker) {
    let mut failing = false;
    loop {
        let index = Arc::clone(&index);
        let updated = blocking.spawn_blocking(move || index.update(AT_ONCE)).await;
        let wait = match updated {
            Ok(Ok(Progress::Behind)) => Duration::ZERO,
            Ok(Ok(Progress::UpToDate)) => LOOK_EVERY,
            Ok(Err(error)) => {
                if !failing {
                    tracing::error!(error = %error_chain(&error), "the search index is not up to date: trying again");
                }
                TRY_AGAIN
            }
            Err(error) => {
                tracing::error!(%error, "the search index is not up to date");
                TRY_AGAIN
            }
        };
        failing = wait == TRY_AGAIN;
        metrics::gauge!("sallyport_search_index_failing").set(f64::from(u8::from(failing)));
        clock.sleep(wait).await;
    }
}
