//! Tells those who waited for a batch that it is done, with one wake-up for each runtime that they wait on: to wake a
//! task up from another thread is a system call; a messenger of its own runtime wakes all others up without any.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::Unrecordable;

/// How many records are durable then, those of the job among them.
pub(super) type Answer = Result<u64, Unrecordable>;
/// Resolves when a job is done.
pub(super) type Waiting = oneshot::Receiver<Answer>;
type News = Vec<(oneshot::Sender<Answer>, Answer)>;

/// Who waits for a job, and on which runtime if it has a messenger.
#[derive(Debug)]
pub(super) struct Done {
    to: oneshot::Sender<Answer>,
    at: Option<runtime::Id>,
}

impl Done {
    /// For one who waits alone.
    pub(super) fn new() -> (Self, Waiting) {
        let (to, waiting) = oneshot::channel();
        (Self { to, at: None }, waiting)
    }

    pub(super) fn tell(self, answer: Answer) {
        // A caller that was cancelled no longer listens; its record is durable all the same.
        let _ = self.to.send(answer);
    }
}

/// A messenger for each runtime that somebody has waited on.
#[derive(Debug, Default)]
pub(super) struct Messengers {
    known: Mutex<Vec<(runtime::Id, mpsc::UnboundedSender<News>)>>,
    tasks: TaskTracker,
}

impl Messengers {
    /// For one who waits on the runtime that it is called on.
    pub(super) fn done(&self) -> (Done, Waiting) {
        let at = Handle::current().id();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|(id, _)| *id == at) {
            known.retain(|(_, messenger)| !messenger.is_closed());
            let (messenger, news) = mpsc::unbounded_channel();
            self.tasks.spawn(pass_on(news));
            known.push((at, messenger));
        }
        drop(known);
        let (to, waiting) = oneshot::channel();
        (Done { to, at: Some(at) }, waiting)
    }

    /// Tells all of `waiting`.
    pub(super) fn tell(&self, waiting: impl Iterator<Item = (Done, Answer)>) {
        let at_most = waiting.size_hint().0;
        let mut by_runtime: Vec<(runtime::Id, News)> = Vec::new();
        for (done, answer) in waiting {
            let Some(at) = done.at else {
                done.tell(answer);
                continue;
            };
            if let Some((_, news)) = by_runtime.iter_mut().find(|(id, _)| *id == at) {
                news.push((done.to, answer));
            } else {
                let mut news = Vec::with_capacity(at_most);
                news.push((done.to, answer));
                by_runtime.push((at, news));
            }
        }
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        for (at, news) in by_runtime {
            let messenger = if news.len() > 1 && here != Some(at) { self.messenger(at) } else { None };
            // Alone, or here, or the runtime is gone.
            let unsent = match messenger {
                Some(messenger) => messenger.send(news).err().map(|unsent| unsent.0),
                None => Some(news),
            };
            pass(unsent.unwrap_or_default());
        }
    }

    fn messenger(&self, at: runtime::Id) -> Option<mpsc::UnboundedSender<News>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(id, _)| *id == at).map(|(_, messenger)| messenger.clone())
    }
}

async fn pass_on(mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = news.recv().await {
        pass(news);
    }
}

fn pass(news: News) {
    for (to, answer) in news {
        let _ = to.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn all_are_told_wherever_they_wait() {
        let messengers = Messengers::default();
        let runtimes = [runtime(), runtime(), runtime()];
        let (mut waiting, mut told): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (count, runtime) in [1, 2, 40].into_iter().zip(&runtimes) {
            let _on = runtime.enter();
            let (dones, all): (Vec<_>, Vec<_>) = (0..count).map(|_| messengers.done()).unzip();
            told.extend(dones);
            waiting.push(all);
        }
        let (alone, mut waits_alone) = Done::new();
        told.push(alone);
        messengers.tell(told.into_iter().zip((0..).map(Ok)));
        assert_eq!(waits_alone.try_recv(), Ok(Ok(43)));
        let mut next = 0;
        for (runtime, waiting) in runtimes.iter().zip(waiting) {
            for waiting in waiting {
                assert_eq!(runtime.block_on(waiting), Ok(Ok(next)));
                next += 1;
            }
        }
    }

    #[test]
    fn whose_runtime_is_gone_is_told_all_the_same() {
        let messengers = Messengers::default();
        let first = runtime();
        let waiting = |runtime: &runtime::Runtime| {
            let _on = runtime.enter();
            (0..2).map(|_| messengers.done()).unzip::<_, _, Vec<_>, Vec<_>>()
        };
        let (dones, elsewhere) = waiting(&first);
        drop(first);
        messengers.tell(dones.into_iter().map(|done| (done, Ok(7))));
        for waiting in elsewhere {
            assert_eq!(waiting.blocking_recv(), Ok(Ok(7)));
        }
        let second = runtime();
        let (dones, here) = waiting(&second);
        assert_eq!(messengers.known.lock().unwrap().len(), 1);
        messengers.tell(dones.into_iter().map(|done| (done, Err(Unrecordable::Closed))));
        for waiting in here {
            assert_eq!(second.block_on(waiting), Ok(Err(Unrecordable::Closed)));
        }
    }
}
