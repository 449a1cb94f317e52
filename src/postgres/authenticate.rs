//! Who is it? SCRAM-SHA-256(-PLUS) over the login token, inside TLS. The token never crosses the wire. For a user
//! that does not exist the exchange runs the same course and fails at the same place.
//!
//! Or a certificate for the user's name, where `postgres.client_ca_file` has clients asked for one. That its authority
//! signed it, that it is valid now and that its key is the client's was proved by TLS; who shows one that is another's
//! is refused, and not asked for a token.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::Access;
use crate::access::login::ScramKeys;
use crate::access::refusal::Refusal;
use crate::crypto;
use crate::crypto::certificate::{self, SubjectError};
use crate::crypto::scram::ITERATIONS;
use crate::domain::name::UserName;
use crate::domain::principal::Principal;

use super::ClientStream;
use super::codec::frame::{self, Frame};
use super::codec::frontend::{self, SaslInitialResponse};
use super::codec::{CodecError, encode};
use super::scram::{self, Exchange, ScramError};
use super::sqlstate::{
    Goodbye, INVALID_AUTHORIZATION, INVALID_PASSWORD, PROTOCOL_VIOLATION, TOO_MANY_CONNECTIONS,
};

/// PostgreSQL's own bound for authentication messages.
const LONGEST_MESSAGE: usize = 65_535;

#[derive(Debug, thiserror::Error)]
pub(super) enum AuthenticateError {
    #[error("the client went away: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Scram(#[from] ScramError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Why a certificate that TLS has found good does not log the user in.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error(transparent)]
    Unnamed(#[from] SubjectError),
    #[error("the client's certificate is for `{named}`, not for `{user}`")]
    OtherName { named: String, user: UserName },
    #[error("the user whom the client's certificate is for is unknown or disabled")]
    Nobody,
}

impl AuthenticateError {
    /// What the client is told; `None` when it is gone.
    pub(super) fn goodbye(&self, user: &UserName) -> Option<Goodbye> {
        match self {
            Self::Io(_) => None,
            Self::Scram(ScramError::Refused) => Some(
                Goodbye::new(INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
                    .hint("The password is your login token: get a fresh one with `sallyport login`."),
            ),
            Self::Certificate(error) => Some(refused_certificate(error, user)),
            Self::Codec(error) => Some(Goodbye::new(PROTOCOL_VIOLATION, error.to_string())),
            Self::Scram(error) => Some(Goodbye::new(PROTOCOL_VIOLATION, error.to_string())),
            Self::Refused(refusal @ Refusal::TooManyAttempts { .. }) => {
                Some(Goodbye::new(TOO_MANY_CONNECTIONS, refusal.to_string()))
            }
            Self::Refused(refusal) => Some(Goodbye::new("57P03", refusal.to_string())),
        }
    }
}

/// What the client is told does not say whether the user exists.
fn refused_certificate(error: &CertificateError, user: &UserName) -> Goodbye {
    let message = format!("certificate authentication failed for user \"{user}\"");
    let goodbye = Goodbye::new(INVALID_AUTHORIZATION, message);
    let goodbye = match error {
        CertificateError::Unnamed(_) | CertificateError::OtherName { .. } => {
            goodbye.detail(error.to_string())
        }
        CertificateError::Nobody => goodbye,
    };
    goodbye
        .hint("To log in with a token, connect without the certificate: sslcertmode=disable, or no sslcert.")
}

/// By the certificate that the client showed, or else by the exchange; `end_point` is our certificate's `tls-server-end-point` (RFC 5929).
pub(super) async fn authenticate(
    access: &Access,
    stream: &mut ClientStream,
    buffer: &mut BytesMut,
    user: &UserName,
    end_point: Option<&[u8]>,
    client: SocketAddr,
) -> Result<Principal, AuthenticateError> {
    let attempt = access.admit_token_attempt(user.as_str(), client.ip())?;
    if let Some(shown) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        let proved = by_certificate(access, shown, user).await;
        if !matches!(proved, Err(AuthenticateError::Certificate(_))) {
            attempt.give_back();
        }
        return proved;
    }
    let ScramKeys { salt, candidates, principal } = match access.scram_keys(user).await {
        Ok(keys) => keys,
        Err(refusal) => {
            attempt.give_back();
            return Err(refusal.into());
        }
    };
    send(stream, &encode::authentication_sasl(scram::mechanisms(end_point))).await?;
    let first = SaslInitialResponse::read(&receive(stream, buffer).await?)?;
    let data = first.data.unwrap_or_default();
    let (exchange, server_first) =
        Exchange::start(&first.mechanism, &data, end_point, crypto::random(), &salt, ITERATIONS)?;
    send(stream, &encode::authentication_sasl_continue(&server_first)).await?;
    let last = frontend::sasl_response(&receive(stream, buffer).await?)?;
    let ((), server_final) = exchange.finish(&last, candidates.iter().map(|verifier| ((), verifier)))?;
    // A match without a principal is a disabled account's; it has no verifier, so this cannot be.
    let principal = principal.ok_or(ScramError::Refused)?;
    attempt.give_back();
    send(stream, &encode::authentication_sasl_final(&server_final)).await?;
    Ok(principal)
}

async fn by_certificate(
    access: &Access,
    certificate: &[u8],
    user: &UserName,
) -> Result<Principal, AuthenticateError> {
    let named = certificate::common_name(certificate).map_err(CertificateError::from)?;
    if named != user.as_str() {
        let named = named.chars().filter(|symbol| !symbol.is_control()).take(80).collect();
        return Err(CertificateError::OtherName { named, user: user.clone() }.into());
    }
    let principal = access.principal_by_name(user).await?;
    Ok(principal.ok_or(CertificateError::Nobody)?)
}

async fn send(stream: &mut ClientStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn receive(stream: &mut ClientStream, buffer: &mut BytesMut) -> Result<Frame, AuthenticateError> {
    loop {
        if let Some(frame) = frame::whole(buffer, LONGEST_MESSAGE)? {
            return Ok(frame);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}
