//! Dates, times and intervals.

use std::fmt::{Display, Write as _};

use super::{Cursor, oid};

const MICROS_OF_DAY: i64 = 86_400_000_000;
/// What `pg_type`'s dates may be, in days from 2000-01-01, the end excluded: from 4714-11-24 BC.
const DATES: std::ops::Range<i64> = -2_451_545..2_145_031_949;
/// The same of timestamps, in microseconds.
const INSTANTS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
/// How far a zone may be from UTC, in seconds.
const FURTHEST_ZONE: i32 = 16 * 3600;

pub(super) fn write(oid: u32, bytes: &[u8], out: &mut String) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    match oid {
        oid::DATE => date(cursor.i32()?, out)?,
        oid::TIME => time(cursor.i64()?, out)?,
        oid::TIMETZ => {
            time(cursor.i64()?, out)?;
            zone(cursor.i32()?, out)?;
        }
        oid::TIMESTAMP => timestamp(cursor.i64()?, "", out)?,
        oid::TIMESTAMPTZ => timestamp(cursor.i64()?, "+00", out)?,
        oid::INTERVAL => {
            let (micros, days, months) = (cursor.i64()?, cursor.i32()?, cursor.i32()?);
            interval(micros, days, months, out);
        }
        _ => return None,
    }
    cursor.end()
}

fn shown(what: impl Display, out: &mut String) {
    // Writing to memory does not fail.
    let _ = write!(out, "{what}");
}

/// Gives whether it is before Christ, which is told at the end.
fn day(days: i64, out: &mut String) -> bool {
    let (year, month, day) = civil(days);
    let is_before = year <= 0;
    shown(format_args!("{:04}-{month:02}-{day:02}", if is_before { 1 - year } else { year }), out);
    is_before
}

/// The proleptic Gregorian date so many days after 2000-01-01. Years are counted from March, so that a leap day is the
/// last one.
fn civil(days: i64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    let from_march = days + 730_425;
    let (cycle, day) = (from_march.div_euclid(CYCLE), from_march.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day - first + 1)
}

fn date(days: i32, out: &mut String) -> Option<()> {
    match days {
        i32::MIN => out.push_str("-infinity"),
        i32::MAX => out.push_str("infinity"),
        _ if !DATES.contains(&days.into()) => return None,
        _ if day(days.into(), out) => out.push_str(" BC"),
        _ => {}
    }
    Some(())
}

fn timestamp(micros: i64, zone: &str, out: &mut String) -> Option<()> {
    match micros {
        i64::MIN => out.push_str("-infinity"),
        i64::MAX => out.push_str("infinity"),
        _ if !INSTANTS.contains(&micros) => return None,
        _ => {
            let is_before = day(micros.div_euclid(MICROS_OF_DAY), out);
            out.push(' ');
            time(micros.rem_euclid(MICROS_OF_DAY), out)?;
            out.push_str(zone);
            out.push_str(if is_before { " BC" } else { "" });
        }
    }
    Some(())
}

/// Midnight may be the end of a day too.
fn time(micros: i64, out: &mut String) -> Option<()> {
    if !(0..=MICROS_OF_DAY).contains(&micros) {
        return None;
    }
    clock(micros.unsigned_abs(), out);
    Some(())
}

fn clock(micros: u64, out: &mut String) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    shown(format_args!("{hours:02}:{minutes:02}:{:02}", seconds % 60), out);
    if fraction != 0 {
        shown(format_args!(".{fraction:06}"), out);
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// On the wire, zones are counted to the west.
fn zone(west: i32, out: &mut String) -> Option<()> {
    if west.checked_abs()? >= FURTHEST_ZONE {
        return None;
    }
    let seconds = west.unsigned_abs();
    shown(format_args!("{}{:02}", if west <= 0 { '+' } else { '-' }, seconds / 3600), out);
    if !seconds.is_multiple_of(3600) {
        shown(format_args!(":{:02}", seconds / 60 % 60), out);
    }
    if !seconds.is_multiple_of(60) {
        shown(format_args!(":{:02}", seconds % 60), out);
    }
    Some(())
}

/// In the style `postgres`: what comes after something negative has a sign.
fn interval(micros: i64, days: i32, months: i32, out: &mut String) {
    match (micros, days, months) {
        (i64::MIN, i32::MIN, i32::MIN) => return out.push_str("-infinity"),
        (i64::MAX, i32::MAX, i32::MAX) => return out.push_str("infinity"),
        _ => {}
    }
    let (mut is_first, mut was_negative) = (true, false);
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number == 0 {
            continue;
        }
        let space = if is_first { "" } else { " " };
        let sign = if was_negative && number > 0 { "+" } else { "" };
        let plural = if number == 1 { "" } else { "s" };
        shown(format_args!("{space}{sign}{number} {unit}{plural}"), out);
        (is_first, was_negative) = (false, number < 0);
    }
    if is_first || micros != 0 {
        out.push_str(if is_first { "" } else { " " });
        out.push_str(match (micros < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        });
        clock(micros.unsigned_abs(), out);
    }
}
