//! Answers that a thread writes as it reads them: what they are made of may be larger than the memory.

use std::error::Error;
use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::Problem;

/// How much is read ahead of the client: so many chunks of so many bytes.
const CHUNKS: usize = 4;
pub(super) const CHUNK: usize = 32 * 1024;

/// A piece of the answer, or why there is no more.
pub(super) type Chunk<E> = Result<Bytes, E>;

/// Where the writer puts its chunks, and where they come out.
pub(super) fn channel<E>() -> (mpsc::Sender<Chunk<E>>, mpsc::Receiver<Chunk<E>>) {
    mpsc::channel(CHUNKS)
}

/// Hands what is written to the answer; waits while the client is slow. Asks `may` before each piece: who may no
/// longer read gets no more, however much there still is.
pub(super) struct Sink<E, M> {
    sender: mpsc::Sender<Chunk<E>>,
    may: M,
}

impl<E, M: FnMut() -> bool> Sink<E, M> {
    pub(super) fn new(sender: mpsc::Sender<Chunk<E>>, may: M) -> io::BufWriter<Self> {
        io::BufWriter::with_capacity(CHUNK, Self { sender, may })
    }
}

impl<E, M: FnMut() -> bool> Write for Sink<E, M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.may)() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoBody<E> {
    Failed(E),
    /// Who was to write it ended by a defect.
    Panicked,
}

impl<E> NoBody<E> {
    pub(super) fn problem(&self, of: impl FnOnce(&E) -> Problem) -> Problem {
        match self {
            Self::Failed(error) => of(error),
            Self::Panicked => Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// The body of the answer that `writing` writes, once its first bytes are there: until then a failure still has a status
/// of its own.
pub(super) async fn body<E>(
    mut chunks: mpsc::Receiver<Chunk<E>>,
    writing: JoinHandle<()>,
) -> Result<Body, NoBody<E>>
where
    E: Error + Send + Sync + 'static,
{
    let first = match chunks.recv().await {
        Some(Err(error)) => return Err(NoBody::Failed(error)),
        Some(Ok(first)) => first,
        None => return writing.await.map(|()| Body::empty()).map_err(|_| NoBody::Panicked),
    };
    let first = stream::once(async { Ok(first) });
    let rest = stream::unfold(Some((chunks, writing)), async |left| {
        let (mut chunks, writing) = left?;
        match chunks.recv().await {
            Some(chunk) => Some((chunk.map_err(io::Error::other), Some((chunks, writing)))),
            // A part must not pass for the whole.
            None => writing.await.err().map(|panicked| (Err(io::Error::other(panicked)), None)),
        }
    });
    Ok(Body::from_stream(first.chain(rest)))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    type Failure = std::num::ParseIntError;

    async fn read(work: impl FnOnce(mpsc::Sender<Chunk<Failure>>) + Send + 'static) -> Option<Vec<u8>> {
        let (sender, chunks) = channel();
        let writing = tokio::task::spawn_blocking(move || work(sender));
        let body = body(chunks, writing).await.ok()?;
        to_bytes(body, usize::MAX).await.ok().map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn what_ends_by_a_defect_is_no_answer_and_no_part_passes_for_the_whole() {
        assert_eq!(read(|_| {}).await, Some(Vec::new()));
        assert_eq!(read(|_| panic!("a defect")).await, None);
        let send =
            |sender: &mpsc::Sender<_>, text: &'static str| sender.blocking_send(Ok(text.into())).unwrap();
        let whole = move |sender| ["a", "b"].into_iter().for_each(|text| send(&sender, text));
        assert_eq!(read(whole).await, Some(b"ab".to_vec()));
        let part = move |sender| {
            send(&sender, "a");
            panic!("a defect");
        };
        assert_eq!(read(part).await, None);
        let failed =
            |sender: mpsc::Sender<_>| sender.blocking_send(Err("x".parse::<u8>().unwrap_err())).unwrap();
        assert_eq!(read(failed).await, None);
    }
}
