//! Recognising rsync. Its format depends on what both sides negotiate, and may be compressed, so it
//! is not read: what passes is counted and hashed as a stream.
//!
//! Over a remote shell both sides begin with the protocol's version as four bytes, least first; a
//! daemon behind the remote shell and its client begin with the line `@RSYNCD: 31.0`.

/// Versions that are in use: 20 is the oldest that rsync speaks (`MIN_PROTOCOL_VERSION`), 40 the
/// newest that it believes (`MAX_PROTOCOL_VERSION`).
const VERSIONS: std::ops::RangeInclusive<u32> = 20..=40;
const GREETING: &[u8] = b"@RSYNCD: ";
/// The greeting and a version.
const LONGEST: usize = GREETING.len() + 3;

/// Both sides spoke rsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RsyncSeen {
    /// The lower of both, which is what they will speak.
    pub version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Begun { bytes: [u8; LONGEST], length: usize },
    Speaks(u32),
    Other,
}

#[derive(Debug)]
pub struct RsyncObserver {
    client: Side,
    server: Side,
    told: bool,
}

impl RsyncObserver {
    pub fn new() -> Self {
        let begun = Side::Begun { bytes: [0; LONGEST], length: 0 };
        Self { client: begun, server: begun, told: false }
    }

    /// What goes to the target. Tells once, when both sides are known.
    pub fn client(&mut self, bytes: &[u8]) -> Option<RsyncSeen> {
        self.client.take(bytes);
        self.seen()
    }

    /// What comes from the target.
    pub fn server(&mut self, bytes: &[u8]) -> Option<RsyncSeen> {
        self.server.take(bytes);
        self.seen()
    }

    fn seen(&mut self) -> Option<RsyncSeen> {
        let (Side::Speaks(client), Side::Speaks(server)) = (self.client, self.server) else { return None };
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(RsyncSeen { version: client.min(server) })
    }
}

impl Default for RsyncObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl Side {
    fn take(&mut self, more: &[u8]) {
        let Self::Begun { bytes, length } = self else { return };
        for (slot, byte) in bytes.iter_mut().skip(*length).zip(more) {
            *slot = *byte;
            *length += 1;
        }
        if let Some(side) = recognise(bytes.get(..*length).unwrap_or_default()) {
            *self = side;
        }
    }
}

/// `None` until there is enough to tell.
fn recognise(begin: &[u8]) -> Option<Side> {
    if begin.starts_with(GREETING) {
        let digits = begin.get(GREETING.len()..)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        let version = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok();
        return Some(side(version));
    }
    if GREETING.starts_with(begin) {
        return None;
    }
    begin.first_chunk().map(|word| side(Some(u32::from_le_bytes(*word))))
}

fn side(version: Option<u32>) -> Side {
    version.filter(|version| VERSIONS.contains(version)).map_or(Side::Other, Side::Speaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(client: &[u8], server: &[u8], size: usize) -> Option<RsyncSeen> {
        let mut observer = RsyncObserver::new();
        let mut seen = Vec::new();
        seen.extend(client.chunks(size).filter_map(|chunk| observer.client(chunk)));
        seen.extend(server.chunks(size).filter_map(|chunk| observer.server(chunk)));
        assert!(seen.len() < 2, "told more than once");
        seen.pop()
    }

    #[test]
    fn rsync_is_recognised_by_both_sides() {
        for size in [1, 2, 3, 100] {
            let version = |version| Some(RsyncSeen { version });
            assert_eq!(seen(b"\x1f\0\0\0more", b"\x20\0\0\0\x01\x02", size), version(31));
            assert_eq!(seen(b"@RSYNCD: 32.0 sha512\n", b"@RSYNCD: 31.0\n", size), version(31));
            assert_eq!(seen(b"\x1f\0\0\0", b"bash: rsync: not found", size), None);
            assert_eq!(seen(b"\x1f\0\0\0", b"\x1f\0\0", size), None);
            assert_eq!(seen(b"\xff\xff\xff\xff", b"\x1f\0\0\0", size), None);
            assert_eq!(seen(b"@RSYNCD: 9999.0", b"@RSYNCD: 31.0", size), None);
            assert_eq!(seen(b"", b"", size), None);
        }
    }
}
