//! From the store's outbox to the audit log, in order, exactly once.
//!
//! A use case returns only when the events of its step are durable in the journal. What a crash
//! left in the outbox is recorded at the next start; the journal tells the last outbox id that it
//! holds, so that nothing is recorded twice.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::audit::ControlEntry;
use crate::domain::event::{Action, Event};

use super::Access;
use super::refusal::Refusal;

/// How many events one batch takes.
const BATCH: u32 = 256;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The last outbox id that is durable in the journal. Held while draining: one at a time, in order.
    recorded: Mutex<i64>,
    beside: TaskTracker,
}

impl Access {
    /// Tells the outbox what the journal already holds; called once, before anything else.
    ///
    /// A store that was restored from a backup would give out ids that the journal already holds,
    /// and their events would be taken for recorded: its ids are raised first.
    pub async fn resume_outbox(&self, recorded: Option<i64>) -> Result<(), Refusal> {
        let recorded = recorded.unwrap_or(0);
        let event = Event::done(Action::StoreRestored).with("recorded", recorded);
        if let Some(store) = self.store.raise_outbox(recorded, self.now(), &[event]).await? {
            tracing::warn!(
                recorded,
                store,
                "the store is older than the audit log: it was restored. Blocks and revocations made since \
                 then are forgotten: revoke what should not be active"
            );
        }
        *self.outbox.recorded.lock().await = recorded;
        self.publish().await
    }

    /// Whether events can be recorded, as far as is known.
    pub(super) fn recordable(&self) -> Result<(), Refusal> {
        self.journal.healthy().map_err(|error| Refusal::Unrecordable { detail: error.to_string() })
    }

    /// As [`Self::publish`], waited for by nobody: for events that tell what is on record otherwise. What
    /// fails stays in the outbox for the next time.
    pub fn publish_beside(self: &Arc<Self>) {
        let access = Arc::clone(self);
        self.outbox.beside.spawn(async move {
            if let Err(error) = access.publish().await {
                tracing::error!(%error, "events wait in the outbox to be recorded");
            }
        });
    }

    /// Makes every event that is in the outbox durable in the audit log.
    pub async fn publish(&self) -> Result<(), Refusal> {
        let mut recorded = self.outbox.recorded.lock().await;
        loop {
            let waiting = self.store.outbox(BATCH).await?;
            let Some(last) = waiting.last().map(|outgoing| outgoing.id) else { return Ok(()) };
            // What comes from now on, its own step publishes.
            let is_all = waiting.len() < BATCH as usize;
            let entries: Vec<ControlEntry> = waiting
                .into_iter()
                .filter(|outgoing| outgoing.id > *recorded)
                .map(|outgoing| ControlEntry {
                    outbox: Some(outgoing.id),
                    at: outgoing.at,
                    event: outgoing.event,
                })
                .collect();
            if !entries.is_empty() {
                self.journal
                    .control(&entries)
                    .await
                    .map_err(|error| Refusal::Unrecordable { detail: error.to_string() })?;
            }
            *recorded = last.max(*recorded);
            self.store.outbox_done(last).await?;
            if is_all {
                return Ok(());
            }
        }
    }
}
