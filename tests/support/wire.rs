//! A client that speaks the protocol byte by byte, for what no well-behaved client sends.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Bastion;
use super::process::PATIENCE;

pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
pub const VERSION_3_0: u32 = 0x0003_0000;

/// A message as it came: tag and body.
pub type Message = (u8, Vec<u8>);

/// A connection inside TLS.
#[derive(Debug)]
pub struct Wire {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

/// The bytes of a message with a tag.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// The bytes of a startup message.
pub fn startup(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        body.extend(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

pub fn cancel_request(process: u32, key: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(12 + key.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([0x04, 0xd2, 0x16, 0x2e]);
    bytes.extend(process.to_be_bytes());
    bytes.extend(key);
    bytes
}

/// A field of an `ErrorResponse`; empty when it is not there.
pub fn field(body: &[u8], code: u8) -> String {
    body.split(|byte| *byte == 0)
        .find(|field| field.first() == Some(&code))
        .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
        .unwrap_or_default()
}

/// SQLSTATE, message and hint of an `ErrorResponse`.
#[track_caller]
pub fn error(message: Option<Message>) -> (String, String, String) {
    match message {
        Some((b'E', body)) => (field(&body, b'C'), field(&body, b'M'), field(&body, b'H')),
        other => panic!("no error came but {other:?}"),
    }
}

pub fn tcp(bastion: &Bastion) -> TcpStream {
    tcp_to(bastion.postgres_port)
}

fn tcp_to(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A TLS client that trusts the gateway's authority.
pub fn tls(bastion: &Bastion, alpn: &[&str]) -> ClientConnection {
    tls_trusting(&bastion.ca_file(), alpn)
}

fn tls_trusting(ca_file: &Path, alpn: &[&str]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

impl Wire {
    /// `SSLRequest`, then TLS.
    pub fn connect(bastion: &Bastion) -> Self {
        Self::connect_to(bastion.postgres_port, &bastion.ca_file())
    }

    /// Whoever listens there.
    pub fn connect_to(port: u16, ca_file: &Path) -> Self {
        let mut stream = tcp_to(port);
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
        Self::handshake(stream, tls_trusting(ca_file, &[])).unwrap()
    }

    /// TLS from the first byte.
    pub fn direct(bastion: &Bastion, alpn: &[&str]) -> io::Result<Self> {
        Self::handshake(tcp(bastion), tls(bastion, alpn))
    }

    pub fn handshake(mut stream: TcpStream, mut tls: ClientConnection) -> io::Result<Self> {
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self { stream: StreamOwned::new(tls, stream) })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next message; `None` once the peer has closed.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        if let Err(error) = self.stream.read_exact(&mut header) {
            assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
            return None;
        }
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some((header[0], body))
    }

    /// Says that nothing more comes, and gives what is still answered.
    pub fn finish(mut self) -> Vec<Message> {
        self.stream.conn.send_close_notify();
        // A peer that has closed already has answered all it wants to.
        let _ended = self.stream.flush();
        let _ended = self.stream.sock.shutdown(Shutdown::Write);
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Skips to the next message with `tag`; an error is a failure.
    #[track_caller]
    pub fn until(&mut self, tag: u8) -> Vec<u8> {
        loop {
            match self.receive() {
                Some((found, body)) if found == tag => return body,
                Some((b'E', body)) => panic!("{} {}", field(&body, b'C'), field(&body, b'M')),
                Some(_) => {}
                None => panic!("the connection ended before `{}`", char::from(tag)),
            }
        }
    }

    /// Skips to the next error, and checks that the connection ends with it.
    #[track_caller]
    pub fn last_words(&mut self) -> (String, String, String) {
        let words = loop {
            match self.receive() {
                Some((b'E', body)) => break error(Some((b'E', body))),
                Some(_) => {}
                None => panic!("the connection ended without a word"),
            }
        };
        assert_eq!(self.receive(), None, "something follows {words:?}");
        words
    }

    /// Nothing but the end of the connection is left.
    #[track_caller]
    pub fn is_closed(&mut self) {
        while self.receive().is_some() {}
    }

    /// Nothing is left but the end, which TLS announces.
    #[track_caller]
    pub fn ends_well(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }

    /// SCRAM up to the last message of the client's, which the caller sends.
    #[track_caller]
    pub fn scram(&mut self, token: &str) -> (ScramSha256, Vec<u8>, Vec<u8>) {
        let mut scram = ScramSha256::new(token.as_bytes(), ChannelBinding::unsupported());
        let first = sasl_initial(scram.message());
        self.send(&first);
        let (tag, body) = self.receive().unwrap();
        assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 11][..]));
        scram.update(&body[4..]).unwrap();
        let last = message(b'p', scram.message());
        (scram, first, last)
    }

    /// Startup and SCRAM; up to `AuthenticationOk` and what follows it, or the refusal.
    pub fn log_in(&mut self, pairs: &[(&str, &str)], token: &str) -> Result<(), Message> {
        self.send(&startup(VERSION_3_0, pairs));
        let asked = self.receive().unwrap();
        self.prove(asked, token)
    }

    /// SCRAM, which the peer has `asked` for.
    pub fn prove(&mut self, asked: Message, token: &str) -> Result<(), Message> {
        if asked.0 != b'R' {
            return Err(asked);
        }
        let (mut scram, _, last) = self.scram(token);
        self.send(&last);
        let answer = self.receive().unwrap();
        if answer.0 != b'R' {
            return Err(answer);
        }
        scram.finish(&answer.1[4..]).unwrap();
        match self.receive().unwrap() {
            (b'R', body) if body == [0; 4] => Ok(()),
            other => Err(other),
        }
    }

    /// Logged in and ready for a query. Gives the cancel key.
    #[track_caller]
    pub fn session(bastion: &Bastion, who: &str, target: &str) -> (Self, Vec<u8>) {
        let mut wire = Self::connect(bastion);
        let user = format!("{who}+{target}");
        let pairs = [("user", user.as_str()), ("database", "ledger")];
        if let Err(refusal) = wire.log_in(&pairs, &bastion.token(who)) {
            panic!("{:?}", error(Some(refusal)));
        }
        let key = wire.until(b'K');
        wire.until(b'Z');
        (wire, key)
    }

    /// Closes without a word of TLS or of the protocol.
    pub fn cut(self) {
        let _gone = self.stream.sock.shutdown(Shutdown::Both);
    }

    /// The socket under the TLS, for those who only want to see it close.
    pub fn into_socket(self) -> TcpStream {
        self.stream.sock
    }

    /// The client's end, as the peer sees it.
    pub fn local_port(&self) -> u16 {
        self.stream.sock.local_addr().unwrap().port()
    }

    pub fn set_patience(&self, patience: Duration) {
        self.stream.sock.set_read_timeout(Some(patience)).unwrap();
    }
}

pub fn sasl_initial(data: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.extend_from_slice(SCRAM_SHA_256.as_bytes());
    body.extend_from_slice(&[0]);
    body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    body.extend_from_slice(data);
    message(b'p', &body)
}
