//! `sallyport serve`.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::audit;
use super::exit::{Exit, Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG")]
    config: PathBuf,
    /// What to log on standard error: a level, or directives such as `info,sallyport::http=debug`
    #[arg(long, value_name = "FILTER", env = "SALLYPORT_LOG", default_value = "info")]
    log: String,
    /// How to write the log
    #[arg(long, value_name = "FORM", env = "SALLYPORT_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    /// One JSON object a line
    Json,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    log(&arguments)?;
    // Every mistake with its line, before anything is started.
    audit::load(&arguments.config)?;
    crate::app::serve(&arguments.config).await?;
    Ok(Exit::Done)
}

fn log(arguments: &Arguments) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&arguments.log)
        .map_err(|error| Failure::usage(format!("`{}` is not a log filter: {error}", arguments.log)))?;
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match arguments.log_format {
        LogFormat::Text => logger.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logger.json().try_init(),
    };
    started.map_err(|error| Failure::failed(format!("cannot log: {error}")))
}
