//! FR-281 where no role can be made for a session: passwords in AWS Secrets Manager that are rotated, tokens of RDS's IAM,
//! passwords that Sallyport keeps. None outlives its session further than the record says, none is written anywhere.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

#[path = "fr_281_sources/in_the_middle.rs"]
mod in_the_middle;
#[path = "fr_281_sources/kept.rs"]
mod kept;
#[path = "fr_281_sources/rds_iam.rs"]
mod rds_iam;
#[path = "fr_281_sources/secrets_manager.rs"]
mod secrets_manager;

use serde_json::Value;
pub(crate) use support::secrets::assert_nowhere;
use support::{Bastion, Finished, Options, Postgres};

/// The database user that sessions share, and the password that it starts with.
const USER: &str = "ledger_app";
const FIRST: &str = "set by hand long ago";
const TARGET: &str = "shared";

/// A server with a user that sessions share.
fn shared_user() -> Postgres {
    let postgres = Postgres::start();
    let make = format!("CREATE ROLE {USER} LOGIN PASSWORD '{FIRST}'; GRANT ledger_readonly TO {USER}");
    postgres.query("ledger", &make).success();
    postgres
}

/// The server as a target whose access `readonly` is `meaning`, with these lines in its `[target.credential]`.
fn target(postgres: &Postgres, meaning: &str, credential: &[String]) -> String {
    format!(
        "[[target]]\nname = \"{TARGET}\"\nkind = \"postgres\"\naddress = \"localhost:{}\"\nconnect_to = \"127.0.0.1\"\n\
         ca_file = \"{}\"\nenvironment = \"dev\"\ndomain = \"bank-core\"\ndatabases = [\"ledger\"]\n\
         accesses = {{ readonly = \"{meaning}\" }}\n[target.credential]\n{}\n\n",
        postgres.port,
        postgres.ca_file().display(),
        credential.join("\n"),
    )
}

fn options(targets: String) -> Options {
    // All that the server can say: no secret may be in it.
    let environment = support::amazon::ENVIRONMENT.into_iter().chain([("SALLYPORT_LOG", "trace")]);
    let environment = environment.map(|(name, value)| (name, value.to_owned())).collect();
    Options { targets, environment, ..Options::default() }
}

fn grant(bastion: &Bastion) -> String {
    bastion.grant("alice", TARGET, "readonly", 3600, &[]).session
}

fn select(bastion: &Bastion) -> Finished {
    bastion.psql("alice", TARGET, "SELECT current_user, count(*) FROM accounts")
}

fn revoke(bastion: &Bastion, session: &str) -> Finished {
    bastion.run_as("erin", &["revoke", session, "--why", "a test"])
}

/// Whether the user gets in past the gateway with this password.
fn lets_in(postgres: &Postgres, password: &str) -> bool {
    let mut psql = postgres.client("psql", "ledger");
    psql.env("PGUSER", USER).env("PGPASSWORD", password).args(["-XAtqc", "SELECT 1"]);
    psql.output().unwrap().status.success()
}

/// The last record of `action`.
#[track_caller]
fn last(bastion: &Bastion, action: &str) -> Value {
    let mut events = bastion.events(action);
    assert!(!events.is_empty(), "no `{action}` was recorded");
    events.pop().unwrap()
}
