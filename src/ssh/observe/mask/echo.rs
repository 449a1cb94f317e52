//! Whether what is typed comes back.

use std::collections::VecDeque;

use super::PATIENCE_US;

/// How many characters may be missed before the rest of the line is masked.
const MISSED: usize = 2;
/// How many of the characters that have not come back are kept.
const MOST_AWAITED: usize = 32;

#[derive(Debug)]
pub(super) struct Echo {
    /// First bytes of characters that were typed and have not been seen, and when.
    awaited: VecDeque<(u8, u64)>,
    keys: Keys,
}

/// Where in the sequence of a special key the input is: those are not echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Ground,
    Escape,
    Csi,
    Ss3,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self { awaited: VecDeque::new(), keys: Keys::Ground }
    }

    /// Some of a line was typed; `silent` where an echo is not expected.
    pub(super) fn typed(&mut self, typed: &[u8], now_us: u64, silent: bool) {
        for byte in typed {
            self.keys = match (self.keys, *byte) {
                (_, 0x1b) => Keys::Escape,
                (Keys::Escape, b'[') | (Keys::Csi, 0x20..=0x3f) => Keys::Csi,
                (Keys::Escape, b'O') => Keys::Ss3,
                (Keys::Escape | Keys::Csi | Keys::Ss3, _) => Keys::Ground,
                (Keys::Ground, byte) => {
                    self.key(byte, now_us, silent);
                    Keys::Ground
                }
            };
        }
    }

    fn key(&mut self, byte: u8, now_us: u64, silent: bool) {
        match byte {
            0x08 | 0x7f => drop(self.awaited.pop_back()),
            // Kills a word or the line.
            0x15 | 0x17 => self.awaited.clear(),
            // Other control characters, and the later bytes of a character.
            0..0x20 | 0x80..0xc0 => {}
            _ if silent || self.awaited.len() >= MOST_AWAITED => {}
            byte => self.awaited.push_back((byte, now_us)),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// A byte was shown: whether it is one that was typed. What was typed before it will not come
    /// any more, and is forgiven: the terminal does echo.
    pub(super) fn shown(&mut self, byte: u8) -> bool {
        let Some(at) = self.awaited.iter().position(|(awaited, _)| *awaited == byte) else { return false };
        self.awaited.drain(..=at);
        true
    }

    pub(super) fn is_missing(&self, now_us: u64) -> bool {
        let late = |(_, at): &&(u8, u64)| now_us.saturating_sub(*at) >= PATIENCE_US;
        self.awaited.iter().filter(late).take(MISSED).count() == MISSED
    }

    pub(super) fn forget(&mut self) {
        self.awaited.clear();
    }
}
