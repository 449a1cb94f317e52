//! A client that is known and has no permit yet: it named no target, or has no session for the one
//! that it named.
//!
//! - A session channel is told what to do, or, in a terminal, asks on the spot ([`ask`]).
//! - A connection through a gateway without a target is a jump ([`jump`]): to a known host, served by
//!   us behind it.
//! - Everything else is refused, with the reason.
//!
//! What was begun here is always carried to its end ([`Lobby::empty`]): a request that nobody waits
//! for is withdrawn, and a connection behind a jump gets its end on record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::ask::{self, Asker};
use super::goodbye;
use super::jump::{self, Jumped};
use super::serve::{SshGateway, Visitor};
use super::server::{Arrival, ClientChannel, OpenReply, Opening};
use super::session::Prelude;
use crate::access::connect::{RefusedConnection, end_reason};
use crate::domain::deny::{Deny, EndReason};
use crate::domain::id::PrincipalId;
use crate::domain::session::Permit;

/// Channels that a client without a permit may have open at once.
const CHANNELS: usize = 16;
/// Refusals of one client's that are recorded.
const RECORDED: usize = 32;
/// How often it is looked whether a client's account is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const NO_TARGET: &str = "name a target: ssh USER+TARGET@… or ssh -J USER@… TARGET";
const AGAIN: &str = "your session has come on another channel: open this one again";
/// `EX_TEMPFAIL`.
const AGAIN_STATUS: u32 = 75;

/// A permit, and the channel that asked for it, which goes on under it.
pub(super) struct Admitted {
    pub permit: Permit,
    pub channel: Option<(ClientChannel, Prelude)>,
}

/// How a client leaves the lobby.
pub(super) enum Left {
    Admitted(Box<Admitted>),
    /// It went away by itself, or takes nothing any more.
    Gone,
    Told(EndReason),
}

pub(super) struct Lobby {
    gateway: Arc<SshGateway>,
    asker: Arc<Asker>,
    deny: Option<Deny>,
    open: FuturesUnordered<BoxFuture<'static, Option<Admitted>>>,
    /// A connection behind a jump ends by itself, told and recorded like any other.
    jumps: FuturesUnordered<BoxFuture<'static, Jumped>>,
    /// Refusals of this client's that are on record.
    recorded: usize,
}

impl Lobby {
    pub(super) fn new(gateway: &Arc<SshGateway>, visitor: &Visitor, deny: Option<Deny>) -> Self {
        let asker = Arc::new(Asker::new(Arc::clone(gateway), visitor.known.clone(), visitor.client));
        let (open, jumps) = (FuturesUnordered::new(), FuturesUnordered::new());
        Self { gateway: Arc::clone(gateway), asker, deny, open, jumps, recorded: 0 }
    }

    /// Serves the client until a channel comes back with a permit, or the client goes or has to.
    pub(super) async fn wait(&mut self, visitor: &mut Visitor) -> Left {
        let gateway = Arc::clone(&self.gateway);
        let dismissed = dismissed(&gateway, visitor.known.principal.id.clone());
        tokio::pin!(dismissed);
        loop {
            let is_empty = self.open.is_empty() && self.jumps.is_empty();
            tokio::select! {
                _ = visitor.exit.running.ended() => return Left::Gone,
                () = gateway.stopping.cancelled(), if self.jumps.is_empty() => return Left::Told(EndReason::Shutdown),
                deny = &mut dismissed => return Left::Told(end_reason(&deny)),
                () = idle(&gateway, is_empty) => return Left::Told(EndReason::Idle),
                Some(ended) = self.open.next() => {
                    if let Some(admitted) = ended {
                        return Left::Admitted(Box::new(admitted));
                    }
                }
                Some(jumped) = self.jumps.next() => {
                    if !jumped.taken {
                        return Left::Gone;
                    }
                }
                arrived = visitor.arrivals.recv() => match arrived {
                    Some(arrival) => self.take(visitor, arrival).await,
                    None => return Left::Gone,
                },
            }
        }
    }

    async fn take(&mut self, visitor: &Visitor, arrival: Arrival) {
        match arrival {
            Arrival::Opened(_, _, reply) if self.open.len() + self.jumps.len() >= CHANNELS => {
                let why = format!("without a session one may have {CHANNELS} channels open");
                self.record(visitor, "lobby_full", &why).await;
                reply.prohibit(why).await;
            }
            Arrival::Opened(Opening::Session, channel, reply) => {
                let asker = Arc::clone(&self.asker);
                self.open.push(Box::pin(async move { session(&asker, channel, reply).await }));
            }
            Arrival::Opened(Opening::Tcp { host, port, .. }, channel, reply) if self.deny.is_none() => {
                self.jump(visitor, (&host, port), channel, reply).await;
            }
            Arrival::Opened(Opening::Tcp { host, port, .. }, _, reply) => {
                let why = self.refuse(visitor, &format!("a connection to {host}:{port}")).await;
                reply.prohibit(why).await;
            }
            Arrival::Opened(Opening::Path { path }, _, reply) => {
                let why = self.refuse(visitor, &format!("a connection to {path}")).await;
                reply.prohibit(why).await;
            }
            // Dropped answers refuse.
            Arrival::Listen { address, port, .. } => {
                self.refuse(visitor, &format!("listening on {address}:{port}")).await;
            }
            Arrival::ListenPath { path, .. } => {
                self.refuse(visitor, &format!("listening on {path}")).await;
            }
            Arrival::Refused(what) => {
                self.refuse(visitor, what).await;
            }
            Arrival::Unlisten { .. } | Arrival::UnlistenPath { .. } | Arrival::Authenticated { .. } => {}
        }
    }

    /// Gives why `what` is not for somebody without a permit, and has it on record.
    async fn refuse(&mut self, visitor: &Visitor, what: &str) -> String {
        let why = self.deny.as_ref().map_or_else(|| NO_TARGET.to_owned(), ToString::to_string);
        self.record(visitor, "no_permit", &format!("{what}: {why}")).await;
        why
    }

    /// Of one client so many are recorded, so that nobody fills the log.
    async fn record(&mut self, visitor: &Visitor, code: &str, why: &str) {
        if self.recorded < RECORDED {
            self.recorded += 1;
            let last = self.recorded == RECORDED;
            let why =
                &if last { format!("{why} (of this client no more are recorded)") } else { why.to_owned() };
            let refused = RefusedConnection {
                principal: Some(&visitor.known.principal),
                client: visitor.client,
                wanted: visitor.known.wanted.as_ref(),
                claimed: &visitor.known.claimed,
                code,
                why,
            };
            self.gateway.access.record_refused_connection(refused).await;
        }
    }

    async fn jump(&mut self, visitor: &Visitor, to: (&str, u32), channel: ClientChannel, reply: OpenReply) {
        match jump::destination(&self.gateway, visitor, to.0, to.1) {
            Ok(target) => {
                self.jumps.push(jump::serve(
                    Arc::clone(&self.gateway),
                    target,
                    visitor.client,
                    channel,
                    reply,
                ));
            }
            Err(nowhere) => {
                let why = nowhere.to_string();
                self.record(visitor, nowhere.code(), &why).await;
                reply.fail(why).await;
            }
        }
    }

    /// Everything that is still open, to its end.
    pub(super) async fn empty(&mut self) {
        let Self { open, jumps, .. } = self;
        let jumped = async { while jumps.next().await.is_some() {} };
        let asked = async {
            while let Some(ended) = open.next().await {
                if let Some(Admitted { channel: Some((ClientChannel { from, to }, prelude)), .. }) = ended {
                    let (is_terminal, started) = (prelude.pty.is_some(), prelude.shell);
                    goodbye::explain(from, &to, AGAIN, AGAIN_STATUS, is_terminal, started).await;
                }
            }
        };
        tokio::join!(jumped, asked);
    }
}

/// Resolves when the client's account is there no more. Nothing else can end somebody who has no session:
/// the hub does not know them.
async fn dismissed(gateway: &SshGateway, principal: PrincipalId) -> Deny {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A store that does not answer refuses whatever is asked of it.
        if let Ok(account) = gateway.access.store.user_by_id(&principal).await
            && account.is_none_or(|account| account.disabled)
        {
            return Deny::PrincipalGone;
        }
    }
}

/// Resolves when a client has had no channel open for as long as connections may idle.
async fn idle(gateway: &SshGateway, is_empty: bool) {
    match gateway.settings.idle_timeout {
        Some(limit) if is_empty => {
            let clock = &gateway.access.clock;
            clock.sleep_until(clock.now().plus(limit)).await;
        }
        _ => std::future::pending().await,
    }
}

async fn session(asker: &Asker, channel: ClientChannel, reply: OpenReply) -> Option<Admitted> {
    reply.accept().await;
    ask::serve(asker, channel).await
}
