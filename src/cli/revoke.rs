//! `sallyport revoke`: answers when it is done, and says what was cut.

use std::time::Duration;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{Form, out, show};
use crate::http::api::session::{Reach, RevokeBody};
use crate::http::view::{CredentialView, List, RevokedView, SessionView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The session's id, or a unique beginning of it
    session: String,
    /// The person cut off reads it
    #[arg(long)]
    why: String,
    /// Also bar the session's holder from now on
    #[arg(long)]
    block: bool,
    /// Bar them for so long; until lifted without it
    #[arg(long, value_name = "DURATION", value_parser = super::duration, requires = "block")]
    block_for: Option<Duration>,
    /// Bar them from this session's target only
    #[arg(long, requires = "block")]
    block_target: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let id = client.session_id(&arguments.session).await?;
    let target = if arguments.block_target { Some(target_of(client, &id).await?) } else { None };
    let reach = Reach { target, for_seconds: arguments.block_for.map(|duration| duration.as_secs()) };
    let body = RevokeBody {
        session: id.parse().map_err(|error| Failure::of("cannot use the session's id", &error))?,
        why: arguments.why,
        block: arguments.block.then_some(reach),
    };
    let done: RevokedView = client.post("/pam/revoke", &body).await?;
    let exit = if is_complete(&done) { Exit::Done } else { Exit::Failed };
    if arguments.form.json {
        out::json(&done)?;
        return Ok(exit);
    }
    tell(&done)?;
    Ok(exit)
}

async fn target_of(client: &Client, id: &str) -> Result<crate::domain::name::TargetName, Failure> {
    let list: List<SessionView> = client.get("/pam/sessions?all=true").await?;
    let found = list.items.into_iter().find(|session| session.id.as_str() == id);
    found
        .map(|session| session.target)
        .ok_or_else(|| Failure::new(Exit::NotFound, format!("session `{id}` was not found")))
}

/// Everything is cut and the credential is dead.
fn is_complete(done: &RevokedView) -> bool {
    done.cuts.iter().all(|cut| cut.ended) && !matches!(done.credential, CredentialView::Pending { .. })
}

/// What became of a credential, for people.
fn fate(how: &str) -> &str {
    match how {
        "rotated" => "destroyed: its password was changed, the old one is refused",
        "expires" => "used up: nobody but Sallyport had it, it is worth nothing 15 minutes after its issue",
        "kept" => "kept as it is: nobody but Sallyport has it, nothing is configured that changes it",
        "expired" => "expired",
        _ => "destroyed",
    }
}

fn tell(done: &RevokedView) -> Result<(), Failure> {
    let session = &done.session;
    let how = if done.before { "had been revoked before" } else { "is revoked" };
    out::line(format!(
        "session {} of {} ({} on {}) {how}",
        session.id, session.principal.name, session.access, session.target
    ))?;
    show::cuts(&done.cuts)?;
    out::line(match &done.credential {
        CredentialView::None => "no credential exists".to_owned(),
        CredentialView::Destroyed { handle, how } => format!("credential {handle}: {}", fate(how)),
        CredentialView::Denied { handle, expires_at, window_ms } => {
            let until = super::when::local(*expires_at);
            let in_force = match window_ms {
                Some(window) => format!("seen to be in force after {window} ms"),
                None => "not known to be in force yet: AWS takes seconds, at times minutes".to_owned(),
            };
            format!(
                "credential {handle}: denied everything at its role until it expires ({until}); {in_force}"
            )
        }
        CredentialView::Pending { handle, error } => {
            format!("credential {handle}: NOT DESTROYED YET, retried until it is: {error}")
        }
    })?;
    if let Some(block) = &done.block {
        out::line(format!("block {}: {}", block.id, super::blocks::reach(block)))?;
    }
    Ok(())
}
