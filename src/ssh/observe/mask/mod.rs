//! Which keystrokes of a terminal are recorded by their number only, because they are a secret.
//!
//! Keystrokes are on record before they are forwarded, so whether the terminal will echo them is not
//! known when this is decided. The rule:
//!
//! 1. **By prompt.** What is typed while the last line of the output asks for a secret (it has one of
//!    the words of [`prompt`] and ends in `:` or `?`) is masked, from the first keystroke on.
//! 2. **By echo.** When two characters of the line being typed have not been seen in the output
//!    [`PATIENCE_US`] after they were forwarded, the rest of that line is masked. Not on the
//!    alternate screen: programs there draw, and echo little of what is typed.
//! 3. A masked run goes on, whatever the output shows meanwhile, until Enter, `^C` or `^D`; those
//!    are themselves recorded. When the prompt still stands after that, so does the mask.
//!
//! What a user typed and the terminal echoed is no prompt: otherwise typing `echo password:` would
//! hide the rest of the line. The limits of the rule are in `docs/ssh-recording.md`.

mod echo;
mod prompt;
mod screen;
#[cfg(test)]
mod tests;

use echo::Echo;
use screen::Screen;

/// How long the target may take to echo a character.
pub const PATIENCE_US: u64 = 200_000;

/// Which rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// For a channel without a terminal: nothing echoes there, and nobody types.
    Never,
    ByPrompt,
    ByPromptAndEcho,
}

/// A stretch of what was typed. All stretches together are the input, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedInput<'a> {
    /// To be recorded as it is.
    Clear(&'a [u8]),
    /// To be recorded as so many bytes.
    Masked { bytes: usize, by: MaskedBy },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedBy {
    Prompt,
    Echo,
}

#[derive(Debug)]
pub struct InputMask {
    masking: Masking,
    screen: Screen,
    echo: Echo,
    /// The line being typed is masked.
    masked: Option<MaskedBy>,
}

impl InputMask {
    pub fn new(masking: Masking) -> Self {
        Self { masking, screen: Screen::new(), echo: Echo::new(), masked: None }
    }

    /// What the target sends to the terminal.
    pub fn output(&mut self, bytes: &[u8]) {
        if self.masking == Masking::Never {
            return;
        }
        self.screen.show(bytes, &mut self.echo);
    }

    /// What is typed, before it is forwarded. `now_us` never goes back.
    pub fn input<'a>(&mut self, bytes: &'a [u8], now_us: u64, stretches: &mut Vec<MaskedInput<'a>>) {
        if self.masking == Masking::Never {
            if !bytes.is_empty() {
                stretches.push(MaskedInput::Clear(bytes));
            }
            return;
        }
        let mut clear = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = rest.iter().position(|byte| ends_line(*byte)).unwrap_or(rest.len());
            let (typed, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            let start = bytes.len() - rest.len();
            if let Some(by) = self.typed(typed, now_us) {
                push_clear(bytes.get(clear..start), stretches);
                stretches.push(MaskedInput::Masked { bytes: length, by });
                clear = start + length;
            }
            let ends = after.iter().take_while(|byte| ends_line(**byte)).count();
            if ends > 0 {
                self.masked = None;
                self.echo.forget();
            }
            rest = after.get(ends..).unwrap_or_default();
        }
        push_clear(bytes.get(clear..), stretches);
    }

    /// Whether a part of a line is masked.
    fn typed(&mut self, typed: &[u8], now_us: u64) -> Option<MaskedBy> {
        if typed.is_empty() {
            return None;
        }
        if self.masked.is_none() {
            let echo = self.masking == Masking::ByPromptAndEcho;
            if self.screen.asks_for_secret() {
                self.masked = Some(MaskedBy::Prompt);
            } else if echo && self.echo.is_missing(now_us) {
                self.masked = Some(MaskedBy::Echo);
            }
        }
        match self.masked {
            // Nothing of a secret is kept to compare it with.
            Some(_) => self.echo.forget(),
            None => self.echo.typed(typed, now_us, self.screen.is_alternate()),
        }
        self.masked
    }
}

/// Enter, or what a terminal takes for an interrupt or an end.
fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0x03 | 0x04)
}

fn push_clear<'a>(bytes: Option<&'a [u8]>, stretches: &mut Vec<MaskedInput<'a>>) {
    stretches.extend(bytes.filter(|bytes| !bytes.is_empty()).map(MaskedInput::Clear));
}
