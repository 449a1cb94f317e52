//! Tells whoever is on call, by a webhook, of what must not wait ([`Event::is_tier_one`]). Each is kept in the store from
//! the change that it tells of until it was taken: it is told at least once, whatever crashes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use crate::access::Access;
use crate::access::credential::error_chain;
use crate::config::{AlertFormat, Alerts};
use crate::domain::event::{Action, Event};
use crate::store::{Outgoing, StoreError};

/// How often it is looked for what is to be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what was not taken waits at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How many are told between two looks.
const BATCH: u32 = 50;
/// Somebody reads it on a telephone.
const LONGEST_TEXT: usize = 1_000;

impl App {
    /// One task, until `stop`.
    pub(super) fn tell_alerts(&self, upkeep: &TaskTracker, stop: &CancellationToken) {
        let (access, to, stop) = (Arc::clone(&self.access), self.config.alerts.clone(), stop.clone());
        upkeep.spawn(async move {
            let teller = match to.map(Teller::new).transpose() {
                Ok(teller) => teller,
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "alerts cannot be told by the webhook");
                    return;
                }
            };
            stop.run_until_cancelled(run(&access, teller.as_ref())).await;
        });
    }
}

async fn run(access: &Access, teller: Option<&Teller>) {
    metrics::counter!("sallyport_alerts_told_total").absolute(0);
    metrics::counter!("sallyport_alert_failures_total").absolute(0);
    let mut pause = LOOK_EVERY;
    loop {
        match tell_all(access, teller).await {
            Ok(()) => pause = LOOK_EVERY,
            Err(error) => {
                metrics::counter!("sallyport_alert_failures_total").increment(1);
                tracing::error!(error, "an alert was not taken: it is told again");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if let Ok(waiting) = access.store.alerts_waiting().await {
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            metrics::gauge!("sallyport_alerts_waiting").set(f64::from(waiting));
        }
        access.clock.sleep(pause).await;
    }
}

/// One after the other; what is not taken stays. Without anybody to tell, that is done as well.
async fn tell_all(access: &Access, teller: Option<&Teller>) -> Result<(), String> {
    let store = |error: StoreError| error.to_string();
    let mut failed = None;
    for alert in access.store.alerts(BATCH).await.map_err(store)? {
        let told = match teller {
            Some(teller) => teller.tell(access, &alert).await,
            None => Ok(()),
        };
        match told {
            Ok(()) => access.store.alert_told(alert.id).await.map_err(store)?,
            // The next one would fare no better.
            Err(NotTold::Unreachable(error)) => return Err(error),
            Err(NotTold::Refused(error)) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

enum NotTold {
    Unreachable(String),
    Refused(String),
}

#[derive(Debug)]
struct Teller {
    client: reqwest::Client,
    to: Alerts,
}

impl Teller {
    fn new(to: Alerts) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_merge(to.ca.clone())
            .build()?;
        Ok(Self { client, to })
    }

    async fn tell(&self, access: &Access, alert: &Outgoing) -> Result<(), NotTold> {
        let text = sentence(access.node.as_str(), alert);
        let body = match self.to.format {
            AlertFormat::Slack => json!({ "text": for_slack(&text) }),
            AlertFormat::Json => fields(access.node.as_str(), alert, &text),
        };
        let answer = self.client.post(self.to.webhook.expose()).json(&body).send().await;
        // Its address is as good as a password.
        let answer = answer.map_err(|error| NotTold::Unreachable(error_chain(&error.without_url())))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(NotTold::Refused(format!("the webhook answered {status}")));
        }
        metrics::counter!("sallyport_alerts_told_total").increment(1);
        Ok(())
    }
}

fn fields(node: &str, alert: &Outgoing, text: &str) -> Value {
    json!({ "tier": 1, "id": alert.id, "node": node, "at": alert.at.to_string(), "text": text, "event": alert.event })
}

/// What happened, in a line.
fn sentence(node: &str, alert: &Outgoing) -> String {
    let event = &alert.event;
    let mut text = format!("[Tier 1] {}", what(event));
    if let Some(actor) = &event.principal {
        let _ = write!(text, " by {}", actor.name);
    }
    if let Some(target) = &event.target {
        let _ = write!(text, " on {target}");
    }
    let known = [
        event.session.as_ref().map(|id| format!("session {id}")),
        event.request.as_ref().map(|id| format!("request {id}")),
    ];
    for part in known.into_iter().flatten() {
        let _ = write!(text, ", {part}");
    }
    for (name, value) in &event.detail {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // A line stays one.
        let _ = write!(text, ", {name}: {}", value.escape_debug());
    }
    let _ = write!(text, " (node {node}, {})", alert.at);
    if text.chars().count() > LONGEST_TEXT {
        text = text.chars().take(LONGEST_TEXT).chain(['…']).collect();
    }
    text
}

fn what(event: &Event) -> String {
    if event.action == Action::SessionActivated {
        return "glass broken: session without approval".to_owned();
    }
    // As it stands in the record.
    let action = serde_json::to_value(event.action).unwrap_or_default();
    action.as_str().unwrap_or_default().replace('_', " ")
}

/// Nothing of it is a link, a mention or a command there (Slack API, *Formatting text for app surfaces*).
fn for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Outcome;
    use crate::domain::time::Timestamp;

    fn alert(detail: &str) -> Outgoing {
        let event = Event::new(Action::CredentialDestructionFailed, Outcome::Failed).with("error", detail);
        Outgoing { id: 7, at: Timestamp::from_micros(0), event }
    }

    #[test]
    fn what_somebody_wrote_is_one_line_and_no_mention() {
        let text = for_slack(&sentence("nod-1", &alert("<!channel> a\nb & c")));
        assert_eq!(
            text,
            "[Tier 1] credential destruction failed, error: &lt;!channel&gt; a\\nb &amp; c (node nod-1, 1970-01-01T00:00:00.000000Z)"
        );
        let long = sentence("nod-1", &alert(&"x".repeat(5_000)));
        assert_eq!(long.chars().count(), LONGEST_TEXT + 1);
    }
}
