//! Signs checkpoints beside the writer, which only says where the log stands and keeps the note: a key that is slow or
//! away delays no record.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Unrecordable;
use super::checkpoints;
use super::journal::Journal;
use super::note::{Checkpoint, SigningKey, VerifyKey};
use super::queue::{Head, Task};
use super::signer::NotSigned;
use crate::domain::time::Timestamp;

/// How often a checkpoint is signed, even when nothing happened.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// How long the key may take.
const SIGN_WITHIN: Duration = Duration::from_secs(15);

/// The key, for one signature at a time: one that hangs must not pile up threads.
#[derive(Debug)]
pub(super) struct Signing {
    key: SigningKey,
    turn: Arc<Semaphore>,
}

impl Signing {
    pub(super) fn new(key: SigningKey) -> Self {
        Self { key, turn: Arc::new(Semaphore::new(1)) }
    }
}

/// Why there is no new checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCheckpoint {
    /// The log is broken or closed.
    #[error(transparent)]
    Unrecordable(#[from] Unrecordable),
    /// The log goes on.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}

/// What is known of the newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// When it was signed, or the journal opened.
    pub at: Timestamp,
    /// Why there is none that is newer.
    pub failing: Option<NotSigned>,
}

impl Journal {
    /// Signs a checkpoint over everything recorded so far. Records are taken meanwhile, however long the key takes.
    /// Cancel-safe: dropped before it returns, the checkpoint may exist.
    pub async fn checkpoint(&self) -> Result<(), NoCheckpoint> {
        let Signing { key, turn } = &self.handle.signing;
        let turn = turn.clone().acquire_owned().await.map_err(|_| Unrecordable::Closed)?;
        let head = self.head().await?;
        let (key, size, root) = (key.clone(), head.log.size(), head.log.root());
        let signed = tokio::task::spawn_blocking(move || {
            let note = key.sign(size, &root);
            drop(turn);
            note
        });
        let note = signed.await.map_err(|error| NotSigned::Failed(error.to_string()))??;
        Ok(self.handle.have_done(Task::Checkpoint { size, note }).await.map(drop)?)
    }

    /// Signs a checkpoint every [`CHECKPOINT_EVERY`], until `stop`, and says in `signed` how that went. Fails only
    /// when the log does. The caller owns the task.
    pub async fn checkpoints(
        &self,
        stop: CancellationToken,
        signed: watch::Sender<Signed>,
    ) -> Result<(), Unrecordable> {
        let clock = &self.handle.clock;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = clock.sleep(CHECKPOINT_EVERY) => {}
            }
            let outcome = tokio::select! {
                outcome = self.checkpoint() => outcome,
                () = clock.wait(SIGN_WITHIN) => Err(NotSigned::Silent.into()),
                () = stop.cancelled() => return Ok(()),
            };
            match outcome {
                Ok(()) => _ = signed.send_replace(Signed { at: clock.now(), failing: None }),
                Err(NoCheckpoint::NotSigned(why)) => signed.send_modify(|signed| signed.failing = Some(why)),
                Err(NoCheckpoint::Unrecordable(why)) => return Err(why),
            }
        }
    }

    /// How many records are durable.
    pub fn records(&self) -> u64 {
        self.backlog().durable().borrow().mark.records
    }

    /// Where the log stands; everything before is durable.
    pub(super) async fn head(&self) -> Result<Head, Unrecordable> {
        let (tell, head) = oneshot::channel();
        self.handle.have_done(Task::Head(tell)).await?;
        head.await.map_err(|_| Unrecordable::Closed)
    }
}

/// The newest checkpoint of the log in `directory` that `key` signed.
pub fn newest_checkpoint(directory: &Path, key: &VerifyKey) -> io::Result<Option<Checkpoint>> {
    Ok(checkpoints::newest(directory)?.and_then(|note| key.open(&note).ok()))
}
