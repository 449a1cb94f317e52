//! Cutting one direction of SFTP into packets. The content of files is handed on as it comes, lists
//! and attributes are skipped, other packets are gathered whole: when a packet is not cut by the end
//! of what came, without a copy. Nothing is allocated for what was only announced.

use super::packet;
use crate::ssh::observe::lost::Lost;

/// OpenSSH's `SFTP_MAX_MSG_LENGTH`, for packets that are gathered.
pub(super) const LONGEST_PACKET: u32 = 256 * 1024;
/// A buffer that grew over this is given back.
const KEPT_BUFFER: usize = 16 * 1024;
/// The length word.
const LENGTH: usize = 4;
/// Length word, type, id.
const HEAD: usize = LENGTH + 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A packet without its length word and type, or the head of one whose content follows.
    Packet { kind: u8, body: &'a [u8] },
    /// Some of the content of a file; `last` comes once for each head, perhaps without bytes.
    Content { bytes: &'a [u8], last: bool },
}

#[derive(Debug)]
enum State {
    Head,
    Content { left: u32, then_skip: u32 },
    Skip { left: u32 },
}

#[derive(Debug)]
pub(super) struct Splitter {
    side: Side,
    state: State,
    gathered: Vec<u8>,
    /// What was gathered has been handed out.
    spent: bool,
}

/// How a packet is read.
#[derive(Debug)]
enum Plan {
    /// So many bytes are needed before more can be said.
    Gather(usize),
    /// The first `head` bytes are the packet, then come `content` (if it carries any) and the rest.
    Cut { kind: u8, head: usize, content: Option<u32>, skip: u32 },
}

impl Splitter {
    pub(super) fn new(side: Side) -> Self {
        Self { side, state: State::Head, gathered: Vec::new(), spent: false }
    }

    /// What is gathered of a packet that is not whole yet.
    pub(super) fn unfinished(&self) -> &[u8] {
        if self.spent { &[] } else { &self.gathered }
    }

    /// The first bytes that were gathered of the packet that was handed out last.
    pub(super) fn begun(&self, length: usize) -> &[u8] {
        self.gathered.get(..length).unwrap_or(&self.gathered)
    }

    /// Takes what is left of a packet of which no more is read: the next piece is another packet's.
    pub(super) fn skip(&mut self, input: &mut &[u8]) {
        if let State::Skip { left } = &mut self.state {
            *left -= take(input, *left).1;
            if *left == 0 {
                self.state = State::Head;
            }
        }
    }

    /// The next piece; `None` when all of `input` was taken.
    pub(super) fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'a>>, Lost> {
        self.clear();
        self.skip(input);
        if matches!(self.state, State::Skip { .. }) {
            return Ok(None);
        }
        if let State::Content { left, then_skip } = &mut self.state {
            if *left > 0 && input.is_empty() {
                return Ok(None);
            }
            let (bytes, taken) = take(input, *left);
            *left -= taken;
            let last = *left == 0;
            if last {
                self.state = State::Skip { left: *then_skip };
            }
            return Ok(Some(Piece::Content { bytes, last }));
        }
        self.packet(input)
    }

    fn packet<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'a>>, Lost> {
        if self.gathered.is_empty() {
            match plan(self.side, input)? {
                Plan::Cut { kind, head, content, skip } => {
                    let (packet, rest) = input.split_at_checked(head).unwrap_or((input, &[]));
                    *input = rest;
                    self.enter(content, skip);
                    return Ok(Some(piece(kind, packet)));
                }
                Plan::Gather(_) if input.is_empty() => return Ok(None),
                Plan::Gather(_) => {}
            }
        }
        let (kind, content, skip) = loop {
            match plan(self.side, &self.gathered)? {
                Plan::Cut { kind, content, skip, .. } => break (kind, content, skip),
                Plan::Gather(needed) => {
                    let missing = needed.saturating_sub(self.gathered.len());
                    let (more, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
                    self.gathered.extend_from_slice(more);
                    *input = rest;
                    if more.len() < missing {
                        return Ok(None);
                    }
                }
            }
        };
        self.spent = true;
        self.enter(content, skip);
        Ok(Some(piece(kind, &self.gathered)))
    }

    fn enter(&mut self, content: Option<u32>, skip: u32) {
        self.state = match content {
            Some(left) => State::Content { left, then_skip: skip },
            None => State::Skip { left: skip },
        };
    }

    fn clear(&mut self) {
        if !self.spent {
            return;
        }
        self.spent = false;
        if self.gathered.capacity() > KEPT_BUFFER {
            self.gathered = Vec::new();
        }
        self.gathered.clear();
    }
}

fn piece(kind: u8, packet: &[u8]) -> Piece<'_> {
    Piece::Packet { kind, body: packet.get(LENGTH + 1..).unwrap_or_default() }
}

/// The first `most` bytes of the input, or all there are; and how many.
fn take<'i>(input: &mut &'i [u8], most: u32) -> (&'i [u8], u32) {
    let taken = u32::try_from(input.len()).unwrap_or(u32::MAX).min(most);
    let (bytes, rest) = input.split_at_checked(taken as usize).unwrap_or((input, &[]));
    *input = rest;
    (bytes, taken)
}

/// What to do about a packet of which these bytes are there. Never gathers more than it needs to.
fn plan(side: Side, there: &[u8]) -> Result<Plan, Lost> {
    let Some((length, after)) = there.split_first_chunk::<LENGTH>() else { return Ok(Plan::Gather(LENGTH)) };
    let length = u32::from_be_bytes(*length);
    // What a shell's start-up files print reads as a very long packet, of a type that may be known.
    let Some(kind) = after.first().copied() else { return Ok(Plan::Gather(LENGTH + 1)) };
    let whole = LENGTH + length as usize;
    if whole < HEAD {
        return Err(Lost::Malformed { packet: packet::name(kind) });
    }
    let (head, carries) = match (side, kind) {
        (Side::Server, packet::NAME | packet::ATTRS | packet::EXTENDED_REPLY) => (HEAD, false),
        (Side::Server, packet::DATA) => (HEAD + 4, true),
        (Side::Client, packet::WRITE) => {
            let Some(handle) = word(there, HEAD) else { return Ok(Plan::Gather(HEAD + 4)) };
            if handle as usize > packet::LONGEST_HANDLE {
                return Err(Lost::Malformed { packet: packet::name(kind) });
            }
            // Handle, offset, length of the content.
            (HEAD + 4 + handle as usize + 8 + 4, true)
        }
        (Side::Server, packet::VERSION | packet::STATUS | packet::HANDLE) => (whole, false),
        (Side::Client, 1..=20 | 200) if kind != packet::VERSION => (whole, false),
        _ => return Err(Lost::UnknownPacket { kind }),
    };
    if head == whole && length > LONGEST_PACKET {
        return Err(Lost::PacketLength { length });
    }
    if head > whole {
        return Err(Lost::Malformed { packet: packet::name(kind) });
    }
    if there.len() < head {
        return Ok(Plan::Gather(head));
    }
    let skip = length - u32::try_from(head - LENGTH).unwrap_or(length);
    if !carries {
        return Ok(Plan::Cut { kind, head, content: None, skip });
    }
    let content = word(there, head - 4).unwrap_or_default();
    let skip = skip.checked_sub(content).ok_or(Lost::Malformed { packet: packet::name(kind) })?;
    Ok(Plan::Cut { kind, head, content: Some(content), skip })
}

fn word(there: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*there.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend_from_slice(body);
        packet
    }

    /// Content is put together; everything else as it came.
    fn pieces(side: Side, stream: &[u8], every: usize) -> Result<Vec<(u8, Vec<u8>)>, Lost> {
        let (mut splitter, mut pieces, mut content) = (Splitter::new(side), Vec::new(), Vec::new());
        for mut chunk in stream.chunks(every) {
            while let Some(piece) = splitter.next(&mut chunk)? {
                match piece {
                    Piece::Packet { kind, body } => pieces.push((kind, body.to_vec())),
                    Piece::Content { bytes, last } => {
                        content.extend_from_slice(bytes);
                        if last {
                            pieces.push((0, std::mem::take(&mut content)));
                        }
                    }
                }
            }
            assert!(splitter.gathered.len() <= stream.len());
        }
        Ok(pieces)
    }

    #[test]
    fn packets_are_the_same_wherever_they_are_cut() {
        let write = [&[0, 0, 0, 7, 0, 0, 0, 2][..], b"hh", &[0; 8], &[0, 0, 0, 3], b"abc", b"more"].concat();
        let empty = [&[0, 0, 0, 8, 0, 0, 0, 0][..], &[0; 8], &[0, 0, 0, 0]].concat();
        let stream =
            [packet(1, &[0, 0, 0, 3]), packet(6, &write), packet(6, &empty), packet(4, &[0; 8])].concat();
        let whole = pieces(Side::Client, &stream, stream.len()).unwrap();
        let kinds: Vec<_> = whole.iter().map(|(kind, body)| (*kind, body.len())).collect();
        assert_eq!(kinds, [(1, 4), (6, 22), (0, 3), (6, 20), (0, 0), (4, 8)]);
        for size in 1..stream.len() {
            assert_eq!(pieces(Side::Client, &stream, size).unwrap(), whole, "cut every {size}");
        }
    }

    #[test]
    fn lists_are_skipped_whatever_their_length() {
        let name = packet(packet::NAME, &vec![1; 400_000]);
        let stream = [name, packet(packet::DATA, b"\0\0\0\x02\0\0\0\x01x")].concat();
        for size in [1, 1000, stream.len()] {
            let pieces = pieces(Side::Server, &stream, size).unwrap();
            let kinds: Vec<_> = pieces.iter().map(|(kind, body)| (*kind, body.len())).collect();
            assert_eq!(kinds, [(packet::NAME, 4), (packet::DATA, 8), (0, 1)]);
        }
    }

    #[test]
    fn what_is_announced_is_not_believed() {
        let long = |kind| [&0xffff_fff0_u32.to_be_bytes()[..], &[kind, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
        let refused = pieces(Side::Client, &long(3), 100);
        assert_eq!(refused, Err(Lost::PacketLength { length: 0xffff_fff0 }));
        assert_eq!(
            pieces(Side::Client, b"Welcome to the machine\r\n", 3),
            Err(Lost::UnknownPacket { kind: b'o' })
        );
        assert!(pieces(Side::Client, &packet(6, &[0xff; 30]), 100).is_err());
        // More content than the packet has.
        assert!(pieces(Side::Server, &packet(packet::DATA, b"\0\0\0\x02\0\0\0\x09x"), 100).is_err());
        assert!(pieces(Side::Server, &packet(packet::STATUS, b""), 100).is_err());
    }
}
