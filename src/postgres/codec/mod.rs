//! PostgreSQL's frontend/backend protocol 3.0 to 3.2, as bytes: no I/O, no clock.
//!
//! A message is a tag and the bytes it came in ([`frame::Frame`]); it is forwarded as it came and
//! read only inside its own length ([`cursor::Cursor`]). Results are never held whole
//! ([`walker::Walker`]). What we write ourselves is in [`encode`].
//!
//! PostgreSQL documentation: "Message Formats", "Message Flow".

pub mod backend;
pub mod cursor;
pub mod encode;
mod error;
pub mod frame;
pub mod frontend;
pub mod startup;
pub mod walker;

pub use error::{CodecError, Peer};
