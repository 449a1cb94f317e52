//! Arrays of the other types, in as many dimensions as they have.

use std::fmt::Write as _;

use super::{Cursor, LONGEST, oid, scalar};

/// PostgreSQL's `MAXDIM`.
const MOST_DIMENSIONS: i32 = 6;

/// Of which type an array's elements are; `None` for what is no array known here.
pub(super) fn element(array: u32) -> Option<u32> {
    Some(match array {
        143 => oid::XML,
        199 => oid::JSON,
        651 => oid::CIDR,
        1000 => oid::BOOL,
        1001 => oid::BYTEA,
        1002 => oid::CHAR,
        1003 => oid::NAME,
        1005 => oid::INT2,
        1007 => oid::INT4,
        1009 => oid::TEXT,
        1014 => oid::BPCHAR,
        1015 => oid::VARCHAR,
        1016 => oid::INT8,
        1021 => oid::FLOAT4,
        1022 => oid::FLOAT8,
        1028 => oid::OID,
        1041 => oid::INET,
        1115 => oid::TIMESTAMP,
        1182 => oid::DATE,
        1183 => oid::TIME,
        1185 => oid::TIMESTAMPTZ,
        1187 => oid::INTERVAL,
        1231 => oid::NUMERIC,
        1270 => oid::TIMETZ,
        2951 => oid::UUID,
        3807 => oid::JSONB,
        _ => return None,
    })
}

/// One dimension: how many there are in it, and the number of the first.
struct Dimension {
    length: u32,
    lower: i32,
    /// How many elements one step in it is.
    stride: u64,
}

pub(super) fn write(element: u32, bytes: &[u8], is_whole: bool, out: &mut String) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let dimensions = dimensions(element, &mut cursor)?;
    let total = dimensions.first().map_or(0, |first| first.stride * u64::from(first.length));
    if total == 0 {
        out.push_str("{}");
        return cursor.end();
    }
    if dimensions.iter().any(|dimension| dimension.lower != 1) {
        for Dimension { length, lower, .. } in &dimensions {
            // Writing to memory does not fail.
            let _ = write!(out, "[{lower}:{}]", i64::from(*lower) + i64::from(*length) - 1);
        }
        out.push('=');
    }
    let mut text = String::new();
    for index in 0..total {
        if index > 0 {
            out.push(',');
        }
        let spans = dimensions.iter().map(|dimension| dimension.stride * u64::from(dimension.length));
        spans.clone().filter(|span| index.is_multiple_of(*span)).for_each(|_| out.push('{'));
        if !one(element, &mut cursor, is_whole, &mut text, out)? {
            return Some(());
        }
        spans.filter(|span| (index + 1).is_multiple_of(*span)).for_each(|_| out.push('}'));
        if out.len() > LONGEST {
            return None;
        }
    }
    cursor.end()
}

fn dimensions(element: u32, cursor: &mut Cursor<'_>) -> Option<Vec<Dimension>> {
    let (count, flags, told) = (cursor.i32()?, cursor.i32()?, cursor.u32()?);
    if !(0..=MOST_DIMENSIONS).contains(&count) || !(0..=1).contains(&flags) || told != element {
        return None;
    }
    let mut dimensions = Vec::new();
    for _ in 0..count {
        let (length, lower) = (u32::try_from(cursor.i32()?).ok()?, cursor.i32()?);
        dimensions.push(Dimension { length, lower, stride: 1 });
    }
    let mut stride = 1_u64;
    for dimension in dimensions.iter_mut().rev() {
        dimension.stride = stride;
        stride = stride.checked_mul(dimension.length.into())?;
    }
    Some(dimensions)
}

/// The next element; false when it is the last that is there, though more are told of.
fn one(
    element: u32,
    cursor: &mut Cursor<'_>,
    is_whole: bool,
    text: &mut String,
    out: &mut String,
) -> Option<bool> {
    let Some(length) = cursor.i32() else { return (!is_whole).then_some(false) };
    if length == -1 {
        out.push_str("NULL");
        return Some(true);
    }
    let length = usize::try_from(length).ok()?;
    text.clear();
    if let Some(bytes) = cursor.take(length) {
        scalar(element, bytes, true, text)?;
        quoted(text, out);
        return Some(true);
    }
    if is_whole {
        return None;
    }
    // The head of a long text says something as well.
    if scalar(element, cursor.rest(), false, text).is_some() {
        out.push('"');
        escaped(text, out);
    }
    Some(false)
}

fn quoted(text: &str, out: &mut String) {
    let is_special = |byte: u8| b"{}\",\\ \t\n\r\x0b\x0c".contains(&byte);
    if !text.is_empty() && !text.eq_ignore_ascii_case("NULL") && !text.bytes().any(is_special) {
        return out.push_str(text);
    }
    out.push('"');
    escaped(text, out);
    out.push('"');
}

fn escaped(text: &str, out: &mut String) {
    for symbol in text.chars() {
        if matches!(symbol, '"' | '\\') {
            out.push('\\');
        }
        out.push(symbol);
    }
}
