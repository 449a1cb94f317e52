//! The use cases: everything that somebody can do, whatever edge they come through.
//!
//! Each use case asks the policy, takes one atomic step in the store, and answers only when the
//! audit record of it is durable. A refusal is recorded too.
//!
//! - [`request`]: ask for an access; [`review`]: approve, deny, cancel
//! - [`connect`]: from a principal and a target's name to a [`Permit`](crate::domain::session::Permit)
//! - [`usage`]: what a connection that is up may be used for
//! - [`credential`]: the short-lived credential's life, from intent to confirmed destruction
//! - [`role`]: credentials of AWS roles, handed out; [`role_end`]: how they end; [`roles`]: what is
//!   kept of them in memory
//! - [`janitor`]: what the targets hold of ours, against what there should be
//! - [`revoke`], [`block`]: take a right away, now and from now on; [`hub`]: what is live here
//! - [`sweep`]: what time brings: lapses, expiries, retries
//! - [`login`], [`second_factor`], [`ssh_identity`], [`users`], [`read`]: identity and lists
//! - [`search`]: across recordings; [`export`]: the audit log given out

pub mod block;
pub mod connect;
pub mod credential;
pub mod export;
pub mod hub;
mod janitor;
mod leftovers;
pub mod login;
mod looks;
pub mod outbox;
mod quiet;
pub mod read;
pub mod refusal;
pub mod release;
pub mod request;
pub mod review;
pub mod revoke;
pub mod role;
pub mod role_end;
mod role_janitor;
pub mod roles;
mod rounds;
pub mod search;
pub mod second_factor;
mod slots;
pub mod ssh_identity;
pub mod statement;
pub mod sweep;
pub mod targets;
pub mod usage;
pub mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use crate::audit::Journal;
use crate::clock::Clock;
use crate::domain::deny::EndReason;
use crate::domain::event::Event;
use crate::domain::id::NodeId;
use crate::domain::principal::Principal;
use crate::domain::time::Timestamp;
use crate::policy::Policy;
use crate::store::Store;

use credential::Credentials;
use hub::Hub;
use login::Logins;
use outbox::Outbox;
use refusal::Refusal;
use roles::Roles;
use targets::Targets;

/// Somebody who is authenticated, and where from: who a use case acts for.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    /// The client's address; `None` for a command on the server itself.
    pub client: Option<SocketAddr>,
}

/// All that the use cases need. One per process, shared.
#[derive(Debug)]
pub struct Access {
    pub node: NodeId,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub journal: Journal,
    pub hub: Hub,
    pub credentials: Credentials,
    pub roles: Roles,
    pub logins: Logins,
    outbox: Outbox,
    rules: ArcSwap<Rules>,
    /// Whether the latest look at the store succeeded: without it nobody is let in.
    confirmed: AtomicBool,
}

/// What can be reloaded: the targets and the policies, always swapped together.
#[derive(Debug)]
pub struct Rules {
    pub targets: Arc<Targets>,
    pub policy: Arc<dyn Policy>,
}

/// The parts that [`Access`] is put together from.
#[derive(Debug)]
pub struct Parts {
    pub node: NodeId,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub journal: Journal,
    pub rules: Rules,
    pub credentials: Credentials,
    pub roles: Roles,
    pub logins: Logins,
}

impl Access {
    pub fn new(parts: Parts) -> Self {
        Self {
            node: parts.node,
            clock: parts.clock,
            store: parts.store,
            journal: parts.journal,
            hub: Hub::default(),
            credentials: parts.credentials,
            roles: parts.roles,
            logins: parts.logins,
            outbox: Outbox::default(),
            rules: ArcSwap::from_pointee(parts.rules),
            confirmed: AtomicBool::new(true),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The targets and policies in force at this moment.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts new targets and policies in force; live connections are checked against them.
    pub async fn reload(&self, rules: Rules) {
        let before = self.rules.swap(Arc::new(rules));
        self.end_moved_hosts(&before);
        if let Err(error) = self.recheck_live().await {
            tracing::error!(%error, "live connections could not be checked against the new rules yet");
        }
        if let Err(error) = self.recheck_leases().await {
            tracing::error!(%error, "credentials could not be checked against the new rules");
        }
    }

    /// Ends connections to hosts that are no longer what was connected to: another address, another
    /// key, another account. (A database's are found by their credentials: `recheck_leases`.)
    fn end_moved_hosts(&self, before: &Rules) {
        let now = self.rules();
        for entry in before.targets.all() {
            let name = &entry.target.name;
            let after = now.targets.find(name).and_then(|entry| entry.route.ssh());
            let (Ok(before), Ok(after)) = (entry.route.ssh(), after) else { continue };
            if before.is_reached_as(after) {
                continue;
            }
            let why = format!("how `{name}` is reached was changed: connect anew");
            self.hub.tell(|live| live.target == *name, &EndReason::NoLongerPermitted { why });
        }
    }

    /// Records `event` durably; for what changes no state.
    pub(crate) async fn record(&self, event: Event) -> Result<(), Refusal> {
        self.store.append_events(self.now(), std::slice::from_ref(&event)).await?;
        self.publish().await
    }
}
