//! What a recording begins with, for tests that write logs themselves.

use std::time::Duration;

use sallyport::audit::Opening;
use sallyport::audit::record::{Context, Opened};
use sallyport::domain::id::{ConnectionId, NodeId, PrincipalId, RequestId, SessionId};
use sallyport::domain::principal::Actor;
use sallyport::domain::target::Environment;
use sallyport::domain::time::Timestamp;

pub(crate) const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

pub(crate) fn node() -> NodeId {
    NodeId::from_random([1; 10])
}

pub(crate) fn connection(number: u8) -> ConnectionId {
    ConnectionId::from_random([number; 10])
}

/// Of a connection of Alice's.
pub(crate) fn opening(connection: ConnectionId, session: SessionId, request: RequestId) -> Opening {
    Opening {
        context: Context {
            principal: Actor { id: PrincipalId::from_random([2; 10]), name: "alice".parse().unwrap() },
            session,
            request,
            connection,
            target: "ledger-prod".parse().unwrap(),
            access: "readonly".parse().unwrap(),
            environment: Environment::Prod,
            domain: "bank-core".parse().unwrap(),
            client: "192.0.2.7:40000".parse().unwrap(),
            break_glass: false,
        },
        opened: Opened {
            reason: "reconcile".to_owned(),
            ticket: None,
            approvals: Vec::new(),
            granted_at: START,
            ends_at: START.plus(Duration::from_hours(1)),
            policy_hash: "00".to_owned(),
            application: None,
            database: None,
            credential: None,
            client_tls: None,
            client_ssh: None,
            target_tls: None,
        },
    }
}
