//! `sallyport psql`: becomes the user's own psql, told where to connect by its environment. No secret
//! is in an argument: the token is in a file that only its owner may read.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::home::{Home, absolute, remove, write_private};
use super::pgfiles::{Gateway, password_line};
use crate::domain::name::{AccessName, TargetName};
use crate::http::view::{GatewayView, List, TargetView, WhoamiView};

/// What would go before what we set, or lead elsewhere.
const CLEARED: [&str; 7] =
    ["PGPASSWORD", "PGSERVICE", "PGHOSTADDR", "PGREQUIRESSL", "PGSSLCERT", "PGSSLKEY", "PGREQUIREAUTH"];

/// What libpq reads the token from.
const PASSWORD_FILE: &str = "psql.pgpass";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    target: TargetName,
    /// Needed when you have sessions for several accesses
    #[arg(long)]
    access: Option<AccessName>,
    /// The database, when the target has several
    #[arg(long, short)]
    database: Option<String>,
    /// Further arguments for psql
    #[arg(last = true)]
    psql: Vec<OsString>,
}

pub(super) async fn run(arguments: Arguments, home: &Home, client: &Client) -> Outcome {
    let targets: List<TargetView> = client.get("/pam/targets").await?;
    let target = targets.items.into_iter().find(|target| target.name == arguments.target);
    let target = target.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no target `{}`", arguments.target))
            .hint("`sallyport targets` lists them")
    })?;
    let who: WhoamiView = client.get("/whoami").await?;
    let gateway = gateway(home, client).await?;
    let passwords = password_file(home, client, &gateway)?;
    let mut command = Command::new("psql");
    for name in CLEARED {
        command.env_remove(name);
    }
    command
        .env("PGHOST", &gateway.host)
        .env("PGPORT", gateway.port.to_string())
        .env("PGUSER", user(who.principal.name.as_str(), &target.name, arguments.access.as_ref()))
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", &gateway.root_certificate)
        .env("PGCHANNELBINDING", "require")
        .env("PGPASSFILE", passwords)
        .args(arguments.psql);
    if let Some(database) = arguments.database.or_else(|| target.databases.into_iter().next()) {
        command.env("PGDATABASE", database);
    }
    // Returns only if psql could not be started.
    let error = command.exec();
    Err(Failure::of("cannot start psql", &error).hint("install PostgreSQL's client, or correct PATH"))
}

/// `alice+ledger-prod`, or with the access where it must be named.
pub(super) fn user(name: &str, target: &TargetName, access: Option<&AccessName>) -> String {
    match access {
        Some(access) => format!("{name}+{target}+{access}"),
        None => format!("{name}+{target}"),
    }
}

/// The gateway's address, with its authority written to a file that libpq can be pointed to.
pub(super) async fn gateway(home: &Home, client: &Client) -> Result<Gateway, Failure> {
    let view: GatewayView = client.get("/pam/gateway").await?;
    let root_certificate = match &view.ca_pem {
        Some(pem) => {
            let path = absolute(&home.dir.join("gateway-ca.pem"))?;
            write_private(&path, pem.as_bytes())?;
            path.display().to_string()
        }
        None => "system".to_owned(),
    };
    Ok(Gateway { host: view.host, port: view.port, root_certificate })
}

fn password_file(home: &Home, client: &Client, gateway: &Gateway) -> Result<PathBuf, Failure> {
    let path = absolute(&home.dir.join(PASSWORD_FILE))?;
    let token = client.settings().token.as_ref();
    let token = token.ok_or_else(|| Failure::new(Exit::Unauthenticated, "you are not logged in"))?;
    write_private(&path, password_line(gateway, token.expose()).as_bytes())?;
    Ok(path)
}

/// After a logout: no token stays behind.
pub(super) fn forget(home: &Home) -> Result<(), Failure> {
    remove(&home.dir.join(PASSWORD_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_names_the_target_and_where_needed_the_access() {
        let (target, access) = ("ledger-prod".parse().unwrap(), "dba".parse().unwrap());
        assert_eq!(user("alice", &target, None), "alice+ledger-prod");
        assert_eq!(user("alice", &target, Some(&access)), "alice+ledger-prod+dba");
    }
}
