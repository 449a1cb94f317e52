//! Takes TCP connections in, within limits, and owns the task of each.
//!
//! Above `max_connections` nothing is accepted: clients wait in the kernel's backlog. Connections
//! that have not authenticated yet are bounded apart, so that strangers who open connections and
//! say nothing keep nobody out who is already in; beyond that bound the newcomer is closed at once.
//! A panic costs its own connection.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait when the process has no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections that are still authenticating.
    pub handshakes: usize,
}

/// A place among those that are still authenticating; dropped once the client is known.
#[derive(Debug)]
pub struct HandshakeSlot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

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
    let all = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            place = Arc::clone(&all).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
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
        let Ok(slot) = Arc::clone(&handshakes).try_acquire_owned() else {
            metrics::counter!("sallyport_handshakes_shed_total").increment(1);
            tracing::warn!(%client, limit = limits.handshakes, "too many connections are still authenticating: closed");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%client, %error, "cannot set TCP_NODELAY");
        }
        let connection = serve(stream, client, HandshakeSlot(slot));
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}
