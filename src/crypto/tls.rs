//! TLS configurations: what a server shows, and whom a client trusts.
//!
//! Servers speak TLS 1.2 and 1.3. Clients verify the chain and the host name (`verify-full`);
//! there is no other mode.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("`{}` holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("the certificate `{}` and its key cannot be used: {source}", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("an authority in `{}` cannot be used: {source}", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the authorities in `{}` cannot be used: {source}", path.display())]
    Verifier {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
}

/// Certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let found = found.map_err(read)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

/// A server's side: certificate chain and key, and the ALPN protocols that it speaks.
pub fn server(certificate: &Path, key: &Path, alpn: &[&str]) -> Result<rustls::ServerConfig, TlsError> {
    serve(certificate, key, alpn, Arc::new(NoClientAuth))
}

/// As [`server`], asking clients for a certificate that one of the authorities in `client_ca` signed. One that has
/// none may go on without; one that shows another is not served.
pub fn server_for_certified(
    certificate: &Path,
    key: &Path,
    alpn: &[&str],
    client_ca: &Path,
) -> Result<rustls::ServerConfig, TlsError> {
    let authorities = roots(&certificates(client_ca)?);
    let authorities =
        authorities.map_err(|source| TlsError::Authority { path: client_ca.to_owned(), source })?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider());
    let verifier = verifier
        .allow_unauthenticated()
        .build()
        .map_err(|source| TlsError::Verifier { path: client_ca.to_owned(), source })?;
    let mut config = serve(certificate, key, alpn, verifier)?;
    // A session that is resumed shows no certificate: it would outlive the certificate's validity.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn serve(
    certificate: &Path,
    key: &Path,
    alpn: &[&str],
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<rustls::ServerConfig, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| TlsError::Read { path: key.to_owned(), source })?;
    let unusable = |source| TlsError::Unusable { path: certificate.to_owned(), source };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A certificate that is shown to servers that ask for one, with its key, which must be that of the certificate.
pub fn shown(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| TlsError::Read { path: key.to_owned(), source })?;
    let shown = CertifiedKey::from_der(chain, key, &provider());
    shown.map(Arc::new).map_err(|source| TlsError::Unusable { path: certificate.to_owned(), source })
}

/// A client's side: trusts `authorities` and nobody else, and shows a certificate where there is one to be shown.
pub fn client(
    authorities: &[CertificateDer<'static>],
    shown: Option<&Arc<CertifiedKey>>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?);
    Ok(match shown {
        Some(shown) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(shown)))),
        None => config.with_no_client_auth(),
    })
}

/// These and nobody else.
pub fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
