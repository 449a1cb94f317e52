//! `sallyport connections`.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::requests::Reach;
use super::when::relative;
use super::{Form, out};
use crate::clock::Clock;
use crate::http::view::{ConnectionView, List};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let list: List<ConnectionView> =
        client.get(&format!("/pam/connections{}", arguments.reach.query())).await?;
    if arguments.form.json {
        out::json(&list)?;
        return Ok(Exit::Done);
    }
    let now = Clock::system().now();
    let rows = list.items.iter().map(|connection| {
        let state = match &connection.ended {
            Some(ended) => format!("ended {}: {}", relative(ended.at, now), ended.why),
            None => "live".to_owned(),
        };
        [
            connection.id.to_string(),
            connection.principal.name.to_string(),
            connection.target.to_string(),
            connection.client.to_string(),
            connection.session.to_string(),
            relative(connection.opened_at, now),
            state,
        ]
    });
    let headings = ["connection", "who", "target", "from", "session", "opened", "state"];
    out::table(headings, rows, "no connection is live; `--all` shows those that were")?;
    Ok(Exit::Done)
}
