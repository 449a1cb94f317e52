//! Credential leases, the outbox, the high-water mark.

use std::sync::Arc;
use std::time::Duration;

use super::{conflict, exists, not_found};
use crate::crypto::random;
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::LeaseId;
use crate::domain::lease::{LeaseRecord, LeaseState};
use crate::domain::time::Timestamp;
use crate::store::contract::fixtures::{
    account, activate, at, event, good, lease, marks, person, request, stored_session, there,
};
use crate::store::{Outgoing, Store};

fn moved(lease: &LeaseRecord, state: LeaseState, second: u64) -> LeaseRecord {
    LeaseRecord { state, changed_at: at(second), ..lease.clone() }
}

pub async fn a_session_has_at_most_one_open_lease(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let first = lease(&session, at(1));
    good(store.create_lease(&first, &[event("first")]).await);
    assert!(exists(&store.create_lease(&lease(&session, at(2)), &[event("no")]).await));
    assert_eq!(good(store.lease(&first.id).await), Some(first.clone()));
    assert_eq!(good(store.lease_of_session(&session.id).await), Some(first.clone()));
    assert_eq!(good(store.open_leases().await), std::slice::from_ref(&first));

    let released = moved(&first, LeaseState::Released, 3);
    good(store.step_lease(LeaseState::Intended, &released, &[]).await);
    assert_eq!(good(store.lease_of_session(&session.id).await), None);
    let second = lease(&session, at(4));
    good(store.create_lease(&second, &[]).await);
    assert_eq!(good(store.open_leases().await), [second]);
    assert_eq!(good(store.lease(&first.id).await), Some(released), "history is kept");

    let (_, never_stored) = activate(&request(&person("alice"), at(0)), at(0));
    assert!(not_found(&store.create_lease(&lease(&never_stored, at(5)), &[event("no")]).await));
    assert_eq!(marks(&store).await, ["first"]);
}

pub async fn a_lease_moves_only_from_the_state_that_was_seen(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let lease = lease(&session, at(1));
    good(store.create_lease(&lease, &[]).await);
    let issued = moved(&lease, LeaseState::Issued, 2);
    assert!(conflict(&store.step_lease(LeaseState::Issued, &issued, &[event("no")]).await));
    good(store.step_lease(LeaseState::Intended, &issued, &[event("issued")]).await);
    assert!(conflict(&store.step_lease(LeaseState::Intended, &issued, &[event("no")]).await));
    let mut releasing = moved(&lease, LeaseState::Releasing, 3);
    good(store.step_lease(LeaseState::Issued, &releasing, &[event("releasing")]).await);
    releasing.last_error = Some("target unreachable".to_owned());
    good(store.step_lease(LeaseState::Releasing, &releasing, &[event("failed")]).await);
    assert_eq!(good(store.lease(&lease.id).await), Some(releasing));
    let unknown = LeaseRecord { id: LeaseId::from_random(random()), ..lease };
    assert!(not_found(&store.step_lease(LeaseState::Intended, &unknown, &[event("no")]).await));
    assert_eq!(marks(&store).await, ["issued", "releasing", "failed"]);
}

pub async fn a_lease_only_moves_forwards(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let lease = lease(&session, at(1));
    good(store.create_lease(&lease, &[]).await);
    let mut from = LeaseState::Intended;
    for state in [LeaseState::Issued, LeaseState::Releasing, LeaseState::Released] {
        good(store.step_lease(from, &moved(&lease, state, 2), &[]).await);
        assert!(store.step_lease(state, &moved(&lease, from, 3), &[event("no")]).await.is_err());
        from = state;
    }
    assert_eq!(good(store.open_leases().await), []);
    assert!(marks(&store).await.is_empty());
}

pub async fn a_lease_does_not_outlive_its_session(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let mut long = lease(&session, at(1));
    long.ends_at = session.ends_at.plus(Duration::from_micros(1));
    assert!(store.create_lease(&long, &[event("no")]).await.is_err());
    let short = lease(&session, at(1));
    good(store.create_lease(&short, &[]).await);
    let stretched = LeaseRecord { ends_at: long.ends_at, ..moved(&short, LeaseState::Issued, 2) };
    assert!(store.step_lease(LeaseState::Intended, &stretched, &[event("no")]).await.is_err());
    assert_eq!(good(store.lease(&short.id).await), Some(short));
    assert!(marks(&store).await.is_empty());
}

pub async fn a_refused_step_leaves_no_event(store: Arc<dyn Store>) {
    let alice = account("alice");
    let several = [event("one"), event("two")];
    good(store.add_user(&alice, at(0), &several).await);
    assert!(exists(&store.add_user(&alice, at(1), &[event("three")]).await));
    // The request would be stored first and its session refused: neither may stay.
    let (approved, session) = activate(&request(&alice.principal, at(0)), at(0));
    good(store.create_granted(&approved, &session, at(2), &[event("four")]).await);
    let (mut other, mut twin) = activate(&request(&alice.principal, at(0)), at(0));
    twin.id = session.id;
    other.state = approved.state;
    assert!(store.create_granted(&other, &twin, at(3), &[event("five")]).await.is_err());
    assert_eq!(good(store.request(&other.id).await), None);
    assert_eq!(marks(&store).await, ["one", "two", "four"]);
}

pub async fn events_leave_the_outbox_in_order_and_only_when_done(store: Arc<dyn Store>) {
    let events: Vec<_> = (0..5).map(|number| event(&number.to_string())).collect();
    good(store.append_events(at(1), events.get(..2).unwrap_or_default()).await);
    good(store.append_events(at(2), events.get(2..).unwrap_or_default()).await);
    good(store.append_events(at(3), &[]).await);
    let first = good(store.outbox(3).await);
    assert_eq!(first, good(store.outbox(3).await), "reading removes nothing");
    assert_eq!(first.iter().map(|outgoing| outgoing.at).collect::<Vec<_>>(), [at(1), at(1), at(2)]);
    assert!(first.iter().map(|outgoing| &outgoing.event).eq(events.iter().take(3)));
    assert!(first.is_sorted_by(|a, b| a.id < b.id));

    let last = first.last().map_or(0, |outgoing| outgoing.id);
    good(store.outbox_done(last).await);
    assert_eq!(marks(&store).await, ["3", "4"]);
    let rest = good(store.outbox(10).await);
    let highest = rest.iter().map(|outgoing| outgoing.id).max().unwrap_or(0);
    good(store.outbox_done(highest).await);
    assert_eq!(good(store.outbox(10).await), []);
    // An id that was given out once is never given out again.
    good(store.append_events(at(4), &[event("new")]).await);
    let ids: Vec<_> = good(store.outbox(10).await).iter().map(|Outgoing { id, .. }| *id).collect();
    assert!(ids.iter().all(|id| *id > highest) && ids.len() == 1);
}

/// Or a store restored from a backup would give out ids that stand for other events.
pub async fn outbox_ids_can_be_raised_above_what_was_recorded(store: Arc<dyn Store>) {
    let raised = async |above, mark| good(store.raise_outbox(above, at(1), &[event(mark)]).await);
    let ids = async || good(store.outbox(10).await).iter().map(|outgoing| outgoing.id).collect::<Vec<_>>();
    assert_eq!(raised(0, "no").await, None);
    assert_eq!(raised(100, "of an empty store").await, Some(0));
    let first = there(ids().await.pop());
    assert!(first > 100);
    assert_eq!(raised(100, "no").await, None);
    assert_eq!(raised(first, "no").await, None);
    assert_eq!(ids().await, [first]);

    good(store.append_events(at(2), &[event("waiting"), event("as well")]).await);
    let before = ids().await.into_iter().max();
    assert_eq!(raised(10_000, "again").await, before);
    assert!(ids().await.iter().all(|id| *id > 10_000), "nothing that waits is taken for recorded");
    good(store.append_events(at(3), &[event("new")]).await);
    assert!(ids().await.is_sorted_by(|a, b| a < b));
    assert_eq!(marks(&store).await, ["of an empty store", "waiting", "as well", "again", "new"]);
    let told = good(store.outbox(10).await)
        .into_iter()
        .find(|outgoing| outgoing.event.detail.get("mark") == Some(&"again".into()));
    let detail = there(told).event.detail;
    assert_eq!(detail.get("store").and_then(serde_json::Value::as_i64), before);
}

pub async fn the_high_water_mark_never_falls(store: Arc<dyn Store>) {
    assert_eq!(good(store.high_water(at(10)).await), at(10));
    assert_eq!(good(store.high_water(at(5)).await), at(10));
    assert_eq!(good(store.high_water(Timestamp::default()).await), at(10));
    assert_eq!(good(store.high_water(at(11)).await), at(11));
}

pub async fn a_store_that_can_be_written_to_passes_its_check(store: Arc<dyn Store>) {
    good(store.check().await);
    good(store.check().await);
    assert!(marks(&store).await.is_empty());
}

pub async fn what_must_be_told_is_kept_until_it_was(store: Arc<dyn Store>) {
    let told = Event::new(Action::CredentialDestructionFailed, Outcome::Failed);
    good(store.append_events(at(1), &[event("not told"), told.clone()]).await);
    good(store.append_events(at(2), &[Event::done(Action::StreamCaughtUp)]).await);
    let waiting = good(store.alerts(0, 10).await);
    assert_eq!(waiting.iter().map(|one| (one.at, &one.event)).next(), Some((at(1), &told)));
    assert_eq!((waiting.len(), good(store.alerts_waiting().await)), (2, 2));
    assert_eq!(good(store.alerts(0, 1).await).len(), 1);
    let first = waiting.first().map_or(0, |first| first.id);
    assert_eq!(good(store.alerts(first, 10).await), waiting.get(1..).unwrap_or_default());
    // That it is recorded does not tell it.
    let last = good(store.outbox(10).await).last().map_or(0, |outgoing| outgoing.id);
    good(store.outbox_done(last).await);
    for _ in 0..2 {
        good(store.alert_told(first).await);
        assert_eq!(good(store.alerts(0, 10).await), waiting.get(1..).unwrap_or_default());
    }
}
