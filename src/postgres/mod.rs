//! The PostgreSQL gateway.

pub(crate) mod cancel;
pub mod codec;
pub mod login;
pub(crate) mod negotiate;
pub mod observe;
pub mod scram;
pub mod sqlstate;
pub(crate) mod upstream;
