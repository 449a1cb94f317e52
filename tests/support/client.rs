//! Clients that speak PostgreSQL inside the test's own process: for SQLSTATEs, for many at once, and
//! for one that does not read.

use std::fs;
use std::net::{SocketAddr, TcpStream as Socket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::bastion::Bastion;
use super::process::PATIENCE;

/// Makes connections as `who` through the gateway; holds what all of them share.
pub struct Clients {
    pub runtime: Runtime,
    gateway: SocketAddr,
    tls: MakeRustlsConnect,
    config: Config,
}

/// A connection whose end is noticed at once.
pub struct Client {
    pub sql: tokio_postgres::Client,
    pub ended: JoinHandle<(Result<(), Error>, Instant)>,
}

impl Clients {
    pub fn new(bastion: &Bastion, who: &str, target: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&fs::read(bastion.ca_file()).unwrap()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(Arc::new(roots));
        let tls = MakeRustlsConnect::new(tls.with_no_client_auth());
        let mut config = Config::new();
        config.user(format!("{who}+{target}")).password(bastion.token(who)).dbname("ledger");
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let gateway = SocketAddr::from(([127, 0, 0, 1], bastion.postgres_port));
        Self { runtime, gateway, tls, config }
    }

    pub async fn try_connect(&self) -> Result<Client, Error> {
        self.racer().await
    }

    /// [`Clients::try_connect`] on its own, for a task.
    pub fn racer(&self) -> impl Future<Output = Result<Client, Error>> + Send + use<> {
        let (gateway, config, mut tls) = (self.gateway, self.config.clone(), self.tls.clone());
        let handle = self.runtime.handle().clone();
        async move {
            let stream = TcpStream::connect(gateway).await.unwrap();
            let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, "localhost").unwrap();
            let (sql, connection) = config.connect_raw(stream, tls).await?;
            let ended = handle.spawn(async move {
                let ended = connection.await;
                (ended, Instant::now())
            });
            Ok(Client { sql, ended })
        }
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        self.block_on(self.try_connect()).unwrap_or_else(|error| panic!("not connected: {error:?}"))
    }

    /// Within the test's patience.
    #[track_caller]
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let within = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(within).expect("it takes longer than the test's patience")
    }

    /// A client that asks for a large result, takes its beginning and then reads no more. Gives what
    /// keeps it connected, and the socket for looking at.
    pub fn stalled(&self, sql: &str) -> (impl Sized + use<>, Socket) {
        self.block_on(async {
            let stream = TcpStream::connect(self.gateway).await.unwrap().into_std().unwrap();
            let socket = stream.try_clone().unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            let mut tls = self.tls.clone();
            let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, "localhost").unwrap();
            let (client, mut connection) = self.config.connect_raw(stream, tls).await.unwrap();
            let mut rows = Box::pin(client.simple_query_raw(sql).await.unwrap());
            // The connection makes progress until the first row is there, and never again.
            tokio::select! {
                biased;
                row = rows.next() => drop(row.unwrap().unwrap()),
                ended = &mut connection => panic!("ended early: {ended:?}"),
            }
            ((client, connection, rows), socket)
        })
    }
}

impl Client {
    pub fn is_live(&self) -> bool {
        !self.ended.is_finished()
    }

    /// How the connection ended, once it has: the error's SQLSTATE and message, and when.
    pub async fn fate(self) -> (String, String, Instant) {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("the connection did not end");
        let (ended, at) = ended.unwrap();
        let (state, message) = told(&ended.expect_err("it ended without a word"));
        (state, message, at)
    }
}

/// SQLSTATE and message of what the server said.
pub fn told(error: &Error) -> (String, String) {
    match error.as_db_error() {
        Some(said) => (said.code().code().to_owned(), said.message().to_owned()),
        None => (String::new(), format!("{error:?}")),
    }
}

/// For measuring: how long ago, in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
