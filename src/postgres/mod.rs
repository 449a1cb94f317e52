//! The PostgreSQL gateway. Start reading at [`serve`].
//!
//! [`codec`], [`decode`], [`lexer`], [`observe`] and [`scram`] are pure: bytes in, values out. The rest moves bytes.

mod authenticate;
mod cancel;
pub mod codec;
pub mod decode;
pub mod fingerprint;
pub mod lexer;
pub mod mask;
mod negotiate;
pub mod observe;
mod pump;
mod record;
pub mod scram;
mod serve;
pub mod sqlstate;
mod upstream;

pub use negotiate::ALPN;
pub use serve::{PostgresGateway, Settings};
