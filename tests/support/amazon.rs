//! Amazon's services, emulated by moto or `MiniStack`, and a proxy before them that fails as the real ones do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::postgres::free_port;
use super::process::{Running, wait_until};

pub const REGION: &str = "eu-central-1";

/// What the emulators take for credentials, and where the SDK must not look for others.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", REGION),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A program of the virtual environment that `deploy/test` makes.
pub fn python(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_sallyport")).ancestors().nth(2).unwrap();
    let program = built.join("python/bin").join(name);
    assert!(program.exists(), "{} is not there: deploy/test makes it", program.display());
    program
}

/// A running emulator; it forgets everything with the test.
#[derive(Debug)]
pub struct Emulator {
    _server: Running,
    pub port: u16,
}

impl Emulator {
    pub fn moto() -> Self {
        let port = free_port();
        let mut command = Command::new(python("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        Self::start(command, port)
    }

    /// Where moto is wrong: it keeps what is locked, and signs with Ed25519.
    pub fn ministack() -> Self {
        let port = free_port();
        let mut command = Command::new(python("ministack"));
        command.envs([("BIND_HOST", "127.0.0.1"), ("GATEWAY_PORT", &port.to_string())]);
        command.envs([("IOT_MTLS_ENABLED", "0"), ("SFTP_ENABLED", "0")]);
        Self::start(command, port)
    }

    fn start(mut command: Command, port: u16) -> Self {
        let server = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_until("the emulator answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _server: server, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs lines of Python with a client of the service in `c`; gives what they print.
    pub fn python(&self, service: &str, lines: &str) -> String {
        let script = format!(
            "import boto3, json\nc = boto3.client('{service}', endpoint_url='{}', region_name='{REGION}')\n{lines}",
            self.url()
        );
        let mut command = Command::new(python("python"));
        let output = command.args(["-c", &script]).envs(ENVIRONMENT).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn create_stream(&self, name: &str, shards: u32) {
        self.python("kinesis", &format!("c.create_stream(StreamName='{name}', ShardCount={shards})"));
    }
}

/// How often the proxy fails, in percent of the requests that write to the stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Nothing gets through at all.
    pub down: bool,
    /// Some records of a request are refused.
    pub partial: u64,
    /// The whole request is refused.
    pub throttled: u64,
    /// It is done, and the answer is lost.
    pub unheard: u64,
    /// It arrives twice.
    pub doubled: u64,
}

/// Listens before an emulator and spoils what goes through.
#[derive(Debug)]
pub struct FaultProxy {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    faults: Faults,
    silent: bool,
    random: u64,
    spoiled: u64,
    passed: u64,
}

impl Shared {
    /// Whether something that happens in so many percent of all cases happens now.
    fn happens(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }
}

impl FaultProxy {
    pub fn before(emulator: &Emulator, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Shared { faults: Faults::default(), silent: false, random: seed | 1, spoiled: 0, passed: 0 };
        let shared = Arc::new(Mutex::new(shared));
        let (behind, ours) = (emulator.port, shared.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = ours.clone();
                std::thread::spawn(move || serve(client, behind, &shared));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, faults: Faults) {
        self.shared.lock().unwrap().faults = faults;
    }

    /// While it is silent, connections stay open and nothing is answered.
    pub fn set_silent(&self, silent: bool) {
        self.shared.lock().unwrap().silent = silent;
    }

    /// Requests that were spoiled, and that went through.
    pub fn counts(&self) -> (u64, u64) {
        let shared = self.shared.lock().unwrap();
        (shared.spoiled, shared.passed)
    }
}

pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

pub fn read_request(client: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        // One request a connection is enough here.
        if !lower.starts_with("connection:") && !lower.starts_with("content-length:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { head, body })
}

/// Sends it on and gives the whole answer.
pub(super) fn pass(request: &Request, body: &[u8], behind: u16) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", behind)).ok()?;
    server.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(server, "{}connection: close\r\ncontent-length: {}\r\n\r\n", request.head, body.len()).ok()?;
    server.write_all(body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    Some(answer)
}

pub(super) fn json_answer(status: &str, value: &Value) -> Vec<u8> {
    let body = value.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn serve(mut client: TcpStream, behind: u16, shared: &Mutex<Shared>) {
    let Some(request) = read_request(&client) else { return };
    wait_until("the proxy speaks again", || !shared.lock().unwrap().silent);
    if let Some(answer) = answer(&request, behind, shared) {
        let _ = client.write_all(&answer);
    }
}

fn answer(request: &Request, behind: u16, shared: &Mutex<Shared>) -> Option<Vec<u8>> {
    let mut state = shared.lock().unwrap();
    let faults = state.faults;
    if faults.down {
        state.spoiled += 1;
        return None;
    }
    if !request.head.contains("Kinesis_20131202.PutRecords") {
        drop(state);
        return pass(request, &request.body, behind);
    }
    let happens = [
        state.happens(faults.throttled),
        state.happens(faults.partial),
        state.happens(faults.unheard),
        state.happens(faults.doubled),
    ];
    state.spoiled += u64::from(happens.contains(&true));
    state.passed += u64::from(!happens.contains(&true));
    let mask: Vec<bool> = (0..64).map(|_| state.happens(50)).collect();
    drop(state);
    let [throttled, partial, unheard, doubled] = happens;
    if throttled {
        let error = json!({ "__type": "ProvisionedThroughputExceededException", "message": "too much" });
        return Some(json_answer("400 Bad Request", &error));
    }
    if partial {
        return Some(refuse_some(request, &mask, behind));
    }
    let answer = pass(request, &request.body, behind);
    if doubled {
        return pass(request, &request.body, behind);
    }
    answer.filter(|_| !unheard)
}

/// Passes on the records whose bit is not set, and says of the others that they failed.
fn refuse_some(request: &Request, mask: &[bool], behind: u16) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&request.body).unwrap();
    let records = body["Records"].as_array().unwrap().clone();
    let is_refused = |index: usize| mask[index % mask.len()];
    let taken: Vec<Value> = records
        .iter()
        .enumerate()
        .filter(|(index, _)| !is_refused(*index))
        .map(|(_, record)| record.clone())
        .collect();
    let mut told: Vec<Value> = Vec::new();
    if !taken.is_empty() {
        body["Records"] = taken.into();
        let answer = pass(request, body.to_string().as_bytes(), behind).unwrap();
        let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let value: Value = serde_json::from_slice(&answer[start..]).unwrap();
        told.extend_from_slice(value["Records"].as_array().unwrap());
        told.reverse();
    }
    let mut failed = 0;
    let results: Vec<Value> = (0..records.len())
        .map(|index| {
            if !is_refused(index) {
                return told.pop().unwrap();
            }
            failed += 1;
            let code =
                if index % 2 == 0 { "ProvisionedThroughputExceededException" } else { "InternalFailure" };
            json!({ "ErrorCode": code, "ErrorMessage": "not now" })
        })
        .collect();
    json_answer("200 OK", &json!({ "FailedRecordCount": failed, "Records": results }))
}
