//! A session channel (RFC 4254, section 6), from its opening to its end:
//!
//! 1. A connection to the target of its own, opened before the channel is accepted.
//! 2. Requests: each through the policy, on record, then to the target; its answer is the client's.
//! 3. Bytes: from the client recorded durably before they go on; from the target put on record
//!    before they reach the client.
//! 4. The end of either side, or of the right: a goodbye in the terminal, and everything closed.
//!
//! The two directions wait for each other in one place only: a request's answer from the target is
//! read by the direction that reads the target. It goes on when the client has been answered, so that
//! nothing the program says, nor its end, overtakes the answer.

mod requests;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::carrier::Carrier;
use super::client::{FromTarget, TargetChannel, ToTarget, Upstream};
use super::forward;
use super::goodbye;
use super::message::{ExitSignal, Message, Pty, Request};
use super::reach::NotReached;
use super::server::{ClientChannel, FromClient, OpenReply, ToClient};
use super::watch::Watch;
use crate::audit::Unrecordable;
use crate::audit::record::{Body, Direction};
use crate::audit::ssh::{self as record, ChannelEnded, ChannelKind};
use crate::domain::deny::EndReason;

/// How much is gathered for one wait for the disk.
const BATCH: usize = 256 * 1024;
/// So many variables may be set on the target.
pub(super) const VARIABLES: usize = 64;
/// How much is kept that came before the channel's program.
const EARLY: usize = 64 * 1024;
/// How long the end of a program's output is kept back for how the program ended.
const STATUS_WITHIN: Duration = Duration::from_millis(200);
/// How long a target may take to end a channel that the client has closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// What `ssh` itself says when the connection was the problem.
const FAILED_STATUS: u32 = 255;

/// What a client asked for before there was a target to ask.
#[derive(Debug, Default)]
pub(super) struct Prelude {
    pub pty: Option<Pty>,
    pub env: Vec<(String, String)>,
    /// The client's agent is to be had on the target.
    pub agent: bool,
    pub shell: bool,
    /// Typed ahead, for the shell.
    pub typed: Bytes,
}

/// How a direction ended.
enum Stop {
    /// The target closed its side: everything it said has been passed on.
    TargetClosed,
    ClientClosed,
    /// The program was, and the client has been told.
    Refused,
    Unrecordable,
}

impl From<Unrecordable> for Stop {
    fn from(_: Unrecordable) -> Self {
        // The connection has been told to end: `Carrier::record`.
        Self::Unrecordable
    }
}

impl From<super::message::Gone> for Stop {
    fn from(_: super::message::Gone) -> Self {
        Self::ClientClosed
    }
}

/// How the program on the target ended.
#[derive(Default)]
struct Exit {
    status: Option<u32>,
    signal: Option<ExitSignal>,
}

/// The target's answer to a request.
struct Answer {
    granted: bool,
    /// Dropped when the client has been told.
    told: oneshot::Sender<Infallible>,
}

/// What both directions of a channel share.
struct Shared<'a> {
    carrier: &'a Carrier,
    ch: u32,
    watch: Mutex<Watch>,
    is_terminal: AtomicBool,
    /// Whether the target may reach the client's agent.
    agent: AtomicBool,
    /// The connection that carries the channel, while there is one.
    reached: Mutex<Option<(Upstream, Arc<ToTarget>)>>,
    /// Cancelled when the client has closed the channel: it takes nothing more.
    client_gone: CancellationToken,
    exit: Mutex<Exit>,
    /// Who waits for the target's answer.
    asked: Mutex<Option<oneshot::Sender<Answer>>>,
    began: Instant,
    bytes_in: std::sync::atomic::AtomicU64,
    bytes_out: std::sync::atomic::AtomicU64,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a channel to its end; everything about it is recorded on return.
pub(super) async fn serve(
    carrier: &Carrier,
    channel: ClientChannel,
    mut reply: Option<OpenReply>,
    prelude: Prelude,
) {
    let ch = carrier.number();
    let shared = Shared {
        carrier,
        ch,
        watch: Mutex::new(Watch::new(ch, carrier.settings.stream_head)),
        is_terminal: AtomicBool::new(prelude.pty.is_some()),
        agent: AtomicBool::new(false),
        reached: Mutex::default(),
        client_gone: CancellationToken::new(),
        exit: Mutex::default(),
        asked: Mutex::default(),
        began: Instant::now(),
        bytes_in: 0.into(),
        bytes_out: 0.into(),
    };
    let (from, to) = channel.into_halves();
    let telling = carrier.telling.token();
    let talking = Box::pin(talk(&shared, from, &to, &mut reply, prelude));
    let why = tokio::select! {
        biased;
        reason = carrier.ending.begun() => {
            let is_terminal = shared.is_terminal.load(Ordering::Relaxed);
            let tell = async {
                // Only an open channel can say why.
                if let Some(reply) = reply.take() {
                    reply.accept().await;
                }
                goodbye::tell(&to, &reason.to_string(), is_terminal, goodbye::CUT_STATUS).await;
                drop(telling);
            };
            let hang_up = async {
                if let Some((upstream, _)) = &*held(&shared.reached) {
                    upstream.stop_reading();
                }
                shared.carrier.client_first().await;
                shared.hang_up(&reason).await;
            };
            tokio::join!(tell, hang_up);
            Some(reason.code().to_owned())
        }
        why = talking => why,
    };
    shared.end(why).await;
}

/// Everything between opening and closing; gives why it failed, if it did.
async fn talk(
    shared: &Shared<'_>,
    from: FromClient,
    to: &ToClient,
    reply: &mut Option<OpenReply>,
    prelude: Prelude,
) -> Option<String> {
    let reached = open(shared).await;
    if let Some(reply) = reply.take() {
        // Also when there is nothing to carry: only an open channel can say why.
        reply.accept().await;
    }
    let (mut upstream, target) = match reached {
        Ok(reached) => reached,
        Err(NotReached::Unrecordable) => return None,
        Err(NotReached::Unreachable(why)) => {
            let told = format!("the target cannot be reached: {why}");
            goodbye::explain(from, to, &told, FAILED_STATUS, prelude.pty.is_some(), prelude.shell).await;
            return Some(why);
        }
    };
    let incoming = upstream.incoming();
    let to_target = Arc::new(target.to);
    *held(&shared.reached) = Some((upstream, Arc::clone(&to_target)));
    let inward = Inward {
        shared,
        from,
        client: to,
        to: to_target,
        told: None,
        held: None,
        started: false,
        early: Vec::new(),
        early_eof: false,
        variables: 0,
    };
    let outward = outward(shared, target.from, to);
    let over = CancellationToken::new();
    let agents = forward::agents(shared.carrier, incoming, &shared.agent, &over);
    carry(inward, prelude, outward, agents, &over).await;
    drop(held(&shared.reached).take());
    let _gone = to.close().await;
    None
}

async fn open(shared: &Shared<'_>) -> Result<(Upstream, TargetChannel), NotReached> {
    let opened = Carrier::opened(shared.ch, ChannelKind::Session, None, None);
    let upstream = shared.carrier.reach(shared.ch, Some(opened)).await?;
    match upstream.open_session().await {
        Ok(channel) => Ok((upstream, channel)),
        Err(error) => Err(NotReached::Unreachable(error.to_string())),
    }
}

/// Both directions, until one of them ends.
async fn carry(
    mut inward: Inward<'_>,
    prelude: Prelude,
    outward: impl Future<Output = Stop>,
    agents: impl Future<Output = ()>,
    over: &CancellationToken,
) {
    tokio::pin!(outward, agents);
    // None: the target's side has ended by itself.
    let stopped = {
        let inbound = inward.run(prelude);
        tokio::pin!(inbound);
        tokio::select! {
            stopped = &mut inbound => Some(stopped),
            _ = &mut outward => None,
            () = &mut agents => None,
        }
    };
    match stopped {
        Some(Stop::ClientClosed) => {
            let _gone = inward.to.close().await;
            // What the program still says and how it ended is for the record alone now.
            inward.shared.client_gone.cancel();
            let _slow = tokio::time::timeout(CLOSE_WITHIN, outward).await;
        }
        // What it said before it went is still to be passed on.
        Some(Stop::TargetClosed) => {
            let _slow = tokio::time::timeout(CLOSE_WITHIN, outward).await;
        }
        Some(Stop::Refused | Stop::Unrecordable) | None => {}
    }
    over.cancel();
    let _slow = tokio::time::timeout(CLOSE_WITHIN, agents).await;
}

/// Client to target.
struct Inward<'a> {
    shared: &'a Shared<'a>,
    from: FromClient,
    client: &'a ToClient,
    to: Arc<ToTarget>,
    /// The target has answered, and the client has not been told yet.
    told: Option<oneshot::Sender<Infallible>>,
    /// Came while bytes were gathered.
    held: Option<Message>,
    /// A program was asked for: a channel runs one.
    started: bool,
    /// Came before a program was asked for. A target takes nothing then, and waiting for it would
    /// keep everything else of the client's back.
    early: Vec<Bytes>,
    early_eof: bool,
    /// How many have been set on the target.
    variables: usize,
}

impl Inward<'_> {
    async fn run(&mut self, prelude: Prelude) -> Stop {
        match self.pass_on(prelude).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn pass_on(&mut self, prelude: Prelude) -> Result<Infallible, Stop> {
        self.replay(prelude).await?;
        loop {
            let message = match self.held.take() {
                Some(message) => message,
                None => self.from.next().await.ok_or(Stop::ClientClosed)?,
            };
            match message {
                Message::Data(bytes) if !self.started => self.keep_early(bytes).await?,
                Message::Data(bytes) => self.data(bytes).await?,
                Message::Eof if !self.started => self.early_eof = true,
                Message::Eof => {
                    self.note(Body::Eof(record::Eof { ch: self.shared.ch, from: Direction::In })).await?;
                    self.to.eof().await?;
                }
                Message::Close => return Err(Stop::ClientClosed),
                Message::Request(request) => {
                    let answered = request.is_answered();
                    let granted = self.request(request).await?;
                    if answered {
                        self.from.answer(granted);
                    }
                    self.told = None;
                    self.pass_early().await?;
                }
                // Not a client's to send (RFC 4254, section 6.10), or of no use to the target.
                Message::Stderr(_) | Message::Answer(_) | Message::ExitStatus(_) | Message::ExitSignal(_) => {
                }
            }
        }
    }

    /// What waited for the program, once there is one.
    async fn pass_early(&mut self) -> Result<(), Stop> {
        if !self.started {
            return Ok(());
        }
        for bytes in std::mem::take(&mut self.early) {
            self.data(bytes).await?;
        }
        if std::mem::take(&mut self.early_eof) {
            self.to.eof().await?;
        }
        Ok(())
    }

    async fn keep_early(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let kept: usize = self.early.iter().map(Bytes::len).sum();
        if kept + bytes.len() > EARLY {
            self.refused("early_data", "a program is asked for before what it is to read").await;
            return Err(Stop::Refused);
        }
        self.early.push(bytes);
        Ok(())
    }

    /// Asks the target for what the client asked before.
    async fn replay(&mut self, prelude: Prelude) -> Result<(), Stop> {
        if let Some(pty) = prelude.pty {
            self.request(Request::Pty(pty)).await?;
            self.told = None;
        }
        for (name, value) in prelude.env {
            self.request(Request::Env { name, value }).await?;
        }
        if prelude.agent {
            self.request(Request::Agent).await?;
            self.told = None;
        }
        if prelude.shell && !self.request(Request::Shell).await? {
            return Err(Stop::ClientClosed);
        }
        self.told = None;
        if !prelude.typed.is_empty() {
            self.data(prelude.typed).await?;
        }
        Ok(())
    }

    /// Records what there is, with one wait for the disk, and passes it on.
    async fn data(&mut self, first: Bytes) -> Result<(), Stop> {
        let mut size = first.len();
        let mut batch = vec![first];
        while size < BATCH {
            match self.from.next().now_or_never() {
                Some(Some(Message::Data(bytes))) => {
                    size += bytes.len();
                    batch.push(bytes);
                }
                Some(Some(other)) => {
                    self.held = Some(other);
                    break;
                }
                // A channel that is gone is gone at the next look as well.
                Some(None) | None => break,
            }
        }
        let mut bodies = Vec::new();
        let now_us = self.shared.elapsed_us();
        {
            let mut watch = held(&self.shared.watch);
            for bytes in &batch {
                watch.input(bytes, now_us, &mut bodies);
            }
        }
        if !bodies.is_empty() {
            self.shared.carrier.record(&bodies).await?;
        }
        self.shared.carrier.count_from_client(size);
        self.shared.bytes_in.fetch_add(size as u64, Ordering::Relaxed);
        for bytes in batch {
            self.to.data(bytes).await.map_err(|_| Stop::TargetClosed)?;
        }
        Ok(())
    }

    async fn note(&self, body: Body) -> Result<(), Stop> {
        Ok(self.shared.carrier.note(body).await?)
    }
}

/// Target to client.
async fn outward(shared: &Shared<'_>, mut from: FromTarget, to: &ToClient) -> Stop {
    let mut ahead = None;
    loop {
        let next = match ahead.take() {
            Some(message) => Some(message),
            None => from.next().await,
        };
        let Some(message) = next else { return Stop::TargetClosed };
        let passed = match message {
            Message::Data(bytes) => shared.output(to, bytes, false).await,
            Message::Stderr(bytes) => shared.output(to, bytes, true).await,
            Message::Eof => {
                ahead = status_first(shared, &mut from, to).await;
                to.eof().await.map_err(Stop::from)
            }
            Message::Close => return Stop::TargetClosed,
            Message::Answer(granted) => {
                shared.answered(granted).await;
                Ok(())
            }
            exited @ (Message::ExitStatus(_) | Message::ExitSignal(_)) => shared.exited(to, exited).await,
            Message::Request(_) => Ok(()),
        };
        match passed {
            // A client that is gone hears nothing, but how the program ends is still recorded.
            Ok(()) | Err(Stop::ClientClosed) => {}
            Err(stop) => return stop,
        }
    }
}

/// How a program ended goes before the end of its output where it comes with it: `PuTTY` closes a channel
/// as soon as both sides have said their ends, the library answers a close at once, and what came later
/// would be lost. Gives what came instead.
async fn status_first(shared: &Shared<'_>, from: &mut FromTarget, to: &ToClient) -> Option<Message> {
    match tokio::time::timeout(STATUS_WITHIN, from.next()).await.ok()? {
        Some(exited @ (Message::ExitStatus(_) | Message::ExitSignal(_))) => {
            // A client that is gone hears nothing.
            let _gone = shared.exited(to, exited).await;
            None
        }
        Some(other) => Some(other),
        None => Some(Message::Close),
    }
}

impl Shared<'_> {
    /// Passes on how the program ended.
    async fn exited(&self, to: &ToClient, how: Message) -> Result<(), Stop> {
        match how {
            Message::ExitStatus(status) => {
                held(&self.exit).status = Some(status);
                to.exit_status(status).await?;
            }
            Message::ExitSignal(signal) => {
                held(&self.exit).signal = Some(signal.clone());
                to.exit_signal(signal).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Gives the answer to who waits for it, and waits until the client has it.
    async fn answered(&self, granted: bool) {
        let asked = held(&self.asked).take();
        let (told, until_told) = oneshot::channel();
        if let Some(asked) = asked
            && asked.send(Answer { granted, told }).is_ok()
        {
            let Err(_) = until_told.await;
        }
    }

    async fn output(&self, to: &ToClient, bytes: Bytes, err: bool) -> Result<(), Stop> {
        let mut bodies = Vec::new();
        held(&self.watch).output(&bytes, err, self.elapsed_us(), &mut bodies);
        for body in bodies {
            self.carrier.note(body).await?;
        }
        self.carrier.count_from_target(bytes.len());
        self.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let passing = async {
            if err {
                to.stderr(bytes).await?;
            } else {
                to.data(bytes).await?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            passed = passing => passed,
            // A channel that its client has closed gets no room any more.
            () = self.client_gone.cancelled() => Err(Stop::ClientClosed),
        }
    }

    /// Ends what runs on the target. A program without a terminal would not notice that its connection is
    /// gone; once nobody has the right any more, it is killed.
    async fn hang_up(&self, reason: &EndReason) {
        let Some((upstream, to)) = held(&self.reached).take() else { return };
        if reason.ends_the_right() {
            let _gone = to.signal("KILL").await;
        }
        let _gone = to.close().await;
        upstream.leave(&self.carrier.way.cut).await;
    }

    async fn end(&self, why: Option<String>) {
        let mut bodies = Vec::new();
        held(&self.watch).finish(&mut bodies);
        let exit = std::mem::take(&mut *held(&self.exit));
        bodies.push(Body::ChannelEnded(ChannelEnded {
            ch: self.ch,
            exit_status: exit.status,
            exit_signal: exit.signal.map(|signal| signal.name),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            duration_us: self.elapsed_us(),
            why,
        }));
        for body in bodies {
            if self.carrier.note(body).await.is_err() {
                break;
            }
        }
    }
}
