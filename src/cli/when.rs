//! Instants as people say them: `in 42m`, `3m ago`, and the date when it is further off.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::domain::time::{Timestamp, humane, parse_duration};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
/// Beyond this an instant is shown as a local date and time.
const FAR: Duration = Duration::from_secs(2 * DAY);

/// `instant` as seen from `now`.
pub(super) fn relative(instant: Timestamp, now: Timestamp) -> String {
    let (ahead, behind) = (instant.since(now), now.since(instant));
    let distance = ahead.max(behind);
    if distance > FAR {
        return local(instant);
    }
    if distance < Duration::from_secs(1) {
        return "now".to_owned();
    }
    let text = humane(rounded(distance));
    if ahead.is_zero() { format!("{text} ago") } else { format!("in {text}") }
}

/// Local date and time, to the minute.
pub(super) fn local(instant: Timestamp) -> String {
    written(instant, "%Y-%m-%d %H:%M")
}

/// Local date and time, to the second.
pub(super) fn local_to_the_second(instant: Timestamp) -> String {
    written(instant, "%Y-%m-%d %H:%M:%S")
}

fn written(instant: Timestamp, form: &str) -> String {
    match jiff::Timestamp::from_microsecond(instant.as_micros()) {
        Ok(at) => at.to_zoned_datetime(TimeZone::system()).strftime(form).to_string(),
        Err(_) => instant.to_string(),
    }
}

/// Which instant of a day is meant by its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Start,
    End,
}

/// Reads an instant as people write it: a local date, with or without a time; RFC 3339; or how long ago.
pub(super) fn parse(text: &str, now: Timestamp, edge: Edge) -> Result<Timestamp, String> {
    parse_in(text, now, edge, &TimeZone::system())
}

fn parse_in(text: &str, now: Timestamp, edge: Edge, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(instant) = text.parse() {
        return Ok(instant);
    }
    if let Ok(ago) = parse_duration(text) {
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_micros(now.as_micros().saturating_sub(ago)));
    }
    let date: Option<Date> = text.trim().parse().ok().filter(|_| !text.contains(':'));
    let local = match (date, edge) {
        (Some(date), Edge::Start) => Some(date.at(0, 0, 0, 0)),
        (Some(date), Edge::End) => Some(date.at(23, 59, 59, 999_999_000)),
        (None, _) => text.trim().parse::<DateTime>().ok(),
    };
    let instant = local.and_then(|local| zone.to_timestamp(local).ok());
    instant.map(|at| Timestamp::from_micros(at.as_microsecond())).ok_or_else(|| {
        format!(
            "`{text}` is no instant: write 2026-11-26, '2026-11-26 14:00', 2026-11-26T14:00:00Z, \
             or 2h for two hours ago"
        )
    })
}

/// To the next second, and above some minutes to the next minute.
fn rounded(distance: Duration) -> Duration {
    let seconds = (distance + Duration::from_millis(500)).as_secs();
    let unit = if seconds >= 3 * MINUTE { MINUTE } else { 1 };
    Duration::from_secs((seconds + unit / 2) / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_people_write_them() {
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        for (text, edge, expected) in [
            ("2026-11-23T21:20:00Z", Edge::Start, "2026-11-23T21:20:00.000000Z"),
            ("2026-11-23", Edge::Start, "2026-11-22T23:00:00.000000Z"),
            ("2026-11-23", Edge::End, "2026-11-23T22:59:59.999999Z"),
            ("2026-11-23 14:00", Edge::End, "2026-11-23T13:00:00.000000Z"),
            ("2h", Edge::Start, "2026-11-23T19:20:00.000000Z"),
        ] {
            assert_eq!(
                parse_in(text, now, edge, &zone).map(|at| at.to_string()).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        assert!(parse_in("soon", now, Edge::Start, &zone).unwrap_err().contains("`soon` is no instant"));
    }

    #[test]
    fn instants_are_told_as_seen_from_now() {
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let ahead = |seconds| relative(now.plus(Duration::from_secs(seconds)), now);
        assert_eq!(ahead(42 * 60 + 5), "in 42m");
        assert_eq!(ahead(90), "in 1m 30s");
        assert_eq!(ahead(3 * 3600 + 61), "in 3h 1m");
        let almost = now.plus(Duration::from_millis(3_599_900));
        assert_eq!(relative(almost, now), "in 1h");
        assert_eq!(ahead(0), "now");
        let later = now.plus(Duration::from_secs(185));
        assert_eq!(relative(now, later), "3m ago");
        assert!(ahead(3 * DAY).starts_with("2026-11-2"));
    }
}
