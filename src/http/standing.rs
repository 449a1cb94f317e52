//! What a connection of the API counts as: a stranger's until a call on it was authenticated, one of
//! a known client from then on.
//!
//! A stranger may call what is public (the health checks, login), for [`STRANGER_FOR`] at most.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::refusal::Refusal;
use crate::domain::deny::Deny;
use crate::gateway::accept::{HandshakeSlot, NotPromoted, Place};

/// How long a connection may last on which nobody authenticates, the TLS handshake included.
pub(super) const STRANGER_FOR: Duration = Duration::from_secs(15);

/// Given to every call by its connection. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(super) struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    held: Mutex<Held>,
    known: CancellationToken,
}

#[derive(Debug)]
enum Held {
    Stranger(HandshakeSlot),
    Known(#[expect(dead_code, reason = "held for its drop")] Place),
}

impl Standing {
    pub(super) fn new(slot: HandshakeSlot) -> Self {
        Self(Arc::new(Inner { held: Mutex::new(Held::Stranger(slot)), known: CancellationToken::new() }))
    }

    /// A call was authenticated: from here on the connection is a known client's.
    pub(super) fn authenticated(&self) -> Result<(), Refusal> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held::Stranger(slot) = &*held else { return Ok(()) };
        let place = slot.promote().map_err(|error| match error {
            NotPromoted::Full { limit } => Refusal::Deny(Deny::TooManyConnections { limit }),
            NotPromoted::Evicted => Refusal::Deny(Deny::ShuttingDown),
        })?;
        *held = Held::Known(place);
        self.0.known.cancel();
        Ok(())
    }

    /// Resolves when the connection is a known client's.
    pub(super) async fn known(&self) {
        self.0.known.cancelled().await;
    }
}
