//! Values bound to a statement, as a record shows them.

use bytes::{Buf, Bytes};

use crate::crypto::{self, Hash};
use crate::postgres::codec::frontend::{Format, Formats};

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

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    /// In the client's encoding.
    Text(Bytes),
    /// In a binary format that is not decoded here.
    Binary(Bytes),
    Int(i64),
    Float(f64),
    Bool(bool),
    Uuid(String),
}

impl Param {
    /// How much is kept of it.
    pub fn kept(&self) -> usize {
        size_of::<Self>() + self.length.min(LONGEST_SHOWN)
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
            Format::Binary => binary(oid, shown),
        };
        Param { oid, value, length: bytes.len(), sha256: cut.then(|| crypto::sha256(&[bytes])) }
    };
    values.iter().enumerate().map(one).collect()
}

/// Decodes the binary formats of common types; OIDs as in PostgreSQL's `pg_type.dat`.
fn binary(oid: u32, bytes: Bytes) -> Value {
    let mut rest: &[u8] = &bytes;
    match (oid, bytes.len()) {
        (16, 1) => Value::Bool(bytes.first() != Some(&0)),
        (20, 8) => Value::Int(rest.get_i64()),
        (21, 2) => Value::Int(rest.get_i16().into()),
        (23, 4) => Value::Int(rest.get_i32().into()),
        (26, 4) => Value::Int(rest.get_u32().into()),
        (700, 4) => Value::Float(rest.get_f32().into()),
        (701, 8) => Value::Float(rest.get_f64()),
        (2950, 16) => Value::Uuid(uuid(&bytes)),
        // name, text, json, xml, unknown, bpchar, varchar: the same bytes in both formats
        (19 | 25 | 114 | 142 | 705 | 1042 | 1043, _) => Value::Text(bytes),
        _ => Value::Binary(bytes),
    }
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = crypto::hex(bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}
