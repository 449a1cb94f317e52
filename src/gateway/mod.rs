//! What every protocol's gateway shares: taking connections in within limits ([`accept`]) and the
//! life of a connection under a permit ([`live`]).

pub mod accept;
pub mod live;
pub mod scratch;

pub use live::{Arrival, LiveConnection};
