//! Users, tokens and blocks.

use std::sync::Arc;
use std::time::Duration;

use super::{conflict, exists, not_found};
use crate::crypto::random;
use crate::domain::account::{AccountChange, AccountSummary};
use crate::domain::block::Lift;
use crate::domain::id::{BlockId, TokenId};
use crate::domain::principal::Actor;
use crate::domain::time::Timestamp;
use crate::store::contract::fixtures::{START, account, at, block, event, good, marks, person, there, token};
use crate::store::{Filter, Store};

pub async fn a_user_name_is_taken_once(store: Arc<dyn Store>) {
    let alice = account("alice");
    good(store.add_user(&alice, at(0), &[event("first")]).await);
    assert!(exists(&store.add_user(&account("alice"), at(1), &[event("second")]).await));
    assert!(exists(&store.add_user(&alice, at(1), &[event("third")]).await));
    assert_eq!(good(store.user_by_name(&alice.principal.name).await), Some(alice.clone()));
    assert_eq!(good(store.user_by_id(&alice.principal.id).await), Some(alice.clone()));
    assert_eq!(marks(&store).await, ["first"]);
    let bob = account("bob");
    good(store.add_user(&bob, at(1), &[]).await);
    let summary = |account: crate::domain::account::Account| AccountSummary {
        principal: account.principal,
        disabled: account.disabled,
        created_at: account.created_at,
    };
    assert_eq!(good(store.users().await), [summary(alice), summary(bob)]);
}

pub async fn a_changed_user_keeps_their_name_and_id(store: Arc<dyn Store>) {
    let alice = account("alice");
    good(store.add_user(&alice, at(0), &[]).await);
    let mut changed = alice.clone();
    changed.principal.domain = good("bank-kyc".parse());
    changed.principal.groups.clear();
    changed.password_hash = String::from("$argon2id$other");
    changed.disabled = true;
    changed.ssh_certificates_void_before = Some(at(1));
    let change = AccountChange {
        domain: Some(changed.principal.domain.clone()),
        groups: Some(changed.principal.groups.clone()),
        password_hash: Some(changed.password_hash.clone()),
        disabled: Some(true),
    };
    let id = &alice.principal.id;
    assert_eq!(good(store.change_user(id, &change, at(1), &[event("changed")]).await), changed);
    assert_eq!(good(store.user_by_id(id).await), Some(changed));
    let unknown = account("alice").principal.id;
    assert!(not_found(&store.change_user(&unknown, &change, at(2), &[event("no")]).await));
    assert_eq!(marks(&store).await, ["changed"]);
}

/// Whoever decides on one thing does not undo what somebody else decided on another meanwhile.
pub async fn a_change_of_a_user_changes_only_what_it_names(store: Arc<dyn Store>) {
    let mut alice = account("alice");
    good(store.add_user(&alice, at(0), &[]).await);
    let unchanged = AccountChange::default;
    let password_hash = "$argon2id$other".to_owned();
    let (domain, groups) = (good("bank-kyc".parse()), [good("dba".parse())].into());
    for change in [
        AccountChange { disabled: Some(true), ..unchanged() },
        AccountChange { password_hash: Some(password_hash), ..unchanged() },
        AccountChange { domain: Some(domain), ..unchanged() },
        AccountChange { groups: Some(groups), ..unchanged() },
        unchanged(),
        AccountChange { disabled: Some(false), ..unchanged() },
    ] {
        alice.disabled = change.disabled.unwrap_or(alice.disabled);
        alice.password_hash = change.password_hash.clone().unwrap_or(alice.password_hash);
        if change.ends_tokens() {
            alice.ssh_certificates_void_before = Some(at(1));
        }
        alice.principal.domain = change.domain.clone().unwrap_or(alice.principal.domain);
        alice.principal.groups = change.groups.clone().unwrap_or(alice.principal.groups);
        assert_eq!(good(store.change_user(&alice.principal.id, &change, at(1), &[]).await), alice);
        assert_eq!(good(store.user_by_id(&alice.principal.id).await), Some(alice.clone()));
    }
}

pub async fn a_new_password_and_disabling_end_the_users_tokens(store: Arc<dyn Store>) {
    let (mut alice, bob) = (account("alice"), account("bob"));
    good(store.add_user(&alice, at(0), &[]).await);
    good(store.add_user(&bob, at(0), &[]).await);
    let bobs = token(&bob, at(60));
    good(store.add_token(&bobs, &bob.password_hash, at(0), &[]).await);
    let disable = |disabled| AccountChange { disabled: Some(disabled), ..AccountChange::default() };
    let password =
        |hash: &str| AccountChange { password_hash: Some(hash.to_owned()), ..AccountChange::default() };
    let groups = AccountChange { groups: Some([].into()), ..AccountChange::default() };
    for (change, valid) in
        [(disable(true), 0), (password("$argon2id$other"), 0), (disable(false), 3), (groups, 3)]
    {
        let old = token(&alice, at(1));
        good(store.add_token(&old, &alice.password_hash, at(0), &[]).await);
        let kept = good(store.valid_tokens(&alice.principal.id, at(2)).await).len();
        for _ in kept..3 {
            good(store.add_token(&token(&alice, at(60)), &alice.password_hash, at(0), &[]).await);
        }
        good(store.change_user(&alice.principal.id, &change, at(2), &[event("changed")]).await);
        let outgoing = there(good(store.outbox(100).await).pop());
        assert_eq!(outgoing.event.detail.get("tokens_ended"), Some(&(3 - valid).into()), "{change:?}");
        assert_eq!(there(good(store.token_by_hash(&old.hash).await)).revoked_at, None, "it had run out");
        good(store.change_user(&alice.principal.id, &disable(false), at(3), &[]).await);
        assert_eq!(good(store.valid_tokens(&alice.principal.id, at(3)).await).len(), valid, "{change:?}");
        alice = there(good(store.user_by_id(&alice.principal.id).await));
    }
    assert_eq!(good(store.valid_tokens(&bob.principal.id, at(2)).await), [bobs]);
}

/// Checking a password takes a while; what happens meanwhile must not be outrun.
pub async fn a_token_needs_an_enabled_user_and_the_password_that_was_checked(store: Arc<dyn Store>) {
    let alice = account("alice");
    let id = &alice.principal.id;
    good(store.add_user(&alice, at(0), &[]).await);
    let disable = |disabled| AccountChange { disabled: Some(disabled), ..AccountChange::default() };
    good(store.change_user(id, &disable(true), at(1), &[]).await);
    let late = token(&alice, at(60));
    assert!(conflict(&store.add_token(&late, &alice.password_hash, at(1), &[event("no")]).await));
    let password_hash = Some("$argon2id$other".to_owned());
    let change = AccountChange { password_hash, disabled: Some(false), ..AccountChange::default() };
    let changed = good(store.change_user(id, &change, at(2), &[]).await);
    assert!(conflict(&store.add_token(&late, &alice.password_hash, at(2), &[event("no")]).await));
    assert_eq!(good(store.valid_tokens(id, at(2)).await), []);
    good(store.add_token(&late, &changed.password_hash, at(2), &[event("login")]).await);
    assert_eq!(marks(&store).await, ["login"]);
}

pub async fn all_tokens_of_a_user_are_revoked_at_once(store: Arc<dyn Store>) {
    let (alice, bob) = (account("alice"), account("bob"));
    for user in [&alice, &bob] {
        good(store.add_user(user, at(0), &[]).await);
        for end in [60, 61] {
            good(store.add_token(&token(user, at(end)), &user.password_hash, at(0), &[]).await);
        }
    }
    let id = &alice.principal.id;
    assert_eq!(good(store.revoke_tokens_of(id, at(1), &[event("first")]).await), 2);
    assert_eq!(good(store.revoke_tokens_of(id, at(2), &[event("nothing to do")]).await), 0);
    assert_eq!(good(store.valid_tokens(id, at(1)).await), []);
    assert_eq!(good(store.valid_tokens(&bob.principal.id, at(1)).await).len(), 2);
    let unknown = account("mallory").principal.id;
    assert!(not_found(&store.revoke_tokens_of(&unknown, at(3), &[event("no")]).await));
    assert_eq!(marks(&store).await, ["first"]);
    let outgoing = there(good(store.outbox(10).await).pop());
    assert_eq!(outgoing.event.detail.get("tokens_ended"), Some(&2.into()));
}

pub async fn a_token_is_valid_until_its_very_end(store: Arc<dyn Store>) {
    let (alice, bob) = (account("alice"), account("bob"));
    good(store.add_user(&alice, at(0), &[]).await);
    good(store.add_user(&bob, at(0), &[]).await);
    let token = token(&alice, at(60));
    good(store.add_token(&token, &alice.password_hash, at(0), &[event("login")]).await);
    let just_before = Timestamp::from_micros(at(60).as_micros() - 1);
    let of = async |account: &crate::domain::account::Account, now| {
        good(store.valid_tokens(&account.principal.id, now).await)
    };
    assert_eq!(of(&alice, START).await, std::slice::from_ref(&token));
    assert_eq!(of(&alice, just_before).await, std::slice::from_ref(&token));
    assert_eq!(of(&alice, at(60)).await, []);
    assert_eq!(of(&bob, START).await, []);
    // It is kept, and who checks its hash asks the clock.
    assert_eq!(good(store.token_by_hash(&token.hash).await), Some(token));
    assert_eq!(good(store.token_by_hash(&[0; 32]).await), None);
    assert_eq!(marks(&store).await, ["login"]);
}

pub async fn a_token_is_revoked_once(store: Arc<dyn Store>) {
    let alice = account("alice");
    good(store.add_user(&alice, at(0), &[]).await);
    let token = token(&alice, at(60));
    good(store.add_token(&token, &alice.password_hash, at(0), &[]).await);
    assert!(exists(&store.add_token(&token, &alice.password_hash, at(0), &[]).await));
    good(store.revoke_token(&token.id, at(1), &[event("first")]).await);
    good(store.revoke_token(&token.id, at(2), &[event("second")]).await);
    assert_eq!(there(good(store.token_by_hash(&token.hash).await)).revoked_at, Some(at(1)));
    assert_eq!(good(store.valid_tokens(&alice.principal.id, at(1)).await), []);
    assert_eq!(marks(&store).await, ["first"]);
    let unknown = TokenId::from_random(random());
    assert!(not_found(&store.revoke_token(&unknown, at(3), &[event("no")]).await));
    let mallory = account("mallory");
    let strangers = crate::store::contract::fixtures::token(&mallory, at(60));
    assert!(not_found(&store.add_token(&strangers, &mallory.password_hash, at(0), &[event("no")]).await));
    assert_eq!(marks(&store).await, ["first"]);
}

pub async fn a_block_is_lifted_once(store: Arc<dyn Store>) {
    let added = block(&person("mallory"), at(0));
    good(store.add_block(&added, at(0), &[event("added")]).await);
    assert!(exists(&store.add_block(&added, at(0), &[event("no")]).await));
    assert_eq!(good(store.block(&added.id).await), Some(added.clone()));
    let lift = |second| Lift { by: Actor::from(&person("carol")), at: at(second) };
    let first = lift(1);
    let lifted = good(store.lift_block(&added.id, &first, &[event("lifted")]).await);
    assert_eq!(lifted.lifted, Some(first));
    assert_eq!(good(store.lift_block(&added.id, &lift(2), &[event("again")]).await), lifted);
    assert_eq!(good(store.block(&added.id).await), Some(lifted));
    let unknown = BlockId::from_random(random());
    assert!(not_found(&store.lift_block(&unknown, &lift(3), &[event("no")]).await));
    assert_eq!(marks(&store).await, ["added", "lifted"]);
}

/// A page size that hides a block would let somebody in.
pub async fn no_block_is_left_out_of_the_list(store: Arc<dyn Store>) {
    let mallory = person("mallory");
    let mut everywhere = block(&mallory, at(0));
    everywhere.target = None;
    everywhere.until = None;
    good(store.add_block(&everywhere, at(0), &[]).await);
    for second in 1..=1_100 {
        let mut short = block(&mallory, at(second));
        short.until = Some(at(second).plus(Duration::from_micros(1)));
        good(store.add_block(&short, at(second), &[]).await);
    }
    let filter = Filter { principal: Some(mallory.id.clone()), open_only: true, ..Filter::default() };
    let blocks = good(store.blocks(&filter).await);
    assert_eq!(blocks.len(), 1_101);
    assert!(blocks.iter().any(|block| block.covers(&mallory.id, &good("any".parse()), at(9_999))));
}
