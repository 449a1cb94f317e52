//! A reader over one message's body that cannot leave it.

use bytes::{Buf, Bytes};

use super::CodecError;

#[derive(Debug, Clone)]
pub struct Cursor {
    message: &'static str,
    rest: Bytes,
}

impl Cursor {
    /// `message` is what errors call it; `body` is the message without tag and length.
    pub fn new(message: &'static str, body: Bytes) -> Self {
        Self { message, rest: body }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.rest.try_get_u8().map_err(|_| self.truncated())
    }

    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.rest.try_get_u16().map_err(|_| self.truncated())
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.rest.try_get_u32().map_err(|_| self.truncated())
    }

    pub fn i32(&mut self) -> Result<i32, CodecError> {
        self.rest.try_get_i32().map_err(|_| self.truncated())
    }

    pub fn bytes(&mut self, length: usize) -> Result<Bytes, CodecError> {
        if length > self.rest.len() {
            return Err(self.truncated());
        }
        Ok(self.rest.split_to(length))
    }

    /// A text up to its NUL, without it.
    pub fn text(&mut self) -> Result<Bytes, CodecError> {
        let Some(end) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(CodecError::Unterminated { message: self.message });
        };
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(text)
    }

    /// A 16-bit count of items of at least `item` bytes each, which must be there: nothing is
    /// allocated for items that were only announced.
    pub fn count(&mut self, item: usize) -> Result<usize, CodecError> {
        let count = usize::from(self.u16()?);
        if count * item > self.rest.len() {
            return Err(self.truncated());
        }
        Ok(count)
    }

    /// A length and that many bytes; -1 is NULL.
    pub fn value(&mut self) -> Result<Option<Bytes>, CodecError> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| self.invalid("value length", length.into()))?;
        self.bytes(length).map(Some)
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// The message must end here.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(CodecError::TrailingBytes { message: self.message, count }),
        }
    }

    pub fn invalid(&self, field: &'static str, value: i64) -> CodecError {
        CodecError::InvalidField { message: self.message, field, value }
    }

    fn truncated(&self) -> CodecError {
        CodecError::Truncated { message: self.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(body: &'static [u8]) -> Cursor {
        Cursor::new("Test", Bytes::from_static(body))
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        assert_eq!(cursor(b"").u8(), Err(CodecError::Truncated { message: "Test" }));
        assert_eq!(cursor(b"\0").u16(), Err(CodecError::Truncated { message: "Test" }));
        assert_eq!(cursor(b"\0\0\0").u32(), Err(CodecError::Truncated { message: "Test" }));
        assert_eq!(cursor(b"ab").bytes(3), Err(CodecError::Truncated { message: "Test" }));
        assert_eq!(cursor(b"ab").text(), Err(CodecError::Unterminated { message: "Test" }));
    }

    #[test]
    fn a_count_of_items_that_are_not_there_is_refused() {
        assert!(cursor(b"\xff\xff\0\0").count(2).is_err());
        assert_eq!(cursor(b"\0\x01\0\0").count(2), Ok(1));
    }

    #[test]
    fn a_negative_value_length_other_than_null_is_refused() {
        assert_eq!(cursor(b"\xff\xff\xff\xff").value(), Ok(None));
        assert!(cursor(b"\xff\xff\xff\xfe").value().is_err());
        assert!(cursor(b"\x80\0\0\0abcd").value().is_err());
        assert!(cursor(b"\x7f\xff\xff\xffabcd").value().is_err());
    }

    #[test]
    fn bytes_after_the_last_field_are_refused() {
        let mut trailing = cursor(b"a\0b");
        assert_eq!(trailing.text(), Ok(Bytes::from_static(b"a")));
        assert_eq!(trailing.finish(), Err(CodecError::TrailingBytes { message: "Test", count: 1 }));
    }
}
