//! A reader over one packet's body that cannot leave it. It copies nothing.

use crate::ssh::observe::lost::Lost;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    packet: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `packet` is what [`Lost`] calls it.
    pub(super) fn new(packet: &'static str, body: &'a [u8]) -> Self {
        Self { packet, rest: body }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Lost> {
        let (value, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*value))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Lost> {
        let (value, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*value))
    }

    /// A length and that many bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Lost> {
        let length = usize::try_from(self.u32()?).map_err(|_| self.malformed())?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(string)
    }

    pub(super) fn malformed(&self) -> Lost {
        Lost::Malformed { packet: self.packet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        let lost = Lost::Malformed { packet: "test" };
        assert_eq!(Reader::new("test", b"\0\0\0").u32(), Err(lost));
        assert_eq!(Reader::new("test", b"\0\0\0\0\0\0\0").u64(), Err(lost));
        assert_eq!(Reader::new("test", b"\0\0\0\x03ab").string(), Err(lost));
        assert_eq!(Reader::new("test", b"\xff\xff\xff\xffab").string(), Err(lost));
        assert_eq!(Reader::new("test", b"\0\0\0\x02ab").string(), Ok(&b"ab"[..]));
    }
}
