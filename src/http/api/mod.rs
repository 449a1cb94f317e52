//! The handlers, one file a noun. Each calls one use case and shows a view of what came of it.

pub mod block;
pub mod connection;
pub mod gateway;
pub mod health;
pub mod login;
pub mod metrics;
pub mod recording;
pub mod request;
pub mod review;
pub mod session;
pub mod ssh;
pub mod target;
#[cfg(feature = "testing")]
pub mod testing;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::read::Page;

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

const LONGEST_LIST: u32 = 1000;

impl From<ListQuery> for Page {
    fn from(query: ListQuery) -> Self {
        let limit = query.limit.unwrap_or(LONGEST_LIST).min(LONGEST_LIST);
        Self { open_only: !query.all, mine: query.mine, limit: Some(limit) }
    }
}
