//! `sallyport serve`: sets the log up, then runs the server.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::exit::{Exit, Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
    /// How the log is written, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "SALLYPORT_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or levels by module such as `info,sallyport::postgres=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "SALLYPORT_LOG")]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|error| Failure::usage(format!("`{}` is not a log filter: {error}", arguments.log)))?;
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match arguments.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    crate::app::serve(&arguments.config).await?;
    Ok(Exit::Done)
}
