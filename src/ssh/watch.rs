//! What is recorded of a session channel's bytes: which of them in clear, which by count and hash,
//! which as operations on files. The rules are in `docs/ssh-recording.md`.

use bytes::Bytes;

use super::files;
use super::observe::file::FileEvent;
use super::observe::mask::{InputMask, MaskedInput, Masking};
use super::observe::program::ProgramHint;
use super::observe::rsync::RsyncObserver;
use super::observe::scp::ScpObserver;
use super::observe::sftp::{self, SftpObserver};
use super::observe::stream::{StreamObserver, StreamSummary};
use crate::audit::record::{Body, Direction, Notice};
use crate::audit::ssh::{self as record, Data, ProgramKind};
use crate::crypto::hex;

/// Watches one channel.
#[derive(Debug)]
pub(super) struct Watch {
    ch: u32,
    kind: Kind,
    /// How much is kept of a stream, in bytes.
    head: u64,
}

#[derive(Debug)]
enum Kind {
    /// A person at a terminal: everything is kept but what the terminal does not echo.
    Terminal(Box<InputMask>),
    Streams(Box<Streams>),
    Files(Box<Files>),
    Finished,
}

/// Heads, counts and hashes.
#[derive(Debug)]
struct Streams {
    input: StreamObserver,
    output: StreamObserver,
    error: StreamObserver,
    rsync: Option<RsyncObserver>,
}

/// A transfer of files, and its standard error.
#[derive(Debug)]
struct Files {
    observer: Transfer,
    error: StreamObserver,
    events: Vec<FileEvent>,
}

#[derive(Debug)]
enum Transfer {
    Sftp(SftpObserver),
    Scp(ScpObserver),
}

impl Transfer {
    const fn tool(&self) -> &'static str {
        match self {
            Self::Sftp(_) => "sftp",
            Self::Scp(_) => "scp",
        }
    }

    fn observe(&mut self, direction: Direction, bytes: &[u8], events: &mut Vec<FileEvent>) {
        match (self, direction) {
            (Self::Sftp(observer), Direction::In) => observer.client(bytes, events),
            (Self::Sftp(observer), Direction::Out) => observer.server(bytes, events),
            (Self::Scp(observer), Direction::In) => observer.client(bytes, events),
            (Self::Scp(observer), Direction::Out) => observer.server(bytes, events),
        }
    }

    fn finish(self, events: &mut Vec<FileEvent>) {
        match self {
            Self::Sftp(observer) => observer.finish(events),
            Self::Scp(observer) => observer.finish(events),
        }
    }
}

impl Watch {
    /// `head`: how much is kept of a stream, in bytes.
    pub(super) fn new(ch: u32, head: u64) -> Self {
        Self { ch, kind: Kind::Streams(Box::new(Streams::new(head, None))), head }
    }

    /// The channel has a terminal.
    pub(super) fn terminal(&mut self) {
        self.kind = Kind::Terminal(Box::new(InputMask::new(Masking::ByPromptAndEcho)));
    }

    /// The channel's program is known; gives what it looks like.
    pub(super) fn program(&mut self, how: ProgramKind, command: &Bytes) -> Option<String> {
        let hint = match how {
            ProgramKind::Shell => ProgramHint::Other,
            ProgramKind::Exec => ProgramHint::of(command),
            ProgramKind::Subsystem => ProgramHint::of_subsystem(command),
        };
        // With a terminal everything is kept, whatever the command says that it is.
        if matches!(self.kind, Kind::Terminal(_)) {
            return None;
        }
        let observer = match &hint {
            ProgramHint::Sftp => Transfer::Sftp(SftpObserver::new(sftp::Limits::default())),
            ProgramHint::Scp { role, .. } => Transfer::Scp(ScpObserver::new(*role)),
            ProgramHint::Rsync { .. } => {
                let rsync = Some(RsyncObserver::new());
                self.kind = Kind::Streams(Box::new(Streams::new(self.head, rsync)));
                return Some("rsync".to_owned());
            }
            ProgramHint::Git { .. } => return Some("git".to_owned()),
            ProgramHint::Other => return None,
        };
        let hint = observer.tool().to_owned();
        let error = StreamObserver::new(self.head);
        self.kind = Kind::Files(Box::new(Files { observer, error, events: Vec::new() }));
        Some(hint)
    }

    /// Bytes on their way to the target; `bodies` must be durable before they go. `now_us` never goes
    /// back.
    pub(super) fn input(&mut self, bytes: &[u8], now_us: u64, bodies: &mut Vec<Body>) {
        let ch = self.ch;
        match &mut self.kind {
            Kind::Terminal(mask) => {
                let mut stretches = Vec::new();
                mask.input(bytes, now_us, &mut stretches);
                bodies.extend(stretches.iter().map(|stretch| typed(ch, stretch)));
            }
            Kind::Streams(streams) => streams.input(ch, bytes, bodies),
            Kind::Files(_) => self.transfer(Direction::In, bytes, bodies),
            Kind::Finished => {}
        }
    }

    /// Bytes on their way to the client.
    pub(super) fn output(&mut self, bytes: &[u8], err: bool, bodies: &mut Vec<Body>) {
        let ch = self.ch;
        match &mut self.kind {
            Kind::Terminal(mask) => {
                mask.output(bytes);
                bodies.push(output(ch, bytes, err));
            }
            Kind::Streams(streams) => streams.output(ch, bytes, err, bodies),
            Kind::Files(files) if err => {
                bodies.extend(files.error.push(bytes).map(|head| output(ch, head, true)))
            }
            Kind::Files(_) => self.transfer(Direction::Out, bytes, bodies),
            Kind::Finished => {}
        }
    }

    fn transfer(&mut self, direction: Direction, bytes: &[u8], bodies: &mut Vec<Body>) {
        let Kind::Files(files) = &mut self.kind else { return };
        let tool = files.observer.tool();
        files.observer.observe(direction, bytes, &mut files.events);
        let mut lost = false;
        for event in files.events.drain(..) {
            lost |= matches!(event, FileEvent::Lost { .. });
            bodies.extend(file_body(self.ch, tool, &event));
        }
        if lost {
            // What it is instead is a stream, from these bytes on.
            let mut streams = Streams::new(self.head, None);
            match direction {
                Direction::In => streams.input(self.ch, bytes, bodies),
                Direction::Out => streams.output(self.ch, bytes, false, bodies),
            }
            self.kind = Kind::Streams(Box::new(streams));
        }
    }

    /// What is known at the end only.
    pub(super) fn finish(&mut self, bodies: &mut Vec<Body>) {
        let ch = self.ch;
        match std::mem::replace(&mut self.kind, Kind::Finished) {
            Kind::Terminal(_) | Kind::Finished => {}
            Kind::Streams(streams) => streams.finish(ch, bodies),
            Kind::Files(files) => {
                let Files { observer, error, mut events } = *files;
                let tool = observer.tool();
                observer.finish(&mut events);
                bodies.extend(events.iter().filter_map(|event| file_body(ch, tool, event)));
                bodies.extend(stream_end(ch, Direction::Out, true, error));
            }
        }
    }
}

impl Streams {
    fn new(head: u64, rsync: Option<RsyncObserver>) -> Self {
        let stream = || StreamObserver::new(head);
        Self { input: stream(), output: stream(), error: stream(), rsync }
    }

    fn input(&mut self, ch: u32, bytes: &[u8], bodies: &mut Vec<Body>) {
        let seen = self.rsync.as_mut().and_then(|rsync| rsync.client(bytes));
        bodies.extend(seen.map(|seen| rsync_seen(seen.version)));
        if let Some(head) = self.input.push(bytes) {
            bodies.push(Body::Input(record::Input { ch, data: Data::new(head), masked: None }));
        }
    }

    fn output(&mut self, ch: u32, bytes: &[u8], err: bool, bodies: &mut Vec<Body>) {
        let head = if err {
            self.error.push(bytes)
        } else {
            let seen = self.rsync.as_mut().and_then(|rsync| rsync.server(bytes));
            bodies.extend(seen.map(|seen| rsync_seen(seen.version)));
            self.output.push(bytes)
        };
        bodies.extend(head.map(|head| output(ch, head, err)));
    }

    fn finish(self, ch: u32, bodies: &mut Vec<Body>) {
        bodies.extend(stream_end(ch, Direction::In, false, self.input));
        bodies.extend(stream_end(ch, Direction::Out, false, self.output));
        bodies.extend(stream_end(ch, Direction::Out, true, self.error));
    }
}

fn typed(ch: u32, stretch: &MaskedInput<'_>) -> Body {
    Body::Input(match stretch {
        MaskedInput::Clear(bytes) => record::Input { ch, data: Data::new(bytes), masked: None },
        MaskedInput::Masked { bytes, .. } => {
            record::Input { ch, data: Data::none(), masked: Some(u64::try_from(*bytes).unwrap_or(u64::MAX)) }
        }
    })
}

fn output(ch: u32, bytes: &[u8], err: bool) -> Body {
    Body::Output(record::Output { ch, data: Data::new(bytes), err })
}

fn rsync_seen(version: u32) -> Body {
    Body::Notice(Notice { text: format!("both sides speak rsync, protocol {version}") })
}

fn stream_end(ch: u32, direction: Direction, err: bool, observer: StreamObserver) -> Option<Body> {
    let StreamSummary { bytes, sha256, head } = observer.finish();
    let end = record::StreamEnd { ch, direction, err, bytes, head, sha256: hex(&sha256) };
    (bytes > 0).then_some(Body::StreamEnd(end))
}

fn file_body(ch: u32, tool: &str, event: &FileEvent) -> Option<Body> {
    match event {
        FileEvent::Asked(asked) => Some(files::asked(ch, tool, asked)),
        FileEvent::Answered(answered) => Some(files::answered(ch, tool, answered)),
        FileEvent::Lost { why } => {
            Some(Body::Notice(Notice { text: format!("channel {ch} is not understood as {tool}: {why}") }))
        }
        // Counted by the streams that took its place.
        FileEvent::Opaque { .. } => None,
    }
}
