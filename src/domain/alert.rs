//! Which events somebody must be told of at once (Tier 1), beside their record: a broken glass, a credential that cannot be
//! destroyed, trouble with the audit log, and the end of that trouble.

use super::event::{Action, Event, Outcome};

impl Event {
    /// Whether whoever is on call must be told.
    pub fn is_tier_one(&self) -> bool {
        match self.action {
            Action::SessionActivated => self.break_glass && self.outcome == Outcome::Done,
            Action::CredentialShut => self.outcome == Outcome::Failed || self.ended_an_intruder(),
            Action::CredentialDenied => self.outcome == Outcome::Failed,
            Action::CredentialDestructionFailed
            | Action::CredentialOrphaned
            | Action::ClockBehind
            | Action::WitnessSilent
            | Action::WitnessRefused
            | Action::WitnessBack
            | Action::StreamBehind
            | Action::StreamCaughtUp
            | Action::CheckpointUnsigned
            | Action::CheckpointSigned
            | Action::CanaryFailed
            | Action::CanaryPassed
            | Action::StoreRestored => true,
            _ => false,
        }
    }

    /// Whether somebody was there with a credential that was left open: past the gateway, unless a connection of ours ended late.
    fn ended_an_intruder(&self) -> bool {
        let terminated = self.detail.get("backends_terminated").and_then(serde_json::Value::as_u64);
        terminated.is_some_and(|count| count > 0)
            && self.detail.get("why").is_some_and(|why| why == "found_open")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_where_the_glass_was_broken_and_not_where_that_was_refused() {
        let broken = |outcome| Event { break_glass: true, ..Event::new(Action::SessionActivated, outcome) };
        assert!(broken(Outcome::Done).is_tier_one());
        assert!(!broken(Outcome::Refused).is_tier_one());
        assert!(!Event::done(Action::SessionActivated).is_tier_one());
        // What happens under it is on record; it is told of once.
        assert!(!Event { break_glass: true, ..Event::done(Action::ConnectionOpened) }.is_tier_one());
        assert!(Event::done(Action::CredentialDestructionFailed).is_tier_one());
    }

    #[test]
    fn whoever_came_in_past_the_gateway_is_told_of_and_what_a_crash_left_is_not() {
        let shut = |why: &str, terminated: u64| {
            Event::done(Action::CredentialShut)
                .with("why", why)
                .with("backends_terminated", terminated)
                .is_tier_one()
        };
        assert!(shut("found_open", 1));
        assert!(!shut("found_open", 0));
        assert!(!shut("left_running", 1));
    }
}
