//! A connection's first packets: TLS, or a cancel request, or a refusal.
//!
//! 1. One byte is looked at without being taken: a TLS handshake may begin at once (direct TLS,
//!    which needs the ALPN name `postgresql`).
//! 2. Otherwise exactly eight bytes are read. `SSLRequest` is answered with `S` and TLS begins on
//!    the bare socket, so that nothing sent before it can be taken for something sent inside it.
//!    `GSSENCRequest` is declined once.
//! 3. A startup message is accepted inside TLS only, and answered with the version of the protocol
//!    that is spoken where it asks for more.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::audit::record::Tls;
use crate::crypto::certificate;
use crate::gateway::scratch::ReadAhead;

use super::ClientStream;
use super::codec::CodecError;
use super::codec::startup::{
    CancelRequest, FIRST_BYTES, First, ProtocolVersion, StartupParameters, is_direct_tls,
};
use super::sqlstate::{Goodbye, INVALID_AUTHORIZATION, PROTOCOL_VIOLATION};

/// The protocol's name in TLS (PostgreSQL documentation, "SSL Session Encryption").
pub const ALPN: &str = "postgresql";

/// What a client turned out to want.
#[derive(Debug)]
pub(super) enum Hello {
    Startup(Box<Start>),
    /// Clients wait for the stream's end to know that it was passed on.
    Cancel {
        request: CancelRequest,
        stream: Box<Stream>,
    },
}

/// A startup message inside TLS.
#[derive(Debug)]
pub(super) struct Start {
    pub stream: ClientStream,
    pub version: ProtocolVersion,
    pub parameters: StartupParameters,
    pub tls: Tls,
    /// The host that the client connected to, as its TLS says (RFC 6066 section 3), in lower case.
    pub host: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiateError {
    /// Gone, or a TLS handshake that failed: there is nobody to tell.
    #[error("the client went away or its TLS handshake failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("direct TLS without the ALPN name `{ALPN}`")]
    NoAlpn,
    #[error("{why}")]
    Refused { why: CodecError, stream: Box<Stream> },
    #[error("the client did not ask for TLS")]
    NoTls { stream: Box<Stream> },
}

/// A client's stream before it is known whether it is TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(ClientStream),
}

impl NegotiateError {
    /// What the client is told, and where; `None` when it is past telling.
    pub(super) fn goodbye(self) -> Option<(Stream, Goodbye)> {
        match self {
            Self::Io(_) | Self::NoAlpn => None,
            Self::Refused { why, stream } => {
                Some((*stream, Goodbye::new(PROTOCOL_VIOLATION, why.to_string())))
            }
            Self::NoTls { stream } => Some((
                *stream,
                Goodbye::new(INVALID_AUTHORIZATION, "this gateway accepts encrypted connections only")
                    .hint("Connect with sslmode=verify-full (or at least sslmode=require)."),
            )),
        }
    }
}

pub(super) async fn negotiate(
    mut stream: TcpStream,
    tls: &Arc<rustls::ServerConfig>,
) -> Result<Hello, NegotiateError> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    if first.first().is_some_and(|byte| is_direct_tls(*byte)) {
        let stream = TlsAcceptor::from(Arc::clone(tls)).accept(ReadAhead::new(stream)).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN.as_bytes()) {
            return Err(NegotiateError::NoAlpn);
        }
        return inside_tls(Box::new(stream)).await;
    }
    let mut declined_gss = false;
    loop {
        let bytes = read_first(&mut stream).await?;
        match First::read(bytes) {
            Ok(First::Ssl) => {
                stream.write_all(b"S").await?;
                let stream = TlsAcceptor::from(Arc::clone(tls)).accept(ReadAhead::new(stream)).await?;
                return inside_tls(Box::new(stream)).await;
            }
            Ok(First::Gssenc) if !declined_gss => {
                declined_gss = true;
                stream.write_all(b"N").await?;
            }
            // libpq before version 17 sends its cancel requests in clear; the key authorises them.
            Ok(First::Cancel { body }) => {
                let body = read_body(&mut stream, body).await?;
                return cancel(body, Stream::Plain(stream));
            }
            Ok(First::Gssenc | First::Startup { .. }) => {
                return Err(NegotiateError::NoTls { stream: Box::new(Stream::Plain(stream)) });
            }
            Err(why) => {
                return Err(NegotiateError::Refused { why, stream: Box::new(Stream::Plain(stream)) });
            }
        }
    }
}

async fn inside_tls(mut stream: ClientStream) -> Result<Hello, NegotiateError> {
    let bytes = read_first(&mut stream).await?;
    let refused = |why, stream| NegotiateError::Refused { why, stream: Box::new(Stream::Tls(stream)) };
    match First::read(bytes) {
        Ok(First::Startup { version, body }) => {
            let body = read_body(&mut stream, body).await?;
            match StartupParameters::parse(body) {
                Ok(parameters) => {
                    // Before anything else is said: the client decides upon it whether to go on.
                    if let Some(answer) = parameters.negotiation(version) {
                        stream.write_all(&answer).await?;
                    }
                    let connection = stream.get_ref().1;
                    let mut tls =
                        describe(connection.protocol_version(), connection.negotiated_cipher_suite());
                    let shown = connection.peer_certificates().and_then(|chain| chain.first());
                    tls.certificate = shown.map(|shown| certificate::fingerprint(shown));
                    let host = connection.server_name().map(str::to_ascii_lowercase);
                    Ok(Hello::Startup(Box::new(Start { stream, version, parameters, tls, host })))
                }
                Err(why) => Err(refused(why, stream)),
            }
        }
        Ok(First::Cancel { body }) => {
            let body = read_body(&mut stream, body).await?;
            cancel(body, Stream::Tls(stream))
        }
        Ok(First::Ssl | First::Gssenc) => {
            let why = CodecError::UnsupportedProtocol { major: 1234, minor: 5679 };
            Err(refused(why, stream))
        }
        Err(why) => Err(refused(why, stream)),
    }
}

fn cancel(body: Bytes, stream: Stream) -> Result<Hello, NegotiateError> {
    let stream = Box::new(stream);
    match CancelRequest::parse(body) {
        Ok(request) => Ok(Hello::Cancel { request, stream }),
        Err(why) => Err(NegotiateError::Refused { why, stream }),
    }
}

/// TLS as records name it: by the names of RFC 8446, not by the library's.
pub(super) fn describe(
    version: Option<rustls::ProtocolVersion>,
    cipher: Option<rustls::SupportedCipherSuite>,
) -> Tls {
    Tls {
        version: version.and_then(|version| Some(version.as_str()?.replace('_', "."))).unwrap_or_default(),
        cipher: cipher
            .and_then(|cipher| Some(cipher.suite().as_str()?.replacen("TLS13_", "TLS_", 1)))
            .unwrap_or_default(),
        certificate: None,
    }
}

async fn read_first<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<[u8; FIRST_BYTES]> {
    let mut bytes = [0; FIRST_BYTES];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads exactly `length` bytes, which [`First`] has bounded.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, length: usize) -> std::io::Result<Bytes> {
    let mut body = BytesMut::zeroed(length);
    stream.read_exact(&mut body).await?;
    Ok(body.freeze())
}
