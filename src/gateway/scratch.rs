//! Reading without a buffer per idle connection: bytes are read into a buffer of the thread and
//! copied out only when there are some, so that a connection that waits holds no read buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Polls one read into the thread's buffer and hands what came to `take`.
fn poll_read<R, T>(
    reader: &mut R,
    context: &mut std::task::Context<'_>,
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
}
