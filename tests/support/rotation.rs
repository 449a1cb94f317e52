//! What stands between AWS Secrets Manager and a database: a rotation function, played by the test, for secrets that the
//! emulator keeps. It makes the next version at once, and ends the rotation when it is let; as the real service, it takes
//! one rotation of a secret at a time.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Postgres;
use super::amazon::{Emulator, Request, json_answer, pass, read_request};
use super::postgres::SUPERUSER_PASSWORD;

/// How rotations go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    /// When the test says so.
    WhenLet,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mishaps {
    /// The answers of so many requests in a hundred are lost.
    pub unheard: u64,
    /// So many in a hundred are refused for being too many.
    pub throttled: u64,
    /// The user keeps its password at the database, as with a strategy of alternating users.
    pub leaves_the_user: bool,
}

#[derive(Debug)]
pub struct Rotation {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    emulator: u16,
    database: u16,
    pace: Pace,
    mishaps: Mishaps,
    /// Secret, version and password of the rotation under way.
    under_way: Option<(String, String, String)>,
    begun: u32,
    /// Requests to AWS STS.
    assumed: Vec<String>,
    random: u64,
}

impl Rotation {
    pub fn before(emulator: &Emulator, postgres: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            emulator: emulator.port,
            database: postgres.port,
            pace: Pace::AtOnce,
            mishaps: Mishaps::default(),
            under_way: None,
            begun: 0,
            assumed: Vec::new(),
            random: 0x5a11_7005,
        };
        let state = Arc::new(Mutex::new(state));
        let ours = state.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = ours.clone();
                std::thread::spawn(move || serve(client, &state));
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, pace: Pace, mishaps: Mishaps) {
        let mut state = self.state.lock().unwrap();
        (state.pace, state.mishaps) = (pace, mishaps);
    }

    pub fn is_under_way(&self) -> bool {
        self.state.lock().unwrap().under_way.is_some()
    }

    /// Ends the rotation that is under way, if one is.
    pub fn finish(&self) {
        self.state.lock().unwrap().finish();
    }

    /// Gives up the rotation that is under way, as `CancelRotateSecret` does and who takes its version's stage away.
    pub fn give_up(&self) {
        let mut state = self.state.lock().unwrap();
        let Some((secret, version, _)) = state.under_way.take() else { return };
        state.ask(
            "UpdateSecretVersionStage",
            &json!({ "SecretId": secret, "VersionStage": "AWSPENDING", "RemoveFromVersionId": version }),
        );
    }

    /// The password of the last rotation that was begun.
    pub fn password(&self) -> String {
        password(self.begun())
    }

    /// What STS was asked for.
    pub fn roles_assumed(&self) -> Vec<String> {
        self.state.lock().unwrap().assumed.clone()
    }

    /// How many rotations were begun.
    pub fn begun(&self) -> u32 {
        self.state.lock().unwrap().begun
    }
}

impl State {
    fn happens(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    fn begin(&mut self, asked: &Value) -> Vec<u8> {
        let text = |key: &str| asked[key].as_str().unwrap().to_owned();
        let (secret, version) = (text("SecretId"), text("ClientRequestToken"));
        assert!((32..=64).contains(&version.len()), "`{version}` is no ClientRequestToken");
        match &self.under_way {
            Some((_, known, _)) if *known == version => {
                if self.pace == Pace::AtOnce {
                    self.finish();
                }
            }
            Some(_) => {
                let message = "A previous rotation isn't complete. That rotation will be reattempted.";
                let error = json!({ "__type": "InvalidRequestException", "message": message });
                return json_answer("400 Bad Request", &error);
            }
            None => {
                self.begun += 1;
                let password = password(self.begun);
                let user = self.current(&secret)["username"].clone();
                let value = json!({ "username": user, "password": password }).to_string();
                let put = json!({ "SecretId": secret, "ClientRequestToken": version, "SecretString": value,
                    "VersionStages": ["AWSPENDING"] });
                self.ask("PutSecretValue", &put);
                self.under_way = Some((secret.clone(), version.clone(), password));
                if self.pace == Pace::AtOnce {
                    self.finish();
                }
            }
        }
        json_answer("200 OK", &json!({ "ARN": secret, "Name": secret, "VersionId": version }))
    }

    fn finish(&mut self) {
        let Some((secret, version, password)) = self.under_way.take() else { return };
        let described = self.ask("DescribeSecret", &json!({ "SecretId": secret }));
        let stages = described["VersionIdsToStages"].as_object().unwrap();
        let has = |stages: &Value, stage: &str| stages.as_array().unwrap().contains(&json!(stage));
        let (current, _) = stages.iter().find(|(_, stages)| has(stages, "AWSCURRENT")).unwrap();
        if !self.mishaps.leaves_the_user {
            let user = self.current(&secret)["username"].as_str().unwrap().to_owned();
            self.alter(&user, &password);
        }
        self.ask(
            "UpdateSecretVersionStage",
            &json!({ "SecretId": secret, "VersionStage": "AWSCURRENT", "RemoveFromVersionId": current,
                "MoveToVersionId": version }),
        );
        self.ask(
            "UpdateSecretVersionStage",
            &json!({ "SecretId": secret, "VersionStage": "AWSPENDING", "RemoveFromVersionId": version }),
        );
    }

    fn current(&self, secret: &str) -> Value {
        let value = self.ask("GetSecretValue", &json!({ "SecretId": secret, "VersionStage": "AWSCURRENT" }));
        serde_json::from_str(value["SecretString"].as_str().unwrap()).unwrap()
    }

    fn ask(&self, action: &str, body: &Value) -> Value {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-amz-json-1.1\r\n\
             x-amz-target: secretsmanager.{action}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0\r\n"
        );
        let request = Request { head, body: body.to_string().into_bytes() };
        let answer = pass(&request, &request.body, self.emulator).unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{action}: {text}");
        serde_json::from_str(body).unwrap()
    }

    fn alter(&self, user: &str, password: &str) {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
            .args([
                "-p",
                &self.database.to_string(),
                "-c",
                &format!("ALTER ROLE {user} PASSWORD '{password}'"),
            ])
            .env("PGPASSWORD", SUPERUSER_PASSWORD)
            .env("PGSSLMODE", "require")
            .stdin(Stdio::null());
        assert!(psql.status().unwrap().success());
    }
}

fn password(rotations: u32) -> String {
    format!("rotated {rotations} times")
}

fn serve(mut client: TcpStream, state: &Mutex<State>) {
    let Some(request) = read_request(&client) else { return };
    let mut state = state.lock().unwrap();
    let (throttled, unheard) = (state.mishaps.throttled, state.mishaps.unheard);
    if state.happens(throttled) {
        let error = json!({ "__type": "ThrottlingException", "message": "Rate exceeded" });
        let _ = client.write_all(&json_answer("400 Bad Request", &error));
        return;
    }
    let text = String::from_utf8_lossy(&request.body);
    if text.contains("Action=AssumeRole") {
        state.assumed.push(text.into_owned());
    }
    let answer = if request.head.contains("secretsmanager.RotateSecret") {
        Some(state.begin(&serde_json::from_slice(&request.body).unwrap()))
    } else {
        pass(&request, &request.body, state.emulator)
    };
    if state.happens(unheard) {
        return;
    }
    drop(state);
    if let Some(answer) = answer {
        let _ = client.write_all(&answer);
    }
}
