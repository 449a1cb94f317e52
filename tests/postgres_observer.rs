//! The observer against a model of a server: random clients of every message, COPY, function calls and refusals among them.

#[path = "../fuzz/observer_model.rs"]
mod observer_model;

use observer_model::{Step, World};
use proptest::prelude::*;

fn steps(moves_names: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = any::<[u8; 2]>().prop_map(Step::read);
    let step = step.prop_filter("SQL that moves names", move |step| moves_names || !step.op.moves_names());
    prop::collection::vec(step, 1..60)
}

/// Else the others would show little.
#[test]
fn random_clients_copy_and_are_refused() {
    let mut state = 1_u64;
    let mut byte = std::iter::from_fn(move || {
        // A linear congruential generator's high bits (Knuth's constants).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes().last().copied()
    });
    let (mut copied, mut refused) = (0, 0);
    for _ in 0..500 {
        let steps: Vec<_> =
            (0..60).map(|_| Step::read([byte.next().unwrap_or(0), byte.next().unwrap_or(0)])).collect();
        let (done, told) = World::run(&steps);
        (copied, refused) = (copied + done, refused + told);
    }
    assert!(copied > 100 && refused > 100, "{copied} COPYs, {refused} refusals");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn each_execution_is_recorded_with_the_sql_that_the_server_ran(steps in steps(false)) {
        let _what_came_of_it = World::run(&steps);
    }

    #[test]
    fn what_is_called_certain_is_what_ran_even_when_sql_moves_names(steps in steps(true)) {
        let _what_came_of_it = World::run(&steps);
    }
}
