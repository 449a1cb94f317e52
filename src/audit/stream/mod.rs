//! The log's way off the machine: what is durable goes to a stream (Amazon Kinesis), in order for each recording
//! and at least once, and what the stream confirmed is known to the [backlog](super::backlog).
//!
//! - [`parcel`]: what one record of the stream holds
//! - [`window`]: what has been read from the journal and is not confirmed
//! - [`shipper`]: reads, sends, sends again, remembers how far it came
//! - [`kinesis`]: the stream itself
//!
//! Order: at most one parcel of a recording is under way, so a recording's lines never overtake each other,
//! whatever fails; other recordings go on meanwhile.

pub mod kinesis;
pub mod parcel;
mod position;
pub mod shipper;
mod window;

use async_trait::async_trait;

use crate::domain::time::Timestamp;
pub use shipper::{NotShipped, Shipper};

/// Number of the journal file with the first record that the stream lacks; none before anything was sent to it.
pub fn shipped_file(directory: &std::path::Path, stream: &str) -> std::io::Result<Option<u32>> {
    Ok(position::Position::read(directory, stream)?.map(|position| position.file))
}

/// Where parcels go.
#[async_trait]
pub trait Stream: Send + Sync {
    /// The stream's name: a position is of no use to another.
    fn name(&self) -> &str;

    /// Hands in all of `parcels`, of which no two have the same key; says of each what became of it. An error
    /// means that it is not known of any.
    async fn put(&self, parcels: &[Parcel]) -> Result<Vec<Outcome>, StreamError>;
}

/// One record of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Records with the same key keep their order.
    pub key: std::sync::Arc<str>,
    pub data: Vec<u8>,
}

/// A record of the stream, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub sequence: String,
    pub key: String,
    pub data: Vec<u8>,
    pub arrived: Timestamp,
}

/// What became of a parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the stream.
    Confirmed,
    /// Not now: too much.
    Throttled,
    Failed(String),
}

/// Why it is not known what became of parcels, or nothing did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

/// The stream's limits, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one parcel, its key included.
    pub record: usize,
    /// Of all parcels of one request, their keys included.
    pub request: usize,
}

/// Most parcels of one request (Amazon Kinesis: `PutRecords`).
pub const MOST_PARCELS: usize = 500;
/// The least that `Limits::record` may be: room for headings, and for a piece of a line.
pub const LEAST_RECORD: usize = 1 << 10;
