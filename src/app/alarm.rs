//! An alarm about the audit log: recorded when it is raised and when it is over, once each.

use serde_json::Value;

use crate::access::Access;
use crate::domain::event::{Action, Event, Outcome};

#[derive(Debug)]
pub(super) struct Alarm {
    /// What it is about: the field's name in events, and its value.
    about: (&'static str, String),
    /// Says that all is well again.
    over: Action,
    /// What was raised and is not over.
    raised: Option<Action>,
}

impl Alarm {
    pub(super) fn new(about: &'static str, value: String, over: Action) -> Self {
        Self { about: (about, value), over, raised: None }
    }

    pub(super) fn raised(&self) -> Option<Action> {
        self.raised
    }

    /// Raises `alarm`, or says that it is over, unless that has been said already.
    pub(super) async fn tell(
        &mut self,
        access: &Access,
        alarm: Option<Action>,
        details: &[(&'static str, Value)],
    ) {
        if alarm == self.raised {
            return;
        }
        let mut event = match alarm {
            Some(action) => Event::new(action, Outcome::Failed),
            None => Event::done(self.over),
        };
        event = event.with(self.about.0, self.about.1.as_str());
        for (name, value) in details {
            event = event.with(name, value.clone());
        }
        let (about, details) = (&self.about.1, format!("{details:?}"));
        if let Some(action) = alarm {
            tracing::error!(about, details, "{action:?}");
        } else {
            tracing::info!(about, details, "{:?}", self.over);
        }
        match access.store.append_events(access.now(), &[event]).await {
            Ok(()) => {
                self.raised = alarm;
                // What is in the outbox is recorded sooner or later.
                if let Err(error) = access.publish().await {
                    tracing::error!(%error, "an alarm waits in the outbox to be recorded");
                }
            }
            Err(error) => tracing::error!(%error, "an alarm cannot be recorded yet"),
        }
    }
}
