//! What a search found, as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PersonView;
use crate::audit::search::{Found, Hit};
use crate::domain::id::{ConnectionId, SessionId};
use crate::domain::name::{AccessName, TargetName};
use crate::domain::time::Timestamp;

/// A record in which something was found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HitView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub principal: PersonView,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub access: AccessName,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    #[schema(value_type = String)]
    pub session: SessionId,
    /// Names the recording too.
    #[schema(value_type = String)]
    pub connection: ConnectionId,
    /// The record's place in the recording.
    pub seq: u64,
    /// `statement`, `output` (what was shown), `input` (what was typed), `program`, `file` and so on.
    pub kind: String,
    /// What was found, with what stands around it.
    pub excerpt: String,
    /// It is in so many further places of the record.
    pub more: u64,
}

impl From<Hit> for HitView {
    fn from(hit: Hit) -> Self {
        Self {
            at: hit.at,
            principal: hit.principal.into(),
            target: hit.target,
            access: hit.access,
            break_glass: hit.break_glass,
            session: hit.session,
            connection: hit.connection,
            seq: hit.seq,
            kind: hit.kind.to_owned(),
            excerpt: hit.excerpt,
            more: hit.more,
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FoundView {
    /// Newest first.
    pub items: Vec<HitView>,
    /// Give it as `before` to go on; absent when everything was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Recordings that the caller may not read were left out, whatever is in them.
    pub withheld: bool,
    /// Some of what may hold the text cannot be read: files of the log were moved away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
    /// The index is still being made: what is newest was not looked at yet.
    pub behind: bool,
}

impl FoundView {
    pub fn new(found: Found, behind: bool) -> Self {
        let Found { hits, next, withheld, moved } = found;
        Self { items: hits.into_iter().map(HitView::from).collect(), next, withheld, moved, behind }
    }
}
