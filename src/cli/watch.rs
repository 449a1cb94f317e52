//! `sallyport watch`: a connection's recording as it grows.

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::out;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connection's id, or a unique beginning of it
    connection: String,
    /// The records exactly as stored, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Ends when the connection does, or who watches may no longer.
pub(super) async fn run(arguments: Arguments, client: &Client) -> Outcome {
    let id = client.connection_id(&arguments.connection).await?;
    let format = if arguments.json { "json" } else { "text" };
    let mut stream = client.stream(&format!("/pam/recordings/{id}?format={format}&follow=true")).await?;
    while let Some(piece) = stream.next().await? {
        out::bytes(&piece)?;
        out::flush()?;
    }
    Ok(Exit::Done)
}
