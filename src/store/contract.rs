//! What every store must do, as tests that any backend runs: [`all`] with a maker of fresh stores,
//! or `store_rules!(store_contract)` for one test per rule.
//!
//! The rules are the functions of [`rules`]; each takes a store of its own.

pub mod fixtures;
pub mod rules;

use std::sync::Arc;

use super::Store;

/// Runs every rule, each against a fresh store.
///
/// # Panics
/// When the backend breaks a rule.
pub async fn all(make: impl AsyncFn() -> Arc<dyn Store>) {
    macro_rules! run {
        ($($rule:ident)*) => { $( rules::$rule(make().await).await; )* };
    }
    crate::store_rules!(run);
}

/// Hands the names of all rules to another macro.
#[macro_export]
macro_rules! store_rules {
    ($with:ident) => {
        $with! {
            a_user_name_is_taken_once
            a_changed_user_keeps_their_name_and_id
            a_change_of_a_user_changes_only_what_it_names
            a_new_password_and_disabling_end_the_users_tokens
            a_token_needs_an_enabled_user_and_the_password_that_was_checked
            all_tokens_of_a_user_are_revoked_at_once
            a_token_is_valid_until_its_very_end
            a_token_is_revoked_once
            an_ssh_key_belongs_to_one_person_at_a_time
            an_ssh_key_is_removed_by_its_owner_only_and_once
            whatever_ends_tokens_voids_ssh_certificates
            a_second_factors_code_is_accepted_once_and_never_an_earlier_one
            a_second_factor_is_replaced_and_removed
            a_request_is_read_back_as_it_was_written
            a_step_from_a_stale_version_is_a_conflict
            approving_once_more_changes_and_records_nothing
            an_ask_cannot_be_changed_after_it_was_made
            a_decided_request_stays_decided
            a_session_needs_a_request_that_was_approved_as_it
            a_request_has_at_most_one_session
            of_many_activations_at_once_exactly_one_happens
            approvals_at_the_same_moment_are_all_kept
            of_many_revocations_at_once_exactly_one_is_the_first
            a_block_is_lifted_once
            no_block_is_left_out_of_the_list
            closing_a_connection_twice_keeps_the_first_end
            a_connection_needs_a_session
            a_session_has_at_most_one_open_lease
            a_lease_moves_only_from_the_state_that_was_seen
            a_lease_only_moves_forwards
            a_lease_does_not_outlive_its_session
            a_session_has_one_role_session
            a_role_session_only_moves_towards_its_end
            a_leftover_is_kept_until_it_is_ended_once
            what_must_be_told_is_kept_until_it_was
            a_refused_step_leaves_no_event
            events_leave_the_outbox_in_order_and_only_when_done
            outbox_ids_can_be_raised_above_what_was_recorded
            lists_are_newest_first_filtered_and_limited
            what_is_not_there_is_not_found
            the_high_water_mark_never_falls
            a_store_that_can_be_written_to_passes_its_check
        }
    };
}

/// One `#[tokio::test]` per rule. Needs an async function `make()` in scope that returns an
/// `Arc<dyn Store>`.
#[macro_export]
macro_rules! store_contract {
    ($($rule:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $rule() {
            $crate::store::contract::rules::$rule(make().await).await;
        })*
    };
}
