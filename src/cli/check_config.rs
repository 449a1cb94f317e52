//! `sallyport check-config`.

use std::path::PathBuf;

use super::exit::{Exit, Outcome};
use super::{audit, out};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = audit::load(&arguments.config)?;
    if let Some(dir) = &config.reloadable.policies {
        super::policy::load(Some(dir))?;
    }
    out::line(config.summary().trim_end())?;
    Ok(Exit::Done)
}
