//! Values in PostgreSQL's binary form, as its text output writes them in the ISO style: what a client sent in either form
//! then reads alike.
//!
//! A value that does not decode to the last byte, or whose type is not known here, has no text: it is kept as the bytes
//! that were sent. Nothing is asked of the target, so domains, enumerations and the types of extensions are not known.
//! Two things differ from what a client would be sent: a boolean is `true` or `false`, but for those in arrays (as a
//! cast to text writes it), and instants with a time zone are in UTC, whatever the session's time zone.
//!
//! OIDs are those of PostgreSQL's `pg_type.dat`; the forms those of its `*_recv` and `*_out` functions.

mod array;
mod cursor;
mod datetime;
mod network;
mod number;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use data_encoding::HEXLOWER;

use cursor::Cursor;

/// A longer text is not made: a few bytes can stand for many digits.
const LONGEST: usize = 32 << 10;

/// The text of a value of the type; of a value of which only the head is there (not `is_whole`), as much as it gives.
pub fn text(oid: u32, bytes: &[u8], is_whole: bool) -> Option<String> {
    let mut out = String::new();
    match (oid, array::element(oid)) {
        (oid::BOOL, _) => out.push_str(if boolean(bytes)? { "true" } else { "false" }),
        (_, Some(element)) => array::write(element, bytes, is_whole, &mut out)?,
        (oid, None) => scalar(oid, bytes, is_whole, &mut out)?,
    }
    Some(out)
}

/// As much of it as is text, when it is: a character that was cut in two is left out.
pub fn characters(bytes: &[u8], is_whole: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if !is_whole && error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// The types that are known by name here.
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub(super) const CHAR: u32 = 18;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const JSON: u32 = 114;
    pub(super) const XML: u32 = 142;
    pub(super) const CIDR: u32 = 650;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const INET: u32 = 869;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const INTERVAL: u32 = 1186;
    pub(super) const TIMETZ: u32 = 1266;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

fn scalar(oid: u32, bytes: &[u8], is_whole: bool, out: &mut String) -> Option<()> {
    match oid {
        oid::TEXT | oid::NAME | oid::JSON | oid::XML | oid::UNKNOWN | oid::BPCHAR | oid::VARCHAR => {
            out.push_str(characters(bytes, is_whole)?);
        }
        oid::JSONB => {
            // Its version comes first.
            let (1, json) = bytes.split_first()? else { return None };
            out.push_str(characters(json, is_whole)?);
        }
        oid::BYTEA => {
            out.push_str("\\x");
            HEXLOWER.encode_append(bytes, out);
        }
        _ if !is_whole => return None,
        oid::BOOL => out.push(if boolean(bytes)? { 't' } else { 'f' }),
        oid::CHAR => character(bytes, out)?,
        oid::UUID => uuid(bytes, out)?,
        oid::CIDR | oid::INET => network::write(oid == oid::CIDR, bytes, out)?,
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC => {
            number::write(oid, bytes, out)?;
        }
        _ => datetime::write(oid, bytes, out)?,
    }
    Some(())
}

fn boolean(bytes: &[u8]) -> Option<bool> {
    let [byte] = bytes else { return None };
    Some(*byte != 0)
}

/// The type `"char"`: one byte.
fn character(bytes: &[u8], out: &mut String) -> Option<()> {
    match bytes {
        [0] => {}
        [byte] if byte.is_ascii() => out.push(char::from(*byte)),
        // Writing to memory does not fail.
        [byte] => _ = write!(out, "\\{byte:03o}"),
        _ => return None,
    }
    Some(())
}

fn uuid(bytes: &[u8], out: &mut String) -> Option<()> {
    let whole: &[u8; 16] = bytes.try_into().ok()?;
    for (index, byte) in whole.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            out.push('-');
        }
        HEXLOWER.encode_append(&[*byte], out);
    }
    Some(())
}
