//! Back-pressure towards a peer that sends more than is taken.
//!
//! The library renews a channel's window when bytes arrive, not when they are taken, and keeps a
//! sender back only by not reading from its connection: then it reads no window adjustments either,
//! and sends nothing. Of a program that writes while it reads (`ssh host gzip`), both directions
//! would wait for each other for ever. So its queues are made long enough never to fill, and what
//! waits in them is bounded here:
//!
//! 1. What has arrived and is not taken yet is counted ([`Backlog`], for each channel).
//! 2. The next window is only as large as there is room ([`Flow::window`]); without room it is so
//!    small that next to nothing comes.
//! 3. Without room the connection is read at intervals only ([`Paced`]): enough for adjustments,
//!    keystrokes in other channels, and the few bytes that renew a window once there is room.
//! 4. A peer that does not keep to its windows is not read at all until there is room.
//!
//! Towards targets the library renews whole windows whatever it is told: there the connection is not
//! read without room. What holds a client's bytes up is then only the client that takes no output.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What a peer may send ahead on a connection, and the window that its channels begin with.
pub(super) const WINDOW: u32 = 2 * 1024 * 1024;
/// Messages of a channel that the library queues: more than a window holds of any sensible size.
pub(super) const QUEUE: usize = 65_536;
/// The window without room. Not 0: bytes that come are what renews a window.
const TRICKLE: u32 = 64;
/// Above this nobody comes who keeps to the windows of a few stalled channels.
const EXCESS: u32 = 8 * WINDOW;
/// What a queued message costs beside its bytes.
const MESSAGE: usize = 64;
/// How often a connection without room is read.
const PULSE: Duration = Duration::from_millis(20);

/// What waits to be taken, of all channels of a connection.
#[derive(Debug)]
pub(super) struct Flow {
    waiting: AtomicI64,
    /// From here on the peer is not read at all.
    excess: i64,
    /// The peer is not read for now.
    stopped: AtomicBool,
    reader: AtomicWaker,
    channels: Mutex<HashMap<u32, Weak<Backlog>>>,
}

/// What waits to be taken of one channel; dropped with its receiving half.
#[derive(Debug)]
pub(super) struct Backlog {
    flow: Arc<Flow>,
    // Below 0 where bytes are taken before they are counted.
    waiting: AtomicI64,
}

impl Flow {
    /// Of a connection whose windows can be made smaller.
    pub(super) fn with_clients() -> Arc<Self> {
        Self::new(EXCESS)
    }

    /// Of a connection whose windows are what they are.
    pub(super) fn with_targets() -> Arc<Self> {
        Self::new(WINDOW)
    }

    fn new(excess: u32) -> Arc<Self> {
        let waiting = AtomicI64::new(0);
        let (stopped, reader, channels) = Default::default();
        Arc::new(Self { waiting, excess: excess.into(), stopped, reader, channels })
    }

    pub(super) fn channel(self: &Arc<Self>, id: u32) -> Arc<Backlog> {
        let backlog = Arc::new(Backlog { flow: Arc::clone(self), waiting: AtomicI64::new(0) });
        let mut channels = self.channels();
        channels.retain(|_, backlog| backlog.strong_count() > 0);
        channels.insert(id, Arc::downgrade(&backlog));
        backlog
    }

    /// Bytes have arrived for a channel.
    pub(super) fn arrived(&self, id: u32, bytes: usize) {
        let backlog = self.channels().get(&id).and_then(Weak::upgrade);
        if let Some(backlog) = backlog {
            let cost = cost(bytes);
            backlog.waiting.fetch_add(cost, Ordering::Relaxed);
            self.waiting.fetch_add(cost, Ordering::Relaxed);
        }
    }

    /// What the window that is renewed next may be.
    pub(super) fn window(&self) -> u32 {
        let room = i64::from(WINDOW) - self.waiting.load(Ordering::Relaxed);
        u32::try_from(room).unwrap_or(0).clamp(TRICKLE, WINDOW)
    }

    /// Reads nothing of the peer until [`Self::go_on`]: what nobody takes any more would all be let in.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Takes [`Self::stop`] back.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::Relaxed);
        self.reader.wake();
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= i64::from(WINDOW)
    }

    fn is_flooded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.excess
    }

    fn give_back(&self, cost: i64) {
        let before = self.waiting.fetch_sub(cost, Ordering::Relaxed);
        if before >= i64::from(WINDOW) {
            self.reader.wake();
        }
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Weak<Backlog>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog {
    /// A message has been taken; `bytes` if it was one that had any.
    pub(super) fn taken(&self, bytes: Option<usize>) {
        let Some(bytes) = bytes else { return };
        let cost = cost(bytes);
        self.waiting.fetch_sub(cost, Ordering::Relaxed);
        self.flow.give_back(cost);
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.flow.give_back(*self.waiting.get_mut());
    }
}

fn cost(bytes: usize) -> i64 {
    i64::try_from(bytes.saturating_add(MESSAGE)).unwrap_or(i64::MAX)
}

/// A connection that is read as there is room. Reads and writes are as cancel-safe as those of `S`.
pub(super) struct Paced<S> {
    stream: S,
    flow: Arc<Flow>,
    /// Until the next pulse.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, flow: Arc<Flow>) -> Self {
        Self { stream, flow, pause: None }
    }

    /// Whether now is no time to read.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.flow.reader.register(context.waker());
        if self.flow.stopped.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if !self.flow.is_full() {
            self.pause = None;
            return Poll::Ready(());
        }
        if self.flow.is_flooded() {
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context));
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        // A pulse is over when all that was there is read.
        if read.is_pending() && self.flow.is_full() {
            let mut pause = Box::pin(tokio::time::sleep(PULSE));
            // Asked once, so that its end wakes.
            let _not_yet = pause.as_mut().poll(context);
            self.pause = Some(pause);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn a_window_shrinks_with_what_waits_and_grows_when_it_is_taken() {
        let flow = Flow::with_clients();
        let backlog = flow.channel(1);
        assert_eq!(flow.window(), WINDOW);
        flow.arrived(1, 1024 * 1024 - MESSAGE);
        assert_eq!(flow.window(), WINDOW / 2);
        flow.arrived(1, 4 * 1024 * 1024);
        assert_eq!(flow.window(), TRICKLE);
        backlog.taken(Some(4 * 1024 * 1024));
        assert_eq!(flow.window(), WINDOW / 2);
        drop(backlog);
        assert_eq!(flow.window(), WINDOW);
        // Of a channel that nobody takes anything from any more nothing waits.
        flow.arrived(1, 1000);
        assert_eq!(flow.window(), WINDOW);
    }

    #[tokio::test]
    async fn without_room_bytes_come_at_intervals_and_at_once_when_there_is() {
        let (mut peer, ours) = tokio::io::duplex(1024);
        let flow = Flow::with_clients();
        let backlog = flow.channel(1);
        let mut ours = Paced::new(ours, Arc::clone(&flow));
        let began = tokio::time::Instant::now();
        flow.arrived(1, WINDOW as usize);
        for _ in 0..3 {
            let reading = ours.read_u8();
            tokio::pin!(reading);
            assert!(futures_util::poll!(&mut reading).is_pending());
            peer.write_all(b"a").await.unwrap();
            reading.await.unwrap();
        }
        assert!(began.elapsed() >= 2 * PULSE, "{:?}", began.elapsed());
        backlog.taken(Some(WINDOW as usize));
        peer.write_all(b"b").await.unwrap();
        assert!(matches!(futures_util::poll!(Box::pin(ours.read_u8())), Poll::Ready(Ok(b'b'))));
    }

    #[tokio::test]
    async fn of_a_peer_that_is_stopped_nothing_is_read_until_it_goes_on() {
        let (mut peer, ours) = tokio::io::duplex(1024);
        let flow = Flow::with_targets();
        let mut ours = Paced::new(ours, Arc::clone(&flow));
        peer.write_all(b"ab").await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), b'a');
        flow.stop();
        let reading = ours.read_u8();
        tokio::pin!(reading);
        assert!(futures_util::poll!(&mut reading).is_pending());
        flow.go_on();
        assert_eq!(reading.await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn a_peer_that_floods_is_not_read_until_there_is_room() {
        let (mut peer, ours) = tokio::io::duplex(1024);
        let flow = Flow::with_clients();
        let backlog = flow.channel(1);
        let mut ours = Paced::new(ours, Arc::clone(&flow));
        flow.arrived(1, 16 * 1024 * 1024);
        peer.write_all(b"a").await.unwrap();
        assert!(tokio::time::timeout(5 * PULSE, ours.read_u8()).await.is_err());
        let reading = ours.read_u8();
        tokio::pin!(reading);
        assert!(futures_util::poll!(&mut reading).is_pending());
        backlog.taken(Some(16 * 1024 * 1024));
        assert_eq!(reading.await.unwrap(), b'a');
    }
}
