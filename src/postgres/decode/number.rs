//! Integers, floating-point numbers and `numeric`.

use std::fmt::{Display, Write as _};

use super::{Cursor, oid};

/// Longest `numeric` that is written out, in digits: a weight of two bytes can stand for 131,072 of them.
const MOST_DIGITS: usize = 4096;

pub(super) fn write(oid: u32, bytes: &[u8], out: &mut String) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    match oid {
        oid::INT2 => shown(cursor.i16()?, out),
        oid::INT4 => shown(cursor.i32()?, out),
        oid::INT8 => shown(cursor.i64()?, out),
        oid::OID => shown(cursor.u32()?, out),
        // Where PostgreSQL changes to an exponent depends on the precision.
        oid::FLOAT4 => {
            let number = f32::from_bits(cursor.u32()?);
            float(number.into(), &format!("{number:e}"), 6, out)?;
        }
        oid::FLOAT8 => {
            let number = f64::from_bits(cursor.i64()?.cast_unsigned());
            float(number, &format!("{number:e}"), 15, out)?;
        }
        _ => numeric(&mut cursor, out)?,
    }
    cursor.end()
}

fn shown(number: impl Display, out: &mut String) {
    // Writing to memory does not fail.
    let _ = write!(out, "{number}");
}

/// From the shortest digits that give the number again, as `-1.25e-7`.
fn float(number: f64, scientific: &str, fixed_below: i32, out: &mut String) -> Option<()> {
    if number.is_nan() {
        out.push_str("NaN");
        return Some(());
    }
    if number.is_sign_negative() {
        out.push('-');
    }
    if number.is_infinite() {
        out.push_str("Infinity");
        return Some(());
    }
    let (mantissa, exponent) = scientific.trim_start_matches('-').split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if !(-4..fixed_below).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        shown(format_args!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()), out);
        return Some(());
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let Ok(before) = usize::try_from(exponent + 1) else {
        shown(format_args!("0.{}{digits}", "0".repeat((-exponent - 1).try_into().ok()?)), out);
        return Some(());
    };
    match digits.split_at_checked(before) {
        Some((_, "")) | None => shown(format_args!("{digits:0<before$}"), out),
        Some(("", fraction)) => shown(format_args!("0.{fraction}"), out),
        Some((whole, fraction)) => shown(format_args!("{whole}.{fraction}"), out),
    }
    Some(())
}

/// Digits of base 10,000, of which `weight + 1` stand before the point.
fn numeric(cursor: &mut Cursor<'_>, out: &mut String) -> Option<()> {
    let (count, weight, sign, scale) = (cursor.u16()?, cursor.i16()?, cursor.u16()?, cursor.u16()?);
    let mut digits = Vec::new();
    for _ in 0..count {
        digits.push(cursor.u16().filter(|digit| *digit < 10_000)?);
    }
    match sign {
        0x0000 | 0x4000 => {}
        0xC000 => out.push_str("NaN"),
        0xD000 => out.push_str("Infinity"),
        0xF000 => out.push_str("-Infinity"),
        _ => return None,
    }
    if sign & 0x8000 != 0 {
        return Some(());
    }
    let (weight, scale) = (i64::from(weight), usize::from(scale));
    let before = usize::try_from(weight + 1).unwrap_or(0);
    if scale > 0x3FFF || before * 4 + scale > MOST_DIGITS {
        return None;
    }
    let digit =
        |place: i64| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let mut text = String::with_capacity(before * 4 + scale + 8);
    (0..=weight).for_each(|place| shown(format_args!("{:04}", digit(place)), &mut text));
    let whole = text.trim_start_matches('0');
    let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut place = weight + 1;
        // Digits before the first that is there are zeros.
        while text.len() < end {
            shown(format_args!("{:04}", digit(place)), &mut text);
            place += 1;
        }
        text.truncate(end);
    }
    if sign == 0x4000 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        out.push('-');
    }
    out.push_str(&text);
    Some(())
}
