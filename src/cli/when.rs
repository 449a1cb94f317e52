//! Instants as people say them: `in 42m`, `3m ago`, and the date when it is further off.

use std::time::Duration;

use crate::domain::time::{Timestamp, humane};

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
    match jiff::Timestamp::from_microsecond(instant.as_micros()) {
        Ok(at) => at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => instant.to_string(),
    }
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
