//! From the records of a recording to the texts in it that can be searched.
//!
//! Of a terminal, the lines that it showed and those that were typed; of other streams their lines; of a
//! statement its text and parameters; of everything else what somebody wrote or chose: names, paths, reasons.
//! What was masked when it was recorded is not there. Memory is bounded however large the recording, and the
//! state between two records can be stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stream::Stream;
use super::text::{LONGEST_NEEDLE, is_gap, tidy};
use super::typed::Typed;
use crate::audit::asciicast::whole_characters;
use crate::audit::record::{Body, Data, Format, Input, Opened, Output, Parameter, Sql, Value};
use crate::audit::replay::Content;
use crate::audit::screen::{Screen, Shown};

/// Kinds of records that hold texts. What a terminal showed is of kind `output`, whichever record brought it to
/// its end; a part of a statement is of kind `statement`.
pub const KINDS: &[&str] = &[
    "opened",
    "statement",
    "statement_end",
    "copy_end",
    "cancel",
    "notice",
    "credential",
    "channel_opened",
    "channel_refused",
    "env",
    "program",
    "input",
    "output",
    "file",
    "listen",
    "stream_end",
    "channel_ended",
];

/// A text of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: &'static str,
    /// On one line, see [`tidy`].
    pub(super) text: String,
    /// So many characters, from the first, were in the piece before: a text that was cut overlaps.
    pub(super) old: usize,
}

/// Takes the records of one recording, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Extractor {
    #[serde(default, skip_serializing_if = "is_default")]
    sql: Cut,
    /// The beginning of a character at the end of the part of a statement.
    #[serde(default, skip_serializing_if = "is_default")]
    character: Vec<u8>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    channels: BTreeMap<u32, Channel>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Channel {
    /// Set when the channel has a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    screen: Option<Screen>,
    #[serde(default, skip_serializing_if = "is_default")]
    typed: Typed,
    #[serde(default, skip_serializing_if = "is_default")]
    input: Stream,
    #[serde(default, skip_serializing_if = "is_default")]
    output: Stream,
    #[serde(default, skip_serializing_if = "is_default")]
    errors: Stream,
    /// Of what was shown, typed or sent in, sent out, sent as errors.
    #[serde(default, skip_serializing_if = "is_default")]
    cuts: [Cut; 4],
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The end of a text that was cut, to be put before what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Cut(String);

impl Cut {
    fn piece(&mut self, kind: &'static str, text: &str, goes_on: bool) -> Piece {
        let before = std::mem::take(&mut self.0);
        let old = before.trim_end().chars().count();
        let tidied = tidy(&[before.as_str(), text].concat());
        if goes_on {
            let skipped = tidied.chars().count().saturating_sub(LONGEST_NEEDLE);
            self.0 = tidied.chars().skip(skipped).skip_while(|character| *character == ' ').collect();
            // Words that the cut stands between stay apart.
            if text.ends_with(is_gap) {
                self.0.push(' ');
            }
        }
        Piece { kind, text: tidied, old }
    }
}

impl Extractor {
    /// Gives the texts that a record completes. Says whether the record is needed to read the recording's texts:
    /// the others can be passed over.
    pub(super) fn record(&mut self, content: &Content, each: &mut impl FnMut(Piece)) -> bool {
        let mut told = false;
        let each = &mut |piece: Piece| {
            if !piece.text.is_empty() {
                told = true;
                each(piece);
            }
        };
        let counts = match content {
            Content::Opened(opened) => {
                of_opening(&opened.1, each);
                false
            }
            Content::Ended(_) => {
                let is_needed = !self.channels.is_empty();
                self.rest(each);
                is_needed
            }
            Content::Body(body) => self.body(body, each),
        };
        counts || told
    }

    /// The texts that are under way.
    pub(super) fn rest(&mut self, each: &mut impl FnMut(Piece)) {
        for (_, mut channel) in std::mem::take(&mut self.channels) {
            channel.rest(each);
        }
    }

    /// As it can be stored; nothing when there is nothing under way.
    pub(super) fn stored(&mut self) -> Option<Vec<u8>> {
        for screen in self.channels.values_mut().filter_map(|channel| channel.screen.as_mut()) {
            screen.forget_drawn();
        }
        let nothing = self.channels.is_empty() && self.character.is_empty() && is_default(&self.sql);
        (!nothing).then(|| serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn restored(stored: Option<&[u8]>) -> Result<Self, serde_json::Error> {
        stored.map_or_else(|| Ok(Self::default()), serde_json::from_slice)
    }

    fn body(&mut self, body: &Body, each: &mut impl FnMut(Piece)) -> bool {
        match body {
            Body::SqlPart(part) => {
                let text = self.sql_text(&part.sql, false);
                each(self.sql.piece("statement", &text, true));
            }
            Body::ParameterPart(part) => parameters(&part.params, each),
            Body::Statement(statement) => {
                parameters(&statement.params, each);
                each(line(body.kind(), [statement.fingerprint.as_deref()]));
                let text = self.sql_text(&statement.sql, true);
                each(self.sql.piece("statement", &text, false));
            }
            Body::Pty(pty) => {
                let channel = self.channels.entry(pty.ch).or_default();
                channel.screen = Some(Screen::whole(pty.cols, pty.rows));
            }
            Body::Resize(size) => {
                let channel = self.channels.get_mut(&size.ch);
                let Some(screen) = channel.and_then(|channel| channel.screen.as_mut()) else { return false };
                screen.resize(size.cols, size.rows);
            }
            Body::Input(input) => return self.channels.entry(input.ch).or_default().input(input, each),
            Body::Output(output) => self.channels.entry(output.ch).or_default().output(output, each),
            Body::ChannelEnded(ended) => {
                let channel = self.channels.remove(&ended.ch);
                let was_there = channel.is_some();
                channel.unwrap_or_default().rest(each);
                each(line(body.kind(), [ended.why.as_deref()]));
                return was_there;
            }
            _ => {
                of_event(body, each);
                return false;
            }
        }
        true
    }

    /// The text of a part, in whole characters.
    fn sql_text(&mut self, sql: &Sql, last: bool) -> String {
        let mut bytes = std::mem::take(&mut self.character);
        bytes.extend(sql.bytes());
        if !last {
            self.character = bytes.split_off(whole_characters(&bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Channel {
    fn input(&mut self, input: &Input, each: &mut impl FnMut(Piece)) -> bool {
        if input.masked.is_some() {
            return false;
        }
        let bytes = input.data.bytes();
        let [_, cut, ..] = &mut self.cuts;
        let mut give = |(text, goes_on): (String, bool)| each(cut.piece("input", &text, goes_on));
        if self.screen.is_some() {
            self.typed.feed(&bytes).for_each(&mut give);
        } else {
            self.input.feed(&bytes).into_iter().for_each(&mut give);
        }
        true
    }

    fn output(&mut self, output: &Output, each: &mut impl FnMut(Piece)) {
        let bytes = output.data.bytes();
        let [shown, _, out, errors] = &mut self.cuts;
        let (stream, cut) = match &mut self.screen {
            Some(screen) if !output.err => {
                for line in screen.feed(&bytes) {
                    show(line, shown, each);
                }
                return;
            }
            _ if output.err => (&mut self.errors, errors),
            _ => (&mut self.output, out),
        };
        for (text, goes_on) in stream.feed(&bytes) {
            each(cut.piece("output", &text, goes_on));
        }
    }

    fn rest(&mut self, each: &mut impl FnMut(Piece)) {
        let [shown, typed, out, errors] = &mut self.cuts;
        for line in self.screen.iter_mut().flat_map(Screen::rest) {
            show(line, shown, each);
        }
        each(typed.piece("input", &(self.typed.rest() + &self.input.rest()), false));
        each(out.piece("output", &self.output.rest(), false));
        each(errors.piece("output", &self.errors.rest(), false));
    }
}

fn show(shown: Shown, cut: &mut Cut, each: &mut impl FnMut(Piece)) {
    match shown {
        Shown::Line(text) => each(cut.piece("output", &text, false)),
        Shown::Begun(text) => each(cut.piece("output", &text, true)),
        Shown::FullScreen => {}
    }
}

/// Several texts that belong together, as one.
fn line<const N: usize>(kind: &'static str, parts: [Option<&str>; N]) -> Piece {
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    Piece { kind, text: tidy(&parts.join(" ")), old: 0 }
}

fn of_opening(opened: &Opened, each: &mut impl FnMut(Piece)) {
    each(line("opened", [Some(&opened.reason), opened.ticket.as_deref()]));
    each(line("opened", [opened.application.as_deref(), opened.database.as_deref()]));
    for approval in &opened.approvals {
        each(line("opened", [Some(&approval.comment)]));
    }
}

/// The records that are a line by themselves.
fn of_event(body: &Body, each: &mut impl FnMut(Piece)) {
    let kind = body.kind();
    let text = |data: &Data| String::from_utf8_lossy(&data.bytes()).into_owned();
    match body {
        Body::StatementEnd(end) => each(line(kind, [end.sqlstate.as_deref(), end.message.as_deref()])),
        Body::CopyEnd(copy) => each(line(kind, [copy.table.as_deref(), Some(&copy.sha256)])),
        Body::Cancel(cancel) => each(line(kind, [Some(&cancel.why)])),
        Body::Notice(notice) => each(line(kind, [Some(&notice.text)])),
        Body::Credential(credential) => {
            each(line(kind, [Some(&credential.mark.handle), credential.detail.as_deref()]));
        }
        Body::ChannelOpened(opened) => {
            each(line(kind, [opened.destination.as_deref(), opened.originator.as_deref()]));
        }
        Body::ChannelRefused(refused) => {
            each(line(kind, [Some(&refused.what), refused.destination.as_deref(), Some(&refused.rule)]));
        }
        Body::Env(env) => each(line(kind, [Some(&format!("{}={}", env.name, text(&env.value)))])),
        Body::Program(program) => each(line(kind, [program.command.as_ref().map(text).as_deref()])),
        Body::StreamEnd(sum) => each(line(kind, [Some(&sum.sha256)])),
        Body::File(file) => {
            let (path, to) = (text(&file.path), file.to.as_ref().map(text));
            let asked = [Some(file.tool.as_str()), Some(&file.op), Some(&path), to.as_deref()];
            each(line(kind, asked));
            each(line(kind, [file.message.as_deref(), file.sha256.as_deref()]));
        }
        Body::Listen(listen) => each(line(kind, [Some(&format!("{}:{}", listen.address, listen.port))])),
        _ => {}
    }
}

fn parameters(parameters: &[Parameter], each: &mut impl FnMut(Piece)) {
    for parameter in parameters {
        each(line("statement", [value(parameter).as_deref()]));
    }
}

/// A signed number of at most eight bytes, the highest first.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |number, byte| (number << 8) | i64::from(*byte))
}

/// A parameter as a person would write it. Numbers and UUIDs come in binary from many drivers.
fn value(parameter: &Parameter) -> Option<String> {
    let bytes = match &parameter.value {
        Value::Null { .. } => return None,
        // Decoded when it was recorded, whatever form it had.
        Value::Text { text } => return Some(text.clone()),
        Value::Bytes { b64 } => data_encoding::BASE64.decode(b64.as_bytes()).ok()?,
    };
    if parameter.format == Format::Binary {
        // OIDs of PostgreSQL's pg_type: int8, int2, int4, uuid.
        match (parameter.oid, bytes.len()) {
            (20, 8) | (21, 2) | (23, 4) => return Some(integer(&bytes).to_string()),
            (2950, 16) => {
                let hex = crate::crypto::hex(&bytes);
                let part = |from, to| hex.get(from..to).unwrap_or_default();
                let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
                return Some(parts.join("-"));
            }
            _ => {}
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::record::Pty;
    use crate::audit::search::text::Needle;

    proptest! {
        #[test]
        fn words_beside_each_other_are_found_wherever_a_line_is_cut(
            words in proptest::collection::vec("[a-z]{1,9}", 300..1_500), at in any::<proptest::sample::Index>(), has_terminal: bool,
        ) {
            let mut extractor = Extractor::default();
            let (term, modes) = ("xterm".to_owned(), BTreeMap::new());
            let pty = Pty { ch: 1, term, cols: 80, rows: 24, modes };
            let text = words.join(" ");
            let mut bodies = vec![Body::Output(Output { ch: 1, data: Data::new(text.as_bytes()), err: false }),
                Body::Output(Output { ch: 1, data: Data::new(b"\r\n"), err: false })];
            if has_terminal {
                bodies.insert(0, Body::Pty(pty));
            }
            let mut pieces = Vec::new();
            for body in bodies {
                extractor.record(&Content::Body(Box::new(body)), &mut |piece| pieces.push(piece));
            }
            let at = at.index(words.len() - 2);
            let needle = Needle::new(&words[at..at + 2].join(" "));
            prop_assert!(pieces.iter().any(|piece| needle.excerpt(&piece.text, piece.old).is_some()));
            let new: String = pieces.iter().map(|piece| piece.text.chars().skip(piece.old).collect::<String>()).collect();
            prop_assert_eq!(new.replace(' ', ""), text.replace(' ', ""), "nothing is there twice");
        }
    }

    #[test]
    fn values_read_as_a_person_would_write_them() {
        let uuid: Vec<u8> = (0xf0..=0xff).collect();
        for (bytes, format, oid, expected) in [
            (&(-2_i64).to_be_bytes()[..], Format::Binary, 20, "-2"),
            (&4_711_815_i64.to_be_bytes(), Format::Binary, 20, "4711815"),
            (&(-300_i16).to_be_bytes(), Format::Binary, 21, "-300"),
            (&i32::MIN.to_be_bytes(), Format::Binary, 23, "-2147483648"),
            (&uuid, Format::Binary, 2950, "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff"),
            (b"12345678", Format::Binary, 25, "12345678"),
            (b"12345678", Format::Text, 20, "12345678"),
            // Decoded already: as many characters as the type has bytes.
            (b"12345678", Format::Binary, 20, "12345678"),
            (b"4711", Format::Binary, 23, "4711"),
        ] {
            let parameter = Parameter::new(Some(bytes), format, oid);
            assert_eq!(value(&parameter).as_deref(), Some(expected), "{bytes:?}");
        }
        assert_eq!(value(&Parameter::new(None, Format::Binary, 20)), None);
    }
}
