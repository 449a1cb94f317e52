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

    /// The channel has a terminal. What came before is summed up in `bodies`.
    pub(super) fn terminal(&mut self, bodies: &mut Vec<Body>) {
        self.finish(bodies);
        self.kind = Kind::Terminal(Box::new(InputMask::new(Masking::ByPromptAndEcho)));
    }

    /// The channel's program is known; gives what it looks like.
    pub(super) fn program(&mut self, how: ProgramKind, command: &Bytes) -> Option<String> {
        let hint = match how {
            ProgramKind::Shell => ProgramHint::Other,
            ProgramKind::Exec => ProgramHint::of(command),
            ProgramKind::Subsystem => ProgramHint::of_subsystem(command),
        };
        // With a terminal everything is kept, whatever the command says that it is. And what came
        // before its program, no program's protocol begins with.
        match &self.kind {
            Kind::Streams(streams) if streams.input.bytes() == 0 => {}
            _ => return None,
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
                bodies.extend(files.error.push(bytes).map(|head| output(ch, head, true)));
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
            let error = std::mem::replace(&mut files.error, StreamObserver::new(0));
            let mut streams = Streams { error, ..Streams::new(self.head, None) };
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: u64 = 8;

    fn kinds(bodies: &[Body]) -> Vec<&'static str> {
        bodies.iter().map(Body::kind).collect()
    }

    #[test]
    fn a_stream_is_kept_up_to_its_head_and_summed_up_at_its_end() {
        let (mut watch, mut bodies) = (Watch::new(1, HEAD), Vec::new());
        watch.input(b"0123456789", 0, &mut bodies);
        watch.input(b"more", 0, &mut bodies);
        watch.output(b"out", false, &mut bodies);
        watch.finish(&mut bodies);
        assert_eq!(kinds(&bodies), ["input", "output", "stream_end", "stream_end"]);
        let Body::Input(input) = &bodies[0] else { panic!("{bodies:?}") };
        assert_eq!(input.data.bytes(), b"01234567");
        let Body::StreamEnd(end) = &bodies[2] else { panic!("{bodies:?}") };
        assert_eq!((end.bytes, end.head), (14, HEAD));
    }

    #[test]
    fn what_is_not_understood_as_files_is_a_stream_from_there_on_with_all_of_its_standard_error() {
        let (mut watch, mut bodies) = (Watch::new(1, HEAD), Vec::new());
        let command = Bytes::from_static(b"scp -t /tmp/x");
        assert_eq!(watch.program(ProgramKind::Exec, &command).as_deref(), Some("scp"));
        watch.output(b"before", true, &mut bodies);
        watch.input(b"rm -rf /\n", 0, &mut bodies);
        watch.output(b"after", true, &mut bodies);
        watch.finish(&mut bodies);
        assert!(kinds(&bodies).starts_with(&["output", "notice", "input"]), "{bodies:?}");
        let Some(Body::StreamEnd(end)) = bodies.last() else { panic!("{bodies:?}") };
        assert_eq!((end.err, end.bytes), (true, 11));
    }

    #[test]
    fn what_came_before_the_program_is_never_forgotten() {
        let (mut watch, mut bodies) = (Watch::new(1, HEAD), Vec::new());
        watch.input(b"early", 0, &mut bodies);
        assert_eq!(watch.program(ProgramKind::Subsystem, &Bytes::from_static(b"sftp")), None);
        watch.terminal(&mut bodies);
        watch.input(b"ls", 0, &mut bodies);
        watch.finish(&mut bodies);
        assert_eq!(kinds(&bodies), ["input", "stream_end", "input"]);
    }
}
