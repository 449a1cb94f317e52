//! `sallyport key`: one's own public keys at the gateway.

use std::path::{Path, PathBuf};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{Form, out, when};
use crate::domain::time::Timestamp;
use crate::http::api::ssh::{AddKeyBody, RemoveKeyBody};
use crate::http::view::{List, SshKeyView};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Key {
    /// Register a public key: it lets you in by SSH without a login
    Add(Add),
    /// List your keys
    List(ListArguments),
    /// Remove a key
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The public key, a file that ends in .pub
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// `SHA256:…`, as the list shows it
    fingerprint: String,
}

pub(super) async fn run(command: Key, client: &Client) -> Outcome {
    match command {
        Key::Add(arguments) => {
            let body = AddKeyBody { public_key: read_line(&arguments.file)?, user: None };
            let key: SshKeyView = client.post("/pam/ssh-keys", &body).await?;
            out::line(format!("registered: {} {}", key.fingerprint, key.comment))?;
            Ok(Exit::Done)
        }
        Key::List(arguments) => {
            let keys: List<SshKeyView> = client.get("/pam/ssh-keys").await?;
            if arguments.form.json {
                out::json(&keys)?;
                return Ok(Exit::Done);
            }
            table(
                keys.items.iter().map(|key| (&*key.fingerprint, &*key.comment, key.added_at, &*key.added_by)),
            )
        }
        Key::Remove(arguments) => {
            let body = RemoveKeyBody { fingerprint: arguments.fingerprint, user: None };
            client.send_to("/pam/ssh-keys/remove", &body).await?;
            out::line(format!("removed: {}", body.fingerprint))?;
            Ok(Exit::Done)
        }
    }
}

/// Fingerprint, comment, when it was added and by whom.
pub(super) fn table<'a>(keys: impl Iterator<Item = (&'a str, &'a str, Timestamp, &'a str)>) -> Outcome {
    let rows = keys.map(|(fingerprint, comment, at, by)| {
        [fingerprint.to_owned(), comment.to_owned(), when::local(at), by.to_owned()]
    });
    out::table(["fingerprint", "comment", "added", "by"], rows, "no keys are registered")?;
    Ok(Exit::Done)
}

/// The one key that the file holds.
pub(super) fn read_line(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::of(format!("cannot read `{}`", path.display()), &error))?;
    Ok(text.trim().to_owned())
}
