//! Real clients notice nothing but another address: what they do through the gateway gives what it
//! gives when they are connected directly.

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

#[path = "postgres_clients/acceptance.rs"]
mod acceptance;
#[path = "postgres_clients/addressing.rs"]
mod addressing;
#[path = "postgres_clients/cancel.rs"]
mod cancel;
#[path = "postgres_clients/certificates.rs"]
mod certificates;
#[path = "postgres_clients/dialling.rs"]
mod dialling;
#[path = "postgres_clients/driver.rs"]
mod driver;
#[path = "postgres_clients/failover.rs"]
mod failover;
#[path = "postgres_clients/idle.rs"]
mod idle;
#[path = "postgres_clients/protocol.rs"]
mod protocol;
#[path = "postgres_clients/psql.rs"]
mod psql;
#[path = "postgres_clients/sizes.rs"]
mod sizes;
mod support;
#[path = "postgres_clients/tls.rs"]
mod tls;
#[path = "postgres_clients/tools.rs"]
mod tools;

use support::{Bastion, Options, Postgres};

/// Alice, who may do everything in the development database.
fn dba() -> (Postgres, Bastion) {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    (postgres, bastion)
}
