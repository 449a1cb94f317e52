//! The handlers, one file a noun. Each calls one use case and shows a view of what came of it.

pub mod aws;
pub mod block;
pub mod connection;
pub mod export;
pub mod gateway;
pub mod health;
pub mod login;
pub mod metrics;
pub mod recording;
pub mod request;
pub mod review;
pub mod search;
pub mod session;
pub mod ssh;
pub mod target;
#[cfg(feature = "testing")]
pub mod testing;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::read::Page;
use crate::domain::id::SessionId;
use crate::domain::name::TargetName;
use crate::domain::time::Timestamp;

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Also what is over; without it only what is pending, active, open or in force.
    pub all: bool,
    /// Only the caller's own.
    pub mine: bool,
    /// At most so many (at most 1000).
    pub limit: Option<u32>,
}

/// What is looked for: everything that is given must apply.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Case and the amount of white space do not matter. Without it, all that was done.
    #[serde(default)]
    pub text: String,
    /// Who did it: a name or an id.
    pub principal: Option<String>,
    #[param(value_type = Option<String>)]
    pub target: Option<TargetName>,
    #[param(value_type = Option<String>)]
    pub session: Option<SessionId>,
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
    /// The kind of record: `statement`, `output`, `input`, `program`, `file` and so on.
    pub kind: Option<String>,
    /// At most so many (50 without it, at most 500).
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub before: Option<u64>,
}

const LONGEST_LIST: u32 = 1000;

impl From<ListQuery> for Page {
    fn from(query: ListQuery) -> Self {
        let limit = query.limit.unwrap_or(LONGEST_LIST).min(LONGEST_LIST);
        Self { open_only: !query.all, mine: query.mine, limit: Some(limit) }
    }
}
