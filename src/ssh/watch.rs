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

/// A transfer of files, and beside it the streams that it goes over: what the observer waits for, skips
/// or does not understand is in them.
#[derive(Debug)]
struct Files {
    observer: Transfer,
    streams: Streams,
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

    /// The channel has a terminal, which `echoes` unless the client asked for one that does not: what is
    /// not echoed there says nothing. What came before is summed up in `bodies`.
    pub(super) fn terminal(&mut self, echoes: bool, bodies: &mut Vec<Body>) {
        self.finish(bodies);
        let masking = if echoes { Masking::ByPromptAndEcho } else { Masking::ByPrompt };
        self.kind = Kind::Terminal(Box::new(InputMask::new(masking)));
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
        // A subsystem is what the host says that it is. A command may be anything, whatever its name:
        // what it reads is kept like that of any other.
        let head = if how == ProgramKind::Subsystem { 0 } else { self.head };
        let streams = Streams { error: StreamObserver::new(self.head), ..Streams::new(head, None) };
        self.kind = Kind::Files(Box::new(Files { observer, streams, events: Vec::new() }));
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
            Kind::Streams(streams) => streams.input(ch, bytes, now_us, bodies),
            Kind::Files(_) => self.transfer(Direction::In, bytes, now_us, bodies),
            Kind::Finished => {}
        }
    }

    /// Bytes on their way to the client. `now_us` never goes back.
    pub(super) fn output(&mut self, bytes: &[u8], err: bool, now_us: u64, bodies: &mut Vec<Body>) {
        let ch = self.ch;
        match &mut self.kind {
            Kind::Terminal(mask) => {
                mask.output(bytes);
                bodies.push(output(ch, bytes, err));
            }
            Kind::Streams(streams) => streams.output(ch, bytes, err, now_us, bodies),
            Kind::Files(files) if err => files.streams.output(ch, bytes, true, now_us, bodies),
            Kind::Files(_) => self.transfer(Direction::Out, bytes, now_us, bodies),
            Kind::Finished => {}
        }
    }

    fn transfer(&mut self, direction: Direction, bytes: &[u8], now_us: u64, bodies: &mut Vec<Body>) {
        let Kind::Files(files) = &mut self.kind else { return };
        let tool = files.observer.tool();
        files.observer.observe(direction, bytes, &mut files.events);
        let mut lost = false;
        for event in files.events.drain(..) {
            lost |= matches!(event, FileEvent::Lost { .. });
            bodies.extend(file_body(self.ch, tool, &event));
        }
        if lost {
            self.lose(bodies);
        }
        // Not before the bytes are known to be understood: what they are instead is kept from them on.
        match (&mut self.kind, direction) {
            (Kind::Files(files), Direction::In) => files.streams.input(self.ch, bytes, now_us, bodies),
            (Kind::Files(files), Direction::Out) => {
                files.streams.output(self.ch, bytes, false, now_us, bodies);
            }
            (Kind::Streams(streams), Direction::In) => streams.input(self.ch, bytes, now_us, bodies),
            (Kind::Streams(streams), Direction::Out) => {
                streams.output(self.ch, bytes, false, now_us, bodies);
            }
            (Kind::Terminal(_) | Kind::Finished, _) => {}
        }
    }

    /// From here on the channel is a stream like any other. Streams that were kept go on; of those
    /// that were counted only, a new count and a head begin.
    fn lose(&mut self, bodies: &mut Vec<Body>) {
        let Kind::Files(files) = std::mem::replace(&mut self.kind, Kind::Finished) else { return };
        let Streams { input, output, error, .. } = files.streams;
        let renew = |observer: StreamObserver, direction, bodies: &mut Vec<Body>| {
            if observer.limit() > 0 {
                return observer;
            }
            bodies.extend(stream_end(self.ch, direction, false, observer));
            StreamObserver::new(self.head)
        };
        let input = renew(input, Direction::In, bodies);
        let output = renew(output, Direction::Out, bodies);
        self.kind = Kind::Streams(Box::new(Streams { input, output, error, rsync: None }));
    }

    /// What is known at the end only.
    pub(super) fn finish(&mut self, bodies: &mut Vec<Body>) {
        let ch = self.ch;
        match std::mem::replace(&mut self.kind, Kind::Finished) {
            Kind::Terminal(_) | Kind::Finished => {}
            Kind::Streams(streams) => streams.finish(ch, bodies),
            Kind::Files(files) => {
                let Files { observer, streams, mut events } = *files;
                let tool = observer.tool();
                observer.finish(&mut events);
                bodies.extend(events.iter().filter_map(|event| file_body(ch, tool, event)));
                streams.finish(ch, bodies);
            }
        }
    }
}

impl Streams {
    fn new(head: u64, rsync: Option<RsyncObserver>) -> Self {
        let stream = || StreamObserver::new(head);
        Self { input: stream(), output: stream(), error: stream(), rsync }
    }

    fn input(&mut self, ch: u32, bytes: &[u8], now_us: u64, bodies: &mut Vec<Body>) {
        let seen = self.rsync.as_mut().and_then(|rsync| rsync.client(bytes));
        bodies.extend(seen.map(|seen| rsync_seen(seen.version)));
        if let Some(head) = self.input.push(bytes) {
            bodies.push(Body::Input(record::Input { ch, data: Data::new(head), masked: None }));
        }
        let sum = self.input.so_far(now_us);
        bodies.extend(sum.map(|sum| Body::StreamSoFar(summed(ch, Direction::In, false, &sum))));
    }

    fn output(&mut self, ch: u32, bytes: &[u8], err: bool, now_us: u64, bodies: &mut Vec<Body>) {
        let head = if err {
            self.error.push(bytes)
        } else {
            let seen = self.rsync.as_mut().and_then(|rsync| rsync.server(bytes));
            bodies.extend(seen.map(|seen| rsync_seen(seen.version)));
            self.output.push(bytes)
        };
        bodies.extend(head.map(|head| output(ch, head, err)));
        let sum = if err { self.error.so_far(now_us) } else { self.output.so_far(now_us) };
        bodies.extend(sum.map(|sum| Body::StreamSoFar(summed(ch, Direction::Out, err, &sum))));
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
    Body::Notice(Notice::new(format!("both sides speak rsync, protocol {version}")))
}

fn stream_end(ch: u32, direction: Direction, err: bool, observer: StreamObserver) -> Option<Body> {
    let sum = observer.finish();
    (sum.bytes > 0).then(|| Body::StreamEnd(summed(ch, direction, err, &sum)))
}

fn summed(ch: u32, direction: Direction, err: bool, sum: &StreamSummary) -> record::StreamSum {
    let &StreamSummary { bytes, sha256, head } = sum;
    record::StreamSum { ch, direction, err, bytes, head, sha256: hex(&sha256) }
}

fn file_body(ch: u32, tool: &str, event: &FileEvent) -> Option<Body> {
    match event {
        FileEvent::Asked(asked) => Some(files::asked(ch, tool, asked)),
        FileEvent::Answered(answered) => Some(files::answered(ch, tool, answered)),
        FileEvent::Lost { why } => {
            Some(Body::Notice(Notice::new(format!("channel {ch} is not understood as {tool}: {why}"))))
        }
        // Counted by the streams beside it.
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
        watch.output(b"out", false, 0, &mut bodies);
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
        watch.output(b"before", true, 0, &mut bodies);
        watch.input(b"rm -rf /\n", 0, &mut bodies);
        watch.output(b"after", true, 0, &mut bodies);
        watch.finish(&mut bodies);
        assert!(kinds(&bodies).starts_with(&["output", "notice", "input"]), "{bodies:?}");
        let summed_up = |bodies: &[Body]| {
            let ends = bodies.iter().filter_map(|body| match body {
                Body::StreamEnd(end) if end.direction == Direction::In => Some(end.bytes),
                _ => None,
            });
            ends.sum::<u64>()
        };
        assert_eq!(summed_up(&bodies), 9);
        let Some(Body::StreamEnd(end)) = bodies.last() else { panic!("{bodies:?}") };
        assert_eq!((end.err, end.bytes), (true, 11));
    }

    /// Something that is called like an SFTP server need not be one.
    #[test]
    fn what_an_observer_waits_for_or_skips_is_kept_all_the_same() {
        let waits = b"\0\0\xff\xff\x01\nid >/tmp/x\n".to_vec();
        let mut skips = b"\0\0\0\x05\x01\0\0\0\x03".to_vec();
        skips.extend_from_slice(b"\x01\0\0\0\x06\0\0\0\x01\0\0\0\x01h\0\0\0\0\0\0\0\0\0\xff\xff\xff\nid\n");
        for sent in [waits, skips] {
            for how in [ProgramKind::Exec, ProgramKind::Subsystem] {
                let (mut watch, mut bodies) = (Watch::new(1, 1024), Vec::new());
                let name: &[u8] = if how == ProgramKind::Exec { b"/x/sftp-server" } else { b"sftp" };
                assert_eq!(watch.program(how, &Bytes::copy_from_slice(name)).as_deref(), Some("sftp"));
                for piece in sent.chunks(7) {
                    watch.input(piece, 0, &mut bodies);
                }
                watch.finish(&mut bodies);
                let (mut kept, mut counted) = (Vec::new(), 0);
                for body in &bodies {
                    match body {
                        Body::Input(input) => kept.extend(input.data.bytes()),
                        Body::StreamEnd(end) if end.direction == Direction::In => counted += end.bytes,
                        _ => {}
                    }
                }
                assert_eq!(counted, sent.len() as u64, "{how:?}");
                if how == ProgramKind::Exec {
                    assert_eq!(kept, sent, "{how:?}");
                }
            }
        }
    }

    #[test]
    fn what_came_before_the_program_is_never_forgotten() {
        let (mut watch, mut bodies) = (Watch::new(1, HEAD), Vec::new());
        watch.input(b"early", 0, &mut bodies);
        assert_eq!(watch.program(ProgramKind::Subsystem, &Bytes::from_static(b"sftp")), None);
        watch.terminal(true, &mut bodies);
        watch.input(b"ls", 0, &mut bodies);
        watch.finish(&mut bodies);
        assert_eq!(kinds(&bodies), ["input", "stream_end", "input"]);
    }

    #[test]
    fn a_terminal_that_the_client_wants_without_echo_hides_nothing_by_not_echoing() {
        const LATER: u64 = 1_000_000;
        for (echoes, shown) in [(true, false), (false, true)] {
            let (mut watch, mut bodies) = (Watch::new(1, HEAD), Vec::new());
            watch.terminal(echoes, &mut bodies);
            watch.input(b"  ", 0, &mut bodies);
            watch.input(b"rm", LATER, &mut bodies);
            let typed = |body: &Body| matches!(body, Body::Input(input) if input.data.bytes() == b"rm");
            assert_eq!(bodies.iter().any(typed), shown, "{bodies:?}");
        }
    }
}
