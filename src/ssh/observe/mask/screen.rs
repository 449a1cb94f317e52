//! As much of a terminal as it takes to know what the cursor's line says: text, the controls that
//! end or rewrite a line, escape sequences (ECMA-48; xterm's control sequences) only to skip them.

use super::echo::Echo;
use super::prompt;

/// How much of a line is kept, from its end.
const LONGEST_LINE: usize = 512;
/// How much of a sequence's parameters is kept.
const LONGEST_PARAMETERS: usize = 32;

#[derive(Debug)]
pub(super) struct Screen {
    line: Vec<u8>,
    /// How many bytes at the end of the line were typed by the user.
    echoed: usize,
    /// The cursor is back at the line's beginning: what comes replaces the line.
    returned: bool,
    alternate: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Ground,
    Escape,
    /// Of an escape sequence that has more than one byte.
    Intermediate,
    Csi(Parameters),
    /// An operating system command, or another string that is not shown.
    String,
    /// After an escape inside of one.
    StringEscape,
}

#[derive(Debug)]
struct Parameters {
    bytes: [u8; LONGEST_PARAMETERS],
    length: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { line: Vec::new(), echoed: 0, returned: false, alternate: false, state: State::Ground }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.line.capacity()
    }

    pub(super) fn is_alternate(&self) -> bool {
        self.alternate
    }

    /// Whether the cursor's line does, in what the user did not type.
    pub(super) fn asks_for_secret(&self) -> bool {
        let line = String::from_utf8_lossy(&self.line);
        let shown = line.len().saturating_sub(self.echoed);
        prompt::asks_for_secret(&line).is_some_and(|at| at < shown)
    }

    pub(super) fn show(&mut self, mut bytes: &[u8], echo: &mut Echo) {
        while let [first, rest @ ..] = bytes {
            if matches!(self.state, State::Ground) {
                let length = bytes.iter().position(|byte| is_control(*byte)).unwrap_or(bytes.len());
                let (text, after) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
                if !text.is_empty() {
                    self.text(text, echo);
                    bytes = after;
                    continue;
                }
            }
            self.byte(*first, echo);
            bytes = rest;
        }
    }

    fn text(&mut self, text: &[u8], echo: &mut Echo) {
        if self.returned {
            self.clear();
        }
        if echo.is_waiting() {
            for byte in text {
                self.echoed = if is_inside_character(*byte) && self.echoed > 0 || echo.shown(*byte) {
                    self.echoed + 1
                } else {
                    0
                };
            }
        } else if !text.iter().all(|byte| is_inside_character(*byte)) {
            self.echoed = 0;
        }
        self.keep(text);
    }

    fn keep(&mut self, text: &[u8]) {
        let kept = text.len().saturating_sub(LONGEST_LINE);
        let surplus = (self.line.len() + text.len() - kept).saturating_sub(2 * LONGEST_LINE);
        if surplus > 0 {
            // In big steps, so that a long line does not move with every byte.
            self.line.drain(..self.line.len().min(surplus + LONGEST_LINE));
        }
        self.line.extend_from_slice(text.get(kept..).unwrap_or(text));
    }

    fn byte(&mut self, byte: u8, echo: &mut Echo) {
        let state = std::mem::replace(&mut self.state, State::Ground);
        self.state = match (state, byte) {
            (State::Ground | State::Intermediate | State::Csi(_), 0x1b) => State::Escape,
            (State::Ground, byte) => {
                self.control(byte);
                State::Ground
            }
            (State::String, 0x1b) => State::StringEscape,
            // Bell ends a string; CAN and SUB end anything.
            (State::String, 0x07) | (State::StringEscape, b'\\') | (_, 0x18 | 0x1a) => State::Ground,
            (State::String, _) => State::String,
            (State::StringEscape | State::Escape, byte) => self.escape(byte, echo),
            (state @ (State::Intermediate | State::Csi(_)), 0..0x20) => {
                // Terminals obey a control inside of a sequence.
                self.control(byte);
                state
            }
            (State::Intermediate, 0x20..0x30) => State::Intermediate,
            (State::Intermediate, _) => State::Ground,
            (State::Csi(mut parameters), 0x20..0x40) => {
                parameters.push(byte);
                State::Csi(parameters)
            }
            (State::Csi(parameters), _) => {
                self.csi(byte, &parameters, echo);
                State::Ground
            }
        };
    }

    fn control(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.clear(),
            b'\r' => self.returned = true,
            0x08 => {
                while self.line.pop().is_some_and(is_inside_character) {
                    self.echoed = self.echoed.saturating_sub(1);
                }
                self.echoed = self.echoed.saturating_sub(1);
            }
            b'\t' => {
                self.keep(b" ");
                self.echoed = 0;
            }
            _ => {}
        }
    }

    fn escape(&mut self, byte: u8, echo: &mut Echo) -> State {
        match byte {
            0x1b => State::Escape,
            b'[' => State::Csi(Parameters { bytes: [0; LONGEST_PARAMETERS], length: 0 }),
            b']' | b'P' | b'X' | b'^' | b'_' => State::String,
            0x20..0x30 => State::Intermediate,
            b'c' => {
                self.clear();
                self.switch(false, echo);
                State::Ground
            }
            // To another line.
            b'D' | b'E' | b'M' => {
                self.clear();
                State::Ground
            }
            byte => {
                if byte < 0x20 {
                    self.control(byte);
                }
                State::Ground
            }
        }
    }

    fn csi(&mut self, end: u8, parameters: &Parameters, echo: &mut Echo) {
        let parameters = parameters.bytes.get(..parameters.length).unwrap_or_default();
        match end {
            // To another place, or another line in this place.
            b'A' | b'B' | b'E' | b'F' | b'H' | b'L' | b'M' | b'S' | b'T' | b'd' | b'f' => self.clear(),
            b'G' if matches!(parameters, b"" | b"0" | b"1") => self.returned = true,
            b'J' | b'K' if self.returned || matches!(parameters, b"1" | b"2") => self.clear(),
            b'h' | b'l' => {
                let Some(modes) = parameters.strip_prefix(b"?") else { return };
                let mut modes = modes.split(|byte| *byte == b';');
                if modes.any(|mode| matches!(mode, b"47" | b"1047" | b"1049")) {
                    self.clear();
                    self.switch(end == b'h', echo);
                }
            }
            _ => {}
        }
    }

    fn switch(&mut self, alternate: bool, echo: &mut Echo) {
        if self.alternate != alternate {
            echo.forget();
        }
        self.alternate = alternate;
    }

    fn clear(&mut self) {
        self.line.clear();
        self.echoed = 0;
        self.returned = false;
    }
}

impl Parameters {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// A later byte of a UTF-8 character.
fn is_inside_character(byte: u8) -> bool {
    (0x80..0xc0).contains(&byte)
}
