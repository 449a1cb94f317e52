//! Answers that a thread writes as it reads them: what they are made of may be larger than the memory.

use std::error::Error;
use std::io::{self, Write};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc;

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

/// The answer's body, once its first bytes are there: until then a failure still has a status of its own.
pub(super) async fn body<E>(mut chunks: mpsc::Receiver<Chunk<E>>) -> Result<Body, E>
where
    E: Error + Send + Sync + 'static,
{
    let first = match chunks.recv().await {
        Some(Err(error)) => return Err(error),
        first => first,
    };
    let rest = stream::unfold((first, chunks), async |(next, mut chunks)| {
        let next = match next {
            Some(chunk) => Some(chunk),
            None => chunks.recv().await,
        };
        next.map(|chunk| (chunk.map_err(io::Error::other), (None, chunks)))
    });
    Ok(Body::from_stream(rest))
}
