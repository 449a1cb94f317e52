//! What was handed out of AWS roles.

use std::sync::Arc;

use super::{conflict, exists, not_found};
use crate::domain::role_session::{RoleSession, RoleState};
use crate::store::Store;
use crate::store::contract::fixtures::{
    activate, at, event, good, marks, person, request, role_session, stored_session,
};

fn moved(role: &RoleSession, state: RoleState, second: u64) -> RoleSession {
    RoleSession { state, changed_at: at(second), ..role.clone() }
}

pub async fn a_session_has_one_role_session(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    assert_eq!(good(store.role_session(&session.id).await), None);
    let role = role_session(&session, at(1));
    good(store.create_role_session(&role, &[event("first")]).await);
    assert!(exists(&store.create_role_session(&role, &[event("no")]).await));
    assert_eq!(good(store.role_session(&session.id).await), Some(role.clone()));
    assert_eq!(good(store.open_role_sessions().await), std::slice::from_ref(&role));

    let over = moved(&role, RoleState::Over, 3);
    good(store.step_role_session(RoleState::Open, &over, &[event("over")]).await);
    assert_eq!(good(store.open_role_sessions().await), []);
    assert_eq!(good(store.role_session(&session.id).await), Some(over), "history is kept");
    assert!(exists(&store.create_role_session(&role, &[event("no")]).await), "it is not begun anew");

    let (_, never_stored) = activate(&request(&person("alice"), at(0)), at(0));
    let strange = role_session(&never_stored, at(5));
    assert!(not_found(&store.create_role_session(&strange, &[event("no")]).await));
    assert!(not_found(&store.step_role_session(RoleState::Open, &strange, &[event("no")]).await));
    assert_eq!(marks(&store).await, ["first", "over"]);
}

pub async fn a_role_session_only_moves_towards_its_end(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let role = role_session(&session, at(1));
    good(store.create_role_session(&role, &[]).await);
    let later = RoleSession { expires_at: at(9_000), ..moved(&role, RoleState::Open, 2) };
    good(store.step_role_session(RoleState::Open, &later, &[event("again")]).await);
    let mut from = RoleState::Open;
    for state in [RoleState::Denying, RoleState::Denied, RoleState::Over] {
        let stale = store.step_role_session(state, &moved(&later, state, 3), &[event("no")]).await;
        assert!(conflict(&stale));
        good(store.step_role_session(from, &moved(&later, state, 3), &[]).await);
        assert!(store.step_role_session(state, &moved(&later, from, 4), &[event("no")]).await.is_err());
        from = state;
    }
    assert_eq!(good(store.role_session(&session.id).await), Some(moved(&later, RoleState::Over, 3)));
    assert_eq!(marks(&store).await, ["again"]);
}
