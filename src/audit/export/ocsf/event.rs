//! One OCSF event as it is put together: what all classes have, and objects that several share.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::class::{Class, OTHER};
use crate::domain::principal::Actor;
use crate::domain::time::Timestamp;

pub(super) type Fields = Map<String, Value>;

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    const fn id(self) -> u32 {
        match self {
            Self::Informational => 1,
            Self::Low => 2,
            Self::Medium => 3,
            Self::High => 4,
            Self::Critical => 5,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Informational => "Informational",
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// What a record becomes.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) class: &'static Class,
    activity: u32,
    activity_name: &'static str,
    severity: Severity,
    pub(super) fields: Fields,
}

impl Mapped {
    /// An activity of the class.
    pub(super) fn new(class: &'static Class, activity: u32) -> Self {
        let activity_name = class.activity(activity).unwrap_or("Unknown");
        Self { class, activity, activity_name, severity: Severity::Informational, fields: Fields::new() }
    }

    /// An activity that the class has no name for.
    pub(super) fn other(class: &'static Class, activity_name: &'static str) -> Self {
        Self { activity: OTHER, activity_name, ..Self::new(class, OTHER) }
    }

    /// Grave at least as `severity` says.
    pub(super) fn grave(mut self, severity: Severity) -> Self {
        self.severity = self.severity.max(severity);
        self
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    /// As [`Self::with`], where there is a value.
    pub(super) fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// By the words that records have for outcomes.
    pub(super) fn status(self, outcome: Option<&str>) -> Self {
        match outcome {
            None => self,
            Some("done") => self.with("status_id", 1).with("status", "Success"),
            Some("refused" | "failed") => {
                self.with("status_id", 2).with("status", "Failure").grave(Severity::Low)
            }
            Some("unknown") => self.with("status_id", 0).with("status", "Unknown"),
            Some(other) => self.with("status_id", OTHER).with("status", other),
        }
    }

    /// The whole event.
    pub(super) fn finish(self, at: Timestamp, metadata: Fields) -> Fields {
        let Self { class, activity, activity_name, severity, mut fields } = self;
        let activity_in_type = if activity == OTHER { "Other" } else { activity_name };
        let type_uid = u64::from(class.uid) * 100 + u64::from(activity);
        let common = [
            ("activity_id", json!(activity)),
            ("activity_name", json!(activity_name)),
            ("category_uid", json!(class.category_uid)),
            ("category_name", json!(class.category)),
            ("class_uid", json!(class.uid)),
            ("class_name", json!(class.name)),
            ("type_uid", json!(type_uid)),
            ("type_name", json!(format!("{}: {activity_in_type}", class.name))),
            ("severity_id", json!(severity.id())),
            ("severity", json!(severity.name())),
            ("time", json!(milliseconds(at))),
            ("metadata", Value::Object(metadata)),
        ];
        fields.extend(common.map(|(key, value)| (key.to_owned(), value)));
        fields
    }
}

pub(super) fn milliseconds(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1000)
}

/// Somebody as a `user`.
pub(super) fn user(who: &Actor) -> Value {
    json!({ "name": who.name, "uid": who.id, "type_id": 1, "type": "User" })
}

/// Who did it: somebody, perhaps under a session, or the gateway itself.
pub(super) fn actor(who: Option<&Actor>, session: Option<&str>, node: &str) -> Value {
    let mut actor = Fields::new();
    if let Some(who) = who {
        actor.insert("user".to_owned(), user(who));
    } else {
        actor.insert("app_uid".to_owned(), json!(node));
        actor.insert("app_name".to_owned(), json!("Sallyport"));
    }
    if let Some(session) = session {
        actor.insert("session".to_owned(), json!({ "uid": session, "issuer": "Sallyport" }));
    }
    Value::Object(actor)
}

/// A client's address.
pub(super) fn endpoint(address: SocketAddr) -> Value {
    json!({ "ip": address.ip().to_string(), "port": address.port() })
}

/// A place that is told as text: `host:port`, or a socket's path.
pub(super) fn place(text: &str) -> Value {
    let Some((host, port)) = text.rsplit_once(':') else { return json!({ "name": text }) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match (port.parse::<u16>(), host.parse::<std::net::IpAddr>()) {
        (Ok(port), Ok(ip)) => json!({ "ip": ip.to_string(), "port": port }),
        (Ok(port), Err(_)) if !host.is_empty() => json!({ "hostname": host, "port": port }),
        _ => json!({ "name": text }),
    }
}

/// A SHA-256 of content.
pub(super) fn sha256(hex: &str) -> Value {
    json!({ "algorithm_id": 3, "algorithm": "SHA-256", "value": hex })
}
