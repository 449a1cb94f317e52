//! What every protocol's gateway shares: taking connections in ([`accept`]) within fair limits
//! ([`admission`]) and the life of a connection under a permit ([`live`]).

pub mod accept;
pub mod admission;
pub mod boxed;
pub mod lanes;
pub mod live;
pub mod login;
pub mod scratch;
pub mod stream;

pub use live::{Arrival, LiveConnection};
