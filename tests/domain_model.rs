//! The domain against a reference model: people ask, approve, deny, cancel, revoke, block and
//! connect in any order while time passes. The model keeps nothing but a list of what happened and
//! answers every question by reading that list from the start, in the most naive way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::format_push_string,
    reason = "a test fails by panicking, and tells its story in one piece"
)]

#[cfg(test)]
#[path = "domain_model/reference.rs"]
mod reference;
#[cfg(test)]
#[path = "domain_model/steps.rs"]
mod steps;
#[cfg(test)]
#[path = "domain_model/world.rs"]
mod world;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::reference::Fact;
    use super::steps::steps;
    use super::world::{History, World};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

        #[test]
        fn under_any_interleaving_only_what_was_approved_is_permitted(steps in steps()) {
            let mut world = World::new();
            for step in &steps {
                let before =
                    History { requests: world.requests.clone(), sessions: world.sessions.clone() };
                world.take(step)?;
                world.check_permits(world.now())?;
                world.check_history(&before)?;
            }
            world.check_permits_at_edges()?;
        }
    }

    /// The random steps are worth something only if they get far.
    #[test]
    fn the_random_steps_reach_sessions_on_production_and_every_kind_of_end() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (mut cross_domain, mut revoked, mut edited) = (0, 0, 0);
        for _ in 0..600 {
            let drawn = steps().new_tree(&mut runner).unwrap().current();
            let mut world = World::new();
            for step in &drawn {
                world.take(step).unwrap();
            }
            for session in &world.sessions {
                let prod = session.target.as_str().ends_with("-prod");
                cross_domain += u32::from(prod && session.approvals.len() >= 3);
                revoked += u32::from(session.revoked.is_some());
            }
            edited +=
                world.model.facts.iter().filter(|(_, fact)| matches!(fact, Fact::Edited { .. })).count();
        }
        assert!(cross_domain > 20 && revoked > 20 && edited > 20, "{cross_domain} {revoked} {edited}");
    }
}
