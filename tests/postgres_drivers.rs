//! No driver notices the gateway: each runs one script directly and once more through the gateway, and what it prints
//! must be the same. The record has every statement that the target saw, with its parameters.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

#[path = "postgres_drivers/java.rs"]
mod java;
#[path = "postgres_drivers/node.rs"]
mod node;
#[path = "postgres_drivers/python.rs"]
mod python;
#[path = "postgres_drivers/rust.rs"]
mod rust;
mod support;
#[path = "postgres_drivers/tokio.rs"]
mod tokio;
#[path = "postgres_drivers/way.rs"]
mod way;
