//! Pure data and rules: what a request, an approval, a session and a permit *are*.
//!
//! Nothing here does I/O, knows tokio, or reads a clock: the present instant and random bytes are
//! arguments. Every right that the product grants is decided by a function of this module or by
//! the policy engine whose verdicts ([`decision::Decision`]) these functions demand.

pub mod account;
pub mod alert;
pub mod approval;
pub mod block;
pub mod connection;
pub mod decision;
pub mod deny;
pub mod event;
pub mod id;
pub mod lease;
pub mod leftover;
pub mod name;
pub mod principal;
pub mod request;
pub mod role_session;
pub mod secret;
pub mod session;
pub mod ssh_key;
pub mod target;
pub mod text;
pub mod time;

#[cfg(test)]
mod tests;
