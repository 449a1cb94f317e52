//! What a person is told in the terminal when a channel ends for a reason of ours.

use std::time::Duration;

use bytes::Bytes;

use super::message::{Message, Request};
use super::server::{FromClient, ToClient};
use crate::domain::text::on_one_line;

/// How long a client gets to take a goodbye; it may not be reading.
const TELL_WITHIN: Duration = Duration::from_millis(200);
/// How long a client gets to say what the channel was for.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// A connection that was cut fails as one that broke.
pub(super) const CUT_STATUS: u32 = 255;
/// `EX_NOPERM`: what a script can tell from any status of a program's.
pub(super) const REFUSED_STATUS: u32 = 77;

/// Says why on the channel's standard error and closes it, within a budget of 200 ms.
pub(super) async fn tell(to: &ToClient, why: &str, is_terminal: bool, status: u32) {
    let telling = async {
        to.stderr(line(why, is_terminal)).await?;
        to.exit_status(status).await?;
        to.close().await
    };
    let _not_reading = tokio::time::timeout(TELL_WITHIN, telling).await;
}

/// Serves a channel that leads nowhere: waits for its program, says why and ends it with `status`.
/// Not bounded in time by itself where the client takes its time to close.
pub(super) async fn explain(
    mut from: FromClient,
    to: &ToClient,
    why: &str,
    status: u32,
    mut is_terminal: bool,
    mut started: bool,
) {
    let asking = async {
        while !started {
            match from.next().await {
                Some(Message::Request(request)) => {
                    is_terminal |= matches!(request, Request::Pty(_));
                    started = matches!(request, Request::Shell | Request::Exec(_) | Request::Subsystem(_));
                    if request.is_answered() {
                        from.answer(!matches!(request, Request::Agent | Request::X11));
                    }
                }
                Some(Message::Close) | None => return,
                Some(_) => {}
            }
        }
    };
    if tokio::time::timeout(ASK_WITHIN, asking).await.is_err() {
        return;
    }
    let telling = async {
        to.stderr(line(why, is_terminal)).await?;
        to.exit_status(status).await?;
        to.eof().await?;
        to.close().await
    };
    let _not_reading = tokio::time::timeout(ASK_WITHIN, telling).await;
}

/// A line of ours: on one line, whatever somebody wrote as a reason.
pub(super) fn line(text: &str, is_terminal: bool) -> Bytes {
    let end = if is_terminal { "\r\n" } else { "\n" };
    let begin = if is_terminal { "\r\n" } else { "" };
    format!("{begin}sallyport: {}{end}", on_one_line(text)).into()
}
