//! Parameters of statements: as people read them, and as SQL.

use std::fmt::Write as _;

use data_encoding::{BASE64, HEXLOWER};

use crate::audit::record::{Format, Parameter, Value};
use crate::domain::text::on_one_line;

/// A parameter's value for people.
pub(super) fn described(param: &Parameter) -> String {
    let text = match &param.value {
        Value::Text { text } => format!("'{text}'"),
        Value::Bytes { b64 } => format!("base64 {b64}"),
        Value::Null { .. } => "NULL".to_owned(),
    };
    match (param.length, &param.sha256) {
        (Some(length), Some(sha256)) => format!("{text}… ({length} bytes, sha256 {sha256})"),
        _ => text,
    }
}

pub(super) fn length(param: &Parameter) -> usize {
    match &param.value {
        Value::Text { text } => text.len(),
        Value::Bytes { b64 } => b64.len(),
        Value::Null { .. } => 0,
    }
}

/// `bytea`'s number in PostgreSQL's catalogue.
const BYTEA: u32 = 17;

/// A parameter's value in SQL; none when it is not known what it was.
pub(super) fn literal(param: &Parameter) -> Option<String> {
    if param.length.is_some() {
        return None;
    }
    match (&param.value, param.format) {
        (Value::Null { .. }, _) => Some("NULL".to_owned()),
        (Value::Text { text }, _) => Some(quoted(text)),
        (Value::Bytes { b64 }, Format::Binary) if param.oid == BYTEA => {
            let bytes = BASE64.decode(b64.as_bytes()).ok()?;
            Some(format!("decode('{}', 'hex')", HEXLOWER.encode(&bytes)))
        }
        (Value::Bytes { .. }, _) => None,
    }
}

/// A string in ASCII that reads the same whatever the settings are, and shows every character that it has.
fn quoted(text: &str) -> String {
    if text.is_ascii() && on_one_line(text) == text && !text.contains('\\') {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut escaped = String::from("E'");
    for symbol in text.chars() {
        match symbol {
            '\'' => escaped.push_str("''"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\\' => escaped.push_str("\\\\"),
            ' '..='~' => escaped.push(symbol),
            _ => _ = write!(escaped, "\\U{:08X}", u32::from(symbol)),
        }
    }
    escaped + "'"
}

/// The names of types that clients name by number; others are left for the server to find out.
pub(super) fn type_name(oid: u32) -> &'static str {
    match oid {
        16 => "boolean",
        17 => "bytea",
        18 => "\"char\"",
        19 => "name",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        26 => "oid",
        114 => "json",
        142 => "xml",
        700 => "real",
        701 => "double precision",
        869 => "inet",
        1000 => "boolean[]",
        1005 => "smallint[]",
        1007 => "integer[]",
        1009 => "text[]",
        1016 => "bigint[]",
        1042 => "bpchar",
        1043 => "character varying",
        1082 => "date",
        1083 => "time",
        1114 => "timestamp",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        _ => "unknown",
    }
}
