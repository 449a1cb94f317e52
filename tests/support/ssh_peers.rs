//! Many SSH clients in one process, whose sockets are watched from outside: some read, some do not.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use russh::client::{Config, Handler};
use russh::keys::PublicKeyOrCertificate;
use rustix::event::{PollFd, PollFlags, poll};
use sallyport::crypto::ssh::{Certificate, PrivateKey, parse_private};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::process::{PATIENCE, pause, wait_until};
use super::sshd::{HOST, Hosts};

/// What a client that does not read lets be sent to it.
const SMALL_WINDOW: u32 = 64 * 1024;
/// So many looks, some 10 ms apart, that show the same are taken for a standstill.
const STILL: u32 = 50;

/// How a client behaves once it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    All,
    Nothing,
}

#[derive(Debug)]
pub struct Peers {
    runtime: Runtime,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    reads: Reads,
    /// The same socket that the client has.
    socket: TcpStream,
    received: Arc<AtomicU64>,
    /// Reads, while the client does.
    _reader: JoinSet<()>,
}

/// When a client's socket was closed by the other side.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    pub reads: Reads,
    pub at: Instant,
}

#[derive(Debug)]
struct Anything;

impl Handler for Anything {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A socket that its owner gets nothing from any more once it is `stalled`.
#[derive(Debug)]
struct Gate {
    stream: tokio::net::TcpStream,
    stalled: Arc<AtomicBool>,
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stalled.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Peers {
    /// Shells of alice's, every second of which stops reading; returns when those are stuck and the others
    /// are at work.
    pub fn start(hosts: &Hosts, count: usize) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let home = hosts.bastion.home("alice").join("ssh");
        let key = parse_private(&std::fs::read_to_string(home.join("id_ed25519")).unwrap()).unwrap();
        let certificate = std::fs::read_to_string(home.join("id_ed25519-cert.pub")).unwrap();
        let proof = (Arc::new(key), Certificate::from_openssh(&certificate).unwrap());
        let port = hosts.bastion.ssh_port;
        let reads = |number: usize| if number.is_multiple_of(2) { Reads::All } else { Reads::Nothing };
        let peers =
            (0..count).map(|number| runtime.block_on(Peer::start(port, &proof, reads(number)))).collect();
        let peers = Self { runtime, peers };
        peers.settle();
        peers
    }

    fn settle(&self) {
        for peer in &self.peers {
            let is_at_work = || peer.reads == Reads::Nothing || peer.received.load(Ordering::Relaxed) > 1000;
            wait_until("the shell is at work", is_at_work);
        }
        // What is on its way fills every window and buffer between; after that nothing comes, and the
        // programs of those that do not read stand still.
        let unread = || -> u64 {
            let of = |peer: &Peer| rustix::io::ioctl_fionread(&peer.socket).unwrap();
            self.peers.iter().filter(|peer| peer.reads == Reads::Nothing).map(of).sum()
        };
        let (mut last, mut same, began) = ((0, 0), 0, Instant::now());
        while same < STILL {
            let now = (unread(), flooding());
            same = if now == last { same + 1 } else { 0 };
            last = now;
            assert!(began.elapsed() < 4 * PATIENCE, "those that do not read are not stuck");
            pause();
        }
        let (last, _) = last;
        assert!(last > 0, "nothing is unread");
    }

    /// Does something, and gives when each socket was closed, in any order.
    pub fn closed_by<T>(self, act: impl FnOnce() -> T) -> (T, Vec<Closed>) {
        let watched: Vec<(Reads, TcpStream)> =
            self.peers.iter().map(|peer| (peer.reads, peer.socket.try_clone().unwrap())).collect();
        let watching = std::thread::spawn(move || closings(watched));
        let done = act();
        let closed = watching.join().unwrap();
        drop(self.peers);
        self.runtime.shutdown_background();
        (done, closed)
    }
}

/// What the programs of ours say that nobody reads.
fn flood() -> String {
    format!("flood-{}", std::process::id())
}

/// Processor time that those have used so far, in the kernel's ticks.
fn flooding() -> u64 {
    let name = format!("yes\0{}\0", flood());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ticks = processes.filter_map(|process| {
        // One that ended meanwhile has no files.
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        (line == name.as_bytes()).then_some(())?;
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        // proc(5): utime and stime.
        let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
        Some(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    });
    ticks.sum()
}

/// Waits until the other side has closed each of the sockets.
fn closings(mut watched: Vec<(Reads, TcpStream)>) -> Vec<Closed> {
    let (mut closed, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while !watched.is_empty() {
        assert!(Instant::now() < deadline, "{} sockets are still open", watched.len());
        let mut polled: Vec<PollFd<'_>> =
            watched.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::RDHUP)).collect();
        let second = Duration::from_secs(1).try_into().unwrap();
        poll(&mut polled, Some(&second)).unwrap();
        let at = Instant::now();
        let is_over: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(polled);
        let mut over = is_over.iter();
        watched.retain(|(reads, _)| {
            let over = *over.next().unwrap();
            if over {
                closed.push(Closed { reads: *reads, at });
            }
            !over
        });
    }
    closed
}

impl Peer {
    async fn start(port: u16, (key, certificate): &(Arc<PrivateKey>, Certificate), reads: Reads) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stalled = Arc::new(AtomicBool::new(false));
        let stream = tokio::net::TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
        let gate = Gate { stream, stalled: Arc::clone(&stalled) };
        let mut config = Config::default();
        if reads == Reads::Nothing {
            config.window_size = SMALL_WINDOW;
        }
        let connecting = russh::client::connect_stream(Arc::new(config), gate, Anything);
        let mut handle = connecting.await.unwrap();
        let user = format!("alice+{HOST}");
        let proved =
            handle.authenticate_openssh_cert(user, Arc::clone(key), certificate.clone()).await.unwrap();
        assert!(proved.success());
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
        let program = match reads {
            // Busy as people are: a line now and then, for as long as it lasts.
            Reads::All => "exec bash -c 'while :; do printf \"%0200d\\n\" 0; read -t 0.1; done'".to_owned(),
            Reads::Nothing => format!("exec yes {}", flood()),
        };
        channel.exec(false, program).await.unwrap();
        // It has begun; one that is to be stalled floods from here on, and is read no more.
        while !matches!(channel.wait().await.unwrap(), russh::ChannelMsg::Data { .. }) {}
        stalled.store(reads == Reads::Nothing, Ordering::Relaxed);
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let _connection = handle;
            while let Some(message) = channel.wait().await {
                if let russh::ChannelMsg::Data { data } = message {
                    count.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            }
        });
        Self { reads, socket, received, _reader: reader }
    }
}
