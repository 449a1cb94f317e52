//! A line at a time over a channel with a terminal: the client's terminal is raw, so what is typed is
//! echoed here.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::{Gone, Message, Request, Window};
use super::server::{FromClient, ToClient};
use crate::domain::text::on_one_line;

/// The longest line, in bytes.
const LONGEST: usize = 1024;
const INTERRUPT: u8 = 0x03;
const END_OF_FILE: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const ERASE_LINE: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

/// How long a person may take to say what they want: who has left the desk keeps no place.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_mins(15);

/// The person pressed ^C or ^D, or went away.
#[derive(Debug)]
pub(super) struct Interrupted;

impl From<Gone> for Interrupted {
    fn from(_: Gone) -> Self {
        Self
    }
}

pub(super) struct Prompt<'a> {
    from: FromClient,
    to: &'a ToClient,
    /// Typed and not read yet: what was pasted answers the next questions as well.
    typed: VecDeque<u8>,
    resized: Option<Window>,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(from: FromClient, to: &'a ToClient) -> Self {
        Self { from, to, typed: VecDeque::new(), resized: None }
    }

    /// The terminal's size, when it has changed.
    pub(super) fn resized(&self) -> Option<Window> {
        self.resized
    }

    /// What is left: also what was typed and answers no question.
    pub(super) fn into_inner(self) -> (FromClient, Vec<u8>) {
        (self.from, self.typed.into())
    }

    /// A line of ours; what others wrote stays on it.
    pub(super) async fn say(&self, text: &str) -> Result<(), Interrupted> {
        Ok(self.to.data(format!("{}\r\n", on_one_line(text)).into()).await?)
    }

    /// Asks and reads a line, again until it is text.
    pub(super) async fn ask(&mut self, question: &str) -> Result<String, Interrupted> {
        loop {
            self.to.data(question.to_owned().into()).await?;
            let mut line = Line::new(question);
            let ended = loop {
                let ended = self.typed.pop_front().and_then(|byte| line.take(byte));
                if !line.echo.is_empty() && (ended.is_some() || self.typed.is_empty()) {
                    self.to.data(std::mem::take(&mut line.echo).into()).await?;
                }
                match ended {
                    Some(ended) => break ended,
                    None if self.typed.is_empty() => {
                        let read = tokio::time::timeout(ANSWER_WITHIN, self.read()).await;
                        self.typed = read.map_err(|_| Interrupted)??.into();
                    }
                    None => {}
                }
            };
            if matches!(ended, Ended::Interrupted) {
                return Err(Interrupted);
            }
            // Lines that are pasted may end in both.
            if matches!(ended, Ended::Return) {
                self.typed.pop_front_if(|next| *next == b'\n');
            }
            match String::from_utf8(line.bytes) {
                Ok(text) => return Ok(text),
                Err(_) => self.say("this is no text in UTF-8: set your terminal to it").await?,
            }
        }
    }

    /// Waits; ^C ends it early. What else is typed meanwhile is nothing's answer.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Interrupted> {
        self.typed.clear();
        let until = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(until, self.read()).await {
                Err(_) => return Ok(()),
                Ok(typed) if typed.as_ref().is_ok_and(|typed| typed.contains(&INTERRUPT)) => {
                    return Err(Interrupted);
                }
                Ok(typed) => drop(typed?),
            }
        }
    }

    /// Cancel-safe.
    async fn read(&mut self) -> Result<Vec<u8>, Interrupted> {
        loop {
            match self.from.next().await {
                Some(Message::Data(bytes)) => return Ok(bytes.to_vec()),
                Some(Message::Request(Request::Resize(window))) => self.resized = Some(window),
                Some(Message::Request(request)) if request.is_answered() => self.from.answer(false),
                Some(Message::Eof | Message::Close) | None => return Err(Interrupted),
                Some(_) => {}
            }
        }
    }
}

/// How a line ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Return,
    Newline,
    Interrupted,
}

/// Where a key that sends several bytes stands: an arrow is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Plain,
    Escape,
    Sequence,
}

/// A line as it is typed.
#[derive(Debug)]
struct Line<'a> {
    question: &'a str,
    bytes: Vec<u8>,
    /// What the terminal is still to show.
    echo: Vec<u8>,
    key: Key,
}

impl<'a> Line<'a> {
    const fn new(question: &'a str) -> Self {
        Self { question, bytes: Vec::new(), echo: Vec::new(), key: Key::Plain }
    }

    fn take(&mut self, byte: u8) -> Option<Ended> {
        match (self.key, byte) {
            (_, INTERRUPT) => return Some(Ended::Interrupted),
            (Key::Escape, b'[' | b'O') => self.key = Key::Sequence,
            (Key::Sequence, 0x20..0x40) => {}
            (Key::Escape | Key::Sequence, 0x20..) => self.key = Key::Plain,
            (_, ESCAPE) => self.key = Key::Escape,
            _ => {
                self.key = Key::Plain;
                return self.plain(byte);
            }
        }
        None
    }

    fn plain(&mut self, byte: u8) -> Option<Ended> {
        match byte {
            b'\r' | b'\n' => {
                self.echo.extend(b"\r\n");
                return Some(if byte == b'\r' { Ended::Return } else { Ended::Newline });
            }
            END_OF_FILE if self.bytes.is_empty() => return Some(Ended::Interrupted),
            BACKSPACE | DELETE => self.erase(),
            ERASE_LINE => {
                self.bytes.clear();
                self.redraw();
            }
            // Control characters would only disturb the terminal.
            0..0x20 => {}
            byte if self.bytes.len() < LONGEST => {
                self.bytes.push(byte);
                self.echo.push(byte);
            }
            _ => {}
        }
        None
    }

    /// Takes the last character away.
    fn erase(&mut self) {
        let Some(last) = self.bytes.pop() else { return };
        if last.is_ascii() {
            self.echo.extend(b"\x08 \x08");
            return;
        }
        let mut byte = last;
        // The bytes of one character: 0b10xxxxxx goes on.
        while byte & 0xC0 == 0x80
            && let Some(before) = self.bytes.pop()
        {
            byte = before;
        }
        // How many columns it took is the terminal's to know.
        self.redraw();
    }

    fn redraw(&mut self) {
        self.echo.extend(b"\r\x1b[K");
        self.echo.extend(self.question.as_bytes());
        self.echo.extend(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line, what was shown, and how it ended.
    fn typed(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, Option<Ended>) {
        let mut line = Line::new("? ");
        let ended = bytes.iter().find_map(|byte| line.take(*byte));
        (line.bytes, line.echo, ended)
    }

    #[test]
    fn a_line_ends_with_return_or_newline() {
        assert_eq!(typed(b"web-1\r"), (b"web-1".into(), b"web-1\r\n".into(), Some(Ended::Return)));
        assert_eq!(typed(b"web-1\n"), (b"web-1".into(), b"web-1\r\n".into(), Some(Ended::Newline)));
        assert_eq!(typed(b"web-1").2, None);
    }

    #[test]
    fn a_character_is_erased_whole() {
        assert_eq!(typed(b"ab\x7f").0, b"a");
        assert_eq!(typed("a\u{e9}\u{6f22}\x7f".as_bytes()).0, "a\u{e9}".as_bytes());
        assert_eq!(typed("\u{e9}\x08x".as_bytes()).1, "\u{e9}\r\x1b[K? x".as_bytes());
        assert_eq!(typed(b"\x7f\x7fx").0, b"x");
        assert_eq!(typed(b"abc\x15x").0, b"x");
        // Bytes that are no character's go one by one or together, and never further than the line.
        assert_eq!(typed(b"\xa9\xa9\x7f").0, b"");
    }

    #[test]
    fn an_interrupt_ends_it_and_so_does_the_end_of_nothing() {
        assert_eq!(typed(b"abc\x03").2, Some(Ended::Interrupted));
        assert_eq!(typed(b"\x1b[\x03").2, Some(Ended::Interrupted));
        assert_eq!(typed(b"\x04").2, Some(Ended::Interrupted));
        assert_eq!(typed(b"a\x04").2, None);
    }

    #[test]
    fn keys_that_are_no_text_are_none() {
        assert_eq!(typed(b"a\x1b[A\x1bOB\x1b[1;5Cb\x1bxc").0, b"abc");
        assert_eq!(typed(b"a\x00\x07\tb").0, b"ab");
        assert_eq!(typed(b"a\x1b\rb").2, Some(Ended::Return));
    }

    #[test]
    fn a_line_is_bounded() {
        assert_eq!(typed(&vec![b'x'; 5000]).0.len(), LONGEST);
    }
}
