//! How things of the API read on a terminal; shared by several commands.

use std::time::Duration;

use super::exit::{Exit, Failure, Outcome};
use super::out;
use super::when::relative;
use crate::domain::time::{Timestamp, humane};
use crate::http::error::RuleView;
use crate::http::view::{AskedView, CutView, RequestView, SessionView, State};

pub(super) fn missing(rules: &[RuleView]) -> String {
    rules.iter().map(|rule| format!("{}: {}", rule.id, rule.needs)).collect::<Vec<_>>().join("; ")
}

/// `alice wants readonly on ledger-prod for 1h`.
pub(super) fn ask(request: &RequestView) -> String {
    let glass = if request.break_glass { ", BREAK-GLASS" } else { "" };
    format!(
        "{} wants {} on {} for {}{glass}: {}",
        request.requester.name,
        request.access,
        request.target,
        humane(Duration::from_secs(request.duration_seconds)),
        request.reason,
    )
}

/// Where a request stands, in a few words.
pub(super) fn standing(request: &RequestView, now: Timestamp) -> String {
    let by = request.decided_by.as_ref().map(|by| format!(" by {}", by.name)).unwrap_or_default();
    match request.state {
        State::Pending => {
            let missing = missing(&request.missing);
            format!("pending: {missing}; lapses {}", relative(request.lapses_at, now))
        }
        State::Denied => format!("denied{by}: {}", request.why.as_deref().unwrap_or_default()),
        state => format!("{}{by}", state.as_str()),
    }
}

pub(super) fn approvers(request: &RequestView) -> String {
    let of =
        |approval: &crate::http::view::ApprovalView| format!("{} ({})", approval.by.name, approval.domain);
    request.approvals.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// A granted session, and what to do with it.
pub(super) fn granted(session: &SessionView, now: Timestamp) -> Result<(), Failure> {
    out::line(format!(
        "session {}: {} on {}, ends {}",
        session.id,
        session.access,
        session.target,
        relative(session.ends_at, now)
    ))?;
    out::line(format!("connect: sallyport psql {} --access {}", session.target, session.access))
}

/// What came of an ask or an approval.
pub(super) fn asked(view: &AskedView, now: Timestamp) -> Outcome {
    match &view.session {
        Some(session) => granted(session, now)?,
        None => out::line(format!("request {}: {}", view.request.id, standing(&view.request, now)))?,
    }
    Ok(Exit::Done)
}

/// What was cut, one line each.
pub(super) fn cuts(cuts: &[CutView]) -> Result<(), Failure> {
    if cuts.is_empty() {
        return out::line("no connection was open");
    }
    for cut in cuts {
        let how = if cut.ended { "cut" } else { "told to end, but NOT OVER YET" };
        out::line(format!("connection {}: {how}", cut.connection))?;
    }
    Ok(())
}
