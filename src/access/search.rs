//! Search across recordings: of each, whoever may read it. Every search is recorded, with what was looked for.

use std::sync::Arc;

use crate::audit::search::{Found, Query};
use crate::domain::event::{Action, Event};
use crate::domain::id::PrincipalId;
use crate::domain::name::TargetName;

use super::read::may_replay;
use super::refusal::Refusal;
use super::{Access, Caller};

impl Access {
    /// Decides, by the policies of now, whether the caller may read what somebody did on a target.
    pub fn readable(&self, caller: &Caller) -> impl Fn(&PrincipalId, &TargetName) -> bool + Send + use<> {
        let (rules, principal) = (Arc::clone(&self.rules()), caller.principal.clone());
        move |owner, target| may_replay(&rules, &principal, Some((owner, target))).is_allow()
    }

    /// Records a search and what came of it, before anybody sees it.
    pub async fn searched(&self, caller: &Caller, query: &Query, found: &Found) -> Result<(), Refusal> {
        let mut event = Event::done(Action::Searched)
            .by(&caller.principal)
            .from(caller.client)
            .with("text", query.text.as_str())
            .with("hits", found.hits.len())
            .with("withheld", found.withheld);
        event.target.clone_from(&query.target);
        event.session.clone_from(&query.session);
        let details = [
            ("of", query.principal.clone()),
            ("since", query.from.map(|at| at.to_string())),
            ("until", query.to.map(|at| at.to_string())),
            ("kind", query.kind.clone()),
            ("before", query.before.map(|n| n.to_string())),
        ];
        for (key, value) in details {
            if let Some(value) = value {
                event = event.with(key, value);
            }
        }
        self.record(event).await
    }
}
