//! A client that is known and has no permit yet: it named no target, or has no session for the one
//! that it named.
//!
//! - A session channel is told what to do, or, in a terminal, asks on the spot ([`ask`]).
//! - A connection through a gateway without a target is a jump ([`jump`]): to a known host, served by
//!   us behind it.
//! - Everything else is refused, with the reason.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::ask::{self, Asker};
use super::jump::{self, Jumped};
use super::serve::{SshGateway, Visitor};
use super::server::{Arrival, ClientChannel, OpenReply, Opening};
use super::session::Prelude;
use crate::domain::deny::Deny;
use crate::domain::session::Permit;

/// Channels that a client without a permit may have open at once.
const CHANNELS: usize = 16;
const NO_TARGET: &str = "name a target: ssh USER+TARGET@… or ssh -J USER@… TARGET";

/// A permit, and the channel that asked for it, which goes on under it.
pub(super) struct Admitted {
    pub permit: Permit,
    pub channel: Option<(ClientChannel, Prelude)>,
}

/// How a client leaves the lobby.
pub(super) enum Left {
    Admitted(Admitted),
    /// It went away by itself, or takes nothing any more.
    Gone,
    /// The gateway stops, and nothing that it jumped to is up any more.
    Stopped,
}

/// Serves the client until a channel comes back with a permit, or the client goes.
pub(super) async fn wait(gateway: &Arc<SshGateway>, visitor: &mut Visitor, deny: Option<Deny>) -> Left {
    let asker = Asker::new(gateway, &visitor.known, visitor.client, deny.as_ref());
    let mut open: FuturesUnordered<BoxFuture<'_, Option<Admitted>>> = FuturesUnordered::new();
    // A connection behind a jump ends by itself, told and recorded like any other.
    let mut jumps: FuturesUnordered<BoxFuture<'_, Jumped>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = visitor.exit.running.ended() => {
                while jumps.next().await.is_some() {}
                return Left::Gone;
            }
            () = gateway.stopping.cancelled(), if jumps.is_empty() => return Left::Stopped,
            Some(ended) = open.next() => {
                if let Some(admitted) = ended {
                    return Left::Admitted(admitted);
                }
            }
            Some(Jumped { taken: false }) = jumps.next() => return Left::Gone,
            arrived = visitor.arrivals.recv() => match arrived {
                None => return Left::Gone,
                Some(Arrival::Opened(_, _, reply)) if open.len() + jumps.len() >= CHANNELS => {
                    reply.prohibit(format!("without a session one may have {CHANNELS} channels open")).await;
                }
                Some(Arrival::Opened(Opening::Session, channel, reply)) => {
                    open.push(Box::pin(session(&asker, channel, reply)));
                }
                Some(Arrival::Opened(Opening::Tcp { host, port, .. }, channel, reply)) if deny.is_none() => {
                    match jump::destination(gateway, &visitor.known.principal, &host, port) {
                        Some(target) => {
                            jumps.push(jump::serve(Arc::clone(gateway), target, visitor.client, channel, reply));
                        }
                        None => reply.fail(format!("there is no SSH target `{host}`, port {port}")).await,
                    }
                }
                Some(Arrival::Opened(_, _, reply)) => {
                    let why = deny.as_ref().map_or_else(|| NO_TARGET.to_owned(), ToString::to_string);
                    reply.prohibit(why).await;
                }
                // Dropped answers refuse.
                Some(
                    Arrival::Listen { .. }
                    | Arrival::ListenPath { .. }
                    | Arrival::Unlisten { .. }
                    | Arrival::UnlistenPath { .. }
                    | Arrival::Authenticated { .. }
                    | Arrival::Refused(_),
                ) => {}
            },
        }
    }
}

async fn session(asker: &Asker<'_>, channel: ClientChannel, reply: OpenReply) -> Option<Admitted> {
    reply.accept().await;
    ask::serve(asker, channel).await
}
