//! `sallyport init`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, Outcome};
use super::out;
use crate::access::credential::error_chain;
use crate::app::{SIGNING_KEY_FILE, VERIFY_KEY_FILE};
use crate::audit::SigningKey;
use crate::clock::Clock;
use crate::config::init::{Init, KeyError, init, read_node_id};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory to make; it must be new or empty
    dir: PathBuf,
    /// A host name or address that clients will use; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let dir = std::path::absolute(&arguments.dir).map_err(|error| {
        Failure::of(format!("cannot tell where `{}` is", arguments.dir.display()), &error)
    })?;
    let made = init(&Init {
        dir: &dir,
        names: &arguments.names,
        now: Clock::system().now(),
        audit_key: &|_audit_dir| write_keys(&dir),
    });
    let made = made.map_err(|error| Failure::failed(error_chain(&error)))?;
    out::line(made.next_steps.trim_end())?;
    out::line(format!(
        "8. Keep a copy of {} elsewhere: with it, `sallyport audit verify` proves the audit log.",
        dir.join(VERIFY_KEY_FILE).display()
    ))?;
    Ok(Exit::Done)
}

/// The key that signs the audit log, for the server alone, and its public half for everybody.
fn write_keys(data_dir: &Path) -> Result<(), KeyError> {
    let pem = SigningKey::generate();
    let key = SigningKey::from_pem(&pem, read_node_id(data_dir)?)?;
    write(&data_dir.join(SIGNING_KEY_FILE), 0o600, &pem)?;
    write(&data_dir.join(VERIFY_KEY_FILE), 0o644, &format!("{}\n", key.verify_key()))?;
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::VerifyKey;
    use crate::config::Config;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_init_makes_can_be_started_from() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        run(&Arguments { dir: dir.clone(), names: vec!["bastion.example".to_owned()] }).unwrap();
        let config = Config::load(&dir.join("sallyport.toml")).unwrap();
        let node = read_node_id(&config.server.data_dir).unwrap();
        let signing = config.server.data_dir.join(SIGNING_KEY_FILE);
        assert_eq!(std::fs::metadata(&signing).unwrap().mode() & 0o777, 0o600);
        let signing = SigningKey::load(&signing, node).unwrap();
        let public = VerifyKey::load(&config.server.data_dir.join(VERIFY_KEY_FILE)).unwrap();
        assert_eq!(signing.verify_key(), public);
    }

    #[test]
    fn a_directory_that_is_not_empty_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let outcome = run(&Arguments { dir: dir.path().to_owned(), names: Vec::new() });
        assert_eq!(outcome.unwrap_err().exit, Exit::Failed);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
