//! What a person is told when a channel or a connection ends for a reason of ours: in the terminal, and
//! in the message that closes the connection, which OpenSSH shows as well. A client that takes nothing
//! is not waited for.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::message::{Message, Request};
use super::server::{ClientHandle, FromClient, Running, ToClient};
use crate::domain::text::on_one_line;
use crate::gateway::stream::Activity;

/// How long a client gets to take a goodbye.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// It is not waited for where it takes nothing for so long.
const STALLED_AFTER: Duration = Duration::from_millis(20);
/// How long a client gets to say what the channel was for.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// A connection that was cut fails as one that broke.
pub(super) const CUT_STATUS: u32 = 255;
/// `EX_NOPERM`: what a script can tell from any status of a program's.
pub(super) const REFUSED_STATUS: u32 = 77;

/// The clients that are about to go, of all connections.
#[derive(Debug, Default)]
pub(super) struct Partings(watch::Sender<usize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Parting<'a>(&'a watch::Sender<usize>);

impl Partings {
    pub(super) fn begin(&self) -> Parting<'_> {
        self.0.send_modify(|count| *count += 1);
        Parting(&self.0)
    }

    /// Resolves when there is none. Cancel-safe.
    pub(super) async fn over(&self) {
        let mut count = self.0.subscribe();
        // The sender is ours: it stays.
        let _none = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The way out of a client's connection.
pub(super) struct Exit {
    pub handle: ClientHandle,
    pub running: Running,
    pub activity: Activity,
    /// Closes the client's connection at once.
    pub cut: CancellationToken,
}

impl Exit {
    /// Closes the client's connection, with no word where there is no `why`.
    pub(super) async fn leave(self, why: Option<&str>) {
        self.leave_after(std::future::ready(()), why).await;
    }

    /// As [`Self::leave`], once the channels have been `told`: all of it within the time that a client
    /// gets.
    pub(super) async fn leave_after(mut self, told: impl Future<Output = ()>, why: Option<&str>) {
        let Some(why) = why else { return self.cut.cancel() };
        let parting = async {
            tokio::select! {
                () = told => {}
                // Channels that are not read; the connection may be, and takes the closing message.
                () = self.activity.quiet_for(STALLED_AFTER) => {}
            }
            let closing = async {
                self.handle.disconnect(&format!("sallyport: {}", on_one_line(why))).await;
                // The client closes once it has read it.
                self.running.ended().await;
            };
            tokio::select! {
                () = closing => {}
                () = self.activity.quiet_for(STALLED_AFTER) => {}
            }
        };
        let _takes_its_time = tokio::time::timeout(TELL_WITHIN, parting).await;
        self.cut.cancel();
    }
}

/// Says why on the channel's standard error and closes it, within what a client gets.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn partings_are_over_when_the_last_one_is() {
        let partings = Partings::default();
        partings.over().await;
        let (first, second) = (partings.begin(), partings.begin());
        let over = partings.over();
        tokio::pin!(over);
        assert!(futures_util::poll!(&mut over).is_pending());
        drop(first);
        assert!(futures_util::poll!(&mut over).is_pending());
        drop(second);
        over.await;
    }
}
