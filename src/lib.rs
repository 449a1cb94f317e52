//! Sallyport: a privileged-access bastion. This is the map of the code.
//!
//! Read in this order: [`domain::session`], `access::connect`, `gateway::live`, [`postgres`].
//! Arrows between modules go down only; `tests/layering.rs` enforces it.

#[cfg(all(feature = "testing", not(debug_assertions)))]
compile_error!("the `testing` feature gives control over the clock and must not be in a release build");

// entry: everything below is reachable from here, nothing knows these
pub mod app;
pub mod cli;
pub mod lifecycle;

// edges: bytes to use cases and back; they never import each other
pub mod http;
pub mod postgres;
pub mod ssh;

// live connections, use cases
pub mod access;
pub mod gateway;

// one seam each; siblings never import each other
pub mod audit;
pub mod credentials;
pub mod identity;
pub mod policy;
pub mod store;

// base: pure rules, time, cryptography, configuration, Amazon's SDK, where tests crash
pub mod amazon;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod failpoint;
