//! Threads with a runtime each, for connections whose parts should stay together: both legs of a connection, and an SSH
//! connection's channels, wake each other for every packet, and on one thread that costs no wake-up of another (measured
//! on a bare relay of SSH: a third of the processor time).
//!
//! A connection is given to the lane that has the fewest.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The lanes of a process; they end when this is dropped, and with them what they carry.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    carried: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Lanes {
    /// One for each core.
    pub fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let count = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let lanes = (0..count).map(|number| Lane::start(number, stop.clone()));
        Ok(Self { lanes: lanes.collect::<io::Result<_>>()?, stop })
    }

    /// Runs what `serve` makes of a stream on a lane. Dropped before its end, it ends that.
    pub async fn carry<F>(&self, stream: TcpStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.carried.load(Ordering::Relaxed)) else {
            return;
        };
        // A socket belongs to the runtime that waits for it.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection cannot be given to a lane"),
        };
        let carried = Carried::new(&lane.carried);
        let task = lane.runtime.spawn(async move {
            let _carried = carried;
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a lane cannot take a connection"),
            }
        });
        if let Err(error) = AbortOnDropHandle::new(task).await {
            tracing::error!(%error, "a connection ended by a defect");
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
        for lane in &mut self.lanes {
            if let Some(thread) = lane.thread.take() {
                let _ended_by_a_panic = thread.join();
            }
        }
    }
}

impl Lane {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || runtime.block_on(stop.cancelled()))?;
        Ok(Self { runtime: handle, carried: Arc::default(), thread: Some(thread) })
    }
}

/// Counts a connection while it is carried.
struct Carried(Arc<AtomicUsize>);

impl Carried {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    fn run(test: impl Future<Output = ()>) {
        runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_connection_is_served_on_a_thread_of_its_lane() {
        let lanes = Lanes::start().unwrap();
        run(async {
            let (mut client, stream) = pair().await;
            let serve = |mut stream: TcpStream| async move {
                let name = thread::current().name().unwrap_or_default().to_owned();
                stream.write_all(name.as_bytes()).await.unwrap();
            };
            lanes.carry(stream, serve).await;
            let mut name = String::new();
            client.read_to_string(&mut name).await.unwrap();
            assert!(name.starts_with("lane-"), "{name}");
        });
    }

    #[test]
    fn who_waits_no_more_ends_the_connection_and_frees_its_place() {
        let lanes = Lanes::start().unwrap();
        run(async {
            let (mut client, stream) = pair().await;
            let carrying = lanes.carry(stream, |stream| async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            });
            let gone = tokio::time::timeout(std::time::Duration::from_millis(20), carrying).await;
            assert!(gone.is_err());
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "closed");
            // The socket is closed a moment before its place is free, on another thread.
            let carried = |lane: &Lane| lane.carried.load(Ordering::Relaxed);
            let freed = async {
                while lanes.lanes.iter().map(carried).sum::<usize>() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), freed).await.expect("its place is free");
        });
    }

    #[test]
    fn a_panic_costs_one_connection() {
        let lanes = Lanes::start().unwrap();
        run(async {
            let (_client, stream) = pair().await;
            lanes.carry(stream, |_| async { panic!("a defect") }).await;
            let (mut client, stream) = pair().await;
            lanes.carry(stream, |mut stream| async move { stream.write_u8(1).await.unwrap() }).await;
            assert_eq!(client.read_u8().await.unwrap(), 1);
        });
    }
}
