//! From a listening socket to the router: TLS with a deadline for the handshake, HTTP/1.1 or HTTP/2
//! by ALPN, and a graceful end. How long strangers may stay: [`standing`](super::standing).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::ClientAddress;
use super::standing::{STRANGER_FOR, Standing};
use super::{HttpState, router};
use crate::gateway::accept::{self, HandshakeSlot, Limits};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head, and how long a connection may idle.
const HEAD: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may think.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(10);
const STREAMS: u32 = 64;
const HEAD_BYTES: usize = 16 * 1024;
/// How long calls that are under way may go on once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

const LIMITS: Limits = Limits { connections: 2048, connections_per_network: Some(512), handshakes: 256 };

/// The ALPN protocols that [`serve`] speaks: what `tls` must offer.
pub const ALPN: &[&str] = &["h2", "http/1.1"];

/// Serves the API on `listener` until `stop`; connections are tasks of `tasks`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    state: HttpState,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let router = router(state);
    let stopped = stop.clone();
    accept::run(listener, LIMITS, tasks, stop, move |stream, client, slot| {
        connection(acceptor.clone(), router.clone(), stream, client, slot, stopped.clone())
    })
    .await;
}

async fn connection(
    acceptor: TlsAcceptor,
    router: Router,
    stream: TcpStream,
    client: SocketAddr,
    slot: HandshakeSlot,
    stop: CancellationToken,
) {
    let leave = Instant::now() + STRANGER_FOR;
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "TLS handshake failed"),
        Err(_elapsed) => return tracing::debug!(%client, "TLS handshake took too long"),
    };
    let standing = Standing::new(slot);
    let router = router.layer(Extension(ClientAddress(client))).layer(Extension(standing.clone()));
    let end = async {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(leave) => return tracing::debug!(%client, "nobody authenticated"),
            () = standing.known() => {}
        }
        stop.cancelled().await;
    };
    if let Err(error) = speak(stream, router, end).await {
        tracing::debug!(%client, %error, "API connection failed");
    }
}

/// Answers requests until the client goes, or `end`; then those under way are finished.
async fn speak(
    stream: TlsStream<TcpStream>,
    router: Router,
    end: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    // hyper's tasks for the streams of one HTTP/2 connection end with the connection.
    let builder = Builder::new(TokioExecutor::new());
    // ALPN has settled the version: nothing is guessed from the first bytes.
    let mut builder = if is_h2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(4 * HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = end => connection.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}
