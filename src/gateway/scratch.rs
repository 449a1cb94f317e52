//! Reading without a buffer per idle connection: bytes are read into a buffer of the thread and
//! copied out only when there are some, so that a connection that waits holds no read buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once, for owners that take all of it.
const SCRATCH: usize = 64 * 1024;
/// What is read ahead at once.
const AHEAD: usize = 256 * 1024;
/// So many buffers a thread keeps for reading ahead.
const SPARE: usize = 2;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Polls one read into the thread's buffer and hands what came to `take`.
fn poll_read<R, T>(
    reader: &mut R,
    context: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>>
where
    R: AsyncRead + Unpin,
{
    BUFFER.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    })
}

/// Appends what can be read (64 KiB at most) to `buffer`; 0 is the end of the stream. Cancel-safe.
pub async fn read_into<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        poll_read(reader, context, |bytes| {
            buffer.extend_from_slice(bytes);
            bytes.len()
        })
    })
    .await
}

/// What can be read (64 KiB at most); empty is the end of the stream. Cancel-safe.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Bytes> {
    poll_fn(|context| poll_read(reader, context, Bytes::copy_from_slice)).await
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
