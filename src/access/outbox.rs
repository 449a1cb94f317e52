//! From the store's outbox to the audit log, in order, exactly once.
//!
//! A use case returns only when the events of its step are durable in the journal. What a crash
//! left in the outbox is recorded at the next start; the journal tells the last outbox id that it
//! holds, so that nothing is recorded twice.

use tokio::sync::Mutex;

use crate::audit::ControlEntry;

use super::Access;
use super::refusal::Refusal;

/// How many events one batch takes.
const BATCH: u32 = 256;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The last outbox id that is durable in the journal. Held while draining: one at a time, in order.
    recorded: Mutex<i64>,
}

impl Access {
    /// Tells the outbox what the journal already holds; called once, before anything else.
    pub async fn resume_outbox(&self, recorded: Option<i64>) -> Result<(), Refusal> {
        *self.outbox.recorded.lock().await = recorded.unwrap_or(0);
        self.publish().await
    }

    /// Whether events can be recorded, as far as is known.
    pub(super) fn recordable(&self) -> Result<(), Refusal> {
        self.journal.healthy().map_err(|error| Refusal::Unrecordable { detail: error.to_string() })
    }

    /// Makes every event that is in the outbox durable in the audit log.
    pub async fn publish(&self) -> Result<(), Refusal> {
        let mut recorded = self.outbox.recorded.lock().await;
        loop {
            let waiting = self.store.outbox(BATCH).await?;
            let Some(last) = waiting.last().map(|outgoing| outgoing.id) else { return Ok(()) };
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
        }
    }
}
