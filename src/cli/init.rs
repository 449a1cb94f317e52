//! `sallyport init`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, Outcome};
use super::out;
use crate::access::credential::error_chain;
use crate::audit::SigningKey;
use crate::clock::Clock;
use crate::config::init::{Init, KeyError, init};

/// The log's keys, in the audit directory.
pub const SIGNING_KEY_FILE: &str = "signing-key.pem";
pub const VERIFY_KEY_FILE: &str = "verify-key";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory to make; it must be new or empty
    dir: PathBuf,
    /// A host name or address that clients will use; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(arguments: Arguments) -> Outcome {
    let dir = std::path::absolute(&arguments.dir)
        .map_err(|error| Failure::of(format!("cannot tell where `{}` is", arguments.dir.display()), &error))?;
    let made = init(&Init {
        dir: &dir,
        names: &arguments.names,
        now: Clock::system().now(),
        audit_key: &|_| Ok(()),
    });
    let made = made.map_err(|error| Failure::failed(error_chain(&error)))?;
    out::line(made.next_steps.trim_end())?;
    Ok(Exit::Done)
}
