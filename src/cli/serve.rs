//! `sallyport serve`.

use std::path::PathBuf;

use super::exit::{Exit, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    crate::app::serve(&arguments.config).await?;
    Ok(Exit::Done)
}
