//! SSH keys, certificates and second factors.

use std::sync::Arc;

use super::{exists, not_found};
use crate::domain::account::{Account, AccountChange};
use crate::domain::secret::Secret;
use crate::domain::ssh_key::SecondFactor;
use crate::store::Store;
use crate::store::contract::fixtures::{account, at, event, good, marks, ssh_key, there, token};

async fn stored(store: &Arc<dyn Store>, name: &str) -> Account {
    let account = account(name);
    good(store.add_user(&account, at(0), &[]).await);
    account
}

pub async fn an_ssh_key_belongs_to_one_person_at_a_time(store: Arc<dyn Store>) {
    let (alice, bob) = (stored(&store, "alice").await, stored(&store, "bob").await);
    let (first, second) = (ssh_key(&alice, "one"), ssh_key(&alice, "two"));
    good(store.add_ssh_key(&first, &[event("first")]).await);
    good(store.add_ssh_key(&second, &[event("second")]).await);
    assert!(exists(&store.add_ssh_key(&first, &[event("again")]).await));
    let taken = store.add_ssh_key(&ssh_key(&bob, "one"), &[event("taken")]).await;
    assert!(exists(&taken));
    let told = there(taken.err()).to_string();
    assert!(!told.contains("alice") && !told.contains(alice.principal.id.as_str()), "{told}");
    let strangers = ssh_key(&account("mallory"), "three");
    assert!(not_found(&store.add_ssh_key(&strangers, &[event("nobody")]).await));
    assert_eq!(good(store.ssh_key(&first.fingerprint).await), Some(first.clone()));
    assert_eq!(good(store.ssh_key("SHA256:three").await), None);
    assert_eq!(good(store.ssh_keys_of(&alice.principal.id).await), [second, first]);
    assert_eq!(good(store.ssh_keys_of(&bob.principal.id).await), []);
    assert_eq!(marks(&store).await, ["first", "second"]);
}

pub async fn an_ssh_key_is_removed_by_its_owner_only_and_once(store: Arc<dyn Store>) {
    let (alice, bob) = (stored(&store, "alice").await, stored(&store, "bob").await);
    let key = ssh_key(&alice, "one");
    good(store.add_ssh_key(&key, &[]).await);
    let remove = async |account: &Account, mark| {
        let events = [event(mark)];
        good(store.remove_ssh_key(&key.fingerprint, &account.principal.id, at(1), &events).await)
    };
    assert!(!remove(&bob, "not his").await);
    assert!(remove(&alice, "hers").await);
    assert!(!remove(&alice, "gone").await);
    assert_eq!(good(store.ssh_key(&key.fingerprint).await), None);
    assert_eq!(good(store.ssh_keys_of(&alice.principal.id).await), []);
    assert_eq!(marks(&store).await, ["hers"]);
    let his = ssh_key(&bob, "one");
    good(store.add_ssh_key(&his, &[]).await);
    assert_eq!(good(store.ssh_key(&key.fingerprint).await), Some(his), "what is free may be taken");
}

pub async fn whatever_ends_tokens_voids_ssh_certificates(store: Arc<dyn Store>) {
    let alice = stored(&store, "alice").await;
    let id = &alice.principal.id;
    let void = async || there(good(store.user_by_id(id).await)).ssh_certificates_void_before;
    let change = |disabled| AccountChange { disabled: Some(disabled), ..AccountChange::default() };
    assert_eq!(void().await, None);
    let disabled = good(store.change_user(id, &change(true), at(1), &[]).await);
    assert_eq!(disabled.ssh_certificates_void_before, Some(at(1)));
    good(store.change_user(id, &change(false), at(2), &[]).await);
    assert_eq!(void().await, Some(at(1)), "to be let in again gives nothing back");
    let password_hash = Some("$argon2id$other".to_owned());
    let password = AccountChange { password_hash, ..AccountChange::default() };
    let alice = good(store.change_user(id, &password, at(3), &[]).await);
    assert_eq!(void().await, Some(at(3)));
    assert_eq!(good(store.revoke_tokens_of(id, at(4), &[]).await), 0);
    assert_eq!(void().await, Some(at(3)), "without a token there is no certificate");
    let token = token(&alice, at(60));
    good(store.add_token(&token, &alice.password_hash, at(4), &[]).await);
    assert_eq!(good(store.token(&token.id).await), Some(token));
    assert_eq!(good(store.revoke_tokens_of(id, at(5), &[]).await), 1);
    assert_eq!(void().await, Some(at(5)));
}

fn factor(byte: u8) -> SecondFactor {
    SecondFactor { secret: Secret::new([byte; 20]), last_step: 10 }
}

pub async fn a_second_factors_code_is_accepted_once_and_never_an_earlier_one(store: Arc<dyn Store>) {
    let alice = stored(&store, "alice").await;
    let id = &alice.principal.id;
    let accepted = async |step, mark| store.use_second_factor(id, step, at(1), &[event(mark)]).await;
    assert!(not_found(&accepted(11, "none").await));
    good(store.set_second_factor(id, &factor(1), at(0), &[]).await);
    assert!(!good(accepted(10, "of before it was set").await));
    assert!(good(accepted(12, "first").await));
    assert!(!good(accepted(12, "again").await));
    assert!(!good(accepted(11, "earlier").await));
    assert!(good(accepted(13, "next").await));
    assert_eq!(there(good(store.second_factor(id).await)).last_step, 13);
    assert_eq!(marks(&store).await, ["first", "next"]);
    let both = tokio::join!(accepted(14, "one"), accepted(14, "two"));
    assert_ne!(good(both.0), good(both.1), "of two at the same moment one");
}

pub async fn a_second_factor_is_replaced_and_removed(store: Arc<dyn Store>) {
    let alice = stored(&store, "alice").await;
    let id = &alice.principal.id;
    let unknown = account("mallory").principal.id;
    assert!(not_found(&store.set_second_factor(&unknown, &factor(1), at(0), &[event("no")]).await));
    assert!(good(store.second_factor(id).await).is_none());
    for byte in [1, 2] {
        good(store.set_second_factor(id, &factor(byte), at(0), &[event("set")]).await);
        assert_eq!(*there(good(store.second_factor(id).await)).secret.expose(), [byte; 20]);
    }
    assert!(good(store.remove_second_factor(id, at(1), &[event("removed")]).await));
    assert!(!good(store.remove_second_factor(id, at(1), &[event("again")]).await));
    assert!(good(store.second_factor(id).await).is_none());
    assert_eq!(marks(&store).await, ["set", "set", "removed"]);
}
