//! A second factor is asked for after the right password, and a code is accepted once.

use axum::http::{Method, StatusCode};
use data_encoding::BASE32_NOPAD;
use sallyport::access::refusal::Refusal;
use sallyport::domain::secret::Secret;
use serde_json::json;

use super::world::{Answer, PASSWORD, Person, World};

/// Gives Alice a second factor.
async fn world() -> (World, Vec<u8>) {
    let world = World::new().await;
    let alice = "alice".parse().unwrap();
    let set = world.on_the_host(async |users, now| users.set_second_factor(&alice, now).await);
    let secret = BASE32_NOPAD.decode(set.await.unwrap().base32.expose().as_bytes()).unwrap();
    (world, secret)
}

/// What an authenticator shows.
fn code(world: &World, secret: &[u8]) -> String {
    let step = u64::try_from(world.access().now().as_micros()).unwrap() / 30_000_000;
    let hash = sallyport::crypto::hmac_sha1(secret, &step.to_be_bytes());
    let offset = usize::from(hash[19] & 0xf);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

async fn login(world: &World, password: &str, code: Option<&str>) -> Answer {
    let mut body = json!({"user": "alice", "password": password});
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    world.call(&Method::POST, "/login", None, Some(body)).await
}

#[tokio::test]
async fn a_login_needs_the_code_of_who_has_a_second_factor() {
    let (world, secret) = world().await;
    let without = login(&world, PASSWORD, None).await;
    without.is_problem(StatusCode::UNAUTHORIZED, "second_factor_required");
    let wrong = login(&world, "wrong horse battery staple", None).await;
    wrong.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    let before = world.records("second_factor_checked");
    login(&world, PASSWORD, Some("000000")).await.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    let right = code(&world, &secret);
    assert_eq!(login(&world, PASSWORD, Some(&right)).await.status, StatusCode::OK);
    login(&world, PASSWORD, Some(&right)).await.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    world.advance(30);
    let next = code(&world, &secret);
    assert_eq!(login(&world, PASSWORD, Some(&next)).await.status, StatusCode::OK);
    assert_eq!(world.records("second_factor_checked"), before + 4);
}

#[tokio::test]
async fn without_a_second_factor_the_password_is_enough() {
    let (world, secret) = world().await;
    let alice = "alice".parse().unwrap();
    world.on_the_host(async |users, now| users.remove_second_factor(&alice, now).await.unwrap()).await;
    assert_eq!(login(&world, PASSWORD, None).await.status, StatusCode::OK);
    let useless = code(&world, &secret);
    assert_eq!(login(&world, PASSWORD, Some(&useless)).await.status, StatusCode::OK);
    let again = world.on_the_host(async |users, now| users.remove_second_factor(&alice, now).await);
    assert!(matches!(again.await, Err(Refusal::NotFound { .. })));
}

#[tokio::test]
async fn codes_cannot_be_guessed() {
    let (world, secret) = world().await;
    let right = code(&world, &secret);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        login(&world, PASSWORD, Some(wrong)).await.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let limited = login(&world, PASSWORD, Some(&right)).await;
    limited.is_problem(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts");
    world.advance(300);
    let later = code(&world, &secret);
    assert_eq!(login(&world, PASSWORD, Some(&later)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_gateway_asks_for_the_password_and_then_for_the_code() {
    let (world, secret) = world().await;
    let access = world.access();
    let client = Some("192.0.2.7:5000".parse().unwrap());
    let password = |text: &str| Secret::new(text.to_owned());
    let (logins, tokens) = (world.records("login"), world.login(Person::Bob).await);
    let wrong = access.authenticate_password("alice", password("wrong"), client).await;
    assert!(matches!(wrong, Err(Refusal::Unauthenticated(_))));
    let nobody = access.authenticate_password("nobody", password(PASSWORD), client).await;
    assert_eq!(nobody.unwrap_err().to_string(), wrong.unwrap_err().to_string());
    let alice = access.authenticate_password("alice", password(PASSWORD), client).await.unwrap();
    assert_eq!(world.records("login"), logins + 3, "a password alone is no login: {tokens:.3}");
    access.record_login(&alice, client, "password").await.unwrap();
    assert_eq!(world.records("login"), logins + 4);
    assert!(access.store.valid_tokens(&alice.id, access.now()).await.unwrap().is_empty());

    assert!(access.has_second_factor(&alice.id).await.unwrap());
    assert!(access.check_second_factor(&alice, "123", client).await.is_err());
    access.check_second_factor(&alice, &code(&world, &secret), client).await.unwrap();
    let bob = access.authenticate_password("bob", password(PASSWORD), client).await.unwrap();
    assert!(!access.has_second_factor(&bob.id).await.unwrap());
    assert!(access.check_second_factor(&bob, "000000", client).await.is_err(), "there is none to have");
}
