//! The harness of the acceptance tests: a real PostgreSQL as the target, the real `sallyport`
//! binary as the gateway, the real `psql` as the client. Everything lives in temporary directories
//! on free loopback ports and ends with the test.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its own part of the harness"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness fails by panicking"
)]

pub mod amazon;
pub mod archive;
pub mod bastion;
pub mod breaking_line;
pub mod calls;
pub mod disk;
pub mod driver;
pub mod load;
pub mod postgres;
pub mod process;
pub mod rotation;
pub mod secrets;
pub mod shell;
pub mod ssh_peers;
pub mod sshd;
pub mod tap;
pub mod terminal;
pub mod typists;
pub mod volume;
pub mod wire;

pub use bastion::{Bastion, Options};
pub use postgres::Postgres;
pub use process::{Finished, wait_until};
pub use shell::Shell;
pub use sshd::{Hosts, Sshd};
pub use terminal::Terminal;
