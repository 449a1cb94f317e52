//! `sallyport request`: asks, and with `--wait` stays until it is decided.

use std::time::Duration;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{Form, out, show};
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::domain::name::{AccessName, TargetName};
use crate::http::api::request::AskBody;
use crate::http::api::review::CancelBody;
use crate::http::view::{AskedView, List, RequestView, SessionView, State};

const POLL_EVERY: Duration = Duration::from_secs(2);
/// How many polls in a row may fail: a server that restarts is back by then.
const FAILURES: u32 = 15;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    target: TargetName,
    /// What to be there: `sallyport targets` lists what there is
    access: AccessName,
    /// Why; approvers and auditors read it
    #[arg(long)]
    reason: String,
    /// How long the session is to last [default: 1h]
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    duration: Option<Duration>,
    #[arg(long)]
    ticket: Option<String>,
    /// Skip the approvals, in an emergency; every record of it is marked, and it is logged as a warning
    #[arg(long)]
    break_glass: bool,
    /// Wait until it is decided; Ctrl-C withdraws the request
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this; the request stays, and the exit code is 7
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    wait_at_most: Option<Duration>,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let body = AskBody {
        target: arguments.target,
        access: arguments.access,
        duration_seconds: arguments.duration.map(|duration| duration.as_secs()),
        reason: arguments.reason,
        ticket: arguments.ticket,
        break_glass: arguments.break_glass,
    };
    let asked: AskedView = client.post("/pam/request", &body).await?;
    let clock = Clock::system();
    let waits = arguments.wait || arguments.wait_at_most.is_some();
    if !waits || asked.session.is_some() {
        if arguments.form.json {
            out::json(&asked)?;
            return Ok(Exit::Done);
        }
        return show::asked(&asked, clock.now());
    }
    let id = asked.request.id.clone();
    out::note(format!("request {id}: {}", show::standing(&asked.request, clock.now())));
    let decided = tokio::select! {
        decided = decision(client, asked.request, &clock, arguments.wait_at_most) => decided?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::of("cannot wait for Ctrl-C", &error))?;
            return withdraw(client, &id).await;
        }
    };
    conclude(client, decided, arguments.form, &clock).await
}

/// Polls until the request is decided, or for `at_most`; tells of each approval as it comes.
async fn decision(
    client: &Client,
    mut seen: RequestView,
    clock: &Clock,
    at_most: Option<Duration>,
) -> Result<RequestView, Failure> {
    let until = at_most.map(|at_most| clock.now().plus(at_most));
    let path = format!("/pam/requests/{}", seen.id);
    let mut failures = 0;
    while seen.state == State::Pending && until.is_none_or(|until| clock.now() < until) {
        clock.sleep(POLL_EVERY).await;
        match client.get::<RequestView>(&path).await {
            Ok(now) => {
                failures = 0;
                for approval in now.approvals.iter().skip(seen.approvals.len()) {
                    let comment = if approval.comment.is_empty() { "" } else { ": " };
                    out::note(format!(
                        "approved by {} ({}){comment}{}",
                        approval.by.name, approval.domain, approval.comment
                    ));
                }
                if now.state == State::Pending && now.missing != seen.missing {
                    out::note(format!("still missing: {}", show::missing(&now.missing)));
                }
                seen = now;
            }
            Err(failure) if failure.exit == Exit::Unreachable && failures < FAILURES => {
                if failures == 0 {
                    out::note(format!("{}; still waiting", failure.what));
                }
                failures += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(seen)
}

async fn withdraw(client: &Client, id: &RequestId) -> Outcome {
    let _: RequestView = client.post("/pam/cancel", &CancelBody { request: id.clone() }).await?;
    Err(Failure::new(Exit::Refused, format!("request {id} is withdrawn")))
}

async fn conclude(client: &Client, request: RequestView, form: Form, clock: &Clock) -> Outcome {
    let session = match request.state {
        State::Approved => {
            let sessions: List<SessionView> = client.get("/pam/sessions?mine=true").await?;
            sessions.items.into_iter().find(|session| session.request == request.id)
        }
        _ => None,
    };
    let exit = match request.state {
        State::Approved => Exit::Done,
        State::Pending => Exit::Pending,
        State::Denied | State::Cancelled | State::Lapsed => Exit::Refused,
    };
    if form.json {
        out::json(&AskedView { request, session })?;
        return Ok(exit);
    }
    match session {
        Some(session) => show::granted(&session, clock.now())?,
        None => out::line(format!("request {}: {}", request.id, show::standing(&request, clock.now())))?,
    }
    Ok(exit)
}
