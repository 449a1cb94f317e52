//! A client that is known and has no permit yet: it named no target, or has no session for the one
//! that it named.
//!
//! - A session channel is told what to do, or, in a terminal, asks on the spot ([`ask`]).
//! - A connection through a gateway without a target is a jump ([`jump`]): to a known host, served by
//!   us behind it.
//! - Everything else is refused, with the reason.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::ask::{self, Asker};
use super::authenticate::Known;
use super::jump::{self, Jumped};
use super::serve::{SshGateway, Visitor};
use super::server::{Arrival, ClientChannel, OpenReply, Opening};
use super::session::Prelude;
use crate::domain::deny::Deny;
use crate::domain::session::Permit;

/// Channels that a client without a permit may have open at once.
const CHANNELS: usize = 16;
/// How often it is looked whether a client's account is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    /// It may not stay: the account is gone, or the gateway stops and nothing behind a jump is up.
    Refused(Deny),
}

/// Serves the client until a channel comes back with a permit, or the client goes.
pub(super) async fn wait(gateway: &Arc<SshGateway>, visitor: &mut Visitor, deny: Option<Deny>) -> Left {
    let asker = Asker::new(gateway, &visitor.known, visitor.client, deny.as_ref());
    let mut open: FuturesUnordered<BoxFuture<'_, Option<Admitted>>> = FuturesUnordered::new();
    // A connection behind a jump ends by itself, told and recorded like any other.
    let mut jumps: FuturesUnordered<BoxFuture<'_, Jumped>> = FuturesUnordered::new();
    let dismissed = dismissed(gateway, &visitor.known);
    tokio::pin!(dismissed);
    loop {
        tokio::select! {
            biased;
            _ = visitor.exit.running.ended() => break,
            () = gateway.stopping.cancelled(), if jumps.is_empty() => return Left::Refused(Deny::ShuttingDown),
            deny = &mut dismissed => return Left::Refused(deny),
            Some(ended) = open.next() => {
                if let Some(admitted) = ended {
                    return Left::Admitted(admitted);
                }
            }
            Some(Jumped { taken }) = jumps.next() => {
                if !taken {
                    return Left::Gone;
                }
            }
            arrived = visitor.arrivals.recv() => match arrived {
                None => break,
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
    while jumps.next().await.is_some() {}
    Left::Gone
}

/// Resolves when the client's account is there no more. Nothing else can end somebody who has no
/// session: the hub does not know them.
async fn dismissed(gateway: &SshGateway, known: &Known) -> Deny {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A store that does not answer refuses whatever is asked of it.
        if let Ok(account) = gateway.access.store.user_by_id(&known.principal.id).await
            && account.is_none_or(|account| account.disabled)
        {
            return Deny::PrincipalGone;
        }
    }
}

async fn session(asker: &Asker<'_>, channel: ClientChannel, reply: OpenReply) -> Option<Admitted> {
    reply.accept().await;
    ask::serve(asker, channel).await
}
