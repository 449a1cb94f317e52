//! The PostgreSQL gateway.

pub mod codec;
pub mod observe;
pub mod scram;
