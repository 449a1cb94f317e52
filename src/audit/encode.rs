//! From typed bodies to the bytes of records: splitting what is too long, clipping free text, and
//! putting envelope, context and body together.

use std::io::Write as _;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::chain::{RecordingChain, record_hash};
use super::clip::{NAME, TEXT, clip, clip_some, clipped, is_clipped};
use super::line::push_number;
use super::record::{
    Body, Context, ControlEntry, Data, Ended, Input, Opened, Output, Parameter, ParameterPart, Recovered,
    Sql, SqlPart, Value,
};
use crate::crypto::{Hash, hex, sha256};
use crate::domain::deny::EndReason;
use crate::domain::event::Event;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// Longest piece of SQL or of a stream's data in one record, in bytes. JSON makes a control character six bytes, and a
/// record stays under [`super::line::LONGEST_RECORD`] even then.
const PIECE: usize = 128 << 10;
/// Longest list of parameters in one record, in bytes of JSON.
const PARAMETERS: usize = 128 << 10;
/// What a parameter has beside its value, in bytes of JSON, at most.
const PARAMETER: usize = 192;
/// Longest detail of a control event, in bytes of JSON.
const DETAIL: usize = 256 << 10;
/// What a record has beside its context and its body, in bytes, at most.
pub(super) const ENVELOPE: usize = 192;

/// A record's own fields as JSON text, without the braces: `"kind":"…",…`.
pub(super) type Fields = Vec<u8>;

/// A body that waits for its place in the recording.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) fields: Fields,
    pub(super) effect: Effect,
}

/// A record as it will be stored.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) json: Vec<u8>,
    pub(super) hash: Hash,
    /// Its recording's, with it.
    pub(super) chain: RecordingChain,
    pub(super) effect: Effect,
    /// As its stamp has it.
    pub(super) mono: u64,
}

/// What a record means for which statements are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Starts(u64),
    Ends(u64),
}

/// Serialises bodies; one that is too long for one record becomes several.
pub(super) fn bodies(bodies: &[Body]) -> Vec<Encoded> {
    let mut encoded = Vec::with_capacity(bodies.len());
    for body in bodies {
        encode_body(body, &mut encoded);
    }
    encoded
}

fn encode_body(body: &Body, encoded: &mut Vec<Encoded>) {
    let effect = match body {
        Body::Statement(statement) => Effect::Starts(statement.n),
        Body::StatementEnd(end) => Effect::Ends(end.n),
        _ => Effect::None,
    };
    if is_short(body) {
        encoded.push(Encoded { fields: fields(body), effect });
        return;
    }
    let records = split(clipped(body.clone()));
    encoded.extend(records.iter().map(|record| Encoded { fields: fields(record), effect: Effect::None }));
    if let Some(last) = encoded.last_mut() {
        last.effect = effect;
    }
}

/// Whether there is surely nothing to cut or split, which is true of nearly all: they are not copied then.
fn is_short(body: &Body) -> bool {
    let is_name = |name: &Option<String>| name.as_ref().is_none_or(|name| name.len() <= NAME);
    match body {
        Body::Statement(statement) => {
            let (Sql::Text { sql: kept } | Sql::Bytes { b64: kept }) = &statement.sql;
            let names = [&statement.name, &statement.portal, &statement.fingerprint].into_iter().all(is_name);
            names && kept.len() <= PIECE && are_few(&statement.params)
        }
        Body::StatementEnd(end) => is_clipped(end),
        Body::Input(Input { data, .. }) | Body::Output(Output { data, .. }) => !is_long(data),
        _ => false,
    }
}

/// Whether parameters surely fit where they are. Of a character JSON makes six bytes at most.
fn are_few(params: &[Parameter]) -> bool {
    let most = |parameter: &Parameter| {
        let value = match &parameter.value {
            Value::Text { text: kept } | Value::Bytes { b64: kept } => kept.len(),
            Value::Null { .. } => 0,
        };
        6 * value + PARAMETER
    };
    params.iter().map(most).sum::<usize>() <= PARAMETERS
}

/// In as many records as it takes.
fn split(body: Body) -> Vec<Body> {
    let mut records = Vec::new();
    match body {
        Body::Statement(mut statement) => {
            let whole = statement.sql.bytes();
            if whole.len() > PIECE {
                statement.sql_sha256 = Some(hex(&sha256(&[&whole])));
                let mut pieces = sql_pieces(&whole, matches!(statement.sql, Sql::Text { .. }));
                statement.sql = pieces.pop().unwrap_or(Sql::Text { sql: String::new() });
                for (part, sql) in (0..).zip(pieces) {
                    records.push(Body::SqlPart(SqlPart { n: statement.n, part, sql }));
                    statement.sql_parts = part + 1;
                }
            }
            let chunks = parameter_chunks(&mut statement.params);
            for (part, params) in (0..).zip(chunks) {
                records.push(Body::ParameterPart(ParameterPart { n: statement.n, part, params }));
                statement.parameter_parts = part + 1;
            }
            records.push(Body::Statement(statement));
        }
        Body::Input(Input { ch, data, mut masked }) if is_long(&data) => {
            let input =
                |piece: &[u8]| Body::Input(Input { ch, data: Data::new(piece), masked: masked.take() });
            records.extend(pieces(&data.bytes()).map(input));
        }
        Body::Output(Output { ch, data, err }) if is_long(&data) => {
            let output = |piece: &[u8]| Body::Output(Output { ch, data: Data::new(piece), err });
            records.extend(pieces(&data.bytes()).map(output));
        }
        whole => records.push(whole),
    }
    records
}

fn is_long(data: &Data) -> bool {
    let (Data::Text { txt: kept } | Data::Bytes { b64: kept }) = data;
    kept.len() > PIECE
}

/// What is text as a whole is text in each piece; what is not is base64 in each.
fn sql_pieces(whole: &[u8], is_text: bool) -> Vec<Sql> {
    let base64 = |piece| Sql::Bytes { b64: data_encoding::BASE64.encode(piece) };
    pieces(whole).map(|piece| if is_text { Sql::new(piece) } else { base64(piece) }).collect()
}

/// Cuts between characters where there are any: a continuation byte is 0b10xxxxxx, and at most three
/// of them make a character.
fn pieces(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = whole;
    std::iter::from_fn(move || {
        let continues = |end: &usize| rest.get(*end).is_some_and(|byte| byte & 0xC0 == 0x80);
        let end = rest.len().min(PIECE);
        let end = (end.saturating_sub(3)..=end).rev().find(|end| !continues(end)).unwrap_or(end);
        let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes the parameters out of `params` in lists of a bounded size; none when all fit where they are.
fn parameter_chunks(params: &mut Vec<Parameter>) -> Vec<Vec<Parameter>> {
    let size = |parameter: &Parameter| serde_json::to_vec(parameter).map_or(0, |json| json.len() + 1);
    if params.iter().map(size).sum::<usize>() <= PARAMETERS {
        return Vec::new();
    }
    let mut chunks = vec![Vec::new()];
    let mut filled = 0;
    for parameter in params.drain(..) {
        let size = size(&parameter);
        if filled > 0 && filled + size > PARAMETERS {
            chunks.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(parameter);
        }
    }
    chunks
}

#[derive(Serialize)]
struct Kinded<'a, T> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<i64>,
    #[serde(flatten)]
    fields: &'a T,
}

impl<'a, T: Serialize> Kinded<'a, T> {
    fn fields(kind: &'static str, outcome: Option<&'static str>, fields: &'a T) -> Fields {
        self::fields(&Kinded { kind, outcome, outbox: None, fields })
    }
}

pub(super) fn opened(opened: &Opened) -> Fields {
    let mut opened = opened.clone();
    clip(&mut opened.reason, TEXT);
    clip_some(&mut opened.ticket, NAME);
    clip_some(&mut opened.application, NAME);
    clip_some(&mut opened.database, NAME);
    if let Some(client) = &mut opened.client_ssh {
        clip(&mut client.software, NAME);
        clip(&mut client.auth, NAME);
        clip_some(&mut client.key, NAME);
    }
    for approval in &mut opened.approvals {
        clip(&mut approval.comment, NAME);
    }
    Kinded::fields("opened", Some("done"), &opened)
}

pub(super) fn ended(ended: &Ended) -> Fields {
    let mut ended = ended.clone();
    match &mut ended.reason {
        EndReason::Revoked { why: text, .. }
        | EndReason::Blocked { why: text, .. }
        | EndReason::NoLongerPermitted { why: text }
        | EndReason::Unrecordable { detail: text }
        | EndReason::TargetUnreachable { detail: text }
        | EndReason::Protocol { detail: text } => clip(text, NAME),
        EndReason::ClientClosed
        | EndReason::TargetClosed
        | EndReason::Expired
        | EndReason::Idle
        | EndReason::Unconfirmed
        | EndReason::Shutdown
        | EndReason::Internal
        | EndReason::Crashed => {}
    }
    Kinded::fields("ended", Some("done"), &ended)
}

pub(super) fn recovered(recovered: &Recovered) -> Fields {
    Kinded::fields("recovered", Some("done"), recovered)
}

pub(super) fn event(entry: &ControlEntry) -> Fields {
    let size = serde_json::to_vec(&entry.event.detail).map_or(0, |json| json.len());
    let shortened;
    let event = if size > DETAIL {
        shortened = Event { detail: cut_detail(&entry.event.detail), ..entry.event.clone() };
        &shortened
    } else {
        &entry.event
    };
    fields(&Kinded { kind: "event", outcome: None, outbox: entry.outbox, fields: event })
}

fn cut_detail(detail: &Map<String, Json>) -> Map<String, Json> {
    let json = serde_json::to_vec(detail).unwrap_or_default();
    let mut cut = Map::new();
    cut.insert("cut_bytes".to_owned(), json.len().into());
    cut.insert("cut_sha256".to_owned(), hex(&sha256(&[&json])).into());
    cut
}

/// The context as it stands in every record: `,"principal":…`.
pub(super) fn context(context: &Context) -> Vec<u8> {
    let mut bytes = vec![b','];
    bytes.extend_from_slice(&fields(context));
    bytes
}

/// The fields of something that serialises as an object, without the braces.
#[expect(clippy::expect_used, reason = "plain structs of strings and numbers always serialise")]
fn fields(value: &impl Serialize) -> Fields {
    // Room for most records without growing.
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, value).expect("a record serialises");
    json.pop();
    json.remove(0);
    json
}

/// When something was put together, or asked of the writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) at: Timestamp,
    /// Microseconds since the journal was opened.
    pub(super) mono: u64,
}

/// Puts together what follows in a recording's chain, in `json`. `context` is empty or starts with a comma.
pub(super) fn record(
    mut json: Vec<u8>,
    (recording, chain): (&str, &RecordingChain),
    stamp: Stamp,
    node: &NodeId,
    context: &[u8],
    Encoded { fields, effect }: &Encoded,
) -> Record {
    json.clear();
    json.reserve(ENVELOPE + context.len() + fields.len());
    json.extend_from_slice(br#"{"v":1,"rec":""#);
    json.extend_from_slice(recording.as_bytes());
    json.extend_from_slice(br#"","seq":"#);
    push_number(&mut json, chain.next());
    json.extend_from_slice(br#","at":""#);
    // Writing to memory does not fail.
    let _ = write!(json, "{}", stamp.at);
    json.extend_from_slice(br#"","mono":"#);
    push_number(&mut json, stamp.mono);
    json.extend_from_slice(br#","node":""#);
    json.extend_from_slice(node.as_str().as_bytes());
    json.push(b'"');
    json.extend_from_slice(context);
    json.push(b',');
    json.extend_from_slice(fields);
    json.push(b'}');
    let hash = record_hash(&json);
    let mut chain = chain.clone();
    chain.push(&hash);
    Record { json, hash, chain, effect: *effect, mono: stamp.mono }
}
