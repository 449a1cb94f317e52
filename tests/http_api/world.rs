//! A server put together from its real parts, in this process, with a clock that stands still until
//! it is moved.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use metrics_exporter_prometheus::PrometheusBuilder;
use sallyport::access::connect::Wanted;
use sallyport::access::credential::Credentials;
use sallyport::access::login::{Logins, ScramKeys};
use sallyport::access::refusal::Refusal;
use sallyport::access::roles::Roles;
use sallyport::access::ssh_identity::UserCa;
use sallyport::access::targets::{TargetEntry, Targets};
use sallyport::access::users::{NewUser, Users};
use sallyport::access::{Access, Parts, Rules, second_factor};
use sallyport::audit::record::{Body as RecordBody, How, Statement, Totals};
use sallyport::audit::search::Index;
use sallyport::audit::tail::Tail;
use sallyport::audit::{Journal, JournalOptions, SigningKey};
use sallyport::clock::Clock;
use sallyport::config::Config;
use sallyport::config::init::{Init, init};
use sallyport::credentials::keep::Keep;
use sallyport::credentials::sources::Sources;
use sallyport::crypto::ssh::PrivateKey;
use sallyport::crypto::ssh::authority::{Keyring, Keys};
use sallyport::crypto::{ssh, tls};
use sallyport::domain::deny::EndReason;
use sallyport::domain::id::NodeId;
use sallyport::domain::secret::Secret;
use sallyport::domain::time::Timestamp;
use sallyport::gateway::live::{self, Arrival};
use sallyport::http::{self, GatewayInfo, HttpState, SshGatewayInfo};
use sallyport::identity::limiter::{Attempts, Limit};
use sallyport::identity::password::Passwords;
use sallyport::identity::token::Lifetimes;
use sallyport::policy::CedarPolicy;
use sallyport::store::sqlite::SqliteStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "correct horse battery staple";
const WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Person {
    /// May ask.
    Alice,
    /// May approve.
    Bob,
    Compliance,
    /// An administrator.
    Root,
    /// No rights at all.
    Mallory,
}

impl Person {
    const ALL: [Self; 5] = [Self::Alice, Self::Bob, Self::Compliance, Self::Root, Self::Mallory];

    const fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Compliance => "carla",
            Self::Root => "root",
            Self::Mallory => "mallory",
        }
    }

    const fn group(self) -> Option<&'static str> {
        match self {
            Self::Alice => Some("requesters"),
            Self::Bob => Some("approvers"),
            Self::Compliance => Some("compliance"),
            Self::Root => Some("admins"),
            Self::Mallory => None,
        }
    }
}

/// What calls can be about.
#[derive(Debug)]
pub(crate) struct Things {
    /// Requests of Alice's that nobody has decided on.
    pub pending: Vec<String>,
    /// An active session of Alice's.
    pub session: String,
    /// A block on Compliance.
    pub block: String,
    /// The fingerprint of a key of Alice's.
    pub ssh_key: String,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Null when the body is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    access: Arc<Access>,
    state: HttpState,
    router: Router,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_store(SqliteStore::in_memory().unwrap()).await
    }

    pub(crate) async fn with_store(store: SqliteStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-23T09:00:00Z".parse::<Timestamp>().unwrap());
        let config = config(&dir.path().join("data"), clock.now());
        let passwords = Passwords::new().unwrap();
        add_users(&store, &passwords, clock.now()).await;
        let node = NodeId::from_random([7; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), node.clone()).unwrap();
        let options = JournalOptions { file_size: 256 << 10, reserve: 16 << 10, ..JournalOptions::new(key) };
        let (journal, _) = Journal::open(&config.audit.directory, clock.clone(), options).unwrap();
        let entries = config.reloadable.targets.values().cloned().map(TargetEntry::from);
        let rules = Rules {
            targets: Arc::new(Targets::new(entries)),
            policy: Arc::new(CedarPolicy::builtin().unwrap()),
        };
        let lifetime = Duration::from_hours(12);
        let logins = Logins {
            passwords,
            password_attempts: Attempts::new(clock.clone()),
            token_attempts: Attempts::by_address(clock.clone(), Limit::ADDRESS),
            second_factor_attempts: second_factor::attempts(clock.clone()),
            server_secret: Secret::new([1; 32]),
            lifetimes: Lifetimes { default: lifetime, longest: lifetime },
            ssh_user_ca: Some(UserCa { keys: authority(), longest: lifetime }),
        };
        let access = Arc::new(Access::new(Parts {
            node,
            clock: clock.clone(),
            store: Arc::new(store),
            journal,
            rules,
            credentials: Credentials::new(
                Sources::new("test", &clock, Keep::of(&config.server)),
                Secret::new(vec![2; 32]),
            ),
            roles: Roles::new("test", Secret::new(vec![2; 32])),
            logins,
        }));
        let gateway =
            GatewayInfo { host: "bastion".to_owned(), port: 6432, ca_pem: None, ssh: Some(ssh_gateway()) };
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let search = Arc::new(Index::new(&dir.path().join("search.db"), &config.audit.directory));
        let state = HttpState::new(
            Arc::clone(&access),
            gateway,
            config.audit.directory,
            search,
            metrics,
            TaskTracker::new(),
        );
        let router = http::router(state.clone());
        Self { dir, clock, access, state, router }
    }

    /// What most routes need to be tried.
    pub(crate) async fn things(&self) -> Things {
        let (alice, root) = (self.login(Person::Alice).await, self.login(Person::Root).await);
        let mut pending = Vec::new();
        for _ in 0..3 {
            let ask = json!({"target": "ledger-prod", "access": "readonly", "reason": "look"});
            let asked = self.call(&Method::POST, "/pam/request", Some(&alice), Some(ask)).await.json();
            pending.push(asked["request"]["id"].as_str().unwrap().to_owned());
        }
        let ask = json!({"target": "ledger-dev", "access": "readonly", "reason": "look"});
        let granted = self.call(&Method::POST, "/pam/request", Some(&alice), Some(ask)).await.json();
        let block = json!({"user": "carla", "target": "ledger-dev", "why": "a test"});
        let blocked = self.call(&Method::POST, "/pam/block", Some(&root), Some(block)).await.json();
        Things {
            pending,
            session: granted["session"]["id"].as_str().unwrap().to_owned(),
            block: blocked["block"]["id"].as_str().unwrap().to_owned(),
            ssh_key: self.add_key(&alice).await.0,
        }
    }

    /// Registers a new key of the caller's and gives its fingerprint and its line.
    pub(crate) async fn add_key(&self, token: &str) -> (String, String) {
        let (key, line) = new_key();
        let body = json!({"public_key": line});
        let added = self.call(&Method::POST, "/pam/ssh-keys", Some(token), Some(body)).await;
        assert_eq!(added.status, StatusCode::CREATED, "{}", added.text());
        (ssh::fingerprint(key.public_key()), line)
    }

    pub(crate) const fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// What is done on the server's own host.
    pub(crate) async fn on_the_host<T>(&self, work: impl AsyncFnOnce(Users<'_>, Timestamp) -> T) -> T {
        let (store, passwords) = (&*self.access.store, &self.access.logins.passwords);
        work(Users { store, passwords, operator: "test".to_owned() }, self.clock.now()).await
    }

    /// Has Alice connect to the development target, run `sql` and go.
    pub(crate) async fn record_connection(&self, sql: &str) -> String {
        let statement = Statement::new(1, How::Simple, sql.as_bytes());
        self.record(&[RecordBody::Statement(statement)]).await
    }

    /// Has Alice connect to the development target, do what `bodies` record, and go.
    pub(crate) async fn record(&self, bodies: &[RecordBody]) -> String {
        let name = Person::Alice.name().parse().unwrap();
        let alice = self.access.store.user_by_name(&name).await.unwrap().unwrap().principal;
        let wanted = Wanted { target: "ledger-dev".parse().unwrap(), access: None };
        let permit = self.access.admit(&alice, &wanted).await.unwrap();
        let client = "192.0.2.7:5000".parse().unwrap();
        let arrival = Arrival { client, application: None, database: None, tls: None, ssh: None };
        let live = live::begin(&self.access, &permit, &arrival).await.unwrap();
        live.recorder().record(bodies).await.unwrap();
        let id = live.id().to_string();
        live.finish(EndReason::ClientClosed, Totals::default()).await;
        id
    }

    /// What a gateway would check a token of `name` with.
    pub(crate) async fn scram_keys(&self, name: &str) -> Result<ScramKeys, Refusal> {
        self.access.scram_keys(&name.parse().unwrap()).await
    }

    /// Logs in and gives the token.
    pub(crate) async fn login(&self, person: Person) -> String {
        let password = Secret::new(PASSWORD.to_owned());
        let logged_in = self.access.login(person.name(), password, None, None).await.unwrap();
        logged_in.token.expose().clone()
    }

    pub(crate) async fn call(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let json = body.is_some().then_some("application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method.clone(), path, token, json, body).await
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        kind: Option<&str>,
        body: String,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 8 << 20).await.unwrap().to_vec();
        Answer { status, headers, body }
    }

    /// How many audit records tell of `action`.
    pub(crate) fn records(&self, action: &str) -> usize {
        self.events().iter().filter(|event| event["action"] == action).count()
    }

    pub(crate) fn all_records(&self) -> usize {
        self.events().len()
    }

    fn events(&self) -> Vec<Value> {
        let mut tail = Tail::from_start(&self.state.audit);
        let mut events = Vec::new();
        while let Some(line) = tail.poll().unwrap() {
            let record: Value = serde_json::from_slice(&line).unwrap();
            if record.get("action").is_some() || record["event"].get("action").is_some() {
                events.push(if record.get("action").is_some() { record } else { record["event"].clone() });
            }
        }
        events
    }

    /// To the next second.
    pub(crate) fn tick(&self) {
        self.advance(1);
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Returns once a call is being carried out.
    pub(crate) async fn begun(&self) {
        let waited = tokio::time::timeout(WITHIN, async {
            while self.state.tasks.is_empty() {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("the call begins");
    }

    /// Returns once nothing is being carried out.
    pub(crate) async fn finished(&self) {
        self.state.tasks.close();
        tokio::time::timeout(WITHIN, self.state.tasks.wait()).await.expect("the call is finished");
        self.state.tasks.reopen();
    }

    /// Takes the audit directory away and goes on until there is no next file to write to. From then
    /// on nothing can be recorded.
    pub(crate) async fn break_journal(&self) {
        let token = self.login(Person::Alice).await;
        std::fs::remove_dir_all(self.state.audit.as_path()).unwrap();
        let ask = json!({"target": "ledger-prod", "access": "readonly", "reason": "x".repeat(1999)});
        for _ in 0..300 {
            let answer = self.call(&Method::POST, "/pam/request", Some(&token), Some(ask.clone())).await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return;
            }
        }
        panic!("the journal still takes records");
    }

    /// Serves over TLS with the certificate that `init` made.
    pub(crate) async fn serve(&self) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let data = self.dir.path().join("data");
        let alpn = http::serve::ALPN;
        let tls = tls::server(&data.join("tls/api.crt"), &data.join("tls/api.key"), alpn).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (tasks, state) = (TaskTracker::new(), self.state.clone());
        let serving = http::serve(listener, Arc::new(tls), state, tasks.clone(), stop.clone());
        let served = tasks.clone().spawn(async move {
            serving.await;
        });
        tasks.close();
        (address, stop, served)
    }

    pub(crate) fn authority(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("data/tls/ca.crt")).unwrap()
    }
}

/// How an SSH gateway would show itself.
fn ssh_gateway() -> SshGatewayInfo {
    SshGatewayInfo {
        host: "bastion".to_owned(),
        port: 2222,
        host_keys: vec!["ssh-ed25519 HOST".to_owned()],
        host_ca: authority(),
        login_ca: authority(),
    }
}

/// A key that signs, and another that will.
fn authority() -> Arc<Keyring> {
    let others = vec![ssh::generate_ed25519().public_key().clone()];
    Arc::new(Keyring::new(Keys { signer: Arc::new(ssh::generate_ed25519()), others }))
}

/// A new key pair, with the line of its public half.
pub(crate) fn new_key() -> (PrivateKey, String) {
    let key = ssh::generate_ed25519();
    let line = ssh::public_line(key.public_key(), "a laptop");
    (key, line)
}

/// A configuration as `init` makes it, with three targets that nobody dials.
fn config(data: &Path, now: Timestamp) -> Config {
    let made = init(&Init { dir: data, names: &[], now, audit_key: &|_| Ok(()) }).unwrap();
    std::fs::write(data.join("secrets/admin"), "admin-password").unwrap();
    private(&data.join("secrets/admin"));
    let mut text = std::fs::read_to_string(&made.config).unwrap();
    for environment in ["prod", "uat", "dev"] {
        text.extend([format!(
            "[[target]]\nname = \"ledger-{environment}\"\nkind = \"postgres\"\n\
             address = \"ledger.example:5432\"\nca_file = \"tls/ca.crt\"\nenvironment = \"{environment}\"\n\
             domain = \"bank-core\"\ndatabases = [\"ledger\"]\naccesses = {{ readonly = \"ledger_readonly\" }}\n\
             [target.admin]\nuser = \"sallyport\"\npassword_file = \"secrets/admin\"\n"
        )]);
    }
    std::fs::write(&made.config, text).unwrap();
    Config::load(&made.config).unwrap()
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn add_users(store: &SqliteStore, passwords: &Passwords, now: Timestamp) {
    let users = Users { store, passwords, operator: "test".to_owned() };
    let spare = ["dora", "emil"].map(|name| (name, Some("approvers")));
    for (name, group) in Person::ALL.map(|person| (person.name(), person.group())).into_iter().chain(spare) {
        let groups: BTreeSet<_> = group.into_iter().map(|group| group.parse().unwrap()).collect();
        let user = NewUser {
            name: name.parse().unwrap(),
            domain: "bank-core".parse().unwrap(),
            groups,
            password: Secret::new(PASSWORD.to_owned()),
        };
        users.add(user, now).await.unwrap();
    }
}
