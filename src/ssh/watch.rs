//! What is recorded of a session channel's bytes: which of them in clear, which by count and hash.
//! The rules are in `docs/ssh-recording.md`.

use bytes::Bytes;

use super::observe::stream::{StreamObserver, StreamSummary};
use crate::audit::record::{Body, Direction};
use crate::audit::ssh::{self as record, Data, ProgramKind};
use crate::crypto::hex;

/// Watches one channel.
#[derive(Debug)]
pub(super) struct Watch {
    kind: Kind,
    head: u64,
}

#[derive(Debug)]
enum Kind {
    /// A person at a terminal: everything is kept.
    Terminal,
    Streams(Box<Streams>),
    Finished,
}

/// Heads, counts and hashes.
#[derive(Debug)]
struct Streams {
    input: StreamObserver,
    output: StreamObserver,
    error: StreamObserver,
}

impl Watch {
    pub(super) fn new(head: u64) -> Self {
        let stream = || StreamObserver::new(head);
        let streams = Streams { input: stream(), output: stream(), error: stream() };
        Self { kind: Kind::Streams(Box::new(streams)), head }
    }

    /// The channel has a terminal.
    pub(super) fn terminal(&mut self) {
        self.kind = Kind::Terminal;
    }

    /// The channel's program is known; gives what it looks like.
    pub(super) fn program(&mut self, _how: ProgramKind, _command: &Bytes) -> Option<String> {
        let _ = self.head;
        None
    }

    /// Bytes on their way to the target; `bodies` must be durable before they go.
    pub(super) fn input(&mut self, ch: u32, bytes: &[u8], bodies: &mut Vec<Body>) {
        let kept = match &mut self.kind {
            Kind::Terminal => Some(bytes),
            Kind::Streams(streams) => streams.input.push(bytes),
            Kind::Finished => None,
        };
        if let Some(kept) = kept {
            bodies.push(Body::Input(record::Input { ch, data: Data::new(kept), masked: None }));
        }
    }

    /// Bytes on their way to the client.
    pub(super) fn output(&mut self, ch: u32, bytes: &[u8], err: bool, bodies: &mut Vec<Body>) {
        let kept = match &mut self.kind {
            Kind::Terminal => Some(bytes),
            Kind::Streams(streams) if err => streams.error.push(bytes),
            Kind::Streams(streams) => streams.output.push(bytes),
            Kind::Finished => None,
        };
        if let Some(kept) = kept {
            bodies.push(Body::Output(record::Output { ch, data: Data::new(kept), err }));
        }
    }

    /// What is known at the end only.
    pub(super) fn finish(&mut self, ch: u32, bodies: &mut Vec<Body>) {
        let Kind::Streams(streams) = std::mem::replace(&mut self.kind, Kind::Finished) else { return };
        let Streams { input, output, error } = *streams;
        let ends =
            [(Direction::In, false, input), (Direction::Out, false, output), (Direction::Out, true, error)];
        for (direction, err, observer) in ends {
            let StreamSummary { bytes, sha256, head } = observer.finish();
            if bytes > 0 {
                let sha256 = hex(&sha256);
                bodies.push(Body::StreamEnd(record::StreamEnd { ch, direction, err, bytes, head, sha256 }));
            }
        }
    }
}
