//! The records of an SSH connection as lines, each with its channel where there is more than one.
//!
//! What a terminal showed and what came over other streams stands behind a bar, a line of it in one
//! line of the transcript, when it is whole; keys are shown when Enter is pressed.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Offset;
use super::event::event;
use crate::audit::record::{Body, Input, Output};
use crate::audit::screen::{Screen, Shown};
use crate::domain::text::on_one_line;

/// Longest line of a stream, in bytes; a longer one is cut in two.
const LONGEST: usize = 4 << 10;

/// What is under way in a recording's channels.
#[derive(Debug, Default)]
pub(super) struct Channels {
    open: BTreeMap<u32, Channel>,
    /// Whether there was more than one.
    several: bool,
}

#[derive(Debug, Default)]
struct Channel {
    /// Set when the channel has a terminal.
    screen: Option<Screen>,
    /// Keys since Enter.
    typed: Vec<u8>,
    input: Lines,
    output: Lines,
    errors: Lines,
}

impl Channels {
    pub(super) fn record(&mut self, body: &Body, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        match body {
            Body::Input(input) => self.input(input, offset, to),
            Body::Output(output) => self.output(output, offset, to),
            _ => {
                let Some((ch, text)) = event(body) else { return Ok(()) };
                if matches!(body, Body::ChannelEnded(_)) {
                    self.finish_one(ch, offset, to)?;
                }
                self.line(ch, offset, &text, to)?;
                match body {
                    Body::Pty(pty) => self.channel(ch).screen = Some(Screen::new(pty.cols)),
                    Body::Resize(size) => {
                        if let Some(screen) = &mut self.channel(ch).screen {
                            screen.resize(size.cols, size.rows);
                        }
                    }
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// Shows what every channel's streams have on their last lines.
    pub(super) fn finish(&mut self, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        let open: Vec<u32> = self.open.keys().copied().collect();
        open.into_iter().try_for_each(|ch| self.finish_one(ch, offset, to))
    }

    fn finish_one(&mut self, ch: u32, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        let Some(mut channel) = self.open.remove(&ch) else { return Ok(()) };
        if let Some(screen) = &mut channel.screen {
            for shown in screen.rest() {
                self.line(ch, offset, &on_screen(shown), to)?;
            }
        }
        if !channel.typed.is_empty() {
            self.line(ch, offset, &typed(&channel.typed), to)?;
        }
        for (name, lines) in
            [("in ", &mut channel.input), ("out", &mut channel.output), ("err", &mut channel.errors)]
        {
            if let Some(text) = lines.rest() {
                self.line(ch, offset, &format!("{name} | {text}"), to)?;
            }
        }
        Ok(())
    }

    fn input(&mut self, input: &Input, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        let channel = self.channel(input.ch);
        let mut lines = Vec::new();
        if let Some(count) = input.masked {
            lines.push(format!("typed ({count} characters that are not kept)"));
        } else if channel.screen.is_none() {
            lines.extend(channel.input.feed(&input.data.bytes()).map(|text| format!("in  | {text}")));
        } else {
            channel.typed.extend(input.data.bytes());
            while let Some(end) = end_of_typing(&channel.typed) {
                let keys: Vec<u8> = channel.typed.drain(..end).collect();
                lines.push(typed(&keys));
            }
        }
        lines.iter().try_for_each(|text| self.line(input.ch, offset, text, to))
    }

    fn output(&mut self, output: &Output, offset: &Offset, to: &mut impl Write) -> io::Result<()> {
        let bytes = output.data.bytes();
        let channel = self.channel(output.ch);
        let lines: Vec<String> = match &mut channel.screen {
            Some(screen) if !output.err => screen.feed(&bytes).map(on_screen).collect(),
            _ if output.err => channel.errors.feed(&bytes).map(|text| format!("err | {text}")).collect(),
            _ => channel.output.feed(&bytes).map(|text| format!("out | {text}")).collect(),
        };
        lines.iter().try_for_each(|text| self.line(output.ch, offset, text, to))
    }

    fn channel(&mut self, ch: u32) -> &mut Channel {
        self.open.entry(ch).or_default()
    }

    fn line(&mut self, ch: u32, offset: &Offset, text: &str, to: &mut impl Write) -> io::Result<()> {
        self.several |= ch > 1;
        if self.several && ch > 0 {
            writeln!(to, "{offset}  #{ch} {text}")
        } else {
            writeln!(to, "{offset}  {text}")
        }
    }
}

fn on_screen(shown: Shown) -> String {
    match shown {
        Shown::Line(line) | Shown::Begun(line) => format!("| {}", on_one_line(&line)),
        Shown::FullScreen => "a program draws on the whole screen: play it to see it".to_owned(),
    }
}

fn typed(keys: &[u8]) -> String {
    format!("typed {}", on_one_line(&String::from_utf8_lossy(keys)))
}

/// Behind Enter, or where there are too many keys without one.
fn end_of_typing(keys: &[u8]) -> Option<usize> {
    let enter = keys.iter().position(|key| matches!(key, b'\r' | b'\n')).map(|at| at + 1);
    enter.or_else(|| (keys.len() >= LONGEST).then_some(LONGEST))
}

/// A stream that no terminal shows, in lines. Lines that are not text are left out, with a word for as
/// many as follow each other, and what comes after them is shown: one byte must hide nothing.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    /// The last line was not text.
    is_binary: bool,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> impl Iterator<Item = String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST {
                lines.extend(self.rest());
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        lines.into_iter()
    }

    fn rest(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return None;
        }
        let whole = line.strip_suffix(b"\r").unwrap_or(&line);
        match std::str::from_utf8(whole) {
            Ok(text) if !text.contains('\0') => {
                self.is_binary = false;
                Some(on_one_line(text))
            }
            // A long line may be cut within a character.
            Err(error) if line.len() >= LONGEST && error.error_len().is_none() => {
                let (text, begun) = line.split_at_checked(error.valid_up_to())?;
                self.line = begun.to_vec();
                Some(on_one_line(&String::from_utf8_lossy(text)))
            }
            _ => {
                let told = std::mem::replace(&mut self.is_binary, true);
                (!told).then(|| "(not text)".to_owned())
            }
        }
    }
}
