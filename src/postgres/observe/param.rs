//! Values bound to a statement, as a record shows them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::crypto::{self, Hash};
use crate::postgres::codec::frontend::{Format, Formats};
use crate::postgres::decode;

/// A longer value is cut to this many bytes; its length and hash stand for the rest.
pub const LONGEST_SHOWN: usize = 4096;

#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The type's OID; 0 when unknown.
    pub oid: u32,
    pub value: Value,
    /// Length on the wire; 0 for NULL.
    pub length: usize,
    /// Of the whole value, when `value` is but its head.
    pub sha256: Option<Hash>,
}

/// As it was sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    /// In the client's encoding.
    Text(Bytes),
    Binary(Bytes),
}

impl Param {
    /// How much is kept of it.
    pub fn kept(&self) -> usize {
        size_of::<Self>() + self.length.min(LONGEST_SHOWN)
    }

    /// What it says, in whichever form it was sent; none for NULL, and for what cannot be read.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        let is_whole = self.sha256.is_none();
        match &self.value {
            Value::Null => None,
            Value::Text(bytes) => decode::characters(bytes, is_whole).map(Cow::Borrowed),
            Value::Binary(bytes) => decode::text(self.oid, bytes, is_whole).map(Cow::Owned),
        }
    }
}

/// Reads the values of a `Bind` or `FunctionCall`; `detach` keeps no part of their frame.
pub(super) fn read(values: &[Option<Bytes>], formats: &Formats, types: &[u32], detach: bool) -> Vec<Param> {
    let one = |(index, value): (usize, &Option<Bytes>)| {
        let oid = types.get(index).copied().unwrap_or(0);
        let Some(bytes) = value else { return Param { oid, value: Value::Null, length: 0, sha256: None } };
        let cut = bytes.len() > LONGEST_SHOWN;
        let shown = bytes.slice(..bytes.len().min(LONGEST_SHOWN));
        let shown = if detach || cut { super::detached(&shown) } else { shown };
        let value = match formats.of(index) {
            Format::Text => Value::Text(shown),
            Format::Binary => Value::Binary(shown),
        };
        Param { oid, value, length: bytes.len(), sha256: cut.then(|| crypto::sha256(&[bytes])) }
    };
    values.iter().enumerate().map(one).collect()
}
