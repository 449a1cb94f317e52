//! Instants and lifetimes. An instant is microseconds since 1970-01-01 UTC; reading the present
//! one is the business of [`crate::clock`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const MAX: Self = Self(253_402_300_799_000_000); // 9999-12-31T23:59:59Z

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// `self + duration`, never past the year 9999.
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::MAX)
    }

    /// How long from `earlier` to `self`; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, UTC, always six decimals, so that texts sort as instants do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = plain::write(self.0);
        if let Some(text) = text.as_ref().and_then(|text| std::str::from_utf8(text).ok()) {
            return f.pad(text);
        }
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        if let Some(micros) = plain::read(text.as_bytes()) {
            return Ok(Self(micros));
        }
        text.parse::<jiff::Timestamp>().map(|instant| Self(instant.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Instant;

        impl serde::de::Visitor<'_> for Instant {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an instant as RFC 3339 writes it")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Instant)
    }
}

/// The one form that every record has, `2026-11-27T03:00:00.000000Z`, without jiff: it is written and read for each of them.
/// What has another form, or is out of its range, is jiff's.
mod plain {
    const LENGTH: usize = 27;
    const MICROS: i64 = 1_000_000;
    const DAY: i64 = 86_400 * MICROS;

    /// The text, of years that have four digits.
    pub(super) fn write(micros: i64) -> Option<[u8; LENGTH]> {
        let (year, month, day) = date(micros.div_euclid(DAY));
        if !(1..=9999).contains(&year) {
            return None;
        }
        let within = micros.rem_euclid(DAY);
        let seconds = within / MICROS;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, seconds / 3600),
            (14, 2, seconds / 60 % 60),
            (17, 2, seconds % 60),
            (20, 6, within % MICROS),
        ];
        for (at, digits, mut value) in fields {
            for place in text.get_mut(at..at + digits)?.iter_mut().rev() {
                *place = b'0' + u8::try_from(value % 10).ok()?;
                value /= 10;
            }
        }
        Some(text)
    }

    /// The instant, of a text that is exactly so.
    pub(super) fn read(text: &[u8]) -> Option<i64> {
        let text: &[u8; LENGTH] = text.try_into().ok()?;
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
            return None;
        }
        let number = |at: usize, digits: usize| {
            text.get(at..at + digits)?.iter().try_fold(0_i64, |value, digit| {
                digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
            })
        };
        let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
        let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
        if year == 0 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days(year, month, day);
        // A day that there is not is counted on into the next month.
        if date(days) != (year, month, day) {
            return None;
        }
        Some(days * DAY + (hour * 3600 + minute * 60 + second) * MICROS + number(20, 6)?)
    }

    /// Year, month and day so many days after 1970-01-01. Counted in eras of 400 years that begin in March, so that the
    /// leap day is the last of its year.
    fn date(days: i64) -> (i64, i64, i64) {
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (era * 400 + year_of_era + i64::from(month <= 2), month, day)
    }

    /// The reverse.
    fn days(year: i64, month: i64, day: i64) -> i64 {
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        era * 146_097 + of_era - 719_468
    }
}

/// Serialises a [`Duration`] as whole seconds.
pub mod seconds {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.as_secs())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write it as `45m`, `1h`, `1h30m` or `90s`")]
pub struct MalformedDuration(String);

/// Reads `45m`, `1h30m`, `90s`: what people type for a session's length.
pub fn parse_duration(text: &str) -> Result<Duration, MalformedDuration> {
    let malformed = || MalformedDuration(text.to_owned());
    let signed: jiff::SignedDuration = text.trim().parse().map_err(|_| malformed())?;
    Duration::try_from(signed).map_err(|_| malformed())
}

/// Writes a duration as people read it: `1h`, `45m`, `1h 30m`, `12s`.
pub fn humane(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let mut parts = Vec::new();
    if hours > 0 {
        parts.push(format!("{hours}h"));
    }
    if minutes > 0 {
        parts.push(format!("{minutes}m"));
    }
    if (seconds > 0 && hours == 0) || parts.is_empty() {
        parts.push(format!("{seconds}s"));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the year 1 to the last that jiff has.
    const RANGE: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_207_200_000_000;

    fn by_jiff(micros: i64) -> String {
        format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap())
    }

    #[test]
    fn days_at_the_edges_of_months_years_and_eras_are_right() {
        for text in [
            "0001-01-01T00:00:00.000000Z",
            "1600-02-29T23:59:59.999999Z",
            "1900-02-28T00:00:00.000000Z",
            "1900-03-01T00:00:00.000000Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00.000000Z",
            "2000-02-29T12:00:00.000001Z",
            "2026-12-31T23:59:59.000000Z",
        ] {
            let micros = plain::read(text.as_bytes()).unwrap();
            assert_eq!(by_jiff(micros), text);
            assert_eq!(Timestamp(micros).to_string(), text);
        }
        for text in [
            "1900-02-29T00:00:00.000000Z",
            "2026-04-31T00:00:00.000000Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-00-01T00:00:00.000000Z",
            "2026-01-00T00:00:00.000000Z",
            "2026-01-01T24:00:00.000000Z",
            "2026-01-01T00:00:60.000000Z",
            "2026-01-01t00:00:00.000000Z",
            "2026-01-01T00:00:00.00000Z",
            "2026-01-01T00:00:00.+00000Z",
        ] {
            assert_eq!(plain::read(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_instant_is_written_and_read_as_jiff_does(micros in RANGE) {
            let text = Timestamp(micros).to_string();
            prop_assert_eq!(&text, &by_jiff(micros));
            prop_assert_eq!(plain::read(text.as_bytes()), Some(micros));
        }

        #[test]
        fn what_is_read_means_what_jiff_says(micros in RANGE, at in 0_usize..27, byte in any::<u8>()) {
            let mut text = by_jiff(micros).into_bytes();
            text[at] = byte;
            let by_jiff = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            if let (Some(read), Some(jiff)) = (plain::read(&text), by_jiff) {
                prop_assert_eq!(read, jiff.as_microsecond());
            }
        }
    }

    #[test]
    fn an_instant_round_trips_as_text() {
        let instant = Timestamp::from_micros(1_795_468_800_123_456);
        assert_eq!(instant.to_string(), "2026-11-23T21:20:00.123456Z");
        assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
    }

    #[test]
    fn durations_are_read_and_written_as_people_do() {
        for (text, seconds) in [("45m", 2700), ("1h", 3600), ("1h30m", 5400), ("90s", 90)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1h", "soon", "1 fortnight"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(humane(Duration::from_mins(90)), "1h 30m");
        assert_eq!(humane(Duration::from_secs(0)), "0s");
    }
}
