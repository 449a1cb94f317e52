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
use super::jump;
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

/// Serves the client until a channel comes back with a permit, or the client goes.
pub(super) async fn wait(
    gateway: &Arc<SshGateway>,
    visitor: &mut Visitor,
    deny: Option<Deny>,
) -> Option<Admitted> {
    let asker = Asker::new(gateway, &visitor.known, visitor.client, deny.as_ref());
    let mut open: FuturesUnordered<BoxFuture<'_, Option<Admitted>>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = visitor.running.ended() => return None,
            Some(ended) = open.next() => {
                if ended.is_some() {
                    return ended;
                }
            }
            arrived = visitor.arrivals.recv() => match arrived? {
                Arrival::Opened(_, _, reply) if open.len() >= CHANNELS => {
                    reply.prohibit(format!("without a session one may have {CHANNELS} channels open")).await;
                }
                Arrival::Opened(Opening::Session, channel, reply) => {
                    open.push(Box::pin(session(&asker, channel, reply)));
                }
                Arrival::Opened(Opening::Tcp { host, port, .. }, channel, reply) if deny.is_none() => {
                    match jump::destination(gateway, &visitor.known.principal, &host, port) {
                        Some(target) => {
                            let jumping = jump::serve(Arc::clone(gateway), target, visitor.client, channel, reply);
                            open.push(Box::pin(async move {
                                jumping.await;
                                None
                            }));
                        }
                        None => reply.fail(format!("there is no SSH target `{host}`, port {port}")).await,
                    }
                }
                Arrival::Opened(_, _, reply) => {
                    let why = deny.as_ref().map_or_else(|| NO_TARGET.to_owned(), ToString::to_string);
                    reply.prohibit(why).await;
                }
                // Dropped answers refuse.
                Arrival::Listen { .. }
                | Arrival::ListenPath { .. }
                | Arrival::Unlisten { .. }
                | Arrival::UnlistenPath { .. }
                | Arrival::Authenticated { .. }
                | Arrival::Refused(_) => {}
            },
        }
    }
}

async fn session(asker: &Asker<'_>, channel: ClientChannel, reply: OpenReply) -> Option<Admitted> {
    reply.accept().await;
    ask::serve(asker, channel).await
}
