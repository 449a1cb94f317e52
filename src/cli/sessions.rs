//! `sallyport sessions`.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::requests::Reach;
use super::when::relative;
use super::{Form, out};
use crate::clock::Clock;
use crate::http::view::{List, SessionView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let list: List<SessionView> = client.get(&format!("/pam/sessions{}", arguments.reach.query())).await?;
    if arguments.form.json {
        out::json(&list)?;
        return Ok(Exit::Done);
    }
    let now = Clock::system().now();
    let rows = list.items.iter().map(|session| {
        let glass = if session.break_glass { " BREAK-GLASS" } else { "" };
        let status = match &session.revoked {
            Some(revoked) => format!("revoked by {}: {}", revoked.by.name, revoked.why),
            None => session.status.as_str().to_owned(),
        };
        [
            session.id.to_string(),
            session.principal.name.to_string(),
            format!("{} on {}", session.access, session.target),
            session.reason.clone(),
            relative(session.granted_at, now),
            relative(session.ends_at, now),
            format!("{status}{glass}"),
        ]
    });
    let headings = ["session", "who", "what", "reason", "granted", "ends", "status"];
    out::table(headings, rows, "no sessions; `--all` shows those that are over")?;
    Ok(Exit::Done)
}
