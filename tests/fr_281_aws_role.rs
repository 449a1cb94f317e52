//! FR-281 at AWS: who has a session gets credentials of its role, as long as the session lasts; what outlives it is
//! denied at the role until it has expired, and the record tells all of it but the secret.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "fr_281_aws_role/delays.rs"]
mod delays;
#[path = "fr_281_aws_role/trouble.rs"]
mod trouble;
#[path = "fr_281_aws_role/world.rs"]
mod world;

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sallyport::domain::time::Timestamp;
use serde_json::{Value, json};
use support::amazon::REGION;
use support::calls::text;
use support::tap::{Tap, field, is_call, refused};
use support::{Bastion, Options, wait_until};
use world::{LIFTED, READ_ONLY, World, target};

/// Every file below a directory.
fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn who_has_a_session_gets_credentials_that_aws_knows() {
    let world = World::start();
    let bastion = &world.bastion;
    let refused = bastion.run_as("alice", &["aws", "logs-prod"]).failure();
    assert_eq!(refused.code(), 3, "{}", refused.stderr);
    refused.says("you have no active session for `logs-prod`").says("sallyport request logs-prod ACCESS");
    assert_eq!(bastion.events("connection_refused")[0]["detail"]["code"], "no_session");
    bastion.run_as("alice", &["aws", "nowhere"]).failure().says("there is no target `nowhere`");
    assert!(world.tap.calls("AssumeRole").is_empty());

    let granted = bastion.grant("alice", "logs-prod", "readonly", 3600, &["bob", "carol"]);
    let credential = bastion.run_as("alice", &["aws", "logs-prod"]).success().json();
    assert_eq!(credential["Version"], 1);
    let identity = format!("alice@{}", granted.session);
    assert_eq!(world.who(&credential), format!("arn:aws:sts::123456789012:assumed-role/ReadOnly/{identity}"));
    let ends_at = instant(&bastion.session("alice", &granted.session)["ends_at"]);
    assert!(instant(&credential["Expiration"]) <= ends_at, "{credential}");

    let asked = &world.tap.calls("AssumeRole")[0];
    let said = |name: &str| field(asked, name).unwrap_or_default();
    assert_eq!((said("RoleSessionName"), said("SourceIdentity")), (identity.clone(), identity.clone()));
    let tags: BTreeMap<String, String> = (1..=3)
        .map(|n| (said(&format!("Tags.member.{n}.Key")), said(&format!("Tags.member.{n}.Value"))))
        .collect();
    let expected = [
        ("sallyport:session", granted.session.as_str()),
        ("sallyport:request", granted.request.as_str()),
        ("sallyport:principal", "alice"),
    ];
    assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let duration: u64 = said("DurationSeconds").parse().unwrap();
    assert!((3500..=3585).contains(&duration), "{duration}");

    // Asked again, it is the same one, as another would be no better; and nobody else gets any.
    let environment = bastion.run_as("alice", &["aws", "logs-prod", "--format", "env"]).success().stdout;
    let token = format!("export AWS_SESSION_TOKEN='{}'", text(&credential["SessionToken"]));
    assert!(environment.contains(&token) && environment.contains(REGION), "{environment}");
    assert_eq!(world.tap.calls("AssumeRole").len(), 1);
    let life = ["credential_intended", "credential_issued", "credential_issued"];
    assert_eq!(world.life(&granted.session), life, "both are on record");
    let issued = &bastion.events("credential_issued")[1];
    assert_eq!(issued["detail"]["access_key_id"], credential["AccessKeyId"]);
    assert_eq!(issued["detail"]["role"], READ_ONLY);
    assert_eq!(text(&issued["detail"]["fingerprint"]).len(), 64);
    assert!(text(&issued["client"]).starts_with("127.0.0.1:"), "{issued}");
    bastion.run_as("erin", &["aws", "logs-prod"]).failure().says("no active session");

    // Neither in what the server keeps, nor in what it says, nor in what the client keeps.
    for path in files(bastion.scratch()) {
        let bytes = fs::read(&path).unwrap();
        let content = String::from_utf8_lossy(&bytes);
        for secret in ["SecretAccessKey", "SessionToken"] {
            let found = content.contains(credential[secret].as_str().unwrap());
            assert!(!found, "{secret} is in {}", path.display());
        }
    }
    bastion.verify().success();
}

#[test]
fn what_was_handed_out_is_denied_from_the_revocation_until_it_has_expired() {
    let world = World::start();
    let bastion = &world.bastion;
    let granted = world.grant_dev(3600);
    world.credential();
    assert!(world.policies("ReadOnly").is_empty());
    let revoked = bastion.run_as("bob", &["revoke", &granted.session, "--why", "over"]).success();
    revoked.says("denied everything at its role").says("not known to be in force yet");
    world.assert_denied(&granted.session);
    assert!(world.policies("Admin").is_empty());
    let (status, again) = world.revoke(&granted.session);
    assert_eq!((status, &again["credential"]["state"]), (200, &json!("denied")), "{again}");
    assert_eq!(again["credential"]["window_ms"], Value::Null, "nothing proved it");
    bastion.run_as("alice", &["aws", "logs-dev"]).failure().says("was revoked by bob");

    bastion.advance(3500);
    world.assert_denied(&granted.session);
    bastion.advance(100 + LIFTED);
    assert!(world.policies("ReadOnly").is_empty());
    let life = ["credential_intended", "credential_issued", "credential_denied", "credential_destroyed"];
    // That it never was seen in force is told, too.
    let told: Vec<String> = world
        .life(&granted.session)
        .into_iter()
        .filter(|action| action != "credential_denied failed")
        .collect();
    assert_eq!(told, life);
    let denied = &bastion.events("credential_denied")[0]["detail"];
    assert_eq!((&denied["in_force"], &denied["role"]), (&json!("unknown"), &json!(READ_ONLY)));
    // A session that nothing was handed out in leaves nothing.
    let unused = world.grant_dev(900);
    assert_eq!(world.revoke(&unused.session).1["credential"]["state"], "none");
    assert!(world.policies("ReadOnly").is_empty() && world.life(&unused.session).is_empty());
    bastion.verify().success();
}

/// What AWS says before and once it applies the deny.
pub(crate) fn probed(is_denied: bool) -> Vec<u8> {
    let why = if is_denied {
        "with an explicit deny in an identity-based policy"
    } else {
        "because no identity-based policy allows the sts:DecodeAuthorizationMessage action"
    };
    let message = format!("User: x is not authorized to perform: sts:DecodeAuthorizationMessage {why}");
    refused("AccessDenied", &message)
}

#[test]
fn a_deny_is_confirmed_by_a_call_that_it_denies() {
    let put = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&put);
    let world = World::with("", move |body| {
        seen.fetch_or(is_call(body, "PutRolePolicy"), Ordering::SeqCst);
        is_call(body, "DecodeAuthorizationMessage").then(|| probed(seen.load(Ordering::SeqCst)))
    });
    let granted = world.grant_dev(3600);
    world.credential();
    let (status, answer) = world.revoke(&granted.session);
    assert_eq!((status, &answer["credential"]["state"]), (200, &json!("denied")), "{answer}");
    let denied = world.bastion.events("credential_denied");
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert_eq!(denied[0]["detail"]["in_force"], "unknown");
    assert_eq!(denied[1]["detail"]["in_force"], "confirmed");
    assert!(denied[1]["detail"]["window_ms"].as_u64().unwrap() < 10_000, "{}", denied[1]);
    let log = world.bastion.audit_dir();
    let arguments =
        ["audit", "export", "--format", "revocation-latency", "--audit-dir", log.to_str().unwrap()];
    let register = world.bastion.operator(&arguments).success().stdout;
    let latency = register.lines().nth(1).unwrap().rsplit(',').next().unwrap();
    assert!(latency.parse::<f64>().unwrap() < 10_000.0, "{register}");
    let calls = world.tap.calls("DecodeAuthorizationMessage").len();
    world.bastion.advance(10);
    assert_eq!(world.tap.calls("DecodeAuthorizationMessage").len(), calls, "the secret is forgotten");
}

#[test]
fn a_deny_that_another_policy_hides_is_never_called_confirmed() {
    let world = World::with("", |body| is_call(body, "DecodeAuthorizationMessage").then(|| probed(true)));
    let granted = world.grant_dev(3600);
    world.credential();
    let (_, answer) = world.revoke(&granted.session);
    assert_eq!(answer["credential"]["window_ms"], Value::Null, "{answer}");
    world.assert_denied(&granted.session);
    assert_eq!(world.bastion.events("credential_denied").len(), 1);
}

#[test]
fn what_outlives_its_session_is_denied_from_the_sessions_end_on() {
    let world = World::start();
    let bastion = &world.bastion;
    let short = world.grant_dev(600);
    let credential = world.credential();
    let ends_at = instant(&bastion.session("alice", &short.session)["ends_at"]);
    assert_eq!(instant(&credential["Expiration"]), ends_at, "nobody is told to use it longer");
    let asked = &world.tap.calls("AssumeRole")[0];
    assert_eq!(field(asked, "DurationSeconds").as_deref(), Some("900"));
    bastion.advance(595);
    assert!(world.policies("ReadOnly").is_empty());
    bastion.advance(6);
    world.assert_denied(&short.session);
    bastion.advance(300 + LIFTED);
    assert!(world.policies("ReadOnly").is_empty());

    // What ends with its session needs no deny.
    let puts = world.tap.calls("PutRolePolicy").len();
    let long = world.grant_dev(3600);
    world.credential();
    bastion.advance(3601);
    assert_eq!(
        world.life(&long.session),
        ["credential_intended", "credential_issued", "credential_destroyed"]
    );
    assert_eq!(world.tap.calls("PutRolePolicy").len(), puts);
}

/// An SDK as people have it: it starts the process, and asks again before the session is over.
#[test]
fn an_sdk_gets_credentials_by_itself_and_renews_them() {
    let world = World::start();
    let bastion = &world.bastion;
    let granted = bastion.grant("alice", "logs-dev", "readonly", 7_200, &[]);
    let config = bastion.scratch().join("aws-config");
    let (home, binary) = (bastion.home("alice"), env!("CARGO_BIN_EXE_sallyport"));
    let process = format!("env SALLYPORT_HOME={} {binary} aws logs-dev", home.display());
    fs::write(&config, format!("[profile logs]\nregion = {REGION}\ncredential_process = {process}\n"))
        .unwrap();
    let who = || {
        let lines = format!(
            "import os\nos.environ['AWS_CONFIG_FILE'] = '{}'\n\
             s = boto3.Session(profile_name='logs')\n\
             c = s.client('sts', endpoint_url='{}')\nprint(c.get_caller_identity()['Arn'])",
            config.display(),
            world.amazon.url()
        );
        world.amazon.python("sts", &lines).trim().to_owned()
    };
    assert!(who().ends_with(&format!("ReadOnly/alice@{}", granted.session)), "{}", who());
    assert_eq!(world.tap.calls("AssumeRole").len(), 1);
    bastion.advance(2_000);
    who();
    assert_eq!(world.tap.calls("AssumeRole").len(), 2, "one that is good for longer");
    let renewed: Vec<Value> = bastion
        .events("credential_intended")
        .iter()
        .map(|event| event["detail"]["renewed"].clone())
        .collect();
    assert_eq!(renewed, [false, true]);
}

#[test]
fn the_console_opens_by_an_address_that_holds_no_secret() {
    let world = World::start();
    world.grant_dev(3600);
    let sign_in = Tap::before(&world.amazon, |_| {
        let body = json!({ "SigninToken": "a token" }).to_string();
        let length = body.len();
        Some(
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
                .into_bytes(),
        )
    });
    let ask = |sign_in: &str| {
        let arguments = ["aws", "logs-dev", "--format", "console-url", "--sign-in", sign_in];
        world.bastion.run_as("alice", &arguments)
    };
    let address = ask(&sign_in.url()).success().stdout;
    let start = format!("{}/federation?Action=login&Issuer=sallyport&Destination=https%3A", sign_in.url());
    assert!(address.starts_with(&start) && address.trim().ends_with("&SigninToken=a+token"), "{address}");
    let refused = ask("http://127.0.0.1:1").failure();
    assert_eq!(refused.code(), 6);
    assert!(!refused.stderr.contains("sessionKey"), "{}", refused.stderr);
}

#[test]
fn who_is_blocked_meanwhile_loses_what_was_handed_out() {
    let world = World::start();
    let granted = world.grant_dev(3600);
    world.credential();
    let body = json!({ "user": "alice", "why": "leaves" });
    assert_eq!(world.bastion.post("erin", "/pam/block", body).0, 201);
    wait_until("it is denied", || !world.policies("ReadOnly").is_empty());
    world.assert_denied(&granted.session);
    world.bastion.run_as("alice", &["aws", "logs-dev"]).failure().says("you are blocked");
}

#[test]
fn in_a_role_itself_the_gateway_hands_out_an_hour_at_most() {
    let mut world = World::with("maximum = \"12h\"", |_| None);
    world.bastion.grant("alice", "logs-dev", "readonly", 14_400, &[]);
    let duration = |world: &World| {
        world.credential();
        let asked = world.tap.calls("AssumeRole");
        let own = asked.iter().rfind(|body| field(body, "SourceIdentity").is_some()).unwrap();
        field(own, "DurationSeconds").unwrap().parse::<u64>().unwrap()
    };
    let free = duration(&world);
    assert!((14_000..=14_385).contains(&free), "{free}");
    assert_eq!(duration(&world), free, "nothing is issued that would be no better");
    let assumed = world.amazon.python(
        "sts",
        "k = c.assume_role(RoleArn='arn:aws:iam::123456789012:role/Gateway', RoleSessionName='gw')['Credentials']\n\
         print('\\n'.join([k['AccessKeyId'], k['SecretAccessKey'], k['SessionToken']]))",
    );
    let keys: Vec<&str> = assumed.lines().collect();
    world.bastion.stop();
    world.bastion.set_environment(&[
        ("AWS_ACCESS_KEY_ID", keys[0]),
        ("AWS_SECRET_ACCESS_KEY", keys[1]),
        ("AWS_SESSION_TOKEN", keys[2]),
    ]);
    world.bastion.boot();
    assert_eq!(duration(&world), 3600);
}

#[test]
fn a_session_policy_narrows_one_access_and_another_role_puts_the_deny() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("readonly.json");
    fs::write(&file, "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": []\n}\n").unwrap();
    let lines = format!(
        "deny_as = \"arn:aws:iam::123456789012:role/SallyportDeny\"\nsession_policies = {{ readonly = \"{}\" }}",
        file.display()
    );
    let world = World::with(&lines, |_| None);
    let granted = world.grant_dev(3600);
    world.credential();
    // The janitor looks at the roles as who puts denies, too.
    let of_role = |body: &&String| field(body, "RoleArn").as_deref() == Some(READ_ONLY);
    let calls = world.tap.calls("AssumeRole");
    let asked = calls.iter().find(of_role).unwrap();
    let policy: Value = serde_json::from_str(&field(asked, "Policy").unwrap()).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 1, "the configured one allows nothing, and nothing is allowed beside it");
    assert_eq!(statements[0]["Effect"], "Deny", "it ends with the session");
    assert!(statements[0]["Condition"]["DateGreaterThan"]["aws:CurrentTime"].is_string());
    world.revoke(&granted.session);
    world.assert_denied(&granted.session);
    let puts = world.tap.calls("PutRolePolicy").len();
    let roles: std::collections::BTreeSet<_> =
        world.tap.calls("AssumeRole").iter().map(|body| field(body, "RoleArn").unwrap()).collect();
    let both = [READ_ONLY, "arn:aws:iam::123456789012:role/SallyportDeny"].map(str::to_owned);
    assert_eq!((puts, roles), (1, both.into()));
}

#[test]
fn mistakes_in_a_role_target_are_told_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("long.json");
    fs::write(&long, json!({ "Statement": "x".repeat(2_048) }).to_string()).unwrap();
    let policies = format!("session_policies = {{ readonly = \"{}\", root = \"x.json\" }}", long.display());
    let good = target("logs-dev", "dev", "https://sts.example", "");
    let mut bastion = Bastion::prepare_hosts(None, Options { targets: good.clone(), ..Options::default() });
    let config = bastion.config_file();
    let check = |bastion: &Bastion| bastion.operator(&["check-config", "--config", config.to_str().unwrap()]);
    check(&bastion).success().says("target logs-dev (dev, bank-core)");
    for (from, to, message) in [
        (REGION, "Frankfurt!", "`Frankfurt!` is not a region"),
        (READ_ONLY, "ReadOnly", "`ReadOnly` is not a role's ARN"),
        (READ_ONLY, "arn:aws:iam::123:role/ReadOnly", "an account has 12 digits"),
        ("kind = \"aws\"", "kind = \"aws\"\nmaximum = \"13h\"", "must be from 15m to 12h, not `13h`"),
        ("kind = \"aws\"", "kind = \"aws\"\nmaximum = \"5m\"", "must be from 15m to 12h, not `5m`"),
        ("kind = \"aws\"", "kind = \"aws\"\ndeny_as = \"me\"", "deny_as: `me` is not a role's ARN"),
        ("kind = \"aws\"", &format!("kind = \"aws\"\n{policies}"), "1900 fit into what AWS accepts"),
        ("kind = \"aws\"", &format!("kind = \"aws\"\n{policies}"), "`root` is not among the `accesses`"),
        ("iam_endpoint = \"https://sts.example\"", "", "good"),
    ] {
        bastion.set_targets(&good.replace(from, to));
        check(&bastion).says(message);
    }
    bastion.set_targets(
        &good
            .replace("iam_endpoint = \"https://sts.example\"", "")
            .replace("https://sts.example", "http://127.0.0.1:5000"),
    );
    check(&bastion).failure().says("iam_endpoint: is missing");
}
