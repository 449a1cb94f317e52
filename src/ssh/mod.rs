//! The SSH gateway.
//!
//! [`observe`] is pure: bytes in, events out. The rest moves bytes.

pub mod observe;
