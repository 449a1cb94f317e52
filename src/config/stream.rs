//! `[stream]`: where the audit log goes as it is written, and how far behind the stream may be. Without the
//! section it stays in the audit directory.

use std::fmt::Write as _;
use std::time::Duration;

use super::reader::Section;
use super::server::url;
use crate::domain::target::Environment;
use crate::domain::time::humane;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Amazon Kinesis takes 500 records of up to 10 MiB, and 10 MiB at once.
const MOST: u64 = 10 * MIB;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Name or ARN of the Amazon Kinesis data stream.
    pub kinesis: String,
    /// `None`: as Amazon's SDK finds it.
    pub region: Option<String>,
    /// Instead of Amazon's own address.
    pub endpoint: Option<String>,
    /// The longest record of the stream and the longest request, in bytes.
    pub record_bytes: usize,
    pub request_bytes: usize,
    /// Past it an alarm is raised.
    pub alarm: StreamBounds,
    /// For each environment, in the order of [`ENVIRONMENTS`].
    pub rules: Vec<(Environment, EnvironmentRule)>,
}

/// How far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBounds {
    pub bytes: u64,
    pub age: Duration,
}

/// What holds for the targets of one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentRule {
    /// Past it connections end.
    pub limit: StreamBounds,
    /// Whether something is recorded only once the stream has confirmed it.
    pub confirmed: bool,
}

const ENVIRONMENTS: [(Environment, &str); 3] =
    [(Environment::Prod, "prod"), (Environment::Uat, "uat"), (Environment::Dev, "dev")];
const DEFAULT: EnvironmentRule = EnvironmentRule {
    limit: StreamBounds { bytes: 4096 * MIB, age: Duration::from_hours(1) },
    confirmed: false,
};

pub(super) fn stream(root: &Section<'_>) -> Option<Stream> {
    if !root.has("stream") {
        return None;
    }
    let section = root.section("stream");
    let kinesis = section.required_text("kinesis", "name the stream, or give its ARN");
    let region = section.text("region").map(str::to_owned);
    let endpoint = url(&section, "endpoint");
    let record_bytes = section.integer("record_bytes", MIB, KIB, MOST);
    let request_bytes = section.integer("request_bytes", 5 * MIB, KIB, MOST);
    if request_bytes < record_bytes {
        section.blame("request_bytes", "is less than `record_bytes`: a record would not fit");
    }
    let alarm = StreamBounds {
        bytes: section.integer("alarm_bytes", 16 * MIB, 1, u64::MAX),
        age: section
            .duration("alarm_age", Duration::from_secs(1), Duration::from_hours(24 * 7))
            .unwrap_or(Duration::from_mins(1)),
    };
    let every = rule(&section, DEFAULT);
    let rules = ENVIRONMENTS.map(|(environment, name)| {
        if !section.has(name) {
            return (environment, every);
        }
        let own = section.section(name);
        let rule = rule(&own, every);
        own.finish();
        (environment, rule)
    });
    section.finish();
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Some(Stream {
        kinesis: kinesis?.to_owned(),
        region,
        endpoint,
        record_bytes: bytes(record_bytes),
        request_bytes: bytes(request_bytes),
        alarm,
        rules: rules.to_vec(),
    })
}

/// What a section says, where it does not as in `default`.
fn rule(section: &Section<'_>, default: EnvironmentRule) -> EnvironmentRule {
    let bytes = section.integer("limit_bytes", default.limit.bytes, 1, u64::MAX);
    let age = section.duration("limit_age", Duration::from_secs(1), Duration::from_hours(24 * 7));
    let confirmed = match section.text("durability") {
        None => default.confirmed,
        Some("journal") => false,
        Some("stream") => true,
        Some(other) => {
            section.blame("durability", format!("`{other}` is none: write `journal` or `stream`"));
            false
        }
    };
    EnvironmentRule { limit: StreamBounds { bytes, age: age.unwrap_or(default.limit.age) }, confirmed }
}

/// For comparing, and for people.
pub(super) fn text(stream: Option<&Stream>) -> String {
    let Some(stream) = stream else { return "none".to_owned() };
    let mut text = format!(
        "{}, {} B a record, {} B a request, alarm at {}",
        stream.kinesis,
        stream.record_bytes,
        stream.request_bytes,
        bounds_text(&stream.alarm)
    );
    for (environment, rule) in &stream.rules {
        let durability = if rule.confirmed { "stream" } else { "journal" };
        let _ = write!(text, "; {environment}: {durability}, limit {}", bounds_text(&rule.limit));
    }
    for (what, value) in [("region", &stream.region), ("endpoint", &stream.endpoint)] {
        if let Some(value) = value {
            let _ = write!(text, "; {what} {value}");
        }
    }
    text
}

fn bounds_text(bounds: &StreamBounds) -> String {
    format!("{} MiB or {}", bounds.bytes / MIB, humane(bounds.age))
}
