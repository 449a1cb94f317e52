//! `sallyport completions`.

use super::exit::{Exit, Outcome};
use super::out;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "sallyport", &mut script);
    out::bytes(&script)?;
    Ok(Exit::Done)
}
