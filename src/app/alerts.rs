//! Tells whoever is on call, by a webhook, of what must not wait ([`Event::is_tier_one`]). Each is kept in the store from
//! the change that it tells of until it was taken: it is told at least once, whatever crashes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use crate::access::Access;
use crate::access::credential::error_chain;
use crate::config::{AlertFormat, Alerts};
use crate::crypto::{hex, sha256};
use crate::domain::event::{Action, Event};
use crate::domain::time::Timestamp;
use crate::store::{Outgoing, StoreError};

/// How often it is looked for what is to be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what was not taken waits at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How many are told between two looks.
const BATCH: u32 = 50;
/// Somebody reads it on a telephone.
const LONGEST_VALUE: usize = 300;

/// So long after a failure of the same credential was told, its next one is not: it is on record.
const TOLD_AGAIN_AFTER: Duration = Duration::from_hours(1);

impl App {
    /// One task, until `stop`.
    pub(super) fn tell_alerts(&self, upkeep: &TaskTracker, stop: &CancellationToken) -> anyhow::Result<()> {
        let teller = self.config.alerts.clone().map(Teller::new).transpose();
        let mut alerts = Telling {
            access: Arc::clone(&self.access),
            teller: teller.context("cannot tell alerts by the webhook")?,
            refused: HashMap::new(),
            told: HashMap::new(),
        };
        let stop = stop.clone();
        upkeep.spawn(async move { stop.run_until_cancelled(alerts.run()).await });
        Ok(())
    }
}

struct Telling {
    access: Arc<Access>,
    teller: Option<Teller>,
    /// What was refused: when it is told again, and how long after that.
    refused: HashMap<i64, (Timestamp, Duration)>,
    /// When a credential's failure was last told.
    told: HashMap<(Action, String), Timestamp>,
}

impl Telling {
    async fn run(&mut self) {
        metrics::counter!("sallyport_alerts_told_total").absolute(0);
        metrics::counter!("sallyport_alert_failures_total").absolute(0);
        let mut pause = LOOK_EVERY;
        loop {
            pause = match self.tell_all().await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    metrics::counter!("sallyport_alert_failures_total").increment(1);
                    tracing::error!(error, "alerts are not taken: they are told again");
                    (pause * 2).min(LONGEST_PAUSE)
                }
            };
            if let Ok(waiting) = self.access.store.alerts_waiting().await {
                let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
                metrics::gauge!("sallyport_alerts_waiting").set(f64::from(waiting));
            }
            self.access.clock.sleep(pause).await;
        }
    }

    /// One after the other; what is not taken stays. Without anybody to tell, that is done as well. Fails where nothing
    /// more would be taken now.
    async fn tell_all(&mut self) -> Result<(), String> {
        let store = |error: StoreError| error.to_string();
        let mut after = 0;
        loop {
            let waiting = self.access.store.alerts(after, BATCH).await.map_err(store)?;
            let Some(last) = waiting.last() else { return Ok(()) };
            after = last.id;
            for alert in waiting {
                if self.tell(&alert).await? {
                    self.access.store.alert_told(alert.id).await.map_err(store)?;
                }
            }
        }
    }

    /// Whether it needs to be told no more.
    async fn tell(&mut self, alert: &Outgoing) -> Result<bool, String> {
        let Some(teller) = &self.teller else { return Ok(true) };
        let now = self.access.now();
        let (mut pause, whose) = (LOOK_EVERY, whose(&alert.event));
        if let Some((then, longer)) = self.refused.get(&alert.id) {
            if *then > now {
                return Ok(false);
            }
            pause = *longer;
        }
        self.told.retain(|_, at| at.plus(TOLD_AGAIN_AFTER) > now);
        if whose.as_ref().is_some_and(|whose| self.told.contains_key(whose)) {
            return Ok(true);
        }
        match teller.tell(self.access.node.as_str(), alert).await {
            Ok(()) => {
                self.refused.remove(&alert.id);
                self.told.extend(whose.map(|whose| (whose, now)));
                Ok(true)
            }
            Err(NotTold::Later(error)) => Err(error),
            // Another one may be taken.
            Err(NotTold::Refused(error)) => {
                metrics::counter!("sallyport_alert_failures_total").increment(1);
                tracing::error!(error, id = alert.id, "an alert is refused: it is told again");
                self.refused.insert(alert.id, (now.plus(pause), (pause * 2).min(LONGEST_PAUSE)));
                Ok(false)
            }
        }
    }
}

/// Which credential's failure it is, if it is one: its reason may change with every try.
fn whose(event: &Event) -> Option<(Action, String)> {
    let is_retried = matches!(
        event.action,
        Action::CredentialDestructionFailed | Action::CredentialShut | Action::CredentialDenied
    );
    let handle = event.detail.get("handle").and_then(Value::as_str)?;
    is_retried.then(|| (event.action, handle.to_owned()))
}

enum NotTold {
    /// Nothing is taken now.
    Later(String),
    Refused(String),
}

#[derive(Debug)]
struct Teller {
    client: reqwest::Client,
    to: Alerts,
}

impl Teller {
    fn new(to: Alerts) -> Result<Self, reqwest::Error> {
        let mut client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_merge(to.ca.clone());
        if to.is_here() {
            // Elsewhere it would go in clear.
            client = client.no_proxy();
        }
        Ok(Self { client: client.build()?, to })
    }

    async fn tell(&self, node: &str, alert: &Outgoing) -> Result<(), NotTold> {
        let body = match self.to.format {
            AlertFormat::Slack => json!({ "text": for_slack(&sentence(node, alert, "`")) }),
            AlertFormat::Json => fields(node, alert, &sentence(node, alert, "")),
        };
        let answer = self.client.post(self.to.webhook.expose()).json(&body).send().await;
        // Its address is as good as a password.
        let answer = answer.map_err(|error| NotTold::Later(error_chain(&error.without_url())))?;
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(NotTold::Later(format!("the webhook answered {status}")));
        }
        if !status.is_success() {
            return Err(NotTold::Refused(format!("the webhook answered {status}")));
        }
        metrics::counter!("sallyport_alerts_told_total").increment(1);
        Ok(())
    }
}

fn fields(node: &str, alert: &Outgoing, text: &str) -> Value {
    // The same when it is told again, and no other's, also of a store that was restored from a copy.
    let all = format!("{node}\n{}\n{}\n{}", alert.id, alert.at, json!(alert.event));
    let id: String = hex(&sha256(&[all.as_bytes()])).chars().take(32).collect();
    json!({ "tier": 1, "id": id, "node": node, "at": alert.at.to_string(), "text": text, "event": alert.event })
}

/// What happened, in a line. What somebody may have written stands between `quote`s.
fn sentence(node: &str, alert: &Outgoing, quote: &str) -> String {
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
        let value = value.escape_debug().to_string();
        let value = if quote.is_empty() { value } else { value.replace(quote, "'") };
        let value: String = value.chars().take(LONGEST_VALUE).collect();
        let _ = write!(text, ", {name}: {quote}{value}{quote}");
    }
    let _ = write!(text, " (node {node}, {})", alert.at);
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

    fn alert(detail: &str) -> Outgoing {
        let event = Event::new(Action::CredentialDestructionFailed, Outcome::Failed).with("error", detail);
        Outgoing { id: 7, at: Timestamp::from_micros(0), event }
    }

    #[test]
    fn what_somebody_wrote_is_one_line_and_no_mention() {
        let text = for_slack(&sentence("nod-1", &alert("<!channel> `a\nb` & c"), "`"));
        assert_eq!(
            text,
            "[Tier 1] credential destruction failed, error: `&lt;!channel&gt; 'a\\nb' &amp; c` (node nod-1, 1970-01-01T00:00:00.000000Z)"
        );
        let long = sentence("nod-1", &alert(&"x".repeat(5_000)), "");
        assert!(long.len() < LONGEST_VALUE + 200, "{long}");
    }

    #[test]
    fn an_alert_is_known_by_its_id_and_no_other_has_it() {
        let id = |alert: &Outgoing| fields("nod-1", alert, "")["id"].clone();
        let one = alert("x");
        assert_eq!(id(&one), id(&one));
        // As after a store was restored.
        assert_ne!(id(&one), id(&Outgoing { at: Timestamp::from_micros(1), ..alert("x") }));
    }
}
