//! Requests, sessions and connections.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{conflict, exists, not_found};
use crate::crypto::random;
use crate::domain::approval::Quorum;
use crate::domain::connection::Ended;
use crate::domain::deny::EndReason;
use crate::domain::id::{ConnectionId, RequestId, SessionId};
use crate::domain::principal::Actor;
use crate::domain::request::{Request, RequestState};
use crate::domain::session::Revocation;
use crate::store::contract::fixtures::{
    activate, at, connection, event, good, marks, person, request, stored_session, there,
};
use crate::store::{Filter, Revoked, Store, StoreResult};

/// How many tasks race for one step.
const RACERS: usize = 24;

pub async fn a_request_is_read_back_as_it_was_written(store: Arc<dyn Store>) {
    let request = request(&person("alice"), at(0));
    good(store.create_request(&request, at(0), &[event("created")]).await);
    assert!(exists(&store.create_request(&request, at(0), &[event("no")]).await));
    assert_eq!(good(store.request(&request.id).await), Some(request.clone()));

    let mut stored = request;
    for (second, name) in [(1, "bob"), (2, "carol")] {
        let next = good(stored.clone().approve(&person(name), format!("yes, {name}"), at(second)));
        good(store.step_request(stored.version, &next, None, at(second), &[]).await);
        assert_eq!(good(store.request(&next.id).await), Some(next.clone()));
        stored = next;
    }
    let (approved, session) = activate(&stored, at(3));
    good(store.step_request(stored.version, &approved, Some(&session), at(3), &[event("granted")]).await);
    assert_eq!(good(store.request(&approved.id).await), Some(approved));
    assert_eq!(good(store.session(&session.id).await), Some(session));
    assert_eq!(marks(&store).await, ["created", "granted"]);
}

pub async fn a_step_from_a_stale_version_is_a_conflict(store: Arc<dyn Store>) {
    let request = request(&person("alice"), at(0));
    good(store.create_request(&request, at(0), &[]).await);
    let approved = good(request.clone().approve(&person("bob"), String::new(), at(1)));
    let cancelled = good(request.clone().cancel(&person("alice"), at(1)));
    good(store.step_request(0, &approved, None, at(1), &[event("approved")]).await);
    assert!(conflict(&store.step_request(0, &cancelled, None, at(1), &[event("cancelled")]).await));
    assert!(conflict(&store.step_request(7, &cancelled, None, at(1), &[event("cancelled")]).await));
    let (active, session) = activate(&request, at(1));
    assert!(conflict(&store.step_request(0, &active, Some(&session), at(1), &[event("active")]).await));
    assert_eq!(good(store.session(&session.id).await), None);
    assert_eq!(good(store.request(&request.id).await), Some(approved));
    assert_eq!(marks(&store).await, ["approved"]);
}

pub async fn approving_once_more_changes_and_records_nothing(store: Arc<dyn Store>) {
    let request = request(&person("alice"), at(0));
    good(store.create_request(&request, at(0), &[]).await);
    let bob = person("bob");
    let once = good(request.approve(&bob, String::new(), at(1)));
    good(store.step_request(0, &once, None, at(1), &[event("first")]).await);
    let twice = good(once.clone().approve(&bob, "again".to_owned(), at(2)));
    good(store.step_request(once.version, &twice, None, at(2), &[event("second")]).await);
    assert_eq!(good(store.request(&once.id).await), Some(once));
    assert_eq!(marks(&store).await, ["first"]);
}

pub async fn an_ask_cannot_be_changed_after_it_was_made(store: Arc<dyn Store>) {
    let request = request(&person("alice"), at(0));
    good(store.create_request(&request, at(0), &[]).await);
    let mut bent = good(request.clone().approve(&person("bob"), String::new(), at(1)));
    bent.ask.access = good("dba".parse());
    assert!(store.step_request(0, &bent, None, at(1), &[event("no")]).await.is_err());
    assert_eq!(good(store.request(&request.id).await), Some(request));
    assert!(marks(&store).await.is_empty());
}

pub async fn a_decided_request_stays_decided(store: Arc<dyn Store>) {
    let pending = request(&person("alice"), at(0));
    good(store.create_request(&pending, at(0), &[]).await);
    let denied = good(pending.clone().deny(&person("bob"), "not now".to_owned(), at(1)));
    good(store.step_request(0, &denied, None, at(1), &[]).await);
    let mut revived = pending.clone();
    revived.version = denied.version + 1;
    assert!(store.step_request(denied.version, &revived, None, at(2), &[]).await.is_err());
    let (mut active, session) = activate(&pending, at(2));
    active.version = denied.version + 1;
    assert!(store.step_request(denied.version, &active, Some(&session), at(2), &[]).await.is_err());
    assert_eq!(good(store.request(&pending.id).await), Some(denied));
    assert_eq!(good(store.session(&session.id).await), None);
}

pub async fn a_session_needs_a_request_that_was_approved_as_it(store: Arc<dyn Store>) {
    let pending = request(&person("alice"), at(0));
    let (approved, session) = activate(&pending, at(0));
    let (_, other) = activate(&request(&person("alice"), at(0)), at(0));
    // Pending with a session; approved without one; approved with somebody else's.
    assert!(store.create_granted(&pending, &session, at(0), &[event("no")]).await.is_err());
    assert!(store.create_request(&approved, at(0), &[event("no")]).await.is_err());
    assert!(store.create_granted(&approved, &other, at(0), &[event("no")]).await.is_err());
    assert_eq!(good(store.request(&pending.id).await), None);
    assert_eq!(good(store.session(&session.id).await), None);
    assert_eq!(good(store.session(&other.id).await), None);
    good(store.create_granted(&approved, &session, at(0), &[event("yes")]).await);
    assert_eq!(marks(&store).await, ["yes"]);
}

pub async fn a_request_has_at_most_one_session(store: Arc<dyn Store>) {
    let (approved, session) = activate(&request(&person("alice"), at(0)), at(0));
    good(store.create_granted(&approved, &session, at(0), &[]).await);
    let mut second = session.clone();
    second.id = SessionId::from_random(random());
    let mut again = approved.clone();
    again.state = RequestState::Approved { at: at(1), session: second.id.clone() };
    again.version += 1;
    assert!(store.step_request(approved.version, &again, Some(&second), at(1), &[]).await.is_err());
    assert!(store.create_granted(&approved, &second, at(1), &[]).await.is_err());
    assert_eq!(good(store.sessions(&Filter::default()).await), [session]);
    assert_eq!(good(store.request(&approved.id).await), Some(approved));
}

/// Runs `step` in many tasks at once and gives their results.
async fn race<T: Send + 'static, F>(
    store: &Arc<dyn Store>,
    step: impl Fn(Arc<dyn Store>, usize) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut racers = JoinSet::new();
    for number in 0..RACERS {
        racers.spawn(step(store.clone(), number));
    }
    racers.join_all().await
}

pub async fn of_many_activations_at_once_exactly_one_happens(store: Arc<dyn Store>) {
    let pending = request(&person("alice"), at(0));
    good(store.create_request(&pending, at(0), &[]).await);
    let results = race(&store, |store, number| {
        let pending = pending.clone();
        async move {
            let (approved, session) = activate(&pending, at(1));
            let event = event(&format!("racer {number}"));
            store.step_request(pending.version, &approved, Some(&session), at(1), &[event]).await
        }
    })
    .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(results.iter().filter(|result| conflict(result)).count(), RACERS - 1);
    let sessions = good(store.sessions(&Filter::default()).await);
    assert_eq!(sessions.len(), 1);
    let stored = there(good(store.request(&pending.id).await));
    assert!(matches!(&stored.state, RequestState::Approved { session, .. }
        if sessions.iter().all(|stored| stored.id == *session)));
    assert_eq!(marks(&store).await.len(), 1);
}

pub async fn approvals_at_the_same_moment_are_all_kept(store: Arc<dyn Store>) {
    let pending = request(&person("alice"), at(0));
    good(store.create_request(&pending, at(0), &[]).await);
    race(&store, |store, number| {
        let id = pending.id.clone();
        async move {
            let approver = person(&format!("approver-{number}"));
            loop {
                let seen: Request = there(good(store.request(&id).await));
                let next = good(seen.clone().approve(&approver, String::new(), at(1)));
                let step: StoreResult<()> =
                    store.step_request(seen.version, &next, None, at(1), &[event("yes")]).await;
                if !conflict(&step) {
                    return good(step);
                }
            }
        }
    })
    .await;
    let stored = there(good(store.request(&pending.id).await));
    let people = good(u32::try_from(RACERS));
    assert_eq!(stored.quorum(&good("bank-core".parse())), Quorum { people, from_target_domain: people });
    assert_eq!(marks(&store).await.len(), RACERS);
}

pub async fn of_many_revocations_at_once_exactly_one_is_the_first(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let results = race(&store, |store, number| {
        let id = session.id.clone();
        async move {
            let by = Actor::from(&person(&format!("revoker-{number}")));
            let revocation = Revocation { at: at(1), by, why: format!("reason {number}") };
            good(store.revoke_session(&id, &revocation, &[event("revoked")]).await)
        }
    })
    .await;
    let stored = there(good(store.session(&session.id).await));
    assert!(stored.revoked.is_some());
    assert_eq!(results.iter().filter(|result| **result == Revoked::Now(stored.clone())).count(), 1);
    assert_eq!(
        results.iter().filter(|result| **result == Revoked::Before(stored.clone())).count(),
        RACERS - 1
    );
    assert_eq!(marks(&store).await, ["revoked"]);
    assert_eq!(stored.ends_at, session.ends_at, "what the session was is kept");
}

pub async fn closing_a_connection_twice_keeps_the_first_end(store: Arc<dyn Store>) {
    let session = stored_session(&store, at(0)).await;
    let opened = connection(&session, at(1));
    good(store.open_connection(&opened, &[event("opened")]).await);
    assert!(exists(&store.open_connection(&opened, &[event("no")]).await));
    assert_eq!(good(store.connection(&opened.id).await), Some(opened.clone()));
    assert_eq!(good(store.open_connections_of(&opened.node).await), std::slice::from_ref(&opened));

    let why = EndReason::Revoked { by: good("carol".parse()), why: "laptop stolen".to_owned() };
    let first = Ended { at: at(2), reason: why };
    good(store.close_connection(&opened.id, &first, &[event("ended")]).await);
    let second = Ended { at: at(3), reason: EndReason::Crashed };
    good(store.close_connection(&opened.id, &second, &[event("again")]).await);
    let closed = there(good(store.connection(&opened.id).await));
    assert_eq!(closed.ended, Some(first));
    assert_eq!(good(store.open_connections_of(&opened.node).await), []);
    assert_eq!(marks(&store).await, ["opened", "ended"]);
}

pub async fn a_connection_needs_a_session(store: Arc<dyn Store>) {
    let (_, never_stored) = activate(&request(&person("alice"), at(0)), at(0));
    let opened = connection(&never_stored, at(1));
    assert!(not_found(&store.open_connection(&opened, &[event("no")]).await));
    assert_eq!(good(store.connection(&opened.id).await), None);
    assert!(marks(&store).await.is_empty());
}

pub async fn lists_are_newest_first_filtered_and_limited(store: Arc<dyn Store>) {
    let mut sessions = Vec::new();
    for second in 0..5 {
        sessions.push(stored_session(&store, at(second)).await);
    }
    sessions.reverse();
    let all = Filter::default();
    let ids = |filter: Filter| {
        let store = store.clone();
        async move { good(store.sessions(&filter).await).into_iter().map(|s| s.id).collect::<Vec<_>>() }
    };
    let expected: Vec<_> = sessions.iter().map(|session| session.id.clone()).collect();
    assert_eq!(ids(all.clone()).await, expected);
    assert_eq!(ids(Filter { limit: Some(2), ..all.clone() }).await, expected.get(..2).unwrap_or_default());
    assert!(ids(Filter { limit: Some(0), ..all.clone() }).await.is_empty());

    let one = there(sessions.get(1)).clone();
    let mine = Filter { principal: Some(one.principal.id.clone()), ..all.clone() };
    let this = Filter { session: Some(one.id.clone()), ..all.clone() };
    let open = Filter { open_only: true, ..all.clone() };
    assert_eq!(ids(mine.clone()).await, std::slice::from_ref(&one.id));
    assert_eq!(ids(this.clone()).await, std::slice::from_ref(&one.id));
    let requests = good(store.requests(&this).await);
    assert_eq!(requests.iter().map(|request| &request.id).collect::<Vec<_>>(), [&one.request]);
    assert_eq!(good(store.requests(&mine).await), requests);
    assert_eq!(good(store.requests(&open).await), [], "none is pending");

    let revocation = Revocation { at: at(9), by: one.principal.clone(), why: "done".to_owned() };
    good(store.revoke_session(&one.id, &revocation, &[]).await);
    assert_eq!(ids(open.clone()).await.len(), 4);
    assert_eq!(ids(all).await.len(), 5, "history is kept");

    let (first, second) = (connection(&one, at(10)), connection(&one, at(11)));
    good(store.open_connection(&first, &[]).await);
    good(store.open_connection(&second, &[]).await);
    assert_eq!(good(store.connections(&this).await), [second.clone(), first.clone()]);
    assert_eq!(good(store.connections(&mine).await).len(), 2);
    let ended = Ended { at: at(12), reason: EndReason::ClientClosed };
    good(store.close_connection(&second.id, &ended, &[]).await);
    assert_eq!(good(store.connections(&Filter { open_only: true, ..this }).await), [first]);
}

pub async fn what_is_not_there_is_not_found(store: Arc<dyn Store>) {
    let (request_id, session_id) = (RequestId::from_random(random()), SessionId::from_random(random()));
    let connection_id = ConnectionId::from_random(random());
    assert_eq!(good(store.request(&request_id).await), None);
    assert_eq!(good(store.session(&session_id).await), None);
    assert_eq!(good(store.connection(&connection_id).await), None);
    let alice = person("alice");
    assert_eq!(good(store.user_by_name(&alice.name).await), None);
    assert_eq!(good(store.user_by_id(&alice.id).await), None);
    let revocation = Revocation { at: at(1), by: Actor::from(&alice), why: String::new() };
    assert!(not_found(&store.revoke_session(&session_id, &revocation, &[event("no")]).await));
    let ended = Ended { at: at(1), reason: EndReason::Idle };
    assert!(not_found(&store.close_connection(&connection_id, &ended, &[event("no")]).await));
    let step = good(request(&alice, at(0)).cancel(&alice, at(1)));
    assert!(not_found(&store.step_request(0, &step, None, at(1), &[event("no")]).await));
    assert!(marks(&store).await.is_empty());
}
