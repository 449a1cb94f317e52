//! Who comes by SSH: registered keys, and certificates that die with the login they came from.

use axum::http::{Method, StatusCode};
use sallyport::access::refusal::Refusal;
use sallyport::access::ssh_identity::PresentedCertificate;
use sallyport::access::users::UserChange;
use sallyport::crypto::ssh::certificate::check_user_certificate;
use sallyport::crypto::ssh::{Certificate, PublicKey};
use sallyport::domain::id::TokenId;
use sallyport::domain::name::UserName;
use sallyport::domain::principal::Principal;
use serde_json::{Value, json};

use super::world::{Person, World, new_key};

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

async fn post(world: &World, token: &str, path: &str, body: Value) -> super::world::Answer {
    world.call(&Method::POST, path, Some(token), Some(body)).await
}

async fn keys(world: &World, token: &str, path: &str) -> Vec<Value> {
    let answer = world.call(&Method::GET, path, Some(token), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn ones_own_keys_are_added_listed_and_removed() {
    let world = World::new().await;
    let alice = world.login(Person::Alice).await;
    let (first, line) = world.add_key(&alice).await;
    let (second, _) = world.add_key(&alice).await;
    let listed = keys(&world, &alice, "/pam/ssh-keys").await;
    let fingerprints: Vec<_> = listed.iter().map(|key| key["fingerprint"].as_str().unwrap()).collect();
    assert_eq!(fingerprints, [&second, &first]);
    assert_eq!(listed[1]["comment"], "a laptop");
    assert_eq!(listed[1]["added_by"], "alice");
    assert!(line.starts_with(listed[1]["public_key"].as_str().unwrap()));

    let again = post(&world, &alice, "/pam/ssh-keys", json!({"public_key": line})).await;
    again.is_problem(StatusCode::CONFLICT, "exists");
    let removal = json!({"fingerprint": first});
    let removed = post(&world, &alice, "/pam/ssh-keys/remove", removal.clone()).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    post(&world, &alice, "/pam/ssh-keys/remove", removal)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(keys(&world, &alice, "/pam/ssh-keys").await.len(), 1);
}

#[tokio::test]
async fn others_keys_are_for_administrators_and_a_conflict_names_nobody() {
    let world = World::new().await;
    let (alice, mallory, root) = (
        world.login(Person::Alice).await,
        world.login(Person::Mallory).await,
        world.login(Person::Root).await,
    );
    let (fingerprint, line) = world.add_key(&alice).await;
    let stolen = post(&world, &mallory, "/pam/ssh-keys", json!({"public_key": line})).await;
    stolen.is_problem(StatusCode::CONFLICT, "exists");
    assert!(!stolen.text().contains("alice"), "{}", stolen.text());
    let theirs = json!({"fingerprint": fingerprint});
    post(&world, &mallory, "/pam/ssh-keys/remove", theirs)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not_found");
    let other = json!({"public_key": new_key().1, "user": "alice"});
    post(&world, &mallory, "/pam/ssh-keys", other.clone())
        .await
        .is_problem(StatusCode::FORBIDDEN, "policy_refused");
    // Not even whether the person exists is told.
    let nobody = json!({"public_key": new_key().1, "user": "nobody"});
    post(&world, &mallory, "/pam/ssh-keys", nobody.clone())
        .await
        .is_problem(StatusCode::FORBIDDEN, "policy_refused");
    let read = world.call(&Method::GET, "/pam/ssh-keys?user=alice", Some(&mallory), None).await;
    read.is_problem(StatusCode::FORBIDDEN, "policy_refused");

    assert_eq!(post(&world, &root, "/pam/ssh-keys", other).await.status, StatusCode::CREATED);
    post(&world, &root, "/pam/ssh-keys", nobody).await.is_problem(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(keys(&world, &root, "/pam/ssh-keys?user=alice").await.len(), 2);
    assert_eq!(keys(&world, &root, "/pam/ssh-keys").await.len(), 0);
}

#[tokio::test]
async fn what_is_no_public_key_is_refused_with_what_to_do() {
    let world = World::new().await;
    let alice = world.login(Person::Alice).await;
    for line in ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 AAAA", "a\nb"] {
        for path in ["/pam/ssh-keys", "/pam/ssh-certificate"] {
            let answer = post(&world, &alice, path, json!({"public_key": line})).await;
            answer.is_problem(StatusCode::BAD_REQUEST, "malformed");
        }
    }
}

#[tokio::test]
async fn a_person_has_so_many_keys_and_no_more() {
    let world = World::new().await;
    let alice = world.login(Person::Alice).await;
    for _ in 0..50 {
        world.add_key(&alice).await;
    }
    let answer = post(&world, &alice, "/pam/ssh-keys", json!({"public_key": new_key().1})).await;
    answer.is_problem(StatusCode::BAD_REQUEST, "malformed");
}

#[tokio::test]
async fn a_registered_key_lets_exactly_its_owner_in() {
    let world = World::new().await;
    let access = world.access();
    let (fingerprint, _) = world.add_key(&world.login(Person::Alice).await).await;
    let found = access.principal_by_ssh_key(&name("alice"), &fingerprint).await.unwrap();
    assert_eq!(found.name, name("alice"));
    let mut told = Vec::new();
    for (user, key) in [("bob", fingerprint.as_str()), ("nobody", &fingerprint), ("alice", "SHA256:other")] {
        told.push(access.principal_by_ssh_key(&name(user), key).await.unwrap_err().to_string());
    }
    disable(&world, true).await;
    told.push(access.principal_by_ssh_key(&name("alice"), &fingerprint).await.unwrap_err().to_string());
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
}

async fn disable(world: &World, disabled: bool) {
    let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
    world.on_the_host(async |users, now| users.change(&name("alice"), change, now).await.unwrap()).await;
}

/// A certificate as Alice's login gets it.
async fn certificate(world: &World, token: &str) -> Certificate {
    let (_, line) = new_key();
    let answer = post(world, token, "/pam/ssh-certificate", json!({"public_key": line})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    Certificate::from_openssh(answer.json()["certificate"].as_str().unwrap()).unwrap()
}

async fn holder(world: &World, user: &str, certificate: &Certificate) -> Result<Principal, Refusal> {
    world.access().principal_by_certificate(&name(user), certificate.into()).await
}

fn now(world: &World) -> u64 {
    u64::try_from(world.access().now().as_micros()).unwrap() / 1_000_000
}

#[tokio::test]
async fn a_certificate_says_whose_it_is_and_ends_with_the_login() {
    let world = World::new().await;
    world.advance(7);
    let token = world.login(Person::Alice).await;
    world.advance(3600);
    let made = certificate(&world, &token).await;
    assert_eq!(made.valid_principals(), ["alice"]);
    assert_eq!(made.valid_after(), now(&world));
    assert_eq!(made.valid_before(), now(&world) + 11 * 3600, "an hour of the login's twelve has passed");
    assert!(made.critical_options().is_empty());
    let extensions: Vec<_> = made.extensions().keys().map(String::as_str).collect();
    assert_eq!(extensions, ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"]);
    assert_ne!(made.serial(), certificate(&world, &token).await.serial());

    let ca = world.access().logins.ssh_user_ca.as_ref().unwrap().keys.now();
    let ca = PublicKey::from(ca.signer.public_key().key_data().clone());
    let client = "192.0.2.7".parse().unwrap();
    check_user_certificate(&made, &[ca], "alice", client, now(&world)).unwrap();
    assert_eq!(holder(&world, "alice", &made).await.unwrap().name, name("alice"));
    assert!(holder(&world, "bob", &made).await.is_err());
    assert!(holder(&world, "nobody", &made).await.is_err());
}

#[tokio::test]
async fn a_certificate_dies_with_whatever_ends_the_login() {
    let world = World::new().await;
    let alice = name("alice");
    for end in ["logout", "user logout", "disable", "password", "time"] {
        let token = world.login(Person::Alice).await;
        let made = certificate(&world, &token).await;
        assert!(holder(&world, "alice", &made).await.is_ok());
        world.tick();
        match end {
            "logout" => drop(world.call(&Method::POST, "/logout", Some(&token), None).await),
            "user logout" => {
                let ended = world.on_the_host(async |users, now| users.log_out(&alice, now).await);
                assert!(ended.await.unwrap() > 0);
            }
            "disable" => {
                disable(&world, true).await;
                assert!(holder(&world, "alice", &made).await.is_err());
                disable(&world, false).await;
            }
            "password" => {
                let password =
                    Some(sallyport::domain::secret::Secret::new(super::world::PASSWORD.to_owned()));
                let change = UserChange { password, ..UserChange::default() };
                world.on_the_host(async |users, now| users.change(&alice, change, now).await.unwrap()).await;
            }
            _ => world.advance(13 * 3600),
        }
        let refused = holder(&world, "alice", &made).await;
        assert!(matches!(refused, Err(Refusal::Unauthenticated(_))), "{end}: {refused:?}");
        let later = certificate(&world, &world.login(Person::Alice).await).await;
        assert!(holder(&world, "alice", &later).await.is_ok(), "{end}: a new login is a new one");
    }
}

#[tokio::test]
async fn a_certificate_from_before_all_were_voided_is_void_though_its_login_holds() {
    let world = World::new().await;
    let (old, new) = (world.login(Person::Alice).await, world.login(Person::Alice).await);
    let made = certificate(&world, &old).await;
    world.call(&Method::POST, "/logout", Some(&new), None).await;
    assert!(holder(&world, "alice", &made).await.is_ok(), "another login's end is not its");
    world.tick();
    world.on_the_host(async |users, now| users.log_out(&name("alice"), now).await.unwrap()).await;
    world.tick();
    let token = world.login(Person::Alice).await;
    let living = certificate(&world, &token).await;
    // The old instant with the new login's id: what a clock set back would give.
    let presented = PresentedCertificate { key_id: living.key_id(), valid_after: made.valid_after() };
    let refused = world.access().principal_by_certificate(&name("alice"), presented).await.unwrap_err();
    assert_eq!(refused.to_string(), "this certificate is void: log in again");
}

#[tokio::test]
async fn a_key_id_that_is_not_ours_or_mixes_people_is_refused() {
    let world = World::new().await;
    let (alice, bob) = (world.login(Person::Alice).await, world.login(Person::Bob).await);
    let (hers, his) = (certificate(&world, &alice).await, certificate(&world, &bob).await);
    let id = |certificate: &Certificate| certificate.key_id().split('/').next().unwrap().to_owned();
    let mixed = hers.key_id().replace(&id(&hers), &id(&his));
    let unknown = format!("{}/alice/{}", id(&hers), TokenId::from_random([9; 10]));
    for key_id in ["", "alice", &mixed, &unknown] {
        let presented = PresentedCertificate { key_id, valid_after: hers.valid_after() };
        let refused = world.access().principal_by_certificate(&name("alice"), presented).await;
        assert!(matches!(refused, Err(Refusal::Unauthenticated(_))), "{key_id}");
    }
}

#[tokio::test]
async fn clients_are_told_what_the_gateway_is_known_by() {
    let world = World::new().await;
    let alice = world.login(Person::Alice).await;
    let view = world.call(&Method::GET, "/pam/gateway", Some(&alice), None).await.json();
    let ssh = &view["ssh"];
    assert_eq!(
        (&ssh["host"], &ssh["port"], &ssh["host_keys"]),
        (&json!("bastion"), &json!(2222), &json!(["ssh-ed25519 HOST"]))
    );
    // Of an authority that is about to have another key, both.
    for authority in ["host_ca", "login_ca"] {
        let keys: Vec<_> =
            ssh[authority].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("ssh-ed25519 AAAA")), "{view}");
    }
}
