//! What is fuzzed of the SSH gateway, as in `entries.rs`. Each input is turns: a byte for the
//! direction, a byte for the length, that many bytes.
#![cfg_attr(not(test), expect(dead_code, reason = "each fuzz target calls one of them"))]

use sallyport::ssh::observe::file::FileEvent;
use sallyport::ssh::observe::mask::{InputMask, MaskedInput, Masking};
use sallyport::ssh::observe::program::ScpRole;
use sallyport::ssh::observe::scp::ScpObserver;
use sallyport::ssh::observe::sftp::{Limits, SftpObserver};

fn turns(mut bytes: &[u8], mut each: impl FnMut(u8, &[u8])) {
    while let [direction, length, rest @ ..] = bytes {
        let (turn, after) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = after;
        each(*direction, turn);
    }
}

/// Everything asked is answered once, and nothing is lost twice.
fn check(events: &[FileEvent]) {
    let (mut asked, mut answered, mut lost) = (Vec::new(), Vec::new(), 0);
    for event in events {
        match event {
            FileEvent::Asked(event) => asked.push(event.n),
            FileEvent::Answered(event) => answered.push(event.n),
            FileEvent::Lost { .. } => lost += 1,
            FileEvent::Opaque { .. } => assert_eq!(lost, 1),
        }
    }
    answered.sort_unstable();
    assert_eq!(asked, answered);
    assert!(lost < 2);
}

/// Both directions of an SFTP channel.
pub(crate) fn sftp(bytes: &[u8]) {
    let limits = Limits { requests: 8, handles: 4, paths: 256, early: 64 };
    let (mut observer, mut events) = (SftpObserver::new(limits), Vec::new());
    turns(bytes, |direction, turn| match direction % 2 {
        0 => observer.client(turn, &mut events),
        _ => observer.server(turn, &mut events),
    });
    observer.finish(&mut events);
    check(&events);
}

/// Both directions of an scp channel, as the one and as the other.
pub(crate) fn scp(bytes: &[u8]) {
    for role in [ScpRole::Sink, ScpRole::Source] {
        let (mut observer, mut events) = (ScpObserver::new(role), Vec::new());
        turns(bytes, |direction, turn| match direction % 2 {
            0 => observer.client(turn, &mut events),
            _ => observer.server(turn, &mut events),
        });
        observer.finish(&mut events);
        check(&events);
    }
}

/// A terminal's input and output; a third direction is time that passes.
pub(crate) fn mask(bytes: &[u8]) {
    let (mut mask, mut now) = (InputMask::new(Masking::ByPromptAndEcho), 0);
    turns(bytes, |direction, turn| match direction % 3 {
        0 => {
            let (mut stretches, mut at) = (Vec::new(), 0);
            mask.input(turn, now, &mut stretches);
            for stretch in stretches {
                match stretch {
                    MaskedInput::Clear(clear) => {
                        assert_eq!(turn.get(at..at + clear.len()), Some(clear));
                        at += clear.len();
                    }
                    MaskedInput::Masked { bytes, .. } => at += bytes,
                }
            }
            assert_eq!(at, turn.len());
        }
        1 => mask.output(turn),
        _ => now += turn.len() as u64 * 50_000,
    });
    // However the output was left, a prompt on a line of its own masks what follows.
    mask.input(b"\r", now, &mut Vec::new());
    mask.output(b"\x18\r\nPassword: ");
    let mut stretches = Vec::new();
    mask.input(b"secret", now, &mut stretches);
    assert!(matches!(stretches[..], [MaskedInput::Masked { bytes: 6, .. }]));
}
