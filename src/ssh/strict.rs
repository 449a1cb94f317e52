//! Strict key exchange (OpenSSH's `PROTOCOL`, section 1.9), asserted: without it, somebody in between can
//! cut messages out unnoticed (Terrapin, CVE-2023-48795), unless the cipher is AES-GCM. The library
//! offers it and goes on without it; here a peer that offers neither is refused, and told why.
//!
//! What is looked at is the peer's first packet, which is in clear: its algorithms (RFC 4253, section 7.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A version line, and the lines that a server may say before it (RFC 4253, section 4.2).
const LONGEST_GREETING: usize = 8 * 1024;
/// A packet that every implementation must take (RFC 4253, section 6.1), in bytes.
const LONGEST_PACKET: usize = 35_000;
/// What a version line begins with (RFC 4253, sections 4.2 and 5.1).
const VERSIONS: [&str; 2] = ["SSH-2.0-", "SSH-1.99-"];
const KEXINIT: u8 = 20;
const DISCONNECT: u8 = 1;
const KEY_EXCHANGE_FAILED: u32 = 3;

/// Which side the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Client,
    Server,
}

impl Peer {
    /// How it says that it keeps to strict key exchange.
    const fn marker(self) -> &'static [u8] {
        match self {
            Self::Client => b"kex-strict-c-v00@openssh.com",
            Self::Server => b"kex-strict-s-v00@openssh.com",
        }
    }
}

/// Why a peer is not spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStrict {
    #[error(
        "without strict key exchange (kex-strict, CVE-2023-48795) no cipher but AES-GCM is taken: update \
         the SSH software, or choose aes128-gcm@openssh.com"
    )]
    Weak,
    #[error("what comes first is no key exchange")]
    Malformed,
}

/// Reads a peer's first packet from bytes that come in pieces.
#[derive(Debug)]
pub struct FirstPacket {
    peer: Peer,
    /// Ours, in our order.
    ciphers: &'static [&'static str],
    seen: Vec<u8>,
    /// Where the packet begins, once the version has been read.
    packet: Option<usize>,
}

impl FirstPacket {
    pub fn new(peer: Peer, ciphers: &'static [&'static str]) -> Self {
        Self { peer, ciphers, seen: Vec::new(), packet: None }
    }

    /// Takes what came; `true` once nothing more need be seen.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, NotStrict> {
        // Never more than the longest of both, and what one read gives beside it.
        self.seen.extend_from_slice(bytes);
        let found = match self.packet {
            Some(start) => Some(start),
            None => self.after_version()?,
        };
        let Some(start) = found else {
            return if self.seen.len() > LONGEST_GREETING { Err(NotStrict::Malformed) } else { Ok(false) };
        };
        if start > LONGEST_GREETING {
            return Err(NotStrict::Malformed);
        }
        self.packet = Some(start);
        let Some((length, rest)) = self.seen.get(start..).and_then(|packet| packet.split_first_chunk())
        else {
            return Ok(false);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST_PACKET {
            return Err(NotStrict::Malformed);
        }
        let Some(packet) = rest.get(..length) else { return Ok(false) };
        self.check(packet).map(|()| true)
    }

    /// Where what follows the version line begins. Refused is what the library might read otherwise than
    /// we do: somebody in between would show us one first packet, and it another.
    fn after_version(&self) -> Result<Option<usize>, NotStrict> {
        let mut start = 0;
        loop {
            let rest = self.seen.get(start..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
            let line = rest.get(..end).unwrap_or_default();
            start += end + 1;
            let text = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line));
            if text.is_ok_and(|text| VERSIONS.iter().any(|version| text.starts_with(version))) {
                return Ok(Some(start));
            }
            if line.is_empty() || line.starts_with(b"SSH-") {
                return Err(NotStrict::Malformed);
            }
        }
    }

    fn check(&self, packet: &[u8]) -> Result<(), NotStrict> {
        let payload = packet.split_first().and_then(|(padding, rest)| {
            let length = rest.len().checked_sub(usize::from(*padding))?;
            rest.get(..length)
        });
        let lists = payload.and_then(|payload| payload.strip_prefix(&[KEXINIT]));
        let mut lists = lists.and_then(|lists| lists.get(16..)).ok_or(NotStrict::Malformed)?;
        let mut next = || name_list(&mut lists).ok_or(NotStrict::Malformed);
        let (key_exchange, _host_keys, in_ciphers, out_ciphers) = (next()?, next()?, next()?, next()?);
        let strict = names(key_exchange).any(|name| name == self.peer.marker());
        let safe = |theirs| self.agreed(theirs).is_none_or(|cipher| cipher.ends_with("-gcm@openssh.com"));
        if strict || (safe(in_ciphers) && safe(out_ciphers)) { Ok(()) } else { Err(NotStrict::Weak) }
    }

    /// The first of the client's that the server has as well. None: there will be no connection.
    fn agreed(&self, theirs: &[u8]) -> Option<&'static str> {
        let ours = |name: &[u8]| self.ciphers.iter().copied().find(|cipher| cipher.as_bytes() == name);
        match self.peer {
            Peer::Client => names(theirs).find_map(ours),
            Peer::Server => self
                .ciphers
                .iter()
                .copied()
                .find(|cipher| names(theirs).any(|name| name == cipher.as_bytes())),
        }
    }
}

/// Takes a name-list (RFC 4251, section 5) off the front.
fn name_list<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (list, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(list)
}

fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
}

/// The message that says why (RFC 4253, sections 6 and 11.1), in clear.
fn farewell(why: &str) -> Vec<u8> {
    let mut payload = vec![DISCONNECT];
    payload.extend(KEY_EXCHANGE_FAILED.to_be_bytes());
    payload.extend(u32::try_from(why.len()).unwrap_or(0).to_be_bytes());
    payload.extend(why.as_bytes());
    payload.extend(0_u32.to_be_bytes());
    // Length, padding's length, payload and at least four bytes of padding are a multiple of eight.
    let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(0);
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap_or(0));
    packet.append(&mut payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// A stream whose peer is refused when its key exchange is not safe. Reads and writes are as cancel-safe as those of `S`.
#[derive(Debug)]
pub struct Asserted<S> {
    stream: S,
    state: State,
}

#[derive(Debug)]
enum State {
    Looking(Box<FirstPacket>),
    Seen,
    Refused { why: NotStrict, untold: Vec<u8> },
}

impl<S> Asserted<S> {
    pub fn new(stream: S, first: FirstPacket) -> Self {
        Self { stream, state: State::Looking(Box::new(first)) }
    }
}

impl<S: AsyncWrite + Unpin> Asserted<S> {
    /// Tells the peer why; resolves to the error that ends the connection.
    fn poll_refused(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Refused { why, untold } = &mut self.state else { return Poll::Ready(Ok(())) };
        while !untold.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, untold))?;
            if written == 0 {
                break;
            }
            untold.drain(..written);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *why)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Asserted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !matches!(self.state, State::Refused { .. }) {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        }
        if let State::Looking(first) = &mut self.state {
            match first.push(buffer.filled().get(before..).unwrap_or_default()) {
                Ok(false) => {}
                Ok(true) => self.state = State::Seen,
                Err(why) => {
                    tracing::info!(%why, "an SSH peer is refused");
                    self.state = State::Refused { why, untold: farewell(&why.to_string()) };
                    // Nobody is to go on with it.
                    buffer.set_filled(before);
                }
            }
        }
        self.poll_refused(context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Asserted<S> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const OURS: &[&str] = &["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"];

    fn opening(key_exchange: &str, ciphers: [&str; 2]) -> Vec<u8> {
        let mut payload = vec![KEXINIT];
        payload.extend([7; 16]);
        for list in [key_exchange, "ssh-ed25519", ciphers[0], ciphers[1], "", "", "none", "none", "", ""] {
            payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            payload.extend(list.as_bytes());
        }
        payload.extend([0; 5]);
        let mut bytes = b"SSH-2.0-test\r\n".to_vec();
        bytes.extend(u32::try_from(1 + payload.len() + 4).unwrap().to_be_bytes());
        bytes.push(4);
        bytes.extend(payload);
        bytes.extend([0; 4]);
        bytes
    }

    fn verdict(peer: Peer, bytes: &[u8], size: usize) -> Result<bool, NotStrict> {
        let mut first = FirstPacket::new(peer, OURS);
        let mut seen = Ok(false);
        for piece in bytes.chunks(size) {
            seen = first.push(piece);
            if seen != Ok(false) {
                break;
            }
        }
        seen
    }

    #[test]
    fn who_keeps_to_strict_key_exchange_may_use_any_cipher_and_others_aes_gcm() {
        let (chacha, gcm) = ("chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com");
        let strict = "curve25519-sha256,kex-strict-c-v00@openssh.com";
        let both = "aes256-cbc,chacha20-poly1305@openssh.com,aes128-gcm@openssh.com";
        for (peer, key_exchange, ciphers, expected) in [
            (Peer::Client, strict, [chacha; 2], Ok(true)),
            (Peer::Server, strict, [chacha; 2], Err(NotStrict::Weak)),
            (Peer::Server, "kex-strict-s-v00@openssh.com", [chacha; 2], Ok(true)),
            (Peer::Client, "kex-strict-c-v00@openssh.com.x", [chacha; 2], Err(NotStrict::Weak)),
            (Peer::Client, "curve25519-sha256", [gcm; 2], Ok(true)),
            (Peer::Client, "curve25519-sha256", [gcm, chacha], Err(NotStrict::Weak)),
            // A client's order counts, whoever the peer is.
            (Peer::Client, "curve25519-sha256", [both; 2], Err(NotStrict::Weak)),
            (Peer::Server, "curve25519-sha256", [both; 2], Ok(true)),
            // They agree on nothing.
            (Peer::Client, "curve25519-sha256", ["3des-cbc"; 2], Ok(true)),
        ] {
            let bytes = opening(key_exchange, ciphers);
            for size in [1, 7, bytes.len()] {
                assert_eq!(verdict(peer, &bytes, size), expected, "{peer:?} {key_exchange} {ciphers:?}");
            }
        }
    }

    #[test]
    fn what_is_no_key_exchange_is_refused() {
        let good = opening("kex-strict-c-v00@openssh.com", ["aes128-ctr"; 2]);
        let packet = b"SSH-2.0-test\r\n".len();
        let mut other = good.clone();
        other[packet + 5] = 2;
        assert_eq!(verdict(Peer::Client, &other, 5), Err(NotStrict::Malformed));
        let mut long = good.clone();
        long[packet] = 1;
        assert_eq!(verdict(Peer::Client, &long, 5), Err(NotStrict::Malformed));
        let mut padded = good.clone();
        padded[packet + 4] = 255;
        assert_eq!(verdict(Peer::Client, &padded, 5), Err(NotStrict::Malformed));
        assert_eq!(verdict(Peer::Client, &[b'x'; 9000], 100), Err(NotStrict::Malformed));
        let mut greeted = b"Welcome\r\nnot SSH-2.0-this\r\n".to_vec();
        greeted.extend(&good);
        assert_eq!(verdict(Peer::Client, &greeted, 3), Ok(true));
    }

    #[test]
    fn nobody_in_between_shows_another_first_packet_than_the_one_that_counts() {
        let shown = opening("kex-strict-s-v00@openssh.com", ["chacha20-poly1305@openssh.com"; 2]);
        // To the library each of these is a line before the version, and so is the packet after it.
        for before in [&b"SSH-\n"[..], b"SSH-3.0-x\r\n", b"SSH-2.0-\xff\n", b"\n", b"Welcome\r\n\n"] {
            let bytes = [before, &shown].concat();
            assert_eq!(verdict(Peer::Server, &bytes, 3), Err(NotStrict::Malformed), "{before:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_refused_is_told_why_and_nobody_goes_on_with_it() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let mut ours = Asserted::new(ours, FirstPacket::new(Peer::Client, OURS));
        let bytes = opening("curve25519-sha256", ["chacha20-poly1305@openssh.com"; 2]);
        peer.write_all(&bytes).await.unwrap();
        let mut got = Vec::new();
        let error = ours.read_to_end(&mut got).await.unwrap_err();
        assert!(error.to_string().contains("strict key exchange"), "{error}");
        assert!(got.len() < bytes.len(), "the last piece is kept back");
        drop(ours);
        let mut told = Vec::new();
        peer.read_to_end(&mut told).await.unwrap();
        assert_eq!(told.len() % 8, 0);
        assert_eq!(told[5], DISCONNECT);
        let length = u32::from_be_bytes(*told.first_chunk().unwrap());
        assert_eq!(length as usize, told.len() - 4);
        assert!(String::from_utf8_lossy(&told).contains("update the SSH software"));
    }

    #[tokio::test]
    async fn what_follows_the_first_packet_passes() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let mut ours = Asserted::new(ours, FirstPacket::new(Peer::Client, OURS));
        let mut bytes = opening("kex-strict-c-v00@openssh.com", ["aes128-ctr"; 2]);
        bytes.extend(b"what follows");
        peer.write_all(&bytes).await.unwrap();
        drop(peer);
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, bytes);
    }
}
