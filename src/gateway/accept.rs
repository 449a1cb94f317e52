//! Takes TCP connections in and owns the task of each.
//!
//! Everybody is accepted, as a stranger; [`admission`](super::admission) says who has to go for it.
//! A stranger that has to go is closed without a word, by dropping its task wherever it is; nothing
//! that a stranger does must come to an end. Above `connections` a client is told so once it has
//! proved who it is: inside TLS, by its own protocol (Postgres: SQLSTATE 53300; HTTP: status 429).
//! A panic costs its own connection.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
pub use super::admission::{HandshakeSlot, Limits, NotPromoted, Place};

/// How long to wait when the process has no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that strangers are being closed: a flood must not fill it.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Accepts until `stop`, giving each connection to `serve` in a task of its own.
pub async fn run<F, S>(
    listener: TcpListener,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    serve: S,
) where
    S: Fn(TcpStream, SocketAddr, HandshakeSlot) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let admission = Admission::new(limits);
    let mut warned: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the peer gone already: neither ends the gateway.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let (slot, evicted, shed) = admission.enter(client);
        if shed {
            metrics::counter!("sallyport_handshakes_shed_total").increment(1);
            if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned = Some(Instant::now());
                tracing::warn!(newcomer = %client, limit = limits.handshakes, "too many connections are still authenticating: the oldest are closed");
            }
        }
        super::stream::prepare(&stream);
        let connection = serve(stream, client, slot);
        tasks.spawn(async move {
            if evicted.run_until_cancelled(connection).await.is_none() {
                tracing::debug!(%client, "closed in favour of a newcomer");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    /// A listener whose clients are known as soon as they send a byte; each known one is greeted.
    async fn listen(limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stopped = stop.clone();
        let serve = |mut stream: TcpStream, _, slot: HandshakeSlot| async move {
            if stream.read_u8().await.is_err() {
                return;
            }
            let word = match slot.promote() {
                Ok(_) => b'+',
                Err(_) => return stream.write_u8(b'-').await.unwrap(),
            };
            stream.write_u8(word).await.unwrap();
            let _end = stream.read_u8().await;
        };
        let accepting = TaskTracker::new().spawn(run(listener, limits, tasks, stopped, serve));
        (address, stop, accepting)
    }

    async fn greeted(stream: &mut TcpStream) -> u8 {
        stream.write_u8(b'!').await.unwrap();
        stream.read_u8().await.unwrap()
    }

    const LIMITS: Limits = Limits { connections: 2, connections_per_network: None, handshakes: 8 };

    #[tokio::test]
    async fn silent_strangers_keep_nobody_out_and_the_oldest_of_them_are_closed() {
        let (address, stop, accepting) = listen(LIMITS).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut known = TcpStream::connect(address).await.unwrap();
        assert_eq!(greeted(&mut known).await, b'+');
        let mut oldest = silent.remove(0);
        assert_eq!(oldest.read(&mut [0]).await.unwrap_or(0), 0, "the oldest is closed");
        let mut newest = silent.pop().unwrap();
        assert_eq!(greeted(&mut newest).await, b'+', "the newest is not");
        stop.cancel();
        accepting.await.unwrap();
    }

    #[tokio::test]
    async fn who_is_known_stays_whatever_strangers_do() {
        let (address, ..) = listen(LIMITS).await;
        let mut known = TcpStream::connect(address).await.unwrap();
        assert_eq!(greeted(&mut known).await, b'+');
        for _ in 0..40 {
            drop(TcpStream::connect(address).await.unwrap());
        }
        let mut last = TcpStream::connect(address).await.unwrap();
        assert_eq!(greeted(&mut last).await, b'+');
        let waiting = tokio::time::timeout(Duration::from_millis(50), known.read_u8()).await;
        assert!(waiting.is_err(), "{waiting:?}");
    }
}
