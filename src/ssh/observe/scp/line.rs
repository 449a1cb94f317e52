//! The lines of the copy protocol that `scp -O`, `scp -t` and `scp -f` speak.

use super::Lost;
use crate::ssh::observe::file::Times;

/// Longer than any that OpenSSH sends or takes whole (its buffer has 16 KiB, names at most 4 KiB).
pub(super) const LONGEST: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `C0644 1234 name`
    File { mode: u32, size: u64, name: &'a [u8] },
    /// `D0755 0 name`
    Directory { mode: u32, name: &'a [u8] },
    /// `E`
    End,
    /// `T1183828267 0 1183828267 0`: of what the next line names.
    Times(Times),
    /// A byte 1 or 2 and a text: something could not be sent.
    Failed { code: u8, message: &'a [u8] },
}

impl<'a> Line<'a> {
    /// Without its line feed.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, Lost> {
        match line {
            [b'C', rest @ ..] => {
                let (mode, size, name) = entry(rest)?;
                Ok(Self::File { mode, size, name })
            }
            [b'D', rest @ ..] => {
                let (mode, _, name) = entry(rest)?;
                Ok(Self::Directory { mode, name })
            }
            [b'E'] => Ok(Self::End),
            [b'T', rest @ ..] => times(rest),
            [code @ (1 | 2), message @ ..] => Ok(Self::Failed { code: *code, message }),
            _ => Err(Lost::CopyLine),
        }
    }

    /// Whether a line may begin so.
    pub(super) fn may_begin(byte: u8) -> bool {
        matches!(byte, b'C' | b'D' | b'E' | b'T' | 1 | 2)
    }
}

fn entry(rest: &[u8]) -> Result<(u32, u64, &[u8]), Lost> {
    let mut fields = rest.splitn(3, |byte| *byte == b' ');
    let (Some(mode), Some(size), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(Lost::CopyLine);
    };
    if mode.len() != 4 || name.is_empty() {
        return Err(Lost::CopyLine);
    }
    let mode = number(mode, 8)?;
    Ok((u32::try_from(mode).map_err(|_| Lost::CopyLine)?, number(size, 10)?, name))
}

fn times(rest: &[u8]) -> Result<Line<'_>, Lost> {
    let fields: Result<Vec<u64>, Lost> =
        rest.splitn(4, |byte| *byte == b' ').map(|field| number(field, 10)).collect();
    let [modified, _, accessed, _] = fields?[..] else { return Err(Lost::CopyLine) };
    Ok(Line::Times(Times { accessed, modified }))
}

fn number(digits: &[u8], radix: u32) -> Result<u64, Lost> {
    let text = std::str::from_utf8(digits).map_err(|_| Lost::CopyLine)?;
    if text.starts_with('+') {
        return Err(Lost::CopyLine);
    }
    u64::from_str_radix(text, radix).map_err(|_| Lost::CopyLine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_openssh_writes_them() {
        let file = Line::File { mode: 0o644, size: 5, name: b"a b.txt" };
        assert_eq!(Line::read(b"C0644 5 a b.txt"), Ok(file));
        assert_eq!(Line::read(b"D0755 0 dir"), Ok(Line::Directory { mode: 0o755, name: b"dir" }));
        assert_eq!(Line::read(b"E"), Ok(Line::End));
        let times = Times { accessed: 12, modified: 10 };
        assert_eq!(Line::read(b"T10 0 12 0"), Ok(Line::Times(times)));
        assert_eq!(Line::read(b"\x01scp: no"), Ok(Line::Failed { code: 1, message: b"scp: no" }));
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            &b""[..],
            b"hello",
            b"C",
            b"C0644",
            b"C0644 5",
            b"C0644 5 ",
            b"C0649 5 a",
            b"C644 5 a",
            b"C0644 -5 a",
            b"C0644 +5 a",
            b"C0644 99999999999999999999 a",
            b"EE",
            b"T1 0 2",
            b"T1 0 2 0 3",
        ] {
            assert_eq!(Line::read(line), Err(Lost::CopyLine), "{line:?}");
        }
    }
}
