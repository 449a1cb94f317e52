//! `sallyport targets`.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::{Form, out};
use crate::domain::name::AccessName;
use crate::http::view::{List, TargetView};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let list: List<TargetView> = client.get("/pam/targets").await?;
    if arguments.form.json {
        out::json(&list)?;
        return Ok(Exit::Done);
    }
    let rows = list.items.iter().map(|target| {
        [
            target.name.to_string(),
            target.kind.to_string(),
            target.environment.to_string(),
            target.domain.to_string(),
            target.databases.join(", "),
            names(&target.accesses),
            names(&target.may_request),
        ]
    });
    let headings = ["target", "kind", "environment", "domain", "databases", "accesses", "you may ask for"];
    out::table(headings, rows, "no targets are configured")?;
    Ok(Exit::Done)
}

fn names(accesses: &[AccessName]) -> String {
    accesses.iter().map(AccessName::as_str).collect::<Vec<_>>().join(", ")
}
