//! One channel of an SSH recording as an [asciicast](https://docs.asciinema.org/manual/asciicast/v2/):
//! what a terminal showed, with its timing. A sequence that is split over records is whole again;
//! bytes that are not UTF-8 become U+FFFD, as JSON holds only characters (the records have them).
//!
//! The exported text is what the target sent, unchanged. Our own player filters it; another one gives
//! it to the viewer's terminal as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Body, Input, Pty};
use super::replay::{Content, Entry, ReplayError, Replayed, Source, replay};
use crate::domain::time::Timestamp;

/// A terminal's size where none was recorded.
const SIZE: (u32, u32) = (80, 24);
/// Most asterisks shown for what was typed and is not kept.
const MOST_MASKED: u64 = 1 << 10;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always 2.
    pub version: u8,
    pub width: u32,
    pub height: u32,
    /// When it begins, in seconds since the Unix epoch.
    pub timestamp: i64,
    pub title: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Something that happened, as long after the recording's opening as `at` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Output(String),
    Input(String),
    Resize { cols: u32, rows: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Always first; the channel, and how long after the recording's opening it begins.
    Begin {
        header: Header,
        channel: u32,
        at: Duration,
    },
    Event(Event),
}

/// Writes a channel of a recording as an asciicast: the given one, or the first with a terminal.
pub fn replay_asciicast(
    source: &Source<'_>,
    channel: Option<u32>,
    to: &mut impl Write,
) -> Result<Replayed, ReplayError> {
    let mut cast = Cast::new(channel);
    let mut begins = Duration::ZERO;
    let replayed = replay(source, |entry| {
        cast.record(entry).into_iter().try_for_each(|item| {
            if let Item::Begin { at, .. } = &item {
                begins = *at;
            }
            write_line(&item, begins, to)
        })
    })?;
    if cast.channel().is_none() {
        return Err(ReplayError::NoTerminal { connection: source.connection.clone(), channel });
    }
    Ok(replayed)
}

/// Times are told from when the channel begins.
fn write_line(item: &Item, begins: Duration, to: &mut impl Write) -> io::Result<()> {
    match item {
        Item::Begin { header, .. } => serde_json::to_writer(&mut *to, header)?,
        Item::Event(Event { at, what }) => {
            let (code, data) = match what {
                What::Output(text) => ("o", text),
                What::Input(text) => ("i", text),
                What::Resize { cols, rows } => ("r", &format!("{cols}x{rows}")),
            };
            serde_json::to_writer(&mut *to, &(at.saturating_sub(begins).as_secs_f64(), code, data))?;
        }
    }
    to.write_all(b"\n")
}

/// Takes one channel out of a recording's records.
#[derive(Debug)]
pub struct Cast {
    wanted: Option<u32>,
    begun: Option<u32>,
    /// Channels with a terminal.
    terminals: BTreeSet<u32>,
    opened_at: Option<Timestamp>,
    /// Time never goes back.
    last: Duration,
    title: String,
    output: Characters,
    errors: Characters,
    input: Characters,
}

impl Cast {
    /// Of the given channel, or else of the first with a terminal.
    pub fn new(channel: Option<u32>) -> Self {
        Self {
            wanted: channel,
            begun: None,
            terminals: BTreeSet::new(),
            opened_at: None,
            last: Duration::ZERO,
            title: String::new(),
            output: Characters::default(),
            errors: Characters::default(),
            input: Characters::default(),
        }
    }

    /// The channel that was found.
    pub const fn channel(&self) -> Option<u32> {
        self.begun
    }

    /// Other channels of the recording that have a terminal.
    pub fn others(&self) -> impl Iterator<Item = u32> {
        self.terminals.iter().copied().filter(|ch| Some(*ch) != self.begun)
    }

    /// What the next record adds.
    pub fn record(&mut self, entry: &Entry) -> Vec<Item> {
        let start = *self.opened_at.get_or_insert(entry.at);
        self.last = self.last.max(entry.at.since(start));
        match &entry.content {
            Content::Opened(opened) => {
                let context = &opened.0;
                let (who, target, access) = (&context.principal.name, &context.target, &context.access);
                self.title = format!("{who} on {target} as {access}, {}", context.connection);
                Vec::new()
            }
            Content::Body(body) => self.body(body, entry.at),
            Content::Ended(_) => self.rest(),
        }
    }

    fn body(&mut self, body: &Body, at: Timestamp) -> Vec<Item> {
        let mut items = Vec::new();
        match body {
            Body::Pty(pty) => {
                self.terminals.insert(pty.ch);
                self.begin(pty.ch, Some(pty), at, &mut items);
            }
            Body::Program(program) if self.wanted == Some(program.ch) => {
                self.begin(program.ch, None, at, &mut items);
            }
            Body::Input(Input { ch, data, masked }) if self.is_of(*ch, at, &mut items) => {
                let text = match masked {
                    Some(count) => "*".repeat(usize::try_from((*count).min(MOST_MASKED)).unwrap_or_default()),
                    None => self.input.add(&data.bytes()),
                };
                items.extend(self.event(What::Input(text)));
            }
            Body::Output(output) if self.is_of(output.ch, at, &mut items) => {
                let characters = if output.err { &mut self.errors } else { &mut self.output };
                let text = characters.add(&output.data.bytes());
                items.extend(self.event(What::Output(text)));
            }
            Body::Resize(size) if self.begun == Some(size.ch) => {
                items.extend(self.event(What::Resize { cols: size.cols, rows: size.rows }));
            }
            Body::ChannelEnded(ended) if self.begun == Some(ended.ch) => items.extend(self.rest()),
            _ => {}
        }
        items
    }

    /// Whether a record of `ch` is of the channel; one without a terminal begins with what it carries.
    fn is_of(&mut self, ch: u32, at: Timestamp, items: &mut Vec<Item>) -> bool {
        if self.wanted == Some(ch) {
            self.begin(ch, None, at, items);
        }
        self.begun == Some(ch)
    }

    fn begin(&mut self, ch: u32, pty: Option<&Pty>, at: Timestamp, items: &mut Vec<Item>) {
        if self.begun.is_some() || self.wanted.is_some_and(|wanted| wanted != ch) {
            return;
        }
        self.begun = Some(ch);
        let known = |size: u32, otherwise| if size == 0 { otherwise } else { size };
        let (width, height) = pty.map_or(SIZE, |pty| (known(pty.cols, SIZE.0), known(pty.rows, SIZE.1)));
        let term = pty.map(|pty| ("TERM".to_owned(), pty.term.clone()));
        let title = format!("{}, channel {ch}", self.title);
        let timestamp = at.as_micros().div_euclid(1_000_000);
        let header = Header { version: 2, width, height, timestamp, title, env: term.into_iter().collect() };
        items.push(Item::Begin { header, channel: ch, at: self.last });
    }

    fn event(&self, what: What) -> Option<Item> {
        let is_empty = matches!(&what, What::Output(text) | What::Input(text) if text.is_empty());
        (!is_empty).then_some(Item::Event(Event { at: self.last, what }))
    }

    /// Characters that never became whole.
    fn rest(&mut self) -> Vec<Item> {
        let input = What::Input(self.input.rest());
        let output = [self.output.rest(), self.errors.rest()].map(What::Output);
        [input].into_iter().chain(output).filter_map(|what| self.event(what)).collect()
    }
}

/// Puts characters together that were cut in two.
#[derive(Debug, Default)]
struct Characters {
    begun: Vec<u8>,
}

impl Characters {
    fn add(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let whole = whole_characters(&self.begun);
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun = rest;
        text
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned()
    }
}

/// How many of the bytes there are without a character begun at their end.
pub(super) fn whole_characters(bytes: &[u8]) -> usize {
    let begun = (1..=bytes.len().min(3)).find(|back| {
        let tail = bytes.get(bytes.len() - back..).unwrap_or_default();
        std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    });
    bytes.len() - begun.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_is_the_same_however_it_was_cut(text in "\\PC{0,40}", cuts in proptest::collection::vec(0..120_usize, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut characters = Characters::default();
            let mut read: String = cuts.windows(2).map(|cut| characters.add(&text.as_bytes()[cut[0]..cut[1]])).collect();
            read.push_str(&characters.rest());
            prop_assert_eq!(read, text);
        }

        #[test]
        fn bytes_are_read_as_if_they_were_never_cut(bytes in proptest::collection::vec(any::<u8>(), 0..40), at in 0..40_usize) {
            let (before, after) = bytes.split_at(at.min(bytes.len()));
            let mut characters = Characters::default();
            let read = [characters.add(before), characters.add(after), characters.rest()].concat();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
