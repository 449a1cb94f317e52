//! `sallyport whoami`.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::when::relative;
use super::{Form, out};
use crate::clock::Clock;
use crate::domain::name::GroupName;
use crate::http::view::WhoamiView;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let view: WhoamiView = client.get("/whoami").await?;
    if arguments.form.json {
        out::json(&view)?;
        return Ok(Exit::Done);
    }
    let groups: Vec<&str> = view.principal.groups.iter().map(GroupName::as_str).collect();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
    out::line(format!("{} ({}), groups: {groups}", view.principal.name, view.principal.domain))?;
    let ends = relative(view.expires_at, Clock::system().now());
    out::line(format!("logged in to {}, ends {ends}", client.settings().server))?;
    Ok(Exit::Done)
}
