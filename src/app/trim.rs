//! Removes the oldest journal files, once the stream has what they hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use crate::access::Access;
use crate::audit::VerifyKey;
use crate::audit::base;
use crate::audit::stream::shipped_file;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::domain::event::{Action, Event};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_mins(1);

impl App {
    /// One task, until `stop`; none where there is no stream.
    pub(super) fn trim(&self, key: VerifyKey, upkeep: &TaskTracker, stop: &CancellationToken) {
        let Some(stream) = &self.config.stream else { return };
        let audit = &self.config.audit;
        let journal = Journal {
            directory: audit.directory.clone(),
            stream: stream.kinesis.clone(),
            keep: audit.keep_bytes,
            key,
            witnesses: self.config.witnesses.iter().map(|witness| witness.key.clone()).collect(),
        };
        let (access, stop) = (Arc::clone(&self.access), stop.clone());
        upkeep.spawn(async move { stop.run_until_cancelled(journal.trim_forever(&access)).await });
    }
}

#[derive(Debug, Clone)]
struct Journal {
    directory: PathBuf,
    stream: String,
    keep: u64,
    key: VerifyKey,
    witnesses: Vec<WitnessVerifyKey>,
}

impl Journal {
    async fn trim_forever(self, access: &Access) {
        loop {
            access.clock.sleep(LOOK_EVERY).await;
            if let Err(error) = self.trim(access).await {
                tracing::error!(
                    error = format!("{error:#}"),
                    "cannot remove journal files that the stream has"
                );
            }
        }
    }

    async fn trim(&self, access: &Access) -> Result<()> {
        let journal = self.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let Some(shipped) = shipped_file(&journal.directory, &journal.stream)? else { return Ok(None) };
            let by = (&journal.key, &journal.witnesses[..]);
            Ok::<_, anyhow::Error>(base::plan(&journal.directory, by, shipped, journal.keep)?)
        });
        let Some(trim) = planned.await?? else { return Ok(()) };
        let (file, records, bytes) = (trim.file, trim.records, trim.bytes);
        let event = Event::done(Action::JournalTrimmed);
        let event = event.with("first_file", file).with("records", records).with("bytes", bytes);
        // What is left must say so before anything is gone: verification asks for it.
        access.store.append_events(access.now(), &[event]).await?;
        access.publish().await?;
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || trim.carry_out(&directory)).await??;
        tracing::info!(file, records, bytes, "journal files that the stream has were removed");
        Ok(())
    }
}
