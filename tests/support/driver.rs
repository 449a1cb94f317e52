//! What the driver tokio-postgres needs to connect.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client, Config, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;

/// TLS for tokio-postgres, which trusts this authority.
pub fn connector(ca_file: &Path) -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// A client, whose connection is carried in `tasks`; notifications come out of the channel.
pub async fn connect(
    config: &Config,
    ca_file: &Path,
    tasks: &mut JoinSet<()>,
) -> (Client, mpsc::UnboundedReceiver<Notification>) {
    let (client, mut connection) = config.connect(connector(ca_file)).await.unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = futures_util::StreamExt::next(&mut messages).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = send.send(notification);
            }
        }
    });
    (client, receive)
}
