//! Somebody stands between the gateway and the server with a certificate that the gateway trusts: the password's proof is
//! bound to the certificate, so that it is of no use to them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::{Bastion, Postgres};
use super::{FIRST, USER, grant, options, select, shared_user, target};

const NAME: &str = "ledger-app";

/// Decrypts what comes, with this certificate, and encrypts it for the server, which it takes for what it says it is.
struct Middle {
    at: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Middle {
    fn before(postgres: &Postgres, chain: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let shown = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(postgres.ca_file()).unwrap()).unwrap();
        let trusts = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(shown)), TlsConnector::from(Arc::new(trusts)));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (at, port) = (listener.local_addr().unwrap(), postgres.port);
        runtime.spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                all.spawn(carry(client, port, acceptor.clone(), connector.clone()));
            }
        });
        Self { at, _runtime: runtime }
    }
}

/// Until one of them ends it.
async fn carry(
    mut client: TcpStream,
    port: u16,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut request, mut answer) = ([0; 8], [0]);
    client.read_exact(&mut request).await?;
    server.write_all(&request).await?;
    server.read_exact(&mut answer).await?;
    client.write_all(&answer).await?;
    let mut client = acceptor.accept(client).await?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let mut server = connector.connect(name, server).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A certificate of `localhost`, its key, and the authority that signed it.
fn forged() -> (CertificateDer<'static>, PrivateKeyDer<'static>, String) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, "an authority that was misled");
    let key = KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(parameters, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap(), authority)
}

fn bastion(postgres: &Postgres, middle: &Middle, trusted: &Path) -> Bastion {
    let entry = target(postgres, NAME, &["kind = \"static\"".to_owned()])
        .replace(&format!("localhost:{}", postgres.port), &format!("localhost:{}", middle.at.port()))
        .replace(postgres.ca_file().to_str().unwrap(), trusted.to_str().unwrap());
    let bastion = Bastion::start_with(postgres, options(entry));
    super::kept::keep(&bastion, FIRST).success();
    grant(&bastion);
    bastion
}

#[test]
fn who_has_a_trusted_certificate_but_not_the_servers_own_is_found_out() {
    let postgres = shared_user();
    let (certificate, key, authority) = forged();
    let trusted = postgres.data().with_file_name("trusted.crt");
    let own = fs::read_to_string(postgres.ca_file()).unwrap();
    fs::write(&trusted, [own, authority].concat()).unwrap();
    let middle = Middle::before(&postgres, certificate, key);
    let bastion = bastion(&postgres, &middle, &trusted);
    let refused = select(&bastion).failure();
    assert!(refused.stderr.contains("SCRAM channel binding check failed"), "{}", refused.stderr);
    bastion.verify().success();
}

#[test]
fn a_proxy_with_the_servers_own_certificate_is_the_server() {
    let postgres = shared_user();
    let certificate = CertificateDer::from_pem_file(postgres.data().join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(postgres.data().join("server.key")).unwrap();
    let middle = Middle::before(&postgres, certificate, key);
    let bastion = bastion(&postgres, &middle, &postgres.ca_file());
    assert_eq!(select(&bastion).success().stdout, format!("{USER}|100\n"));
}
