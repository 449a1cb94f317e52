//! What is fuzzed of the SSH gateway, as in `entries.rs`. Each input is turns: a byte for the
//! direction, a byte for the length, that many bytes.
#![cfg_attr(not(test), expect(dead_code, reason = "each fuzz target calls one of them"))]

use std::net::{IpAddr, Ipv4Addr};

use sallyport::crypto::ssh::certificate::{check_host_certificate, check_user_certificate};
use sallyport::crypto::ssh::source_address::SourceAddresses;
use sallyport::crypto::ssh::{Certificate, PublicKey, parse_public, public_line};
use sallyport::gateway::login::Login;
use sallyport::ssh::observe::file::FileEvent;
use sallyport::ssh::observe::mask::{InputMask, MaskedInput, Masking};
use sallyport::ssh::observe::program::ScpRole;
use sallyport::ssh::observe::scp::ScpObserver;
use sallyport::ssh::observe::sftp::{Limits, SftpObserver};
use sallyport::ssh::strict::{FirstPacket, Peer};

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

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PRINCIPAL: &str = "alice";

/// A certificate as it comes over the wire, checked against the authority that it names itself: what is
/// accepted says all that it must, and nothing is accepted where nobody is trusted.
pub(crate) fn certificate(bytes: &[u8]) {
    let Ok(certificate) = Certificate::from_bytes(bytes) else { return };
    let authority = [PublicKey::from(certificate.signature_key().clone())];
    let (from, until) = (certificate.valid_after(), certificate.valid_before());
    for now in [from, until.saturating_sub(1), until, 0, u64::MAX] {
        let user = check_user_certificate(&certificate, &authority, PRINCIPAL, CLIENT, now);
        let host = check_host_certificate(&certificate, &authority, PRINCIPAL, now);
        assert!(user.is_err() || host.is_err(), "of one type alone");
        if user.is_ok() || host.is_ok() {
            assert!(from <= now && now < until);
            let names = certificate.valid_principals();
            assert!(names.iter().any(|name| name.eq_ignore_ascii_case(PRINCIPAL)));
            assert!(certificate.critical_options().keys().all(|name| name == "source-address"));
        }
        assert!(check_user_certificate(&certificate, &[], PRINCIPAL, CLIENT, now).is_err());
        assert!(check_host_certificate(&certificate, &[], PRINCIPAL, now).is_err());
    }
}

/// What people write: login names, public keys, addresses. What is read is written as it was.
pub(crate) fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(login) = Login::parse(&text) {
        let wanted = login.wanted.as_ref().map(|wanted| {
            let access = wanted.access.as_ref().map(|access| format!("+{access}"));
            format!("+{}{}", wanted.target, access.unwrap_or_default())
        });
        assert_eq!(format!("{}{}", login.user, wanted.unwrap_or_default()), text);
    }
    if let Ok(key) = parse_public(&text) {
        let line = public_line(&key, key.comment().as_str_lossy());
        assert_eq!(parse_public(&line).map(|again| again.key_data().clone()), Ok(key.key_data().clone()));
    }
    if let Ok(sources) = text.parse::<SourceAddresses>() {
        let _either = sources.contain(CLIENT);
    }
}

/// A peer's first bytes, whole and byte by byte: the verdict is the same.
pub(crate) fn first_packet(bytes: &[u8]) {
    for peer in [Peer::Client, Peer::Server] {
        let new = || FirstPacket::new(peer, &["aes128-gcm@openssh.com", "aes128-ctr"]);
        let mut first = new();
        let byte_by_byte = bytes.iter().map(|byte| first.push(&[*byte])).find(|seen| *seen != Ok(false));
        assert_eq!(new().push(bytes), byte_by_byte.unwrap_or(Ok(false)));
    }
}
