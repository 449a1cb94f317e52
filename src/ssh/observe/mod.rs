//! What passes through a channel, read beside the bytes: never altered, never delayed by what is
//! read. Pure: bytes and instants in, events out.
//!
//! 1. [`program::ProgramHint`] guesses from the command what the channel will carry. The guess only
//!    chooses the observer: what the channel is, its bytes say.
//! 2. [`sftp::SftpObserver`] and [`scp::ScpObserver`] tell [`file::FileEvent`]s, one pair for each
//!    operation on a file: asked, to be durable before the bytes go on, and answered.
//! 3. [`rsync::RsyncObserver`] only recognises; [`stream::StreamObserver`] keeps a head, counts and
//!    hashes whatever else passes.
//! 4. [`mask::InputMask`] decides which keystrokes of a terminal are recorded by their number only.
//!
//! The peers choose every byte, so each observer has a bound on what it keeps. One that meets what
//! it does not understand, or what would pass its bounds, says [`lost::Lost`] once, and from there
//! on counts and hashes.

pub mod file;
pub mod lost;
pub mod mask;
mod opaque;
pub mod program;
pub mod rsync;
pub mod scp;
pub mod sftp;
pub mod stream;
