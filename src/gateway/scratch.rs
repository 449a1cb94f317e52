//! Reading without a buffer per idle connection: bytes are read into a buffer of the thread and
//! copied out, or handed over with it, only when there are some, so that a connection that waits holds no read buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once.
const SCRATCH: usize = 128 * 1024;
/// So much is copied out; more is handed over with the buffer that it is in.
const COPIED: usize = 8 * 1024;
/// What is read ahead at once.
const AHEAD: usize = 256 * 1024;
/// So many buffers of each kind a thread keeps.
const SPARE: usize = 2;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of the thread's, which gets it back, or another thread does.
#[derive(Debug)]
struct Scratch {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Scratch {
    fn take() -> Self {
        let bytes = BUFFERS.with_borrow_mut(Vec::pop);
        Self { bytes: bytes.unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice()), filled: 0 }
    }

    /// Reads as long as there is something to read at once.
    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.bytes);
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                // What was read comes first; an error or the end is found again.
                _ if before > 0 => break,
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.filled = buffer.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsRef<[u8]> for Scratch {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that ends keeps nothing.
        let _ending = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < SPARE {
                buffers.push(bytes);
            }
        });
    }
}

/// Appends what can be read (128 KiB at most) to `buffer`; 0 is the end of the stream. Cancel-safe.
pub async fn read_into<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut scratch = Scratch::take();
        ready!(scratch.poll_fill(reader, context))?;
        buffer.extend_from_slice(scratch.as_ref());
        Poll::Ready(Ok(scratch.filled))
    })
    .await
}

/// What can be read (128 KiB at most); empty is the end of the stream. Cancel-safe.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Bytes> {
    poll_fn(|context| {
        let mut scratch = Scratch::take();
        ready!(scratch.poll_fill(reader, context))?;
        let is_little = scratch.filled <= COPIED;
        Poll::Ready(Ok(if is_little {
            Bytes::copy_from_slice(scratch.as_ref())
        } else {
            Bytes::from_owner(scratch)
        }))
    })
    .await
}

/// What came beside what was asked for; holds no memory when that is nothing.
#[derive(Debug, Default)]
pub struct Ahead {
    buffer: Option<Box<[u8]>>,
    left: Range<usize>,
}

impl Ahead {
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// As a plain read into `buffer`, but with one call of the system for many small ones.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            if buffer.remaining() >= AHEAD {
                return Pin::new(reader).poll_read(context, buffer);
            }
            ready!(self.fill(reader, context))?;
        }
        let ready = self.buffer.as_ref().and_then(|bytes| bytes.get(self.left.clone())).unwrap_or_default();
        let ready = ready.get(..buffer.remaining()).unwrap_or(ready);
        buffer.put_slice(ready);
        self.left.start += ready.len();
        if self.is_empty() {
            self.give_back();
        }
        Poll::Ready(Ok(()))
    }

    fn fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        let bytes = self.buffer.insert(spare.unwrap_or_else(|| vec![0; AHEAD].into_boxed_slice()));
        let mut read = ReadBuf::new(bytes);
        let outcome = Pin::new(reader).poll_read(context, &mut read);
        self.left = 0..read.filled().len();
        if self.is_empty() {
            self.give_back();
        }
        outcome
    }

    fn give_back(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            SPARES.with_borrow_mut(|spares| {
                if spares.len() < SPARE {
                    spares.push(buffer);
                }
            });
        }
    }
}

/// A stream of which more is read at once than its owner asks for: TLS asks for a few KiB at a time.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    ahead: Ahead,
}

impl<S> ReadAhead<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Ahead::default() }
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, ahead } = &mut *self;
        ahead.poll_read(stream, context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut got = BytesMut::new();
        while read_into(&mut far, &mut got).await.unwrap() > 0 {}
        assert_eq!(got, sent);
        assert!(read(&mut far).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn read_ahead_gives_what_was_sent_however_little_is_asked_for() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        near.write_all(&sent).await.unwrap();
        drop(near);
        let (mut ahead, mut got) = (Ahead::default(), Vec::new());
        for asked in [1, 4, 16, 70_000, 300_000, 3].into_iter().cycle() {
            let mut space = vec![0; asked];
            let mut buffer = ReadBuf::new(&mut space);
            poll_fn(|context| ahead.poll_read(&mut far, context, &mut buffer)).await.unwrap();
            if buffer.filled().is_empty() {
                break;
            }
            got.extend_from_slice(buffer.filled());
        }
        assert_eq!(got, sent);
        assert!(ahead.is_empty() && ahead.buffer.is_none());
    }
}
