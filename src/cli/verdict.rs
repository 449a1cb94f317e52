//! `sallyport approve`, `deny` and `cancel`.

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{Form, out, show};
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::http::api::review::{ApproveBody, CancelBody, DenyBody};
use crate::http::view::{AskedView, RequestView};

#[derive(Debug, clap::Args)]
pub(super) struct Approve {
    /// The request's id, or a unique beginning of it
    id: String,
    /// A word to the requester and for the record
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Deny {
    /// The request's id, or a unique beginning of it
    id: String,
    /// The requester reads it
    #[arg(long)]
    why: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Cancel {
    /// The request's id, or a unique beginning of it
    id: String,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn approve(arguments: Approve, client: &Client) -> Outcome {
    let request = request(client, &arguments.id).await?;
    let body = ApproveBody { request, comment: arguments.comment };
    let view: AskedView = client.post("/pam/approve", &body).await?;
    if arguments.form.json {
        out::json(&view)?;
        return Ok(Exit::Done);
    }
    out::line(format!("approved: {}", show::ask(&view.request)))?;
    match &view.session {
        Some(session) => {
            let ends = super::when::relative(session.ends_at, Clock::system().now());
            out::line(format!("session {} is active; it ends {ends}", session.id))?;
        }
        None if view.request.missing.is_empty() => {
            out::line(format!("request {} is {}", view.request.id, view.request.state.as_str()))?;
        }
        None => out::line(format!("still missing: {}", show::missing(&view.request.missing)))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn deny(arguments: Deny, client: &Client) -> Outcome {
    let request = request(client, &arguments.id).await?;
    let view: RequestView = client.post("/pam/deny", &DenyBody { request, why: arguments.why }).await?;
    over(&view, "denied", arguments.form)
}

pub(super) async fn cancel(arguments: Cancel, client: &Client) -> Outcome {
    let request = request(client, &arguments.id).await?;
    let view: RequestView = client.post("/pam/cancel", &CancelBody { request }).await?;
    over(&view, "withdrawn", arguments.form)
}

fn over(view: &RequestView, how: &str, form: Form) -> Outcome {
    if form.json {
        out::json(view)?;
    } else {
        out::line(format!("{how}: {}", show::ask(view)))?;
    }
    Ok(Exit::Done)
}

async fn request(client: &Client, given: &str) -> Result<RequestId, Failure> {
    let id = client.request_id(given).await?;
    id.parse().map_err(|error| Failure::of("cannot use the request's id", &error))
}
