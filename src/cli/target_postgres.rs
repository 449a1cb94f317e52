//! `sallyport target bootstrap postgres`: the SQL that prepares a database server for the gateway, once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::exit::{Exit, Failure, Outcome};
use super::{audit, out};
use crate::config::{Admin, AnyTarget, PostgresTarget};
use crate::domain::name::TargetName;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The target, as the configuration names it
    target: TargetName,
    /// The server's configuration
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = audit::load(&arguments.config)?;
    let found = config.reloadable.targets.values().find(|one| one.target().name == arguments.target);
    match found {
        Some(AnyTarget::Postgres(target)) => {
            let Some(admin) = target.source.admin() else {
                let what = format!(
                    "Sallyport makes no roles at `{}`: there is nothing to prepare",
                    arguments.target
                );
                let hint = "docs/operations.md says what its credentials need";
                return Err(Failure::new(Exit::NotFound, what).hint(hint));
            };
            out::line(script(target, admin).trim_end())?;
        }
        Some(AnyTarget::Ssh(_)) => {
            let what = format!("`{}` is a host, not a database", arguments.target);
            let hint = format!("sallyport target bootstrap ssh {}", arguments.target);
            return Err(Failure::new(Exit::NotFound, what).hint(hint));
        }
        Some(AnyTarget::Aws(_)) => {
            let what = format!("`{}` is a role at AWS, not a database", arguments.target);
            return Err(Failure::new(Exit::NotFound, what).hint("docs/aws.md says what to prepare there"));
        }
        None => {
            let what = format!("the configuration has no target `{}`", arguments.target);
            return Err(
                Failure::new(Exit::NotFound, what).hint("add it first: its roles are read from there")
            );
        }
    }
    Ok(Exit::Done)
}

/// SQL that may be run any number of times. Needs no more than managed services give their administrators.
fn script(target: &PostgresTarget, admin: &Admin) -> String {
    let admin_name = identifier(&admin.user);
    let roles: BTreeSet<&str> = target.roles.values().map(String::as_str).collect();
    let mut databases: BTreeSet<&str> = target.databases.iter().map(String::as_str).collect();
    databases.insert(&admin.database);
    let list =
        |names: &BTreeSet<&str>| names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
    let (all_roles, all_databases) = (list(&roles), list(&databases));
    let make_roles: String = roles.iter().map(|role| make(role)).collect();
    format!(
        "-- Prepares {address} for Sallyport's target `{name}`. Run it once with psql, as a superuser or, on a managed\n\
         -- service, as its administrator. Running it again changes nothing.\n\
         \\set ON_ERROR_STOP on\n\
         BEGIN;\n\n\
         -- As whom Sallyport makes and drops one role for each session: no superuser, and owner of nothing.\n\
         {make_admin}\
         ALTER ROLE {admin_name} LOGIN CREATEROLE INHERIT;\n\
         -- To end what still runs when a session is over.\n\
         GRANT pg_signal_backend TO {admin_name};\n\
         {replication}\n\
         -- What each access is. Grant these what people are to be able to do.\n\
         {make_roles}\
         -- Sessions' roles become members of them, and what they leave behind becomes theirs.\n\
         GRANT {all_roles} TO {admin_name} WITH ADMIN OPTION;\n\
         GRANT CONNECT ON DATABASE {all_databases} TO {admin_name}, {all_roles};\n\n\
         COMMIT;\n\n\
         -- Then give {admin_name} its password, the one that the configuration names (psql asks for it, and sends no more\n\
         -- than a SCRAM verifier; pg_hba.conf must ask it for scram-sha-256 over TLS):\n\
         --   SET password_encryption = 'scram-sha-256';\n\
         --   \\password {admin_name}\n",
        address = target.hosts,
        name = target.target.name,
        make_admin = make(&admin.user),
        replication = if target.replication.is_empty() { String::new() } else { replication(&admin_name) },
    )
}

/// What it takes to give sessions' roles REPLICATION.
fn replication(admin: &str) -> String {
    format!(
        "-- To let sessions of accesses with `replication = true` replicate. Before PostgreSQL 16 only a superuser may give\n\
         -- that, so there it takes this instead:\n\
         --   ALTER ROLE {admin} SUPERUSER;\n\
         ALTER ROLE {admin} REPLICATION;\n"
    )
}

/// Makes a role unless there is one.
fn make(role: &str) -> String {
    let (name, quoted) = (identifier(role), role.replace('\'', "''"));
    format!(
        "SELECT 'CREATE ROLE {name} NOLOGIN' WHERE NOT EXISTS\n\
         \x20 (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{quoted}') \\gexec\n"
    )
}

/// Quotes an identifier (PostgreSQL documentation, section 4.1.1); the configuration lets no quotes through.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
