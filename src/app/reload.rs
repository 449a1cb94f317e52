//! A reload: new targets, policies and keys of the SSH authorities, or none at all: a bad file keeps what is in force.

use anyhow::Error;

use super::ssh::Authorities;
use super::{App, rules};
use crate::access::Rules;
use crate::config::Config;
use crate::domain::event::{Action, Event, Outcome};

/// What a configuration brings that may change while the server runs.
struct Loaded {
    config: Config,
    rules: Rules,
    authorities: Option<Authorities>,
}

impl App {
    pub(super) async fn reload(&self) {
        let path = self.config.path.clone();
        let load = move || {
            let config = Config::load(&path)?;
            let rules = rules(&config.reloadable)?;
            let authorities = Authorities::of(&config)?;
            Ok(Loaded { config, rules, authorities })
        };
        let loaded = tokio::task::spawn_blocking(load).await.map_err(Error::from).flatten();
        let event = match loaded {
            Ok(loaded) => self.take_up(loaded).await,
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(error = why, "configuration not reloaded: what was in force stays");
                Event::new(Action::ConfigurationReloaded, Outcome::Failed).with("why", why)
            }
        };
        if let Err(error) = self.record(event).await {
            tracing::error!(error = format!("{error:#}"), "a reload is not recorded yet");
        }
    }

    async fn take_up(&self, loaded: Loaded) -> Event {
        let Loaded { config, rules, authorities } = loaded;
        let diff = self.config.diff(&config);
        if !diff.needs_restart.is_empty() {
            tracing::warn!(keys = ?diff.needs_restart, "changed keys take effect after a restart only");
        }
        if let (Some(ours), Some(new)) = (&self.authorities, &authorities) {
            ours.take_up(new);
        }
        let policy = rules.policy.hash().to_owned();
        let targets: Vec<String> = rules.targets.all().map(|entry| entry.target.name.to_string()).collect();
        self.access.reload(rules).await;
        tracing::info!(targets = targets.len(), policy, "configuration reloaded");
        let event =
            Event::done(Action::ConfigurationReloaded).with("targets", targets).with("policy", policy);
        self.with_authorities(event)
    }

    /// The event, with the keys of the authorities as they are in force.
    pub(super) fn with_authorities(&self, event: Event) -> Event {
        match &self.authorities {
            Some(authorities) => authorities.recorded(event),
            None => event,
        }
    }
}
