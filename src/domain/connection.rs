//! One client connection under a session, through one node, as the store keeps it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::deny::EndReason;
use super::id::{ConnectionId, NodeId, SessionId};
use super::name::TargetName;
use super::principal::Actor;
use super::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub session: SessionId,
    pub principal: Actor,
    pub target: TargetName,
    pub node: NodeId,
    pub client: SocketAddr,
    pub opened_at: Timestamp,
    pub ended: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    pub reason: EndReason,
}
