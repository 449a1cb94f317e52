//! A stream that can be cut from outside, whatever its owner is doing with it.
//!
//! A library that owns a socket may be waiting for a peer that does not read. Cutting makes every
//! read and write fail at once, so that the owner lets the socket go, and throws away what the
//! kernel still holds for a peer that takes nothing. Whether a peer takes anything, its [`Activity`]
//! tells, so that nobody waits for one that does not.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::scratch::Ahead;

/// What is done to the transport when it is cut.
pub trait Abrupt {
    /// Drops what has not been taken by the peer yet.
    fn abandon(&mut self);
}

impl Abrupt for TcpStream {
    fn abandon(&mut self) {
        // Closed with a reset: the kernel keeps nothing for a peer that does not read.
        let _closed_already = self.set_zero_linger();
    }
}

/// A peer that says nothing for so long is asked by the kernel whether it is still there,
const SILENT_FOR: Duration = Duration::from_mins(1);
/// so often,
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// and so many times: the connection to one that has lost its power or its network ends.
const ASKED: u32 = 6;

/// Sends small writes at once, and has the kernel notice a peer that is gone without a word. One that is
/// only stopped, or does not read, is there.
pub fn prepare(stream: &TcpStream) {
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, SILENT_FOR)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, ASKED)?));
    if let Err(error) = prepared {
        // A peer that is gone already.
        tracing::debug!(%error, "cannot set the options of a socket");
    }
}

/// How often it is looked whether anything was taken.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much a peer has taken of a stream, counted in writes that did something. What it sends says nothing
/// of whether it reads.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<AtomicU64>);

impl Activity {
    fn taken(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Resolves once nothing has been taken for `time`, counted from now. Counts looks and not the time
    /// itself: on a thread that is late with everything, nothing moves either. Cancel-safe.
    pub async fn quiet_for(&self, time: Duration) {
        let mut seen = self.count();
        let mut quiet = Duration::ZERO;
        while quiet < time {
            tokio::time::sleep(LOOK_EVERY).await;
            let count = self.count();
            quiet = if count == seen { quiet + LOOK_EVERY } else { Duration::ZERO };
            seen = count;
        }
    }
}

/// Ends when its token is cancelled. Reads and writes are as cancel-safe as those of `S`. Reads ahead,
/// for owners that ask for a few bytes at a time.
#[derive(Debug)]
pub struct Revocable<S: Abrupt> {
    stream: S,
    ahead: Ahead,
    activity: Activity,
    cut: CancellationToken,
    until_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S: Abrupt> Revocable<S> {
    pub fn new(stream: S, cut: CancellationToken) -> Self {
        let until_cut = Box::pin(cut.clone().cancelled_owned());
        Self { stream, ahead: Ahead::default(), activity: Activity::default(), cut, until_cut }
    }

    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Notes what was taken.
    fn noted<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(outcome, Poll::Ready(Ok(_))) {
            self.activity.taken();
        }
        outcome
    }

    /// Registers for the cut as well; an error once it has come.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.is_cancelled() || self.until_cut.as_mut().poll(context).is_ready() {
            self.stream.abandon();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<S: Abrupt + AsyncRead + Unpin> AsyncRead for Revocable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let Self { stream, ahead, .. } = &mut *self;
        ahead.poll_read(stream, context, buffer)
    }
}

impl<S: Abrupt + AsyncWrite + Unpin> AsyncWrite for Revocable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_kernel_asks_after_a_silent_peer() {
        let (_cut, stream) = pair(&CancellationToken::new()).await;
        prepare(&stream);
        assert!(stream.nodelay().unwrap() && sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), SILENT_FOR);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), ASKED_EVERY);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), ASKED);
    }

    async fn pair(cut: &CancellationToken) -> (Revocable<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        (Revocable::new(accepted.unwrap().0, cut.clone()), client.unwrap())
    }

    #[tokio::test]
    async fn bytes_pass_until_the_cut_and_none_after_it() {
        let cut = CancellationToken::new();
        let (mut stream, mut peer) = pair(&cut).await;
        peer.write_all(b"ab").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        cut.cancel();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_cut_wakes_a_reader_that_waits_and_a_writer_that_nobody_reads() {
        let cut = CancellationToken::new();
        let (stream, _peer) = pair(&cut).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let reading = async { read.read_u8().await.unwrap_err() };
        let writing = async {
            loop {
                if let Err(error) = write.write_all(&[0; 8192]).await {
                    return error;
                }
            }
        };
        let cutting = async { cut.cancel() };
        let both = async { tokio::join!(reading, writing, cutting) };
        let (read, written, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_stream_is_quiet_when_nothing_is_taken_and_not_while_something_is() {
        let (mut stream, mut peer) = pair(&CancellationToken::new()).await;
        let activity = stream.activity();
        let (quiet, often) = (Duration::from_millis(200), Duration::from_millis(20));
        let moving = async {
            loop {
                stream.write_all(b"x").await.unwrap();
                peer.read_u8().await.unwrap();
                tokio::time::sleep(often).await;
            }
        };
        tokio::select! {
            () = moving => {}
            () = activity.quiet_for(quiet) => panic!("bytes were taken"),
            () = tokio::time::sleep(3 * quiet) => {}
        }
        tokio::time::timeout(10 * quiet, activity.quiet_for(quiet)).await.unwrap();
    }
}
