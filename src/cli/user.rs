//! `sallyport user`: local users, managed on the server's own host, whether or not the server is up.
//! What is changed is recorded by the server from the store.

use std::path::PathBuf;

use super::exit::{Exit, Failure, Outcome};
use super::user_ssh::{Totp, UserKey};
use super::{Form, audit, login, out, user_ssh};
use crate::access::refusal::Refusal;
use crate::access::users::{NewUser, UserChange, Users};
use crate::app::STORE_FILE;
use crate::clock::Clock;
use crate::domain::name::{DomainName, GroupName, UserName};
use crate::domain::principal::Principal;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;
use crate::identity::password::Passwords;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

#[derive(Debug, clap::Subcommand)]
pub(super) enum User {
    /// Add a user
    Add(Add),
    /// Set a user's password; their tokens end
    Passwd(Passwd),
    /// Change a user's domain or groups
    Set(Set),
    /// Shut a user out; what they have open is cut, and their tokens end
    Disable(Named),
    /// Let a user in again; they log in anew
    Enable(Named),
    /// End all of a user's login tokens
    Logout(Named),
    /// List users
    List(List),
    /// Manage a user's SSH keys
    #[command(subcommand)]
    Key(UserKey),
    /// Give a user a second factor, in place of one they may have, and show it once
    Totp(Totp),
}

#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The server's configuration, which names the data directory
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    name: UserName,
    /// Their home domain
    #[arg(long)]
    domain: DomainName,
    /// A group of theirs; may be given several times, or with commas
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<GroupName>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct Passwd {
    name: UserName,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    name: UserName,
    /// Their home domain
    #[arg(long, required_unless_present_any = ["groups", "no_groups"])]
    domain: Option<DomainName>,
    /// A group of theirs; those that are given replace all that they are in
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',', conflicts_with = "no_groups")]
    groups: Vec<GroupName>,
    /// Take them out of every group
    #[arg(long)]
    no_groups: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    name: UserName,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(command: User) -> Outcome {
    match command {
        User::Add(arguments) => add(arguments).await,
        User::Passwd(arguments) => {
            let password = new_password(&arguments.name, arguments.password_stdin)?;
            let change = UserChange { password: Some(password), ..UserChange::default() };
            change_user(&arguments.at, &arguments.name, change).await
        }
        User::Set(arguments) => {
            let regrouped = arguments.no_groups || !arguments.groups.is_empty();
            let change = UserChange {
                domain: arguments.domain,
                groups: regrouped.then(|| arguments.groups.into_iter().collect()),
                ..UserChange::default()
            };
            change_user(&arguments.at, &arguments.name, change).await
        }
        User::Disable(arguments) => switch(arguments, true).await,
        User::Enable(arguments) => switch(arguments, false).await,
        User::Logout(arguments) => log_out(arguments).await,
        User::List(arguments) => list(arguments).await,
        User::Key(command) => user_ssh::keys(command).await,
        User::Totp(arguments) => user_ssh::totp(arguments).await,
    }
}

async fn add(arguments: Add) -> Outcome {
    let local = Local::open(&arguments.at)?;
    let password = new_password(&arguments.name, arguments.password_stdin)?;
    let user = NewUser {
        name: arguments.name,
        domain: arguments.domain,
        groups: arguments.groups.into_iter().collect(),
        password,
    };
    let now = local.now().await?;
    let principal = local.users().add(user, now).await.map_err(refused)?;
    told("added", &principal)
}

async fn switch(arguments: Named, disabled: bool) -> Outcome {
    let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
    change_user(&arguments.at, &arguments.name, change).await
}

async fn change_user(at: &Where, name: &UserName, change: UserChange) -> Outcome {
    let local = Local::open(at)?;
    let how = match change.disabled {
        Some(true) => "disabled",
        Some(false) => "enabled",
        None => "changed",
    };
    let now = local.now().await?;
    let principal = local.users().change(name, change, now).await.map_err(refused)?;
    told(how, &principal)
}

async fn log_out(arguments: Named) -> Outcome {
    let local = Local::open(&arguments.at)?;
    let now = local.now().await?;
    let ended = local.users().log_out(&arguments.name, now).await.map_err(refused)?;
    let tokens = if ended == 1 { "token" } else { "tokens" };
    out::line(format!("logged out: {}, {ended} {tokens} ended", arguments.name))?;
    Ok(Exit::Done)
}

async fn list(arguments: List) -> Outcome {
    let local = Local::open(&arguments.at)?;
    let users = local.users().list().await.map_err(refused)?;
    if arguments.form.json {
        out::json(&users)?;
        return Ok(Exit::Done);
    }
    let rows = users.iter().map(|user| {
        [
            user.principal.name.to_string(),
            user.principal.domain.to_string(),
            names(&user.principal),
            if user.disabled { "disabled" } else { "" }.to_owned(),
            super::when::local(user.created_at),
            user.principal.id.to_string(),
        ]
    });
    out::table(
        ["user", "domain", "groups", "", "added", "id"],
        rows,
        "no users; `sallyport user add` adds one",
    )?;
    Ok(Exit::Done)
}

/// The server's store, opened beside the server or without it.
pub(super) struct Local {
    store: SqliteStore,
    passwords: Passwords,
}

impl Local {
    pub(super) fn open(at: &Where) -> Result<Self, Failure> {
        let config = audit::load(&at.config)?;
        let path = config.server.data_dir.join(STORE_FILE);
        let store = SqliteStore::open(&path)
            .map_err(|error| Failure::of(format!("cannot open the store `{}`", path.display()), &error))?;
        let passwords = Passwords::new().map_err(|error| Failure::of("cannot check passwords", &error))?;
        Ok(Self { store, passwords })
    }

    /// Not before the latest instant that the store remembers.
    pub(super) async fn now(&self) -> Result<Timestamp, Failure> {
        let now = Clock::system().now();
        let seen = self.store.high_water(now).await;
        seen.map_err(|error| Failure::of("cannot use the store", &error))
    }

    pub(super) fn users(&self) -> Users<'_> {
        Users { store: &self.store, passwords: &self.passwords, operator: operator() }
    }
}

/// Who runs the command, as far as the environment says.
fn operator() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Asked for twice at a terminal.
fn new_password(name: &UserName, from_stdin: bool) -> Result<Secret<String>, Failure> {
    let first = login::password(&format!("new password of {name}: "), from_stdin)?;
    if !from_stdin {
        let second = login::password("once more: ", false)?;
        if first.expose() != second.expose() {
            return Err(Failure::failed("the passwords differ; nothing was changed"));
        }
    }
    Ok(first)
}

fn names(principal: &Principal) -> String {
    principal.groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ")
}

fn told(how: &str, principal: &Principal) -> Outcome {
    let groups = names(principal);
    let groups = if groups.is_empty() { "no groups".to_owned() } else { format!("groups: {groups}") };
    out::line(format!("{how}: {} ({}), {groups}", principal.name, principal.domain))?;
    Ok(Exit::Done)
}

/// As the API would tell it.
pub(super) fn refused(refusal: Refusal) -> Failure {
    crate::http::error::Problem::from(refusal).into()
}
