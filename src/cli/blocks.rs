//! `sallyport blocks`.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::requests::Reach;
use super::when::relative;
use super::{Form, out};
use crate::clock::Clock;
use crate::http::view::{BlockView, List};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let list: List<BlockView> = client.get(&format!("/pam/blocks{}", arguments.reach.query())).await?;
    if arguments.form.json {
        out::json(&list)?;
        return Ok(Exit::Done);
    }
    let now = Clock::system().now();
    let rows = list.items.iter().map(|block| {
        let state = match (&block.lifted, block.in_force) {
            (Some(lifted), _) => format!("lifted by {} {}", lifted.by.name, relative(lifted.at, now)),
            (None, true) => "in force".to_owned(),
            (None, false) => "over".to_owned(),
        };
        [
            block.id.to_string(),
            block.principal.name.to_string(),
            block.target.as_ref().map_or_else(|| "every target".to_owned(), ToString::to_string),
            block.until.map_or_else(|| "lifted".to_owned(), |until| relative(until, now)),
            block.by.name.to_string(),
            block.why.clone(),
            state,
        ]
    });
    let headings = ["block", "who", "from", "until", "by", "why", "state"];
    out::table(headings, rows, "no blocks; `--all` shows those that are over")?;
    Ok(Exit::Done)
}

/// `bob is barred from every target until lifted`.
pub(super) fn reach(block: &BlockView) -> String {
    let from = block.target.as_ref().map_or_else(|| "every target".to_owned(), ToString::to_string);
    let until = block
        .until
        .map_or_else(|| "until lifted".to_owned(), |until| format!("until {}", super::when::local(until)));
    format!("{} is barred from {from} {until}", block.principal.name)
}
