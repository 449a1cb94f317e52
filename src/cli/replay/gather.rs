//! Takes records as they come, from the server or from files, until it is known what there is to show:
//! a terminal to play, or else the transcript.

use std::io::{self, Write};
use std::time::Duration;

use crate::audit::asciicast::{Cast, Event, Header, Item, What};
use crate::audit::replay::{Content, Entry, Transcript};

/// What a recording without a terminal is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    Transcript,
    Nothing,
}

/// A terminal to play.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) header: Header,
    pub(super) channel: u32,
    /// How long after the recording's opening it begins.
    pub(super) begins: Duration,
    pub(super) events: Vec<Event>,
    /// Other channels with a terminal.
    pub(super) others: Vec<u32>,
    /// Whether the recording has its end.
    pub(super) is_whole: bool,
}

impl Recorded {
    /// The largest size that the terminal had.
    pub(super) fn size(&self) -> (u32, u32) {
        let sizes = self.events.iter().filter_map(|event| match event.what {
            What::Resize { cols, rows } => Some((cols, rows)),
            What::Output(_) | What::Input(_) => None,
        });
        let first = (self.header.width, self.header.height);
        sizes.fold(first, |(cols, rows), size| (cols.max(size.0), rows.max(size.1)))
    }
}

#[derive(Debug)]
pub(super) struct Gathering {
    cast: Cast,
    begun: Option<(Header, u32, Duration)>,
    events: Vec<Event>,
    otherwise: Otherwise,
    transcript: Transcript,
    /// The transcript until it is known that it is wanted.
    text: Vec<u8>,
    /// Set when no terminal can come any more: the transcript goes out as it grows.
    is_text: bool,
}

impl Gathering {
    pub(super) fn new(channel: Option<u32>, otherwise: Otherwise) -> Self {
        Self {
            cast: Cast::new(channel),
            begun: None,
            events: Vec::new(),
            otherwise,
            transcript: Transcript::default(),
            text: Vec::new(),
            is_text: false,
        }
    }

    /// The next record. Only an SSH connection can have a terminal; another's transcript goes to `to` at
    /// once.
    pub(super) fn record(&mut self, entry: &Entry, to: &mut impl Write) -> io::Result<()> {
        if let Content::Opened(opened) = &entry.content {
            self.is_text = self.otherwise == Otherwise::Transcript && opened.1.client_ssh.is_none();
        }
        if self.is_text {
            return self.transcript.write(entry, to);
        }
        for item in self.cast.record(entry) {
            match item {
                Item::Begin { header, channel, at } => {
                    self.begun = Some((header, channel, at));
                    self.text = Vec::new();
                }
                // A player does not show what was typed but as it was echoed.
                Item::Event(Event { what: What::Input(_), .. }) => {}
                Item::Event(event) => self.events.push(event),
            }
        }
        if self.begun.is_none() && self.otherwise == Otherwise::Transcript {
            self.transcript.write(entry, &mut self.text)?;
        }
        Ok(())
    }

    /// The terminal; without one, the rest of the transcript goes to `to`.
    pub(super) fn finish(self, is_whole: bool, to: &mut impl Write) -> io::Result<Option<Recorded>> {
        if let Some((header, channel, begins)) = self.begun {
            let others = self.cast.others().collect();
            return Ok(Some(Recorded { header, channel, begins, events: self.events, others, is_whole }));
        }
        if self.otherwise == Otherwise::Transcript {
            to.write_all(&self.text)?;
            if !is_whole {
                self.transcript.still_open(to)?;
            }
        }
        Ok(None)
    }
}
