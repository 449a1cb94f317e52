//! The HTTP API as a whole: every route has an authorization case and leaves the record that the
//! table of routes says, and the OpenAPI document lists exactly the routes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in the test's own helpers too, a step that fails fails the test"
)]

#[path = "http_api/second_factor.rs"]
mod second_factor;
#[path = "http_api/ssh.rs"]
mod ssh;
#[path = "http_api/world.rs"]
mod world;

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode, header};
use sallyport::audit::record::{Body as RecordBody, Data, Output, Pty};
use sallyport::http::{Auth, ROUTES, Route};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use world::{Answer, Person, Things, World};

const UNKNOWN_CONNECTION: &str = "con-0000000000000000";

/// What a call of a route is to be tried with.
struct Case {
    path: String,
    body: Option<Value>,
    /// What somebody without any right gets.
    powerless: StatusCode,
    /// Who may, and what they get.
    able: (Person, StatusCode),
}

fn case(path: &str, body: Option<Value>, powerless: u16, able: (Person, u16)) -> Case {
    let status = |code| StatusCode::from_u16(code).unwrap();
    Case { path: path.to_owned(), body, powerless: status(powerless), able: (able.0, status(able.1)) }
}

/// The authorization case of each route. A route without one fails the tests that walk the table.
fn case_of(route: &Route, things: &Things) -> Case {
    use Person::{Alice, Bob, Compliance, Root};
    let ask = json!({"target": "ledger-prod", "access": "readonly", "reason": "look"});
    let request = |number: usize| json!({"request": things.pending[number]});
    let login = json!({"user": "alice", "password": world::PASSWORD});
    match (route.method.as_str(), route.path) {
        ("POST", "/pam/request") => case(route.path, Some(ask), 403, (Alice, 201)),
        ("POST", "/pam/approve") => case(route.path, Some(request(0)), 403, (Bob, 200)),
        ("POST", "/pam/deny") => {
            let body = json!({"request": things.pending[1], "why": "no"});
            case(route.path, Some(body), 403, (Bob, 200))
        }
        ("POST", "/pam/cancel") => case(route.path, Some(request(2)), 403, (Alice, 200)),
        ("POST", "/pam/revoke") => {
            let body = json!({"session": things.session, "why": "over", "block": {"for_seconds": 60}});
            case(route.path, Some(body), 403, (Root, 200))
        }
        ("POST", "/pam/block") => {
            let body = json!({"user": "bob", "target": "ledger-dev", "why": "leaves"});
            case(route.path, Some(body), 403, (Root, 201))
        }
        ("POST", "/pam/unblock") => case(route.path, Some(json!({"block": things.block})), 403, (Root, 200)),
        // One's own is always there to see: for somebody who has nothing, nothing.
        ("GET", "/pam/requests" | "/pam/sessions" | "/pam/blocks") => {
            case(&format!("{}?all=true", route.path), None, 200, (Bob, 200))
        }
        ("GET", "/pam/connections") => case("/pam/connections?mine=true&limit=5", None, 200, (Bob, 200)),
        ("GET", "/pam/requests/{id}") => {
            case(&format!("/pam/requests/{}", things.pending[0]), None, 404, (Alice, 200))
        }
        // What is offered is no secret to those who may log in.
        ("GET", "/pam/targets" | "/pam/gateway") => case(route.path, None, 200, (Alice, 200)),
        ("GET", "/pam/ssh-keys") => case("/pam/ssh-keys?user=alice", None, 403, (Root, 200)),
        ("GET", "/pam/recordings/{connection}" | "/pam/export" | "/pam/sessions/{id}/bundle") => {
            evidence(route.path, things)
        }
        ("GET", "/pam/search") => case("/pam/search?text=needle", None, 200, (Compliance, 200)),
        ("POST", "/pam/ssh-keys") => {
            let body = json!({"public_key": world::new_key().1, "user": "bob"});
            case(route.path, Some(body), 403, (Root, 201))
        }
        ("POST", "/pam/ssh-keys/remove") => {
            let body = json!({"fingerprint": things.ssh_key, "user": "alice"});
            case(route.path, Some(body), 403, (Root, 204))
        }
        // Everybody may come; what they may do is asked when they do it.
        ("POST", "/pam/ssh-certificate") => {
            let body = json!({"public_key": world::new_key().1});
            case(route.path, Some(body), 200, (Alice, 200))
        }
        ("POST", "/pam/aws-credentials") => no_role(route.path),
        ("POST", "/login") => case(route.path, Some(login), 200, (Alice, 200)),
        ("POST", "/logout") => case(route.path, None, 204, (Alice, 204)),
        ("GET", "/metrics") => case(route.path, None, 403, (Root, 200)),
        ("GET", "/whoami" | "/openapi.json" | "/healthz" | "/readyz") => {
            case(route.path, None, 200, (Alice, 200))
        }
        ("POST", "/testing/clock") => {
            case(route.path, Some(json!({"advance_seconds": 1})), 200, (Alice, 200))
        }
        (method, path) => panic!("{method} {path} has no authorization case"),
    }
}

/// None of the targets here is a role at AWS, whoever asks.
fn no_role(path: &str) -> Case {
    case(path, Some(json!({"target": "ledger-prod"})), 404, (Person::Alice, 404))
}

/// The cases of what only compliance reads.
fn evidence(path: &str, things: &Things) -> Case {
    let (path, found) = match path {
        "/pam/export" => ("/pam/export?format=jsonl".to_owned(), 200),
        "/pam/sessions/{id}/bundle" => (format!("/pam/sessions/{}/bundle", things.session), 200),
        _ => (format!("/pam/recordings/{UNKNOWN_CONNECTION}"), 404),
    };
    case(&path, None, 403, (Person::Compliance, found))
}

/// The routes, with those that end what the others need at the end.
fn routes() -> Vec<&'static Route> {
    let mut routes: Vec<&Route> = ROUTES.iter().collect();
    routes.sort_by_key(|route| ["/pam/revoke", "/logout"].contains(&route.path));
    routes
}

#[tokio::test]
async fn without_a_token_every_route_that_needs_one_refuses_and_records_it() {
    let world = World::new().await;
    let things = world.things().await;
    for route in routes().into_iter().filter(|route| route.auth != Auth::Public) {
        let case = case_of(route, &things);
        for token in [None, Some("spt_not-a-token"), Some("")] {
            world.tick();
            let before = world.records("api_refused");
            let answer = world.call(&route.method, &case.path, token, case.body.clone()).await;
            answer.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer", "{}", route.path);
            assert_eq!(world.records("api_refused"), before + 1, "{}", route.path);
        }
    }
}

#[tokio::test]
async fn without_a_right_every_route_refuses_or_shows_only_ones_own() {
    let world = World::new().await;
    let things = world.things().await;
    let token = world.login(Person::Mallory).await;
    for route in routes() {
        let case = case_of(route, &things);
        let answer = world.call(&route.method, &case.path, Some(&token), case.body).await;
        assert_eq!(answer.status, case.powerless, "{} {}: {}", route.method, route.path, answer.text());
        if let Some(items) = answer.json().get("items")
            && route.path != "/pam/targets"
        {
            assert_eq!(items, &json!([]), "{}", route.path);
        }
        if case.powerless == StatusCode::FORBIDDEN {
            answer.is_problem(StatusCode::FORBIDDEN, "policy_refused");
            let rules = answer.json()["rules"].as_array().unwrap().len();
            assert!(rules > 0, "{}: no rule is named", route.path);
        }
    }
}

#[tokio::test]
async fn every_route_leaves_the_records_that_the_table_says() {
    let world = World::new().await;
    let things = world.things().await;
    let mut powerless = world.login(Person::Mallory).await;
    for route in routes() {
        let case = case_of(route, &things);
        let able = world.login(case.able.0).await;
        if route.path == "/logout" {
            powerless = world.login(Person::Mallory).await;
        }
        for (token, status) in [(&powerless, case.powerless), (&able, case.able.1)] {
            let before = world.all_records();
            let answer = world.call(&route.method, &case.path, Some(token), case.body.clone()).await;
            assert_eq!(answer.status, status, "{} {}: {}", route.method, route.path, answer.text());
            let left = world.all_records() - before;
            assert_eq!(left > 0, route.recorded, "{} {} left {left} records", route.method, route.path);
        }
    }
}

#[test]
fn the_openapi_document_lists_exactly_the_routes() {
    let document = serde_json::to_value(sallyport::http::openapi::document()).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let public = operation["security"] == json!([{}]);
            described.insert((method.to_uppercase(), path.clone(), public));
        }
    }
    let table: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.method.to_string(), route.path.to_owned(), route.auth == Auth::Public))
        .collect();
    assert_eq!(described, table);
}

#[test]
fn the_documentation_names_every_route() {
    let text = include_str!("../docs/api.md");
    for route in ROUTES.iter().filter(|route| !route.path.starts_with("/testing/")) {
        let row = format!("| `{} {}` |", route.method, route.path);
        assert!(text.contains(&row), "{row} is not in docs/api.md");
    }
}

#[test]
fn few_routes_are_public_or_leave_no_record() {
    let public: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.auth == Auth::Public && !route.path.starts_with("/testing/"))
        .map(|route| route.path)
        .collect();
    assert_eq!(public, ["/login", "/openapi.json", "/healthz", "/readyz"]);
    let unrecorded: Vec<_> = ROUTES
        .iter()
        .filter(|route| !route.recorded && !route.path.starts_with("/testing/"))
        .map(|route| route.path)
        .collect();
    assert_eq!(unrecorded, ["/whoami", "/openapi.json", "/healthz", "/readyz"]);
    assert!(ROUTES.iter().all(|route| !route.path.starts_with("/pam") || route.auth != Auth::Public));
}

#[tokio::test]
async fn calls_that_make_no_sense_are_told_what_is_wrong_with_them() {
    let world = World::new().await;
    let token = world.login(Person::Alice).await;
    let call = async |method: Method, path: &str, body| world.call(&method, path, Some(&token), body).await;

    call(Method::GET, "/nowhere", None).await.is_problem(StatusCode::NOT_FOUND, "no_such_route");
    let wrong = call(Method::GET, "/pam/approve", None).await;
    wrong.is_problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    assert_eq!(wrong.headers[header::ALLOW], "POST");
    let unknown = call(Method::POST, "/pam/cancel", Some(json!({"request": "req-0000000000000000", "x": 1})));
    let unknown = unknown.await;
    unknown.is_problem(StatusCode::BAD_REQUEST, "malformed");
    assert!(unknown.json()["detail"].as_str().unwrap().contains("unknown field `x`"));
    let other_kind =
        call(Method::POST, "/pam/cancel", Some(json!({"request": "ses-0000000000000000"}))).await;
    other_kind.is_problem(StatusCode::BAD_REQUEST, "malformed");
    call(Method::GET, "/pam/requests/nonsense", None).await.is_problem(StatusCode::NOT_FOUND, "not_found");
    call(Method::GET, "/pam/requests?alll=true", None).await.is_problem(StatusCode::BAD_REQUEST, "malformed");
    let not_announced = world.raw(Method::POST, "/pam/cancel", Some(&token), None, "{}".to_owned()).await;
    not_announced.is_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json");
    let long = json!({"request": "x".repeat(70_000)});
    let long = call(Method::POST, "/pam/cancel", Some(long)).await;
    long.is_problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
}

#[tokio::test]
async fn every_answer_names_its_request_and_stays_out_of_caches() {
    let world = World::new().await;
    let answers = [
        world.call(&Method::GET, "/healthz", None, None).await,
        world.call(&Method::GET, "/whoami", None, None).await,
    ];
    for answer in &answers {
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    let ids = answers.each_ref().map(|answer| answer.headers["x-request-id"].to_str().unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(answers[1].json()["request_id"], json!(ids[1]));
}

#[tokio::test]
async fn a_request_becomes_a_session_and_is_revoked() {
    let world = World::new().await;
    let (alice, bob, root) =
        (world.login(Person::Alice).await, world.login(Person::Bob).await, world.login(Person::Root).await);
    let post = async |token: &str, path: &str, body: Value| {
        let answer = world.call(&Method::POST, path, Some(token), Some(body)).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        answer.json()
    };
    let ask =
        json!({"target": "ledger-uat", "access": "readonly", "reason": "look", "duration_seconds": 600});
    let asked = post(&alice, "/pam/request", ask).await;
    assert_eq!(asked["request"]["state"], "pending");
    assert_eq!(asked["request"]["missing"][0]["id"], "FR-283");
    let id = asked["request"]["id"].clone();
    let own = world.call(&Method::POST, "/pam/approve", Some(&alice), Some(json!({"request": id}))).await;
    assert_eq!(own.status, StatusCode::FORBIDDEN);

    let approved = post(&bob, "/pam/approve", json!({"request": id, "comment": "fine"})).await;
    assert_eq!(approved["request"]["state"], "approved");
    assert_eq!(approved["request"]["approvals"][0]["by"]["name"], "bob");
    assert_eq!(approved["session"]["status"], "active");
    let again = world.call(&Method::POST, "/pam/deny", Some(&bob), Some(json!({"request": id, "why": "x"})));
    again.await.is_problem(StatusCode::CONFLICT, "already_decided");

    let session = approved["session"]["id"].clone();
    let revoked = post(&root, "/pam/revoke", json!({"session": session, "why": "over", "block": {}})).await;
    assert_eq!(revoked["session"]["status"], "revoked");
    assert_eq!(revoked["credential"], json!({"state": "none"}));
    assert_eq!(revoked["block"]["in_force"], true);
    let ask = json!({"target": "ledger-dev", "access": "readonly", "reason": "look"});
    let blocked = world.call(&Method::POST, "/pam/request", Some(&alice), Some(ask.clone())).await;
    blocked.is_problem(StatusCode::FORBIDDEN, "blocked");
    post(&root, "/pam/unblock", json!({"block": revoked["block"]["id"]})).await;
    let granted = post(&alice, "/pam/request", ask).await;
    assert_eq!(granted["session"]["status"], "active");
}

#[tokio::test]
async fn a_call_whose_client_hangs_up_is_finished_all_the_same() {
    let world = World::new().await;
    let things = world.things().await;
    let root = world.login(Person::Root).await;
    let body = json!({"session": things.session, "why": "leaves"});
    {
        let call = world.call(&Method::POST, "/pam/revoke", Some(&root), Some(body));
        tokio::pin!(call);
        tokio::select! {
            biased;
            () = world.begun() => {}
            _ = &mut call => panic!("the call must still be under way"),
        }
    }
    world.finished().await;
    let sessions = world.call(&Method::GET, "/pam/sessions?all=true", Some(&root), None).await.json();
    let items = sessions["items"].as_array().unwrap();
    let session = items.iter().find(|session| session["id"] == json!(things.session)).unwrap();
    assert_eq!(session["status"], "revoked");
}

#[tokio::test]
async fn a_recording_is_read_as_text_and_as_records_by_whoever_may() {
    let world = World::new().await;
    world.things().await;
    let connection = world.record_connection("select 'whole' from ledger").await;
    let compliance = world.login(Person::Compliance).await;
    let path = format!("/pam/recordings/{connection}");
    let text = world.call(&Method::GET, &path, Some(&compliance), None).await;
    assert_eq!(text.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert!(text.text().contains("[1] select 'whole' from ledger"), "{}", text.text());
    let records = world.call(&Method::GET, &format!("{path}?format=json"), Some(&compliance), None).await;
    assert_eq!(records.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let kinds: Vec<Value> = records
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone())
        .collect();
    assert_eq!(kinds, ["opened", "statement", "statement_end", "ended"]);

    let before = world.records("recording_replayed");
    let own = world.login(Person::Alice).await;
    let refused = world.call(&Method::GET, &path, Some(&own), None).await;
    refused.is_problem(StatusCode::FORBIDDEN, "policy_refused");
    assert_eq!(world.records("recording_replayed"), before + 1);
}

#[tokio::test]
async fn a_terminal_is_read_as_an_asciicast_and_only_where_there_is_one() {
    let world = World::new().await;
    world.things().await;
    let compliance = world.login(Person::Compliance).await;
    let pty = |ch| {
        let (term, modes) = ("xterm".to_owned(), std::collections::BTreeMap::new());
        RecordBody::Pty(Pty { ch, term, cols: 132, rows: 50, modes })
    };
    let output = |ch, text: &[u8]| RecordBody::Output(Output { ch, data: Data::new(text), err: false });
    let bodies = [pty(1), output(1, b"one"), pty(2), output(2, b"two")];
    let path = format!("/pam/recordings/{}?format=asciicast", world.record(&bodies).await);
    let before = world.records("recording_replayed");
    for (channel, shown) in [("", "one"), ("&channel=1", "one"), ("&channel=2", "two")] {
        let cast = world.call(&Method::GET, &format!("{path}{channel}"), Some(&compliance), None).await;
        assert_eq!(cast.headers[header::CONTENT_TYPE], "application/x-asciicast");
        let lines: Vec<Value> = cast.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["width"], &lines[1][2]), (&json!(132), &json!(shown)), "{channel}");
    }
    assert_eq!(world.records("recording_replayed"), before + 3, "every read is recorded");
    let none = world.call(&Method::GET, &format!("{path}&channel=9"), Some(&compliance), None).await;
    none.is_problem(StatusCode::NOT_FOUND, "no_terminal");
    let odd = world.call(&Method::GET, &format!("{path}&channel=x"), Some(&compliance), None).await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    let statements = world.record_connection("select 1").await;
    let path = format!("/pam/recordings/{statements}?format=asciicast");
    let none = world.call(&Method::GET, &path, Some(&compliance), None).await;
    none.is_problem(StatusCode::NOT_FOUND, "no_terminal");
}

#[tokio::test]
async fn strangers_cannot_flood_the_audit_log() {
    let world = World::new().await;
    for _ in 0..50 {
        world.call(&Method::GET, "/pam/sessions", None, None).await;
    }
    assert_eq!(world.records("api_refused"), 5);
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down() {
    let world = World::new().await;
    let body = json!({"user": "alice", "password": "wrong horse battery staple"});
    let mut last = None;
    for _ in 0..25 {
        let answer = world.call(&Method::POST, "/login", None, Some(body.clone())).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            last = Some(answer);
            break;
        }
        answer.is_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let answer = last.expect("the limit is reached");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_token_ends_with_logout_and_with_time() {
    let world = World::new().await;
    let token = world.login(Person::Alice).await;
    let whoami = async |token: &str| world.call(&Method::GET, "/whoami", Some(token), None).await.status;
    assert_eq!(whoami(&token).await, StatusCode::OK);
    world.call(&Method::POST, "/logout", Some(&token), None).await;
    assert_eq!(whoami(&token).await, StatusCode::UNAUTHORIZED);
    let token = world.login(Person::Alice).await;
    world.advance(13 * 3600);
    assert_eq!(whoami(&token).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_server_that_cannot_record_is_not_ready_and_says_so() {
    let world = World::new().await;
    assert_eq!(world.call(&Method::GET, "/readyz", None, None).await.status, StatusCode::OK);
    world.break_journal().await;
    let answer = world.call(&Method::GET, "/readyz", None, None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let checks = answer.json()["checks"].clone();
    assert_eq!(
        checks,
        json!([
            {"name": "store", "ok": true}, {"name": "journal", "ok": false}, {"name": "clock", "ok": true}
        ])
    );
    let login = json!({"user": "alice", "password": world::PASSWORD});
    let refused = world.call(&Method::POST, "/login", None, Some(login)).await;
    refused.is_problem(StatusCode::SERVICE_UNAVAILABLE, "unrecordable");
}

#[tokio::test]
async fn the_api_speaks_tls_only_and_only_to_those_who_trust_its_authority() {
    let world = World::new().await;
    let (address, stop, served) = world.serve().await;
    let url = format!("https://localhost:{}/healthz", address.port());
    let authority = reqwest::Certificate::from_pem(&world.authority()).unwrap();
    let trusting = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let answer = trusting.get(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let http1 = {
        let authority = reqwest::Certificate::from_pem(&world.authority()).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).http1_only().build().unwrap()
    };
    assert_eq!(http1.get(&url).send().await.unwrap().version(), reqwest::Version::HTTP_11);
    let stranger = reqwest::Client::builder().build().unwrap();
    assert!(stranger.get(&url).send().await.unwrap_err().is_connect());

    let mut clear = tokio::net::TcpStream::connect(address).await.unwrap();
    clear.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answered = Vec::new();
    // An alert or a reset; in no case an answer.
    let _ = clear.read_to_end(&mut answered).await;
    assert!(!answered.starts_with(b"HTTP"), "{answered:?}");

    stop.cancel();
    served.await.unwrap();
}

/// How long the answer takes would tell.
#[tokio::test]
async fn a_gateway_asks_the_store_the_same_for_a_name_that_nobody_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let world = World::with_store(sallyport::store::sqlite::open(&path).unwrap()).await;
    for name in ["alice", "nobody"] {
        assert_eq!(world.scram_keys(name).await.unwrap().candidates.len(), 1);
    }
    // Whoever asks for tokens now is told that there are none to ask for.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA foreign_keys = OFF; ALTER TABLE tokens RENAME TO gone").unwrap();
    for name in ["alice", "nobody"] {
        world.scram_keys(name).await.unwrap_err();
    }
}

#[test]
fn a_problem_reads_back_as_it_was_written() {
    let problem = sallyport::http::error::Problem::new(StatusCode::CONFLICT, "conflict", "twice");
    let text = serde_json::to_string(&problem).unwrap();
    assert_eq!(serde_json::from_str::<sallyport::http::error::Problem>(&text).unwrap(), problem);
}

impl Answer {
    fn is_problem(&self, status: StatusCode, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status.as_u16());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().unwrap());
    }
}
