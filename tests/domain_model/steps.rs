//! What people may try, at random.

use proptest::prelude::*;

use super::reference::MINUTE;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Ask {
        who: usize,
        target: usize,
        minutes: u64,
    },
    /// Somebody edits a pending request, with or without its hash.
    Edit {
        request: usize,
        minutes: u64,
        with_hash: bool,
    },
    Approve {
        who: usize,
        request: usize,
    },
    Deny {
        who: usize,
        request: usize,
    },
    Cancel {
        request: usize,
    },
    Lapse {
        request: usize,
    },
    Activate {
        request: usize,
    },
    Revoke {
        who: usize,
        session: usize,
    },
    Block {
        who: usize,
        target: Option<usize>,
        minutes: Option<u64>,
    },
    Unblock {
        block: usize,
    },
    Pass {
        micros: u64,
    },
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = || 0..100_usize;
    // Mostly a few, so that approvals of one request meet.
    let request = || prop_oneof![4 => 0..3_usize, 1 => 0..100_usize];
    let minutes = || prop_oneof![Just(1_u64), Just(59), Just(60), Just(240), Just(241), Just(100_000)];
    let micros = prop_oneof![
        Just(1_u64),
        Just(MINUTE),
        Just(MINUTE * 59),
        Just(MINUTE * 60 - 1),
        Just(MINUTE * 60),
        Just(MINUTE * 240 - 1),
        0..MINUTE * 30
    ];
    let step = prop_oneof![
        3 => (index(), index(), minutes())
            .prop_map(|(who, target, minutes)| Step::Ask { who, target, minutes }),
        1 => (request(), minutes(), any::<bool>())
            .prop_map(|(request, minutes, with_hash)| Step::Edit { request, minutes, with_hash }),
        10 => (index(), request()).prop_map(|(who, request)| Step::Approve { who, request }),
        1 => (index(), request()).prop_map(|(who, request)| Step::Deny { who, request }),
        1 => request().prop_map(|request| Step::Cancel { request }),
        1 => request().prop_map(|request| Step::Lapse { request }),
        5 => request().prop_map(|request| Step::Activate { request }),
        1 => (index(), index()).prop_map(|(who, session)| Step::Revoke { who, session }),
        1 => (index(), prop::option::of(index()), prop::option::of(minutes()))
            .prop_map(|(who, target, minutes)| Step::Block { who, target, minutes }),
        1 => index().prop_map(|block| Step::Unblock { block }),
        2 => micros.prop_map(|micros| Step::Pass { micros }),
    ];
    prop::collection::vec(step, 1..60)
}
