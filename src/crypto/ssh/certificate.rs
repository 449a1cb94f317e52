//! OpenSSH certificates: made for people, hosts and single connections, and checked in every point.
//!
//! What a library checks of a certificate (its own signature, its dates) says nothing about whom it
//! lets in. In this order, so that nothing is believed before its signature is:
//!
//! 1. The authority is a plain key, and one of those trusted, by its key data.
//! 2. The signature is the authority's, by an algorithm without SHA-1.
//! 3. Type, dates (without any grace), principal: an empty list, which OpenSSH takes for everybody, is
//!    nobody.
//! 4. Critical options: `source-address` for users; whatever else there is, is refused, also what
//!    OpenSSH knows. Extensions that are not known are ignored, as the format has it (`PROTOCOL.certkeys`).
//! 5. The certified key is a plain key and as strong as any other must be.

use std::cell::RefCell;
use std::net::IpAddr;

use super::authority::{Authority, NotSigned};
use super::source_address::{MalformedSource, SourceAddresses};
use super::{
    Algorithm, Builder, CertType, Certificate, HashAlg, KeyData, PublicKey, Signature, SignatureError,
    Signer, SshKeyError, check_key, fingerprint, ssh_key,
};
use crate::crypto;

const NONCE_BYTES: usize = 32;
const SOURCE_ADDRESS: &str = "source-address";

/// What a certificate is to say.
#[derive(Debug, Clone, Copy)]
pub struct CertificateOrder<'a> {
    pub key: &'a PublicKey,
    pub key_id: &'a str,
    /// Never empty: that would be a certificate for everybody.
    pub principals: &'a [&'a str],
    pub valid_after: u64,
    /// The first second at which it is no longer valid.
    pub valid_before: u64,
    pub serial: u64,
    /// Users only.
    pub source_address: Option<&'a str>,
    /// `permit-pty` and the like; users only.
    pub extensions: &'a [&'a str],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("a certificate without a principal would be valid for everybody")]
    NoPrincipal,
    #[error("the certificate would end before it begins")]
    Dates,
    #[error("a host's certificate has no options")]
    HostOptions,
    #[error("the certificate's source address cannot be used")]
    Source(#[from] MalformedSource),
    #[error("the key cannot be certified")]
    Key(#[from] SshKeyError),
    #[error("the certificate cannot be made")]
    Make(#[from] ssh_key::Error),
    #[error("the certificate is not signed")]
    NotSigned(#[from] NotSigned),
    #[error("the certificate's signature does not hold: it was made with another key")]
    OtherKey,
}

/// Certifies a user's key.
pub async fn sign_user(ca: &dyn Authority, order: &CertificateOrder<'_>) -> Result<Certificate, SignError> {
    sign(ca, order, CertType::User).await
}

/// Certifies a host's key.
pub async fn sign_host(ca: &dyn Authority, order: &CertificateOrder<'_>) -> Result<Certificate, SignError> {
    if order.source_address.is_some() || !order.extensions.is_empty() {
        return Err(SignError::HostOptions);
    }
    sign(ca, order, CertType::Host).await
}

async fn sign(
    ca: &dyn Authority,
    order: &CertificateOrder<'_>,
    kind: CertType,
) -> Result<Certificate, SignError> {
    check_key(order.key.key_data())?;
    if order.principals.is_empty() || order.principals.iter().any(|principal| principal.is_empty()) {
        return Err(SignError::NoPrincipal);
    }
    if order.valid_before <= order.valid_after {
        return Err(SignError::Dates);
    }
    let nonce = crypto::random::<NONCE_BYTES>();
    let key = ca.public_key().key_data();
    let text = to_be_signed(builder(order, kind, nonce)?, key)?;
    let given = Given { key, signature: ca.sign(&text).await? };
    // The library itself looks at the signature in a debug build alone.
    let certificate = builder(order, kind, nonce)?.sign(&given).map_err(|_| SignError::OtherKey)?;
    // An authority elsewhere may err; a certificate that does not hold must never leave.
    certificate.verify_signature().map_err(|_| SignError::OtherKey)?;
    Ok(certificate)
}

fn builder(
    order: &CertificateOrder<'_>,
    kind: CertType,
    nonce: [u8; NONCE_BYTES],
) -> Result<Builder, SignError> {
    let key = order.key.key_data().clone();
    let mut builder = Builder::new(nonce, key, order.valid_after, order.valid_before)?;
    builder.cert_type(kind)?.serial(order.serial)?.key_id(order.key_id)?;
    for principal in order.principals {
        builder.valid_principal(*principal)?;
    }
    if let Some(source) = order.source_address {
        source.parse::<SourceAddresses>()?;
        builder.critical_option(SOURCE_ADDRESS, source)?;
    }
    for extension in order.extensions {
        builder.extension(*extension, "")?;
    }
    Ok(builder)
}

/// What is to be signed for `key` to be the authority. The library shows it only to who signs at once.
fn to_be_signed(builder: Builder, key: &KeyData) -> Result<Vec<u8>, SignError> {
    let shown = Shown { key, text: RefCell::default() };
    match builder.sign(&shown) {
        Err(error) if shown.text.borrow().is_empty() => Err(error.into()),
        _ => Ok(shown.text.into_inner()),
    }
}

/// Takes down what is to be signed, and does not sign.
struct Shown<'a> {
    key: &'a KeyData,
    text: RefCell<Vec<u8>>,
}

impl From<&Shown<'_>> for KeyData {
    fn from(shown: &Shown<'_>) -> Self {
        shown.key.clone()
    }
}

impl Signer<Signature> for Shown<'_> {
    fn try_sign(&self, text: &[u8]) -> Result<Signature, SignatureError> {
        *self.text.borrow_mut() = text.to_vec();
        Err(SignatureError::new())
    }
}

/// Has the signature already.
struct Given<'a> {
    key: &'a KeyData,
    signature: Signature,
}

impl From<&Given<'_>> for KeyData {
    fn from(given: &Given<'_>) -> Self {
        given.key.clone()
    }
}

impl Signer<Signature> for Given<'_> {
    fn try_sign(&self, _text: &[u8]) -> Result<Signature, SignatureError> {
        Ok(self.signature.clone())
    }
}

/// What a user's certificate proves, once everything in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCertificate {
    pub key: PublicKey,
    pub key_id: String,
    pub serial: u64,
    pub valid_before: u64,
    pub fingerprint_of_ca: String,
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    #[error("the certificate's authority is itself a certificate")]
    NestedAuthority,
    #[error("the certificate's authority {fingerprint} is not trusted here")]
    UnknownAuthority { fingerprint: String },
    #[error("the certificate is signed by `{algorithm}`, which is not accepted")]
    WeakSignature { algorithm: String },
    #[error("the certificate's signature does not hold")]
    BadSignature,
    #[error("the certificate is a host's, not a user's")]
    NotForUsers,
    #[error("the certificate is a user's, not a host's")]
    NotForHosts,
    #[error("the certificate is valid from {} only", time(*.from))]
    NotYetValid { from: u64 },
    #[error("the certificate expired at {}: log in again for another", time(*.at))]
    Expired { at: u64 },
    #[error("the certificate ends before it begins")]
    NeverValid,
    #[error("the certificate names nobody whom it is for")]
    NoPrincipal,
    #[error("the certificate is not for `{principal}`")]
    OtherPrincipal { principal: String },
    #[error("the certificate has the option `{name}`, which is not accepted")]
    UnknownOption { name: String },
    #[error("the certificate's source address cannot be read")]
    MalformedSource(#[source] MalformedSource),
    #[error("the certificate may not be used from {client}")]
    OtherSource { client: IpAddr },
    #[error("the certified key is not accepted")]
    Key(#[source] SshKeyError),
}

/// Checks everything that a user's certificate claims. That its holder has the key is proved by a
/// signature in the protocol, not here.
pub fn check_user_certificate(
    certificate: &Certificate,
    trusted_cas: &[PublicKey],
    principal: &str,
    client: IpAddr,
    now: u64,
) -> Result<UserCertificate, CertificateRefused> {
    let authority = check_signature(certificate, trusted_cas)?;
    if certificate.cert_type() != CertType::User {
        return Err(CertificateRefused::NotForUsers);
    }
    check_dates(certificate, now)?;
    check_principal(certificate, principal, |named| named == principal)?;
    for (name, value) in certificate.critical_options().iter() {
        if name != SOURCE_ADDRESS {
            return Err(CertificateRefused::UnknownOption { name: name.clone() });
        }
        let sources: SourceAddresses = value.parse().map_err(CertificateRefused::MalformedSource)?;
        if !sources.contain(client) {
            return Err(CertificateRefused::OtherSource { client: client.to_canonical() });
        }
    }
    check_key(certificate.public_key()).map_err(CertificateRefused::Key)?;
    Ok(UserCertificate {
        key: PublicKey::from(certificate.public_key().clone()),
        key_id: certificate.key_id().to_owned(),
        serial: certificate.serial(),
        valid_before: certificate.valid_before(),
        fingerprint_of_ca: fingerprint(authority),
    })
}

/// Checks everything that a host's certificate claims; gives the authority that vouches for it.
pub fn check_host_certificate<'a>(
    certificate: &Certificate,
    trusted_cas: &'a [PublicKey],
    host_name: &str,
    now: u64,
) -> Result<&'a PublicKey, CertificateRefused> {
    let authority = check_signature(certificate, trusted_cas)?;
    if certificate.cert_type() != CertType::Host {
        return Err(CertificateRefused::NotForHosts);
    }
    check_dates(certificate, now)?;
    // Names of hosts are the same in capitals (RFC 4343).
    check_principal(certificate, host_name, |named| named.eq_ignore_ascii_case(host_name))?;
    if let Some(name) = certificate.critical_options().keys().next() {
        return Err(CertificateRefused::UnknownOption { name: name.clone() });
    }
    check_key(certificate.public_key()).map_err(CertificateRefused::Key)?;
    Ok(authority)
}

/// Gives the trusted authority whose signature the certificate has.
fn check_signature<'a>(
    certificate: &Certificate,
    trusted_cas: &'a [PublicKey],
) -> Result<&'a PublicKey, CertificateRefused> {
    let key = certificate.signature_key();
    if key.is_certificate() || certificate.public_key().is_certificate() {
        return Err(CertificateRefused::NestedAuthority);
    }
    let Some(authority) = trusted_cas.iter().find(|trusted| trusted.key_data() == key) else {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        return Err(CertificateRefused::UnknownAuthority { fingerprint });
    };
    let algorithm = certificate.signature().algorithm();
    let is_the_keys = match (&algorithm, key.algorithm()) {
        (Algorithm::Rsa { hash }, Algorithm::Rsa { .. }) => hash.is_some(),
        (algorithm, of_key) => *algorithm == of_key,
    };
    if !is_the_keys {
        return Err(CertificateRefused::WeakSignature { algorithm: algorithm.to_string() });
    }
    if certificate.valid_before() <= certificate.valid_after() {
        return Err(CertificateRefused::NeverValid);
    }
    // At a time when it is valid, what is left to find wrong is the signature.
    certificate
        .validate_at(certificate.valid_after(), &[key.fingerprint(HashAlg::Sha256)])
        .map_err(|_| CertificateRefused::BadSignature)?;
    Ok(authority)
}

fn check_dates(certificate: &Certificate, now: u64) -> Result<(), CertificateRefused> {
    if now < certificate.valid_after() {
        return Err(CertificateRefused::NotYetValid { from: certificate.valid_after() });
    }
    if now >= certificate.valid_before() {
        return Err(CertificateRefused::Expired { at: certificate.valid_before() });
    }
    Ok(())
}

fn check_principal(
    certificate: &Certificate,
    principal: &str,
    is_meant: impl Fn(&str) -> bool,
) -> Result<(), CertificateRefused> {
    if certificate.valid_principals().is_empty() {
        return Err(CertificateRefused::NoPrincipal);
    }
    if !certificate.valid_principals().iter().any(|named| is_meant(named)) {
        return Err(CertificateRefused::OtherPrincipal { principal: principal.to_owned() });
    }
    Ok(())
}

/// Seconds since the epoch for a person to read.
fn time(seconds: u64) -> String {
    let instant = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    instant.map_or_else(|| format!("second {seconds}"), |instant| instant.to_string())
}
