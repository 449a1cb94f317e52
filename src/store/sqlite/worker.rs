//! A thread that owns one `SQLite` connection and runs the steps it is handed, one after another.
//!
//! The queue is bounded: when it stays full for [`LONGEST_WAIT`] the caller is told that the store
//! is unavailable instead of waiting for ever behind a stuck disk.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use crate::store::{StoreError, StoreResult};

const QUEUE: usize = 256;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

type Step = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the thread. The thread ends, and its connection closes, when the last handle goes.
#[derive(Clone)]
pub(super) struct Worker {
    queue: mpsc::Sender<Step>,
    path: Arc<PathBuf>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.path).finish()
    }
}

impl Worker {
    pub(super) fn start(mut connection: Connection, path: &Path, name: &str) -> std::io::Result<Self> {
        let (queue, mut steps) = mpsc::channel::<Step>(QUEUE);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(step) = steps.blocking_recv() {
                // A panic costs one step (its transaction rolls back as it unwinds), not the store.
                // The caller learns of it because its reply channel closes.
                if catch_unwind(AssertUnwindSafe(|| step(&mut connection))).is_err() {
                    tracing::error!("a step of the store panicked");
                }
            }
        })?;
        Ok(Self { queue, path: Arc::new(path.to_owned()) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `step` on the thread. Dropping the future does not undo a step that was handed in.
    pub(super) async fn run<T, F>(&self, step: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let step: Step = Box::new(move |connection| {
            let _ = reply.send(step(connection));
        });
        self.queue.send_timeout(step, LONGEST_WAIT).await.map_err(|_| self.unavailable("does not answer"))?;
        let result = answer.await.map_err(|_| self.unavailable("failed in the middle of a step"))?;
        result.map_err(|failure| failure.into_store_error(&self.path))
    }

    fn unavailable(&self, what: &str) -> StoreError {
        let detail = format!("the store at `{}` {what}: see the server's log", self.path.display());
        StoreError::Unavailable { detail }
    }
}
