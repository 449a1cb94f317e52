//! Forwarded connections (RFC 4254, section 7, and OpenSSH's `PROTOCOL`, section 2.4): what a client
//! opens through the target, what the target opens towards the client while it listens there, and
//! the client's agent. Recorded by destination, bytes and duration.
//!
//! Each forward that a client opens has a connection to the target of its own, one that is idle or a
//! new one: on a shared one, a single forward that is not read would stall all others.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::carrier::{CONNECTION, Carrier};
use super::client::{FromTarget, Incoming, TargetChannel, ToTarget, Upstream};
use super::message::Message;
use super::reach::NotReached;
use super::server::{ClientChannel, FromClient, OpenReply, Opening, ToClient};
use crate::access::usage::Use;
use crate::audit::record::Body;
use crate::audit::ssh::{ChannelEnded, ChannelKind, Listen};
use crate::gateway::boxed;

/// Serves a channel that leads through the target.
pub(super) async fn direct(carrier: &Carrier, opening: &Opening, channel: ClientChannel, reply: OpenReply) {
    let ch = carrier.number();
    let (kind, usage, destination, originator) = match opening {
        Opening::Tcp { host, port, originator } => (
            ChannelKind::DirectTcpip,
            Use::Forward { host, port: *port },
            format!("{host}:{port}"),
            Some(originator.clone()),
        ),
        Opening::Path { path } => {
            (ChannelKind::DirectStreamlocal, Use::ForwardStreamlocal { path }, path.clone(), None)
        }
        Opening::Session => return,
    };
    if let Err(why) = well_formed(opening) {
        carrier.refused_as(ch, "forward", Some(destination), why).await;
        return reply.prohibit(why.to_owned()).await;
    }
    if let Err(why) = carrier.may(ch, "forward", &usage).await {
        return reply.prohibit(why).await;
    }
    let opened = Carrier::opened(ch, kind, Some(destination), originator);
    let pipe = Pipe::new(carrier, ch);
    match connect(carrier, ch, opened, opening).await {
        Ok((upstream, target)) => {
            reply.accept().await;
            if pipe.carry(channel, target, &CancellationToken::new()).await {
                carrier.give_back(upstream);
            }
            pipe.end(None).await;
        }
        Err(NotReached::Unreachable(why)) => {
            reply.fail(why.clone()).await;
            pipe.end(Some(why)).await;
        }
        Err(NotReached::Unrecordable) => {}
    }
}

/// Whether a destination is what rules take it for, and no longer than what is kept on record.
fn well_formed(opening: &Opening) -> Result<(), &'static str> {
    match opening {
        // A name that is no path must not pass for a host's.
        Opening::Path { path } if !is_path(path) => Err(PATHS),
        Opening::Tcp { host, .. } if host.len() > LONGEST_HOST => Err("a host name has 255 bytes at most"),
        Opening::Path { .. } | Opening::Tcp { .. } | Opening::Session => Ok(()),
    }
}

/// The longest name of a host (RFC 1035, section 2.3.4), in bytes.
const LONGEST_HOST: usize = 255;
const PATHS: &str = "a socket is named by its absolute path";

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST_HOST
}

async fn connect(
    carrier: &Carrier,
    ch: u32,
    opened: Body,
    opening: &Opening,
) -> Result<(Upstream, TargetChannel), NotReached> {
    let upstream = carrier.borrow_upstream(ch, opened).await?;
    let opening = async {
        match opening {
            Opening::Tcp { host, port, .. } => upstream.open_tcp(host, *port).await,
            Opening::Path { path } => upstream.open_path(path).await,
            Opening::Session => upstream.open_session().await,
        }
    };
    // A target may take minutes to find out that a destination does not answer.
    let opened = tokio::select! {
        biased;
        reason = carrier.ending.begun() => return Err(NotReached::Unreachable(reason.to_string())),
        opened = opening => opened,
    };
    match opened {
        Ok(target) => Ok((upstream, target)),
        Err(error) => {
            carrier.give_back(upstream);
            Err(NotReached::Unreachable(error.to_string()))
        }
    }
}

/// Connects a target's programs with the client's agent while its forwarding is `granted`; ends what is
/// open once it is `over`, and then itself. A client stays while a channel of its connection is open.
pub(super) async fn agents(
    carrier: &Carrier,
    incoming: Option<boxed::Receiver<Incoming>>,
    granted: &AtomicBool,
    over: &CancellationToken,
) {
    let Some(mut incoming) = incoming else { return over.cancelled().await };
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = open.next() => {}
            () = over.cancelled() => break,
            Some(arrived) = incoming.recv() => match arrived {
                Incoming::Agent { channel, reply } if granted.load(Ordering::Relaxed) => {
                    // Boxed: nearly no session has one, and each has the set.
                    open.push(Box::pin(async move {
                        let Some(_place) = place(carrier).await else { return };
                        if carrier.may(CONNECTION, "agent", &Use::Agent).await.is_err() {
                            return;
                        }
                        let Ok(client) = carrier.client.open_agent().await else { return };
                        reply.accept().await;
                        toward_client(carrier, ChannelKind::Agent, (None, None), (client, channel), over).await;
                    }));
                }
                // Nothing else was asked for: dropped replies refuse.
                _ => {}
            },
        }
    }
    while open.next().await.is_some() {}
}

/// Carries a channel that the target opened.
async fn toward_client(
    carrier: &Carrier,
    kind: ChannelKind,
    (destination, originator): (Option<String>, Option<String>),
    (client, target): (ClientChannel, TargetChannel),
    over: &CancellationToken,
) {
    let ch = carrier.number();
    let opened = Carrier::opened(ch, kind, destination, originator);
    if carrier.record(&[opened]).await.is_err() {
        return;
    }
    let pipe = Pipe::new(carrier, ch);
    pipe.carry(client, target, over).await;
    pipe.end(None).await;
}

/// What the target listens on for the client.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    state: Mutex<Listening>,
}

#[derive(Debug, Default)]
struct Listening {
    /// One connection to the target for all of them, there from the first on.
    upstream: Option<Arc<Upstream>>,
    granted: Arc<std::sync::Mutex<HashSet<Place>>>,
}

/// An address and port, or a socket's path and 0.
type Place = (String, u32);

impl Listeners {
    pub(super) async fn listen(
        &self,
        carrier: &Arc<Carrier>,
        address: String,
        port: u32,
        answer: oneshot::Sender<Option<u32>>,
    ) {
        let usage = Use::Listen { host: &address, port };
        let bound = match carrier.may(CONNECTION, "listen", &usage).await {
            Ok(()) => self.bind(carrier, &address, port, false).await,
            Err(_) => None,
        };
        if let Err(Some(bound)) = answer.send(bound) {
            // Nobody waits any more: it was refused.
            self.let_go(carrier, (address, bound), false).await;
        }
    }

    pub(super) async fn listen_path(
        &self,
        carrier: &Arc<Carrier>,
        path: String,
        answer: oneshot::Sender<bool>,
    ) {
        if !is_path(&path) {
            carrier.refused_as(CONNECTION, "listen", Some(path), PATHS).await;
            return;
        }
        let usage = Use::ListenStreamlocal { path: &path };
        let bound = match carrier.may(CONNECTION, "listen", &usage).await {
            Ok(()) => self.bind(carrier, &path, 0, true).await,
            Err(_) => None,
        };
        if answer.send(bound.is_some()).is_err() && bound.is_some() {
            self.let_go(carrier, (path, 0), true).await;
        }
    }

    pub(super) async fn unlisten(
        &self,
        carrier: &Carrier,
        place: Place,
        streamlocal: bool,
        answer: oneshot::Sender<bool>,
    ) {
        let _gone = answer.send(self.let_go(carrier, place, streamlocal).await);
    }

    /// Whether the target listened there, and does no more.
    async fn let_go(&self, carrier: &Carrier, (address, port): Place, streamlocal: bool) -> bool {
        let state = self.state.lock().await;
        let removed = held(&state.granted).remove(&(address.clone(), port));
        let mut done = false;
        if let (true, Some(upstream)) = (removed, &state.upstream) {
            done = if streamlocal {
                upstream.unlisten_path(&address).await.is_ok()
            } else {
                upstream.unlisten(&address, port).await.is_ok()
            };
            let listen =
                Listen { ch: CONNECTION, address, port, streamlocal, granted: done, cancelled: true };
            let _ended = carrier.note(Body::Listen(listen)).await;
        }
        done
    }

    /// Gives the port, 0 for a path.
    async fn bind(&self, carrier: &Arc<Carrier>, address: &str, port: u32, streamlocal: bool) -> Option<u32> {
        let mut state = self.state.lock().await;
        let record = |granted: bool, port: u32| {
            let address = address.to_owned();
            Body::Listen(Listen { ch: CONNECTION, address, port, streamlocal, granted, cancelled: false })
        };
        // On record before the target listens.
        carrier.record(&[record(true, port)]).await.ok()?;
        let upstream = match &state.upstream {
            Some(upstream) if !upstream.is_closed() => Arc::clone(upstream),
            _ => {
                let mut reached = carrier.reach(CONNECTION, None).await.ok()?;
                let incoming = reached.incoming()?;
                // What the former connection listened on ended with it.
                held(&state.granted).clear();
                let granted = Arc::clone(&state.granted);
                carrier.tasks.spawn({
                    let carrier = Arc::clone(carrier);
                    async move { accept(&carrier, incoming, &granted).await }
                });
                Arc::clone(state.upstream.insert(Arc::new(reached)))
            }
        };
        let bound = if streamlocal {
            upstream.listen_path(address).await.map(|()| 0)
        } else {
            upstream.listen(address, port).await
        };
        let Ok(bound) = bound else {
            let _ended = carrier.note(record(false, port)).await;
            return None;
        };
        held(&state.granted).insert((address.to_owned(), bound));
        Some(bound)
    }
}

fn held<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Passes connections to the target's listeners on to the client.
async fn accept(
    carrier: &Carrier,
    mut incoming: boxed::Receiver<Incoming>,
    granted: &std::sync::Mutex<HashSet<Place>>,
) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = open.next() => {}
            arrived = incoming.recv() => match arrived {
                Some(arrived) => open.push(accept_one(carrier, arrived, granted)),
                None => break,
            },
            _ = carrier.ending.begun() => break,
        }
    }
    // What is open ends by itself: with its channel, or with the connection.
    while open.next().await.is_some() {}
}

async fn accept_one(carrier: &Carrier, arrived: Incoming, granted: &std::sync::Mutex<HashSet<Place>>) {
    let is_granted = |place: &Place| held(granted).contains(place);
    let Some(_place) = place(carrier).await else { return };
    match arrived {
        Incoming::Tcp { connected, originator, channel, reply } if is_granted(&connected) => {
            // What was allowed when the target began to listen may no longer be.
            let usage = Use::Listen { host: &connected.0, port: connected.1 };
            if carrier.may(CONNECTION, "forwarded_tcpip", &usage).await.is_err() {
                return;
            }
            let ends = (
                Some(format!("{}:{}", connected.0, connected.1)),
                Some(format!("{}:{}", originator.0, originator.1)),
            );
            let Ok(client) = carrier.client.open_forwarded_tcp(connected, originator).await else { return };
            reply.accept().await;
            toward_client(
                carrier,
                ChannelKind::ForwardedTcpip,
                ends,
                (client, channel),
                &CancellationToken::new(),
            )
            .await;
        }
        Incoming::Path { path, channel, reply } if is_granted(&(path.clone(), 0)) => {
            let usage = Use::ListenStreamlocal { path: &path };
            if carrier.may(CONNECTION, "forwarded_streamlocal", &usage).await.is_err() {
                return;
            }
            let Ok(client) = carrier.client.open_forwarded_path(path.clone()).await else { return };
            reply.accept().await;
            let ends = (Some(path), None);
            toward_client(
                carrier,
                ChannelKind::ForwardedStreamlocal,
                ends,
                (client, channel),
                &CancellationToken::new(),
            )
            .await;
        }
        // Dropped replies refuse what nobody asked for.
        Incoming::Tcp { .. } | Incoming::Path { .. } | Incoming::Agent { .. } => {}
    }
}

/// For a channel that the target opened; without one, that is on record.
async fn place(carrier: &Carrier) -> Option<OwnedSemaphorePermit> {
    let place = carrier.place();
    if place.is_none() {
        carrier.note_full().await;
    }
    place
}

/// Bytes both ways between two channels.
struct Pipe<'a> {
    carrier: &'a Carrier,
    ch: u32,
    began: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl<'a> Pipe<'a> {
    fn new(carrier: &'a Carrier, ch: u32) -> Self {
        Self { carrier, ch, began: Instant::now(), bytes_in: 0.into(), bytes_out: 0.into() }
    }

    /// Until both sides have sent all, or one closes, or it is `over`. Gives whether the target closed its side, so
    /// that nothing of this channel is left on its connection.
    async fn carry(&self, client: ClientChannel, target: TargetChannel, over: &CancellationToken) -> bool {
        let (from_client, to_client) = client.into_halves();
        let (mut from_target, to_target) = (target.from, target.to);
        let closed = {
            let inward = self.inward(from_client, &to_target);
            let outward = self.outward(&mut from_target, &to_client);
            tokio::pin!(inward, outward);
            tokio::select! {
                () = &mut inward => false,
                () = &mut outward => true,
                () = over.cancelled() => false,
                _ = self.carrier.ending.begun() => false,
            }
        };
        let _gone = (to_target.close().await, to_client.close().await);
        closed
    }

    /// Ends when the client closes; after its end of file it waits for that.
    async fn inward(&self, mut from: FromClient, to: &ToTarget) {
        while let Some(message) = from.next().await {
            let passed = match message {
                Message::Data(bytes) => {
                    self.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.carrier.count_from_client(bytes.len());
                    to.data(bytes).await
                }
                Message::Eof => to.eof().await,
                Message::Close => return,
                _ => Ok(()),
            };
            if passed.is_err() {
                return;
            }
        }
    }

    /// Ends when the target closes.
    async fn outward(&self, from: &mut FromTarget, to: &ToClient) {
        while let Some(message) = from.next().await {
            let passed = match message {
                Message::Data(bytes) => {
                    self.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.carrier.count_from_target(bytes.len());
                    to.data(bytes).await
                }
                Message::Eof => to.eof().await,
                Message::Close => return,
                _ => Ok(()),
            };
            if passed.is_err() {
                return;
            }
        }
    }

    async fn end(&self, why: Option<String>) {
        let ended = ChannelEnded {
            ch: self.ch,
            exit_status: None,
            exit_signal: None,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            why,
        };
        let _ended = self.carrier.note(Body::ChannelEnded(ended)).await;
    }
}
