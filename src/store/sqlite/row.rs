//! Reading a row's columns as the domain's types. A value that does not parse is an error, never a
//! default.

use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::domain::id::PrincipalId;
use crate::domain::name::UserName;
use crate::domain::principal::Actor;
use crate::domain::time::Timestamp;

type Read<T> = rusqlite::Result<T>;

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// An id or name.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> Read<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(unreadable)
}

pub(super) fn parsed_optional<T>(row: &Row<'_>, column: &str) -> Read<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str_or_null()?.map(|text| text.parse().map_err(unreadable)).transpose()
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Read<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(unreadable)
}

pub(super) fn json_optional<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Read<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| serde_json::from_str(text).map_err(unreadable)).transpose()
}

pub(super) fn instant(row: &Row<'_>, column: &str) -> Read<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

pub(super) fn instant_optional(row: &Row<'_>, column: &str) -> Read<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

pub(super) fn actor(row: &Row<'_>, id: &str, name: &str) -> Read<Actor> {
    Ok(Actor { id: parsed::<PrincipalId>(row, id)?, name: parsed::<UserName>(row, name)? })
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    Ok(serde_json::to_string(value)?)
}

pub(super) fn to_json_optional<T: Serialize>(value: Option<&T>) -> Result<Option<String>, Failure> {
    value.map(to_json).transpose()
}
