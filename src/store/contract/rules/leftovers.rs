//! What the janitor has found at a source.

use std::sync::Arc;

use super::not_found;
use crate::crypto::random;
use crate::domain::id::SessionId;
use crate::domain::leftover::{Leftover, LeftoverKind};
use crate::store::Store;
use crate::store::contract::fixtures::{at, event, good, marks};

fn leftover(kind: LeftoverKind, place: &str, second: u64) -> Leftover {
    Leftover {
        kind,
        place: place.to_owned(),
        handle: "sp_ses_lost".to_owned(),
        session: SessionId::from_random(random()),
        target: good("ledger-prod".parse()),
        found_at: at(second),
        last_error: None,
    }
}

pub async fn a_leftover_is_kept_until_it_is_ended_once(store: Arc<dyn Store>) {
    // Its session need not be known.
    let orphan = leftover(LeftoverKind::Orphan, "one:5432", 1);
    let deny = leftover(LeftoverKind::Deny, "arn:aws:iam::123456789012:role/One", 2);
    good(store.keep_leftover(&orphan, at(1), &[event("found")]).await);
    good(store.keep_leftover(&deny, at(2), &[]).await);
    assert_eq!(good(store.leftovers().await), [orphan.clone(), deny.clone()]);

    let again = Leftover { last_error: Some("no".to_owned()), found_at: at(3), ..orphan.clone() };
    good(store.keep_leftover(&again, at(3), &[event("failed")]).await);
    let kept = Leftover { found_at: orphan.found_at, ..again };
    assert_eq!(good(store.leftovers().await), [kept, deny.clone()], "it was found when it was first found");

    good(store.end_leftover(&orphan.place, &orphan.handle, at(4), &[event("ended")]).await);
    let twice = store.end_leftover(&orphan.place, &orphan.handle, at(5), &[event("no")]).await;
    assert!(not_found(&twice));
    assert!(not_found(&store.end_leftover(&deny.place, "other", at(5), &[event("no")]).await));
    assert_eq!(good(store.leftovers().await), std::slice::from_ref(&deny));
    let others =
        LeftoverKind::ALL.into_iter().zip(10..).map(|(kind, second)| leftover(kind, kind.as_str(), second));
    let others: Vec<Leftover> = others.collect();
    for other in &others {
        good(store.keep_leftover(other, at(6), &[]).await);
    }
    assert_eq!(good(store.leftovers().await), [vec![deny], others].concat(), "of whatever kind");
    assert_eq!(marks(&store).await, ["found", "failed", "ended"]);
}
