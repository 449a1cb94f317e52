//! The PostgreSQL gateway. Start reading at [`serve`].
//!
//! [`codec`], [`lexer`], [`decode`], [`classify`], [`observe`] and [`scram`] are pure: bytes in, values out. The rest moves bytes.

mod authenticate;
mod cancel;
pub mod classify;
pub mod codec;
pub mod decode;
pub mod fingerprint;
mod guard;
mod inward;
pub mod lexer;
pub mod mask;
mod negotiate;
pub mod observe;
mod outward;
mod prepared;
mod pump;
mod record;
pub mod scram;
mod serve;
pub mod sqlstate;
mod upstream;

use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::gateway::scratch::ReadAhead;

pub use negotiate::ALPN;
pub use serve::{PostgresGateway, Settings};

/// A client's connection inside TLS. In a box: it is handed on from phase to phase, each of which has room for it.
type ClientStream = Box<server::TlsStream<ReadAhead<TcpStream>>>;
/// The connection to a target, inside TLS.
type TargetStream = Box<client::TlsStream<ReadAhead<TcpStream>>>;
