//! Records as events of the [Open Cybersecurity Schema Framework, 1.8.0](https://schema.ocsf.io/1.8.0): one event
//! a record. `docs/audit-record.md` says which record becomes which class.
//!
//! What the schema has no place for is in `unmapped`, with the record's integrity: its index in the log, its hash,
//! and the chain values of the log and of its recording after it. `raw_data_hash` is the same hash.

pub mod class;
mod connection;
mod control;
mod event;

use std::collections::HashMap;
use std::io::Write;

use serde_json::{Value, json};

use super::scan::{Found, Head};
use super::{Counts, ExportError, May, Order};
use crate::audit::chain::RecordingChain;
use crate::audit::note::origin;
use crate::audit::record::{Context, Ended, Opened};
use crate::crypto::hex;
use crate::domain::event::Event;
use crate::domain::id::NodeId;
use connection::Recording;
use event::{Fields, Mapped};

/// The version of the schema.
pub const VERSION: &str = "1.8.0";

pub(super) fn write(order: &Order<'_>, may: May<'_>, to: &mut impl Write) -> Result<Counts, ExportError> {
    let mut mapper = Mapper::default();
    super::each_chosen(order, may, |found, head, chosen| {
        let event = mapper.event(found, head)?;
        if chosen {
            serde_json::to_writer(&mut *to, &event)
                .map_err(std::io::Error::from)
                .and_then(|()| to.write_all(b"\n"))
                .map_err(ExportError::Write)?;
        }
        Ok(())
    })
}

/// Sees every record of a log in order, as some are understood by those before.
#[derive(Debug, Default)]
struct Mapper {
    /// Those that are open. A recording whose beginning is not here has no chain.
    recordings: HashMap<String, (Option<RecordingChain>, Recording)>,
}

impl Mapper {
    fn event(&mut self, found: &Found<'_>, head: &Head<'_>) -> Result<Fields, ExportError> {
        let rec = head.rec.as_ref();
        let (chain, recording) = self
            .recordings
            .entry(rec.to_owned())
            .or_insert_with(|| ((head.seq == 0).then(|| RecordingChain::start(rec)), Recording::default()));
        let mut record: Fields = found.read()?;
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (node, action) = (text("node"), text("action"));
        let uid = format!("{rec}:{}", head.seq);
        let mapped = match head.kind.as_ref() {
            "event" => {
                let event: Event = found.read()?;
                control::event(&control::Of {
                    event: &event,
                    word: &action,
                    uid: &uid,
                    at: head.at,
                    node: &node,
                })
            }
            "recovered" => control::recovered(&node, &uid),
            kind => {
                let context: Context = found.read()?;
                let of = connection::Of { context: &context, node: &node };
                match kind {
                    "opened" => recording.opened(&of, &found.read::<Opened>()?),
                    "ended" => recording.ended(&of, &found.read::<Ended>()?),
                    _ => recording.body(&of, &found.read()?),
                }
            }
        };
        let integrity = integrity(found, chain.as_mut());
        if head.kind == "ended" {
            self.recordings.remove(rec);
        }
        let metadata = metadata(found, head, &mapped, &action, &node, &uid);
        for known in ["v", "rec", "seq", "at", "node", "kind", "action"] {
            record.remove(known);
        }
        record.insert("integrity".to_owned(), integrity);
        let message = message(head, &action);
        let hash = json!({
            "algorithm_id": 99,
            "algorithm": "SHA-256 of a zero byte and the record (RFC 9162)",
            "value": hex(&found.hash),
        });
        let mut event = mapped.finish(head.at, metadata);
        event.entry("message").or_insert_with(|| message.into());
        event.insert("raw_data_hash".to_owned(), hash);
        event.insert("raw_data_size".to_owned(), found.json.len().into());
        event.insert("unmapped".to_owned(), Value::Object(record));
        Ok(event)
    }
}

/// Where the record stands, and the hashes that say so.
fn integrity(found: &Found<'_>, chain: Option<&mut RecordingChain>) -> Value {
    let recording = chain.map(|chain| {
        chain.push(&found.hash);
        hex(chain.head())
    });
    json!({
        "index": found.n,
        "record": hex(&found.hash),
        "log": hex(&found.chain),
        "recording": recording,
    })
}

fn metadata(
    found: &Found<'_>,
    head: &Head<'_>,
    mapped: &Mapped,
    action: &str,
    node: &str,
    uid: &str,
) -> Fields {
    let code = if action.is_empty() { head.kind.as_ref() } else { action };
    let product = json!({
        "name": "Sallyport",
        "vendor_name": "Sallyport",
        "uid": node,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let log_name = node.parse::<NodeId>().map_or_else(|_| node.to_owned(), |node| origin(&node));
    let mut metadata = Fields::new();
    metadata.extend(
        [
            ("version", json!(VERSION)),
            ("product", product),
            ("uid", json!(uid)),
            ("sequence", json!(found.n)),
            ("event_code", json!(code)),
            ("log_name", json!(log_name)),
            ("log_provider", json!("Sallyport")),
            ("log_version", json!("1")),
            ("original_time", json!(head.at.to_string())),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if let Some(correlated) = head.session.as_ref().or(head.request.as_ref()) {
        metadata.insert("correlation_uid".to_owned(), json!(correlated));
    }
    if !mapped.class.profiles.is_empty() {
        metadata.insert("profiles".to_owned(), json!(mapped.class.profiles));
    }
    metadata
}

/// The event in a few words.
fn message(head: &Head<'_>, action: &str) -> String {
    let what = if action.is_empty() { head.kind.as_ref() } else { action };
    let who = head.principal.as_ref().map(|who| format!(" by {}", who.name)).unwrap_or_default();
    let target = head.target.as_deref().map(|target| format!(" on {target}")).unwrap_or_default();
    format!("{}{who}{target}", what.replace('_', " "))
}
