//! `ssh -J USER@gateway TARGET`: the client believes to reach the host through us, and we are the
//! host. Inside of the channel is another SSH connection, served here under a host certificate for
//! the host's name, so that it is recorded like any other.
//!
//! Who jumped must prove to be themselves once more: a channel to a host may also come from a port
//! that the client forwards, which anybody on its machine can reach.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::authenticate::Jump;
use super::message::Message;
use super::serve::{SshGateway, Visitor};
use super::server::{ClientChannel, FromClient, OpenReply, ToClient};
use crate::access::connect::Wanted;
use crate::access::credential::error_chain;
use crate::config::SshTarget;
use crate::gateway::stream::Abrupt;

/// How much is under way between the two connections, each way, in bytes.
const UNDER_WAY: usize = 64 * 1024;
const SSH_PORT: u32 = 22;
/// How long a client gets to take the last of it.
const TAKE_WITHIN: Duration = Duration::from_millis(200);

impl Abrupt for DuplexStream {
    fn abandon(&mut self) {
        // Nothing of it is in the kernel.
    }
}

/// Where a jump leads, and by which names the client may know it.
#[derive(Debug)]
pub(super) struct Destination {
    jump: Jump,
    names: Vec<String>,
}

/// Why a jump leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoDestination {
    #[error("there is no SSH target `{host}`, port {port}: `sallyport targets` lists them")]
    Unknown { host: String, port: u32 },
    #[error("`{host}`, port {port}, is the address of several targets: name one of {}", .names.join(", "))]
    Several { host: String, port: u32, names: Vec<String> },
}

impl NoDestination {
    /// A stable word for the record.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_target",
            Self::Several { .. } => "ambiguous_target",
        }
    }
}

/// The host that a client means: by the target's name, alone or with its environment, or by its
/// address where that is one target's alone.
pub(super) fn destination(
    gateway: &SshGateway,
    visitor: &Visitor,
    host: &str,
    port: u32,
) -> Result<Destination, NoDestination> {
    let rules = gateway.access.rules();
    let host = host.to_ascii_lowercase();
    let meant = |by: fn(&SshTarget, &str, u32) -> bool| {
        let found =
            rules.targets.all().filter(|entry| entry.route.ssh().is_ok_and(|ssh| by(ssh, &host, port)));
        found.map(|entry| entry.target.name.clone()).collect::<Vec<_>>()
    };
    let mut found = meant(is_named);
    if found.is_empty() {
        found = meant(is_at);
    }
    let target = match &found[..] {
        [target] => target.clone(),
        [] => return Err(NoDestination::Unknown { host, port }),
        several => {
            let names = several.iter().map(ToString::to_string).collect();
            return Err(NoDestination::Several { host, port, names });
        }
    };
    let principal = visitor.known.principal.clone();
    let wanted = Wanted { target, access: None };
    let jump = Jump { principal, wanted, through: visitor.leg() };
    // OpenSSH looks for a certificate for the name that was typed, with the port where it is unusual.
    let names = if port == SSH_PORT { vec![host] } else { vec![format!("[{host}]:{port}"), host] };
    Ok(Destination { jump, names })
}

fn is_named(ssh: &SshTarget, host: &str, port: u32) -> bool {
    let SshTarget { target, address, .. } = ssh;
    let name = target.name.as_str();
    (host == name || host == format!("{name}.{}", target.environment.as_str()))
        && (port == SSH_PORT || port == u32::from(address.port))
}

fn is_at(ssh: &SshTarget, host: &str, port: u32) -> bool {
    ssh.address.host.eq_ignore_ascii_case(host) && u32::from(ssh.address.port) == port
}

/// How a jump ended.
#[derive(Debug)]
pub(super) struct Jumped {
    /// The client took all that was on the way to it.
    pub taken: bool,
}

/// Serves the connection inside of the channel to its end. Boxed: it may itself come here again.
pub(super) fn serve(
    gateway: Arc<SshGateway>,
    destination: Destination,
    client: SocketAddr,
    channel: ClientChannel,
    reply: OpenReply,
) -> BoxFuture<'static, Jumped> {
    Box::pin(carry(gateway, destination, client, channel, reply))
}

async fn carry(
    gateway: Arc<SshGateway>,
    destination: Destination,
    client: SocketAddr,
    channel: ClientChannel,
    reply: OpenReply,
) -> Jumped {
    let Destination { jump, names } = destination;
    let presence = match gateway.presences.named(&names).await {
        Ok(presence) => presence,
        Err(error) => {
            let why = error_chain(&error);
            tracing::error!(?names, error = why, "no certificate for a host behind the gateway");
            reply.fail(format!("no certificate for {}: {why}", names.join(", "))).await;
            return Jumped { taken: true };
        }
    };
    reply.accept().await;
    let (inner, outer) = tokio::io::duplex(UNDER_WAY);
    let (from, to) = channel.into_halves();
    let (read, write) = tokio::io::split(outer);
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let serving = async {
        if let Some(visitor) = gateway.recognise(&presence, inner, client, Some(jump), cut).await {
            Box::pin(gateway.settle(visitor)).await;
        }
    };
    // The client's bytes end when the channel does; ours when the inner connection has.
    let outward = outward(read, &to);
    tokio::pin!(serving, outward);
    let taken = {
        let inward = inward(from, write);
        tokio::pin!(inward);
        let (mut sent_all, mut came_all) = (false, false);
        loop {
            tokio::select! {
                () = &mut serving => break sent_all,
                () = &mut outward, if !sent_all => sent_all = true,
                () = &mut inward, if !came_all => came_all = true,
            }
        }
    };
    let taken = taken || tokio::time::timeout(TAKE_WITHIN, outward).await.is_ok();
    if taken {
        let _gone = to.close().await;
    }
    Jumped { taken }
}

async fn inward(mut from: FromClient, mut write: WriteHalf<DuplexStream>) {
    while let Some(message) = from.next().await {
        match message {
            Message::Data(bytes) => {
                let Ok(()) = write.write_all(&bytes).await else { return };
            }
            Message::Eof | Message::Close => break,
            _ => {}
        }
    }
    let _gone = write.shutdown().await;
}

async fn outward(mut read: ReadHalf<DuplexStream>, to: &ToClient) {
    let mut buffer = vec![0; UNDER_WAY / 2];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let Some(bytes) = buffer.get(..count) else { break };
                if to.data(Bytes::copy_from_slice(bytes)).await.is_err() {
                    break;
                }
            }
        }
    }
    let _gone = to.eof().await;
}
