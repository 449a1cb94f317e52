//! `sallyport user key` and `sallyport user totp`: what lets a user in beside their password.

use std::path::PathBuf;

use super::exit::{Exit, Outcome};
use super::user::{Local, Where, refused};
use super::{Form, key, out};
use crate::domain::name::UserName;

#[derive(Debug, clap::Subcommand)]
pub(super) enum UserKey {
    /// Register a public key of a user's: it lets them in by SSH
    Add(Add),
    /// List a user's keys
    List(List),
    /// Remove a user's key
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    name: UserName,
    /// The public key, a file that ends in .pub
    file: PathBuf,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    name: UserName,
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    name: UserName,
    /// `SHA256:…`, as the list shows it
    fingerprint: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct Totp {
    name: UserName,
    /// Take the second factor away
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    at: Where,
}

pub(super) async fn keys(command: UserKey) -> Outcome {
    match command {
        UserKey::Add(arguments) => {
            let line = key::read_line(&arguments.file)?;
            let local = Local::open(&arguments.at)?;
            let now = local.now().await?;
            let added = local.users().add_ssh_key(&arguments.name, &line, now).await.map_err(refused)?;
            out::line(format!("registered for {}: {} {}", arguments.name, added.fingerprint, added.comment))?;
            Ok(Exit::Done)
        }
        UserKey::List(arguments) => {
            let local = Local::open(&arguments.at)?;
            let keys = local.users().ssh_keys(&arguments.name).await.map_err(refused)?;
            if arguments.form.json {
                out::json(&keys)?;
                return Ok(Exit::Done);
            }
            key::table(
                keys.iter().map(|key| (&*key.fingerprint, &*key.comment, key.added_at, &*key.added_by)),
            )
        }
        UserKey::Remove(arguments) => {
            let local = Local::open(&arguments.at)?;
            let now = local.now().await?;
            let fingerprint = &arguments.fingerprint;
            local.users().remove_ssh_key(&arguments.name, fingerprint, now).await.map_err(refused)?;
            out::line(format!("removed: {fingerprint}"))?;
            Ok(Exit::Done)
        }
    }
}

/// Shows the secret once; it is shown nowhere else.
pub(super) async fn totp(arguments: Totp) -> Outcome {
    let local = Local::open(&arguments.at)?;
    let now = local.now().await?;
    let name = &arguments.name;
    if arguments.remove {
        local.users().remove_second_factor(name, now).await.map_err(refused)?;
        out::line(format!("{name} has no second factor any more"))?;
        return Ok(Exit::Done);
    }
    let made = local.users().set_second_factor(name, now).await.map_err(refused)?;
    out::line(made.uri.expose())?;
    out::line(made.base32.expose())?;
    out::note(format!(
        "for {name}'s authenticator, as a QR code or typed in; it is not shown again. From now on {name} logs in with a code too"
    ));
    Ok(Exit::Done)
}
