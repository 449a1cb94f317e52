//! `sallyport requests`.

use std::time::Duration;

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::when::relative;
use super::{Form, out, show};
use crate::clock::Clock;
use crate::domain::time::humane;
use crate::http::view::{List, RequestView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub reach: Reach,
    #[command(flatten)]
    form: Form,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Reach {
    /// Also what is over
    #[arg(long)]
    pub all: bool,
    /// Only yours
    #[arg(long)]
    pub mine: bool,
}

impl Reach {
    pub(super) fn query(self) -> String {
        format!("?all={}&mine={}", self.all, self.mine)
    }
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let list: List<RequestView> = client.get(&format!("/pam/requests{}", arguments.reach.query())).await?;
    if arguments.form.json {
        out::json(&list)?;
        return Ok(Exit::Done);
    }
    let now = Clock::system().now();
    let rows = list.items.iter().map(|request| {
        let glass = if request.break_glass { " BREAK-GLASS" } else { "" };
        [
            request.id.to_string(),
            request.requester.name.to_string(),
            format!("{} on {}", request.access, request.target),
            humane(Duration::from_secs(request.duration_seconds)),
            request.reason.clone(),
            relative(request.created_at, now),
            format!("{}{glass}", show::standing(request, now)),
            show::approvers(request),
        ]
    });
    let headings = ["request", "who", "what", "for", "reason", "asked", "state", "approved by"];
    out::table(headings, rows, "no requests; `--all` shows those that are over")?;
    Ok(Exit::Done)
}
