//! A line at a time over a channel with a terminal: the client's terminal is raw, so what is typed is
//! echoed here.

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
const DELETE: u8 = 0x7f;

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
    /// Typed and not read yet.
    typed: Vec<u8>,
    resized: Option<Window>,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(from: FromClient, to: &'a ToClient) -> Self {
        Self { from, to, typed: Vec::new(), resized: None }
    }

    /// The terminal's size, when it has changed.
    pub(super) fn resized(&self) -> Option<Window> {
        self.resized
    }

    pub(super) fn into_inner(self) -> FromClient {
        self.from
    }

    /// A line of ours; what others wrote stays on it.
    pub(super) async fn say(&self, text: &str) -> Result<(), Interrupted> {
        Ok(self.to.data(format!("{}\r\n", on_one_line(text)).into()).await?)
    }

    /// Asks and reads a line. Text that is not UTF-8 is refused as it is typed.
    pub(super) async fn ask(&mut self, question: &str) -> Result<String, Interrupted> {
        self.to.data(question.to_owned().into()).await?;
        let mut line = Vec::new();
        loop {
            for byte in std::mem::take(&mut self.typed) {
                match byte {
                    b'\r' | b'\n' => {
                        self.to.data("\r\n".into()).await?;
                        return Ok(String::from_utf8_lossy(&line).into_owned());
                    }
                    INTERRUPT => return Err(Interrupted),
                    END_OF_FILE if line.is_empty() => return Err(Interrupted),
                    BACKSPACE | DELETE => self.erase(&mut line).await?,
                    ERASE_LINE => {
                        while !line.is_empty() {
                            self.erase(&mut line).await?;
                        }
                    }
                    // Control characters would only disturb the terminal.
                    0..0x20 => {}
                    byte if line.len() < LONGEST => {
                        line.push(byte);
                        self.to.data(vec![byte].into()).await?;
                    }
                    _ => {}
                }
            }
            self.typed = self.read().await?;
        }
    }

    /// Takes the last character away.
    async fn erase(&self, line: &mut Vec<u8>) -> Result<(), Interrupted> {
        let mut erased = false;
        while let Some(byte) = line.pop() {
            erased = true;
            // The bytes of one character: 0b10xxxxxx goes on.
            if byte & 0xC0 != 0x80 {
                break;
            }
        }
        if erased {
            self.to.data("\x08 \x08".into()).await?;
        }
        Ok(())
    }

    /// Waits; ^C ends it early.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Interrupted> {
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
