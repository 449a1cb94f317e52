//! `sallyport secret`: passwords that Sallyport keeps, for databases that allow nothing else. On the server's own host;
//! none is ever shown.

use std::path::PathBuf;

use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::{Form, audit, login, out};
use crate::config::kept_name;
use crate::credentials::keep::{Keep, KeepError, Kept};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Secret {
    /// Keep a user and a password, encrypted; replaces what was kept under the name
    Set(Set),
    /// List the names that passwords are kept under
    List(List),
    /// Forget a password
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// What the target's accesses call it
    name: String,
    /// The user that the password is of, at the target
    #[arg(long)]
    user: String,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
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

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    name: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The server's configuration
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

impl Where {
    fn keep(&self) -> Result<Keep, Failure> {
        Ok(Keep::of(&audit::load(&self.config)?.server))
    }
}

pub(super) async fn run(command: &Secret) -> Outcome {
    match command {
        Secret::Set(arguments) => set(arguments).await,
        Secret::List(arguments) => list(arguments),
        Secret::Remove(arguments) => {
            let name = &arguments.name;
            checked(name)?;
            if !arguments.at.keep()?.remove(name).map_err(|error| failed(&error))? {
                let what = format!("no password is kept as `{name}`");
                return Err(
                    Failure::new(Exit::NotFound, what).hint("`sallyport secret list` shows the names")
                );
            }
            out::line(format!("removed: {name}"))?;
            Ok(Exit::Done)
        }
    }
}

async fn set(arguments: &Set) -> Outcome {
    let name = &arguments.name;
    checked(name)?;
    let keep = arguments.at.keep()?;
    let password = login::password(&format!("password of {}: ", arguments.user), arguments.password_stdin)?;
    if password.expose().is_empty() {
        return Err(Failure::usage("the password is empty; nothing was changed"));
    }
    keep.make().await.map_err(|error| failed(&error))?;
    let Some(_locked) = keep.lock().map_err(|error| failed(&error))? else {
        return Err(
            Failure::failed("a password is being changed just now; nothing was kept").hint("try again")
        );
    };
    let kept = Kept { user: arguments.user.clone(), password, next: None };
    keep.store(name, &kept).await.map_err(|error| failed(&error))?;
    out::line(format!("kept: {name} ({})", arguments.user))?;
    Ok(Exit::Done)
}

fn list(arguments: &List) -> Outcome {
    let names = arguments.at.keep()?.names().map_err(|error| failed(&error))?;
    if arguments.form.json {
        out::json(&json!(names))?;
    } else {
        names.iter().try_for_each(out::line)?;
    }
    Ok(Exit::Done)
}

fn checked(name: &str) -> Result<(), Failure> {
    kept_name(name).map_err(Failure::usage)
}

fn failed(error: &KeepError) -> Failure {
    Failure::failed(error.to_string())
}
