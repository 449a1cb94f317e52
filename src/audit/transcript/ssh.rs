//! The records of an SSH connection as lines, each with its channel where there is more than one.
//!
//! What a terminal showed and what came over other streams stands behind a bar, a line of it in one
//! line of the transcript, when it is whole; keys are shown when Enter is pressed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use super::Offset;
use super::screen::{Screen, Shown};
use crate::audit::record::{
    Body, ChannelEnded, ChannelKind, ChannelOpened, ChannelRefused, Data, Direction, Env, File, FilePhase,
    Input, Listen, Output, Program, ProgramKind, Pty, StreamEnd,
};
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
                            screen.resize(size.cols);
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
        Shown::Line(line) => format!("| {}", on_one_line(&line)),
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

/// A stream that no terminal shows, in lines. Once it turns out not to be text, the rest of it is left
/// out: its size and hash are in its `stream_end`.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    is_binary: bool,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> impl Iterator<Item = String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST {
                lines.extend(self.rest());
            }
            if *byte != b'\n' && !self.is_binary {
                self.line.push(*byte);
            }
        }
        lines.into_iter()
    }

    fn rest(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if self.is_binary || line.is_empty() {
            return None;
        }
        let whole = line.strip_suffix(b"\r").unwrap_or(&line);
        match std::str::from_utf8(whole) {
            Ok(text) if !text.contains('\0') => Some(on_one_line(text)),
            // A long line may be cut within a character.
            Err(error) if line.len() >= LONGEST && error.error_len().is_none() => {
                let (text, begun) = line.split_at_checked(error.valid_up_to())?;
                self.line = begun.to_vec();
                Some(on_one_line(&String::from_utf8_lossy(text)))
            }
            _ => {
                self.is_binary = true;
                Some("(not text from here on)".to_owned())
            }
        }
    }
}

/// A record that is a line by itself.
fn event(body: &Body) -> Option<(u32, String)> {
    let line = match body {
        Body::ChannelOpened(opened) => (opened.ch, channel_opened(opened)),
        Body::ChannelRefused(refused) => (refused.ch, channel_refused(refused)),
        Body::Pty(pty) => (pty.ch, terminal(pty)),
        Body::Env(variable) => (variable.ch, env(variable)),
        Body::Program(run) => (run.ch, program(run)),
        Body::Resize(size) => (size.ch, format!("resized to {}x{}", size.cols, size.rows)),
        Body::Signal(signal) => (signal.ch, format!("signal {}", on_one_line(&signal.name))),
        Body::Eof(eof) => (eof.ch, format!("nothing more {}", way(eof.from, false))),
        Body::StreamEnd(end) => (end.ch, stream_end(end)),
        Body::File(operation) => (operation.ch, file(operation)),
        Body::Listen(asked) => (asked.ch, listen(asked)),
        Body::ChannelEnded(ended) => (ended.ch, channel_ended(ended)),
        Body::Input(_)
        | Body::Output(_)
        | Body::SqlPart(_)
        | Body::ParameterPart(_)
        | Body::Statement(_)
        | Body::StatementEnd(_)
        | Body::CopyEnd(_)
        | Body::Cancel(_)
        | Body::Notice(_)
        | Body::Credential(_) => return None,
    };
    Some(line)
}

fn terminal(pty: &Pty) -> String {
    format!("terminal {}, {}x{}", on_one_line(&pty.term), pty.cols, pty.rows)
}

/// Text that a peer sent, on one line; bytes that are not text by their number.
fn shown(data: &Data) -> String {
    match data {
        Data::Text { txt } => on_one_line(txt),
        Data::Bytes { .. } => format!("(not text, {} bytes)", data.bytes().len()),
    }
}

fn channel_opened(opened: &ChannelOpened) -> String {
    let kind = match opened.channel {
        ChannelKind::Session => "session",
        ChannelKind::DirectTcpip => "forward",
        ChannelKind::ForwardedTcpip => "forward back",
        ChannelKind::DirectStreamlocal => "socket forward",
        ChannelKind::ForwardedStreamlocal => "socket forward back",
        ChannelKind::Agent => "agent forward",
    };
    let mut line = format!("{kind} opened");
    for (word, text) in [("to", &opened.destination), ("from", &opened.originator)] {
        if let Some(text) = text {
            line += &format!(" {word} {}", on_one_line(text));
        }
    }
    if let Some(credential) = &opened.credential {
        line += &format!(", logged in with {}", on_one_line(&credential.handle));
    }
    line
}

fn channel_refused(refused: &ChannelRefused) -> String {
    let to = refused.destination.as_deref().map(|to| format!(" to {}", on_one_line(to)));
    format!(
        "REFUSED {}{} by {}: {}",
        on_one_line(&refused.what),
        to.unwrap_or_default(),
        on_one_line(&refused.rule),
        on_one_line(&refused.needs)
    )
}

fn env(env: &Env) -> String {
    let passed = if env.passed { "" } else { " (not passed on)" };
    format!("environment {}={}{passed}", on_one_line(&env.name), shown(&env.value))
}

fn program(program: &Program) -> String {
    let how = match program.how {
        ProgramKind::Shell => "shell",
        ProgramKind::Exec => "command",
        ProgramKind::Subsystem => "subsystem",
    };
    let command = program.command.as_ref().map(|command| format!(" {}", shown(command)));
    let hint = program.hint.as_deref().map(|hint| format!(" ({})", on_one_line(hint)));
    format!("{how}{}{}", command.unwrap_or_default(), hint.unwrap_or_default())
}

/// Where bytes went, in words.
const fn way(direction: Direction, err: bool) -> &'static str {
    match (direction, err) {
        (Direction::In, _) => "to the target",
        (Direction::Out, false) => "from the target",
        (Direction::Out, true) => "from the target's standard error",
    }
}

fn stream_end(end: &StreamEnd) -> String {
    let way = way(end.direction, end.err);
    let sha256 = on_one_line(&end.sha256);
    format!("stream {way}: {} bytes, the first {} kept, sha256 {sha256}", end.bytes, end.head)
}

fn file(file: &File) -> String {
    let mut line = format!("{} {} {}", on_one_line(&file.tool), on_one_line(&file.op), shown(&file.path));
    if let Some(to) = &file.to {
        line += &format!(" -> {}", shown(to));
    }
    for text in [&file.flags, &file.attributes].into_iter().flatten() {
        line += &format!(" {}", on_one_line(text));
    }
    match (&file.outcome, file.phase) {
        (Some(outcome), _) => line += &format!(": {}", on_one_line(outcome)),
        (None, FilePhase::Asked) => line += " …",
        (None, FilePhase::Answered) => {}
    }
    if let Some(message) = &file.message {
        line += &format!(" ({})", on_one_line(message));
    }
    for (word, bytes) in [("read", file.read), ("wrote", file.written)] {
        if let Some(bytes) = bytes {
            line += &format!(", {word} {bytes} bytes");
        }
    }
    if let Some(sha256) = &file.sha256 {
        line += &format!(", sha256 {}", on_one_line(sha256));
    }
    line
}

fn listen(listen: &Listen) -> String {
    let address = on_one_line(&listen.address);
    let place = if listen.streamlocal { address } else { format!("{address}:{}", listen.port) };
    let what = match (listen.cancelled, listen.granted) {
        (true, _) => "given up",
        (false, true) => "granted",
        (false, false) => "not granted",
    };
    format!("listening at the target on {place} {what}")
}

fn channel_ended(ended: &ChannelEnded) -> String {
    let mut line = "channel ended".to_owned();
    if let Some(status) = ended.exit_status {
        line += &format!(": exit status {status}");
    }
    if let Some(signal) = &ended.exit_signal {
        line += &format!(": killed by SIG{}", on_one_line(signal));
    }
    if let Some(why) = &ended.why {
        line += &format!(": {}", on_one_line(why));
    }
    let seconds = Duration::from_micros(ended.duration_us);
    line + &format!(
        " ({} bytes in, {} bytes out, {}.{:03} s)",
        ended.bytes_in,
        ended.bytes_out,
        seconds.as_secs(),
        seconds.subsec_millis()
    )
}
