//! From what the observer tells to what the audit log keeps.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::audit::record::{
    Body, CopyEnd, Direction, Format, Notice, Parameter, Statement, StatementEnd, StatementOutcome,
    Transaction, Value,
};
use crate::crypto;

use super::codec::backend::TransactionStatus;
use super::codec::startup::StartupParameters;
use super::decode;
use super::lexer::Strings;
use super::mask::{self, masked, masked_value, secrets};
use super::observe::{self, Begun, Ended, Event, How, Outcome, Param};

/// What was secret in statements that have not ended, by their numbers: the target may quote it when they fail.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// `None`: all that the target says is hidden.
    of: BTreeMap<u64, Option<BTreeSet<Vec<u8>>>>,
    /// There was something in the transaction that is under way.
    in_transaction: bool,
}

impl Hidden {
    fn add(&mut self, n: u64, values: Option<BTreeSet<Vec<u8>>>) {
        self.in_transaction = true;
        self.of.insert(n, values);
    }

    fn shown(&self, n: u64, message: String) -> String {
        match self.of.get(&n) {
            None => message,
            Some(None) => HIDDEN.to_owned(),
            Some(Some(secrets)) => mask::without(&message, secrets),
        }
    }
}

/// In place of what the target says of secrets that it may spell otherwise.
const HIDDEN: &str = "***";

/// The record of an event; `None` for what is not worth one.
pub(super) fn body(event: &Event, strings: Strings, hidden: &mut Hidden) -> Option<Body> {
    match event {
        Event::StatementBegun(begun) => Some(Body::Statement(statement(begun, strings, hidden))),
        Event::StatementEnded(ended) => {
            let mut end = statement_end(ended);
            end.message = end.message.map(|message| hidden.shown(ended.n, message));
            hidden.of.remove(&ended.n);
            Some(Body::StatementEnd(end))
        }
        Event::CopyEnded { n, direction, of, rows, bytes, sha256, .. } => Some(Body::CopyEnd(CopyEnd {
            n: *n,
            direction: match direction {
                observe::Direction::In => Direction::In,
                observe::Direction::Out => Direction::Out,
            },
            table: of.as_ref().map(|of| of.table.clone()),
            columns: of.as_ref().map(|of| of.columns.clone()).unwrap_or_default(),
            rows: *rows,
            bytes: *bytes,
            sha256: crypto::hex(sha256),
        })),
        Event::Set { n, settings, sql } => Some(Body::Notice(set(*n, settings, sql, strings))),
        Event::CommitFailed { sqlstate, message } => Some(Body::Notice(Notice::new(format!(
            "the commit failed, statements told as done were undone: {} {}",
            text(sqlstate),
            if hidden.in_transaction { HIDDEN.to_owned() } else { text(message) }
        )))),
        Event::Parameter { name, value } if decides_meaning(name) => {
            Some(Body::Notice(Notice::new(format!("{} is now {}", text(name), text(value)))))
        }
        Event::TransactionState(status) => {
            hidden.in_transaction &= *status != TransactionStatus::Idle || !hidden.of.is_empty();
            None
        }
        Event::CopyBegun { .. } | Event::Parameter { .. } => None,
    }
}

/// What the target does not report: the command says it.
fn set(n: u64, settings: &[&str], sql: &Bytes, strings: Strings) -> Notice {
    let shown =
        masked(sql, strings).map_or_else(|| text(sql), |(sql, _)| String::from_utf8_lossy(&sql).into_owned());
    let sets = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Notice { text: format!("done: {shown}"), n: Some(n), sets }
}

/// What the client asked for when it connected and the target does not report: a role, a search path, or what tells others in
/// `options`.
pub(super) fn asked_for(start: &StartupParameters) -> Option<Body> {
    let is_reported = |name: &Bytes| REPORTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    let (mut asked, mut sets) = (Vec::new(), Vec::new());
    for (name, value) in start.settings().filter(|(name, _)| !is_reported(name)) {
        let shown = masked_value(value, true)
            .map_or_else(|| text(value), |(shown, _)| String::from_utf8_lossy(&shown).into_owned());
        asked.push(format!("{}={shown}", text(name)));
        // The server reads options without backslashes, and a dash in a name as an underscore.
        let told = text(if name == "options" { value } else { name }).to_ascii_lowercase();
        let told = told.replace('\\', "").replace('-', "_");
        let is_named =
            |setting: &&str| if name == "options" { told.contains(*setting) } else { told == **setting };
        sets.extend(UNREPORTED.into_iter().filter(is_named).map(str::to_owned));
    }
    let notice = Notice { sets, ..Notice::new(format!("asked for at the start: {}", asked.join(", "))) };
    (!asked.is_empty()).then_some(Body::Notice(notice))
}

/// What every target reports (PostgreSQL documentation, section 54.2.7), in what most clients ask for.
const REPORTED: [&str; 6] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "standard_conforming_strings",
    "timezone",
];
/// Settings that decide who somebody is, and which tables a name means.
const UNREPORTED: [&str; 3] = ["role", "search_path", "session_authorization"];

/// Settings that decide what a statement's text means.
const MEANING: [&[u8]; 6] = [
    b"client_encoding",
    b"standard_conforming_strings",
    b"search_path",
    b"session_authorization",
    b"role",
    b"is_superuser",
];

fn decides_meaning(name: &[u8]) -> bool {
    MEANING.contains(&name)
}

/// Under which settings the connection starts: what the target told of those that decide what a
/// statement's text means.
pub(super) fn settings(reported: &[(Bytes, Bytes)]) -> Option<Body> {
    let told: Vec<String> = reported
        .iter()
        .filter(|(name, _)| decides_meaning(name))
        .map(|(name, value)| format!("{}={}", text(name), text(value)))
        .collect();
    (!told.is_empty()).then(|| Body::Notice(Notice::new(format!("settings: {}", told.join(", ")))))
}

fn statement(begun: &Begun, strings: Strings, hidden: &mut Hidden) -> Statement {
    let how = match begun.how {
        How::Simple => crate::audit::record::How::Simple,
        How::Extended => crate::audit::record::How::Extended,
        How::Prepare => crate::audit::record::How::Prepare,
        How::Function(_) => crate::audit::record::How::Function,
    };
    let mut secrets = secrets(&begun.sql, strings);
    let mut statement = match (begun.how, secrets.as_mut().and_then(|secrets| secrets.masked.take())) {
        // A function call has no text; its function's number is what there is to tell.
        (How::Function(oid), _) => Statement::new(begun.n, how, format!("function {oid}").as_bytes()),
        (_, None) => Statement::new(begun.n, how, &begun.sql),
        (_, Some((sql, count))) => {
            let mut statement = Statement::new(begun.n, how, &sql);
            statement.masked = count;
            statement
        }
    };
    let named = |name: &Bytes| (!name.is_empty()).then(|| text(name));
    statement.name = named(&begun.statement);
    statement.portal = named(&begun.portal);
    statement.fingerprint = begun.fingerprint.map(|fingerprint| crypto::hex(&fingerprint));
    statement.params.reserve(begun.params.len());
    let mut hides_parameters = false;
    for (number, param) in (1..=u16::MAX).zip(begun.params.iter()) {
        let is_secret = secrets.as_ref().is_some_and(|secrets| secrets.parameters.contains(&number));
        let (parameter, count) = if is_secret { hide(param) } else { parameter(param) };
        hides_parameters |= count > 0;
        statement.params.push(parameter);
        statement.masked = statement.masked.saturating_add(count);
    }
    let values = secrets.and_then(|secrets| secrets.values).filter(|_| !hides_parameters);
    if statement.masked > 0 {
        hidden.add(begun.n, values);
    }
    (statement.certain, statement.resumes) = (begun.certain, begun.resumes);
    statement
}

/// A parameter that is secret by where it stands, with how many that are.
fn hide(param: &Param) -> (Parameter, u32) {
    let format = match &param.value {
        observe::Value::Null => return parameter(param),
        observe::Value::Text(_) => Format::Text,
        observe::Value::Binary(_) => Format::Binary,
    };
    let value = Value::Text { text: "***".to_owned() };
    (Parameter { value, format, oid: param.oid, length: None, sha256: None }, 1)
}

/// With how many secrets were masked in it.
fn parameter(param: &Param) -> (Parameter, u32) {
    let (bytes, format) = match &param.value {
        observe::Value::Null => return (Parameter::new(None, Format::Text, param.oid), 0),
        observe::Value::Text(bytes) => (bytes, Format::Text),
        observe::Value::Binary(bytes) => (bytes, Format::Binary),
    };
    let kept = |value| Parameter { value, format, oid: param.oid, length: None, sha256: None };
    let text = param.text();
    // Digits in which `bytea` is written hide what the bytes say.
    let is_shown = text.is_some() && (format == Format::Text || param.oid != decode::oid::BYTEA);
    let looked_into = if is_shown { text.as_deref().unwrap_or_default().as_bytes() } else { bytes };
    if let Some((masked, count)) = masked_value(looked_into, param.sha256.is_none()) {
        let text = if is_shown {
            String::from_utf8(masked.clone()).ok()
        } else {
            decode::text(param.oid, &masked, true)
        };
        // Without the hash of what is masked: it would tell a short secret.
        return (kept(value(text, &masked)), count);
    }
    let mut parameter = kept(value(text.map(Cow::into_owned), bytes));
    if let Some(hash) = &param.sha256 {
        parameter.length = u64::try_from(param.length).ok();
        parameter.sha256 = Some(crypto::hex(hash));
    }
    (parameter, 0)
}

/// Bytes of an unknown type that happen to be UTF-8 are not text.
fn value(text: Option<String>, bytes: &[u8]) -> Value {
    text.map_or_else(
        || Value::Bytes { b64: data_encoding::BASE64.encode(bytes) },
        |text| Value::Text { text },
    )
}

fn statement_end(ended: &Ended) -> StatementEnd {
    let outcome = match &ended.outcome {
        Outcome::Done | Outcome::Suspended => StatementOutcome::Done,
        Outcome::Failed { .. } => StatementOutcome::Failed,
        Outcome::Cancelled { .. } => StatementOutcome::Cancelled,
        Outcome::Skipped { .. } => StatementOutcome::Skipped,
        Outcome::Unresolved => StatementOutcome::Unknown,
    };
    let mut end = StatementEnd::new(ended.n, outcome);
    if !ended.tags.is_empty() {
        end.tag = Some(ended.tags.iter().map(text).collect::<Vec<_>>().join("; "));
    }
    end.rows = (ended.commands > 0 || ended.rows > 0).then_some(ended.affected.max(ended.rows));
    match &ended.outcome {
        Outcome::Failed { sqlstate, message } => {
            end.sqlstate = Some(text(sqlstate));
            end.message = Some(text(message));
        }
        Outcome::Cancelled { message } => {
            end.sqlstate = Some("57014".to_owned());
            end.message = Some(text(message));
        }
        Outcome::Skipped { after } => end.after = *after,
        _ => {}
    }
    end.tx = ended.transaction.map(|status| match status {
        TransactionStatus::Idle => Transaction::Idle,
        TransactionStatus::InTransaction => Transaction::Open,
        TransactionStatus::Failed => Transaction::Failed,
    });
    end.first_us = ended.first_us;
    end.duration_us = Some(ended.total_us);
    end.bytes = Some(ended.bytes);
    end.suspended = ended.outcome == Outcome::Suspended;
    end
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this client encoding is UTF-8.
pub(super) fn is_utf8(encoding: &[u8]) -> bool {
    encoding.eq_ignore_ascii_case(b"UTF8")
}

/// Whether no character of this client encoding has a byte of ASCII in it, but those of ASCII; `None` for another setting
/// (PostgreSQL documentation, section 24.3.1: those that are for clients alone are not such).
pub(super) fn plain_encoding(name: &[u8], value: &[u8]) -> Option<bool> {
    const ALIKE: [&[u8]; 8] =
        [b"BIG5", b"GB18030", b"GBK", b"JOHAB", b"SJIS", b"SHIFT_JIS_2004", b"UHC", b"SQL_ASCII"];
    (name == b"client_encoding").then(|| !ALIKE.iter().any(|other| value.eq_ignore_ascii_case(other)))
}
