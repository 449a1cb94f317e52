//! Control records as events: requests, sessions, accounts, logins, calls of the API, the log itself, alarms.

use serde_json::{Value, json};

use super::class::{
    ACCOUNT_CHANGE, API, AUTHENTICATION, AUTHORIZE_SESSION, Class, DATASTORE, DETECTION, ENTITY_MANAGEMENT,
    EVENT_LOG,
};
use super::event::{Mapped, Severity, actor, endpoint, milliseconds, user};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::{ConnectionId, RequestId, SessionId};
use crate::domain::name::AccessName;
use crate::domain::time::Timestamp;

/// An event of the control recording in its place.
pub(super) struct Of<'a> {
    pub(super) event: &'a Event,
    /// The action's word in the record.
    pub(super) word: &'a str,
    /// The record's own name.
    pub(super) uid: &'a str,
    pub(super) at: Timestamp,
    pub(super) node: &'a str,
}

const NOT_DESTROYED: &str = "A credential could not be destroyed: it may still be valid";
const ORPHANED: &str = "A target holds a credential that no session has";
const FOUND_OPEN: &str = "A session's credential was found open, or in use past the gateway, and was shut";

/// What an event becomes.
pub(super) fn event(of: &Of<'_>) -> Mapped {
    let mapped = match of.event.action {
        // What somebody was not allowed to do changed nothing: it was a call.
        action if of.event.outcome == Outcome::Refused && is_call(action) => of.api(3),
        Action::RequestCreated => of.request(1),
        Action::RequestApproved => of.request(3),
        Action::RequestDenied | Action::RequestCancelled | Action::RequestLapsed => of.request(11),
        Action::SessionActivated => of.session(Mapped::new(&AUTHORIZE_SESSION, 1)),
        Action::SessionRevoked => {
            of.session(Mapped::other(&AUTHORIZE_SESSION, "Revoke Privileges")).grave(Severity::Medium)
        }
        Action::SessionEnded => of.session(Mapped::other(&AUTHORIZE_SESSION, "Expire Privileges")),
        Action::BlockAdded => of.account(9, "blocked", "blocked_id").grave(Severity::Medium),
        Action::BlockLifted => of.entity(Mapped::new(&ENTITY_MANAGEMENT, 4), "Block", of.text("block")),
        Action::ConnectionRefused => of.refused_connection(),
        Action::ConnectionOpened => of.connection(10),
        Action::ConnectionEnded => of.connection(11),
        Action::StatementCancelled => of.cancelled(),
        Action::CredentialIntended => of.credential(6),
        Action::CredentialIssued => of.credential(1),
        Action::CredentialDestroyed => of.credential(4),
        Action::CredentialDenied => of.credential(11),
        Action::CredentialDestructionFailed => of.finding(1, Severity::High, NOT_DESTROYED),
        Action::CredentialOrphaned => of.finding(1, Severity::High, ORPHANED),
        Action::CredentialShut => of.finding(1, Severity::Medium, FOUND_OPEN),
        Action::UserAdded => of.account(1, "user", "user_id"),
        Action::UserChanged => of.user_changed(),
        Action::SshKeyAdded => of.other_account("SSH Key Added"),
        Action::SshKeyRemoved => of.other_account("SSH Key Removed"),
        Action::SshCertificateIssued => {
            of.entity(Mapped::new(&ENTITY_MANAGEMENT, 1), "SSH Certificate", of.text("serial"))
        }
        Action::SecondFactorSet => of.account(10, "user", "user_id"),
        Action::SecondFactorRemoved => of.account(11, "user", "user_id"),
        Action::SecondFactorChecked => {
            let factor = json!({ "factor_type_id": 7, "factor_type": "OTP", "is_totp": true });
            of.authentication(6).with("auth_factors", json!([factor])).with("is_mfa", true)
        }
        Action::Login => of.authentication(1),
        Action::Logout | Action::UserLoggedOut => of.authentication(2),
        Action::Read | Action::RecordingReplayed | Action::Searched | Action::ApiRefused => of.api(2),
        Action::AuditExported => of.log(3),
        Action::NodeStarted => of.log(6),
        Action::NodeStopped => of.log(7),
        Action::ConfigurationReloaded => of.configuration(),
        Action::JournalTrimmed => of.log(5),
        Action::Canary => of.by(log(Mapped::other(&EVENT_LOG, "Canary"), of.node)),
        Action::ClockBehind
        | Action::WitnessSilent
        | Action::WitnessRefused
        | Action::WitnessBack
        | Action::StreamBehind
        | Action::StreamCaughtUp
        | Action::CheckpointUnsigned
        | Action::CheckpointSigned
        | Action::CanaryFailed
        | Action::CanaryPassed
        | Action::StoreRestored => of.alarm(),
    };
    let break_glass = if of.event.break_glass { Severity::Medium } else { Severity::Informational };
    of.with_outcome(mapped.grave(break_glass))
}

/// What a node found when it started after a crash.
pub(super) fn recovered(node: &str, uid: &str) -> Mapped {
    log(Mapped::new(&EVENT_LOG, 8), node)
        .with("actor", actor(None, None, node))
        .with("message", format!("{uid}: the audit log was repaired after a crash"))
        .grave(Severity::Medium)
        .status(Some("done"))
}

/// Refused, these were calls; other actions keep their class whatever came of them.
const fn is_call(action: Action) -> bool {
    !matches!(
        action,
        Action::Login
            | Action::SecondFactorChecked
            | Action::ConnectionRefused
            | Action::ApiRefused
            | Action::Read
            | Action::RecordingReplayed
            | Action::Searched
            | Action::AuditExported
    )
}

fn log(mapped: Mapped, node: &str) -> Mapped {
    mapped
        .with("log_name", format!("sallyport/{node}"))
        .with("log_provider", "Sallyport")
        .with("log_type_id", 99)
        .with("log_type", "Audit log")
}

impl Of<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.event.detail.get(key).and_then(Value::as_str)
    }

    /// Who did it and from where.
    fn by(&self, mapped: Mapped) -> Mapped {
        let (principal, session) = (self.event.principal.as_ref(), self.event.session.as_ref());
        mapped
            .with("actor", actor(principal, session.map(SessionId::as_str), self.node))
            .with("src_endpoint", self.source())
    }

    /// Where it came from; what was done on the server itself, or by it, comes from there.
    fn source(&self) -> Value {
        self.event.client.map_or_else(|| json!({ "uid": self.node, "name": "Sallyport" }), endpoint)
    }

    fn target(&self) -> Option<Value> {
        self.event.target.as_ref().map(|target| json!({ "name": target }))
    }

    fn with_outcome(&self, mapped: Mapped) -> Mapped {
        let refused = self.text("refusal").or_else(|| self.text("why")).or_else(|| self.text("error"));
        // A finding is as new as its status says; what came of what it is about is in the record.
        let mapped = if mapped.class == &DETECTION {
            mapped
        } else {
            mapped.status(Some(match self.event.outcome {
                Outcome::Done => "done",
                Outcome::Refused => "refused",
                Outcome::Failed => "failed",
            }))
        };
        mapped.maybe("status_code", self.text("code")).maybe("status_detail", refused)
    }

    fn api(&self, activity: u32) -> Mapped {
        let operation = match (self.text("method"), self.text("path"), self.text("what")) {
            (Some(method), Some(path), _) => format!("{method} {path}"),
            (_, _, Some(what)) => format!("{} {what}", self.word),
            _ => self.word.to_owned(),
        };
        let service = json!({ "name": "Sallyport", "uid": self.node });
        let named = |kind: &str, id: &str| json!({ "uid": id, "type": kind });
        let mut resources = Vec::new();
        resources.extend(self.event.connection.as_ref().map(|id| named("Recording", id.as_str())));
        resources.extend(self.event.session.as_ref().map(|id| named("Session", id.as_str())));
        resources.extend(self.event.request.as_ref().map(|id| named("Request", id.as_str())));
        let resources = (!resources.is_empty()).then_some(resources);
        self.by(Mapped::new(&API, activity))
            .with("api", json!({ "operation": operation, "service": service }))
            .maybe("resources", resources)
            .maybe("dst_endpoint", self.target())
    }

    fn entity(&self, mapped: Mapped, kind: &str, id: Option<&str>) -> Mapped {
        self.by(mapped)
            .with("entity", json!({ "uid": id.unwrap_or(self.uid), "type_id": 99, "type": kind }))
            .maybe("comment", self.text("comment").filter(|comment| !comment.is_empty()))
    }

    fn request(&self, activity: u32) -> Mapped {
        let id = self.event.request.as_ref().map(RequestId::as_str);
        self.entity(Mapped::new(&ENTITY_MANAGEMENT, activity), "Access Request", id)
    }

    fn connection(&self, activity: u32) -> Mapped {
        let id = self.event.connection.as_ref().map(ConnectionId::as_str);
        self.entity(Mapped::new(&ENTITY_MANAGEMENT, activity), "Connection", id)
    }

    fn credential(&self, activity: u32) -> Mapped {
        let id = self.text("handle").or_else(|| self.text("fingerprint"));
        self.entity(Mapped::new(&ENTITY_MANAGEMENT, activity), "Credential", id)
    }

    fn configuration(&self) -> Mapped {
        let mapped = self.entity(Mapped::new(&ENTITY_MANAGEMENT, 3), "Configuration", Some(self.node));
        mapped.grave(Severity::Low)
    }

    /// Somebody who is named in the detail; else whoever did it, or claimed to be.
    fn named(&self, name: &str, id: &str) -> Value {
        match (self.text(name), self.text(id)) {
            (Some(name), Some(id)) => json!({ "name": name, "uid": id, "type_id": 1, "type": "User" }),
            (Some(name), None) => json!({ "name": name, "type_id": 1, "type": "User" }),
            (None, _) => {
                if let Some(principal) = &self.event.principal {
                    return user(principal);
                }
                let claimed = self.text("claimed").unwrap_or_default();
                json!({ "name": claimed, "type_id": 0, "type": "Unknown" })
            }
        }
    }

    fn session(&self, mapped: Mapped) -> Mapped {
        let access = self.event.access.as_ref().map(AccessName::as_str);
        let at = |key| self.text(key).and_then(|text| text.parse::<Timestamp>().ok()).map(milliseconds);
        let mut session = json!({ "issuer": "Sallyport" });
        if let Some(session) = session.as_object_mut() {
            session.extend(self.event.session.as_ref().map(|id| ("uid".to_owned(), json!(id))));
            session.extend(at("granted_at").map(|at| ("created_time".to_owned(), json!(at))));
            session.extend(at("ends_at").map(|at| ("expiration_time".to_owned(), json!(at))));
        }
        self.by(mapped)
            .with("user", self.named("holder", "holder_id"))
            .with("privileges", json!([access.unwrap_or("connect")]))
            .with("session", session)
            .maybe("dst_endpoint", self.target())
    }

    fn refused_connection(&self) -> Mapped {
        let mapped = self.session(Mapped::new(&AUTHORIZE_SESSION, 1));
        // Whose name was proved, not the one that was claimed.
        let proved = self.event.principal.as_ref().map(user);
        mapped.maybe("user", proved).grave(Severity::Low)
    }

    fn account(&self, activity: u32, name: &str, id: &str) -> Mapped {
        self.by(Mapped::new(&ACCOUNT_CHANGE, activity)).with("user", self.named(name, id))
    }

    fn other_account(&self, activity: &'static str) -> Mapped {
        self.by(Mapped::other(&ACCOUNT_CHANGE, activity)).with("user", self.named("user", "user_id"))
    }

    fn user_changed(&self) -> Mapped {
        let is = |key| self.event.detail.get(key).and_then(Value::as_bool);
        match (is("disabled"), is("new_password")) {
            (Some(true), _) => self.account(5, "user", "user_id"),
            (Some(false), _) => self.account(2, "user", "user_id"),
            (None, Some(true)) => self.account(4, "user", "user_id"),
            _ => self.other_account("Update"),
        }
    }

    fn authentication(&self, activity: u32) -> Mapped {
        self.by(Mapped::new(&AUTHENTICATION, activity))
            .with("user", self.named("user", "user_id"))
            .with("service", json!({ "name": "Sallyport", "uid": self.node }))
            .with("is_remote", self.event.client.is_some())
    }

    fn cancelled(&self) -> Mapped {
        let target = self.event.target.as_ref().map_or("unknown", |target| target.as_str());
        let database = json!({ "name": target, "uid": target, "type_id": 1, "type": "Relational" });
        self.by(Mapped::other(&DATASTORE, "Cancel"))
            .with("database", database)
            .with("type_id", 1)
            .with("type", "Database")
            .maybe("dst_endpoint", self.target())
    }

    fn log(&self, activity: u32) -> Mapped {
        self.by(log(Mapped::new(&EVENT_LOG, activity), self.node))
    }

    /// Alarms about the log, and their ends.
    fn alarm(&self) -> Mapped {
        let (activity, severity, title) = match self.event.action {
            Action::ClockBehind => (1, Severity::High, "The clock is behind what was recorded before"),
            Action::WitnessSilent => (1, Severity::High, "A witness no longer cosigns the audit log"),
            Action::WitnessRefused => {
                (1, Severity::Critical, "A witness says that the audit log is not what it saw")
            }
            Action::WitnessBack => (3, Severity::Informational, "A witness cosigns the audit log again"),
            Action::StreamBehind => (1, Severity::High, "The stream is far behind the audit log"),
            Action::StreamCaughtUp => (3, Severity::Informational, "The stream keeps up with the audit log"),
            Action::CheckpointUnsigned => {
                (1, Severity::High, "The audit log's newest checkpoint could not be signed")
            }
            Action::CheckpointSigned => {
                (3, Severity::Informational, "The audit log's checkpoints are signed again")
            }
            Action::CanaryFailed => {
                (1, Severity::Critical, "What was recorded on purpose did not come back as it was recorded")
            }
            Action::CanaryPassed => {
                (3, Severity::Informational, "What is recorded on purpose comes back as it was recorded")
            }
            _ => (1, Severity::High, "The store is older than the audit log"),
        };
        self.finding(activity, severity, title)
    }

    fn finding(&self, activity: u32, severity: Severity, title: &str) -> Mapped {
        let (status_id, status) = if activity == 3 { (4, "Resolved") } else { (1, "New") };
        let about =
            ["witness", "stream", "handle"].into_iter().find_map(|key| self.text(key)).unwrap_or(self.node);
        let info = json!({
            "uid": self.uid,
            "title": title,
            "types": [self.word],
            "created_time": milliseconds(self.at),
            "data_sources": ["Sallyport"],
        });
        let class: &'static Class = &DETECTION;
        Mapped::new(class, activity)
            .grave(severity)
            .with("actor", actor(self.event.principal.as_ref(), None, self.node))
            .with("finding_info", info)
            .with("resources", json!([{ "uid": about, "name": about }]))
            .with("status_id", status_id)
            .with("status", status)
    }
}
