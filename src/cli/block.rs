//! `sallyport block` and `unblock`.

use std::time::Duration;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::{Form, blocks, out, show};
use crate::domain::name::{TargetName, UserName};
use crate::http::api::block::{BlockBody, UnblockBody};
use crate::http::view::{BlockView, BlockedView};

#[derive(Debug, clap::Args)]
pub(super) struct Block {
    user: UserName,
    /// Only from this target; from all without it
    #[arg(long)]
    target: Option<TargetName>,
    /// For so long; until lifted without it
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    duration: Option<Duration>,
    /// The person blocked reads it
    #[arg(long)]
    why: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unblock {
    /// The block's id, or a unique beginning of it
    id: String,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn block(arguments: Block, client: &Client) -> Outcome {
    let body = BlockBody {
        user: arguments.user,
        target: arguments.target,
        for_seconds: arguments.duration.map(|duration| duration.as_secs()),
        why: arguments.why,
    };
    let done: BlockedView = client.post("/pam/block", &body).await?;
    let exit = if done.cuts.iter().all(|cut| cut.ended) { Exit::Done } else { Exit::Failed };
    if arguments.form.json {
        out::json(&done)?;
        return Ok(exit);
    }
    out::line(format!("block {}: {}", done.block.id, blocks::reach(&done.block)))?;
    show::cuts(&done.cuts)?;
    Ok(exit)
}

pub(super) async fn unblock(arguments: Unblock, client: &Client) -> Outcome {
    let id = client.block_id(&arguments.id).await?;
    let block = id.parse().map_err(|error| Failure::of("cannot use the block's id", &error))?;
    let view: BlockView = client.post("/pam/unblock", &UnblockBody { block }).await?;
    if arguments.form.json {
        out::json(&view)?;
    } else {
        out::line(format!("block {} is lifted: {} may ask again", view.id, view.principal.name))?;
    }
    Ok(Exit::Done)
}
