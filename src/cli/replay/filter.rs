//! What a target wrote, made safe for the terminal of whoever watches it later.
//!
//! Drawing passes; what acts beyond the screen does not. Above all nothing passes that a terminal
//! answers as if it were typed (status and attribute reports, terminfo and setting requests, title and
//! colour queries), that reaches the clipboard, files or printers, or that changes what keys and
//! mouse send. What is not known is not passed on: this is a list of what is allowed.

use crate::audit::vt::{Csi, Parser, Token};

/// Private modes that only concern drawing: reverse video, wrapping, cursor, alternate screen.
const MODES: [u32; 8] = [5, 7, 12, 25, 47, 1047, 1048, 1049];
/// Longest title that is passed on, in characters.
const LONGEST_TITLE: usize = 200;

#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    parser: Parser,
    alternate: bool,
}

impl Filter {
    /// Appends to `shown` what may be shown of `bytes`.
    pub(super) fn pass(&mut self, bytes: &[u8], shown: &mut Vec<u8>) {
        let alternate = &mut self.alternate;
        self.parser.feed(bytes, |token| match token {
            Token::Print(character) => {
                let mut buffer = [0; 4];
                shown.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            }
            Token::Control(byte) if matches!(byte, 0x07..=0x0f) => shown.push(byte),
            Token::Escape { intermediates, last } if is_drawing_escape(intermediates, last) => {
                shown.push(0x1b);
                shown.extend_from_slice(intermediates);
                shown.push(last);
            }
            Token::Csi(csi) if csi.private() == Some(b'?') && matches!(csi.last, b'h' | b'l') => {
                for mode in csi.parameters().filter(|mode| MODES.contains(mode)) {
                    if matches!(mode, 47 | 1047 | 1049) {
                        *alternate = csi.last == b'h';
                    }
                    shown.extend_from_slice(format!("\x1b[?{mode}{}", char::from(csi.last)).as_bytes());
                }
            }
            Token::Csi(csi) if is_drawing(csi) => {
                shown.extend_from_slice(b"\x1b[");
                shown.extend_from_slice(csi.body);
                shown.push(csi.last);
            }
            Token::Osc(text) => title(text, shown),
            _ => {}
        });
    }

    /// What puts a terminal back after anything that passed: screen, margins, character sets, modes,
    /// attributes.
    pub(super) fn restore(&self) -> Vec<u8> {
        let leave = if self.alternate { "\x1b[?1049l" } else { "" };
        // The margins' reset moves the cursor, which is therefore saved before it.
        format!(
            "{leave}\x1b7\x1b[r\x1b8\x0f\x1b(B\x1b)B\x1b[4l\x1b[20l\x1b[?5l\x1b[?7h\x1b[?25h\x1b[0 q\x1b[0m"
        )
        .into_bytes()
    }
}

/// Save and restore the cursor, line feeds, tabs, character sets, the alignment pattern and a reset.
const fn is_drawing_escape(intermediates: &[u8], last: u8) -> bool {
    match intermediates {
        [] => matches!(last, b'7' | b'8' | b'D' | b'E' | b'H' | b'M' | b'N' | b'O' | b'c' | b'n' | b'o'),
        [b'(' | b')' | b'*' | b'+'] => matches!(last, b'0'..=b'9' | b'A'..=b'Z'),
        [b'#'] => matches!(last, b'3'..=b'6' | b'8'),
        _ => false,
    }
}

fn is_drawing(csi: Csi<'_>) -> bool {
    match (csi.private(), csi.intermediates()) {
        (None, []) => match csi.last {
            // Insert and line feed modes.
            b'h' | b'l' => csi.parameters().all(|mode| matches!(mode, 4 | 20)),
            b'@'..=b'M' | b'`'..=b'b' | b'd'..=b'g' => true,
            last => b"PSTXZmrsu".contains(&last),
        },
        // Erase what is not protected.
        (Some(b'?'), []) => matches!(csi.last, b'J' | b'K'),
        // The cursor's form, a soft reset.
        (None, b" ") => csi.last == b'q',
        (None, b"!") => csi.last == b'p',
        _ => false,
    }
}

fn title(command: &[u8], shown: &mut Vec<u8>) {
    let Ok(command) = std::str::from_utf8(command) else { return };
    let Some((what @ ("0" | "1" | "2"), text)) = command.split_once(';') else { return };
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_TITLE).collect();
    shown.extend_from_slice(format!("\x1b]{what};{text}\x07").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(bytes: &[u8]) -> String {
        let mut shown = Vec::new();
        Filter::default().pass(bytes, &mut shown);
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn drawing_passes_unchanged() {
        for drawn in [
            "plain \u{e9} \u{6f22}\r\n\t\u{8}\u{7}",
            "\u{1b}[1;38;2;1;2;3mred\u{1b}[0m",
            "\u{1b}[2J\u{1b}[H\u{1b}[10;20r\u{1b}[3A\u{1b}[K\u{1b}[5X\u{1b}[?K",
            "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?25h\u{1b}[?1049l",
            "\u{1b}7\u{1b}8\u{1b}M\u{1b}(0lqk\u{1b}(B\u{1b}#8\u{1b}[4h\u{1b}[2 q\u{1b}[!p",
            "\u{1b}]0;alice@web: ~\u{7}",
        ] {
            assert_eq!(passed(drawn.as_bytes()), drawn, "{}", drawn.escape_debug());
        }
    }

    #[test]
    fn nothing_passes_that_a_terminal_answers() {
        for asked in [
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1bZ",
            "\x05", // who are you
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?15n", // status, cursor
            "\x1b[18t",
            "\x1b[21t",
            "\x1b[14;2t", // size, title
            "\x1b[?25$p",
            "\x1b[4$p",
            "\x1b[1$w",
            "\x1b[&u",
            "\x1b[?u", // modes, keyboard
            "\x1b[x",
            "\x1b[1;1;1;1;9;9*y",
            "\x1b[>q",
            "\x1b[?1;1;0S",
            "\x1b[#S",
            "\x1b['|",
            "\x1b[?4m",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b_Gi=1,a=q;AAAA\x1b\\", // settings, terminfo, pictures
            "\x1b]4;1;?\x07",
            "\x1b]10;?\x07",
            "\x1b]11;?\x1b\\",
            "\x1b]50;?\x07",
            "\x1b]52;c;?\x07",
        ] {
            assert_eq!(passed(asked.as_bytes()), "", "{}", asked.escape_debug());
        }
    }

    #[test]
    fn nothing_passes_that_acts_beyond_the_screen() {
        for acting in [
            "\x1b]52;c;ZXZpbA==\x07",
            "\x1b]52;c;ZXZpbA==\x1b\\", // the clipboard
            "\x1b]1337;File=name=eA==:AAAA\x07",
            "\x1b]8;;http://x/\x07",
            "\x1b]9;hi\x07",
            "\x1b]777;notify;a;b\x07",
            "\x1b[5i",
            "\x1b[?5i", // the printer
            "\x1b[8;1;1t",
            "\x1b[2t",
            "\x1b[3;0;0t", // the window
            "\x1b[?1000h",
            "\x1b[?1003;1006h",
            "\x1b[?1004h",
            "\x1b[?2004h",
            "\x1b[?1h",
            "\x1b=", // keys, mouse
            "\x1b[>4;2m",
            "\x1b[>1u",
            "\x1b[=1u",
            "\x1b[<u",
            "\x1b%@",
            "\x1b[2h",
            "\x1b[12h",
            "\x1b[?3h",
            "\x1b^x\x1b\\",
            "\x1bXx\x1b\\", // encoding, keyboard lock
            "\x00\x11\x13\x7f",
        ] {
            assert_eq!(passed(acting.as_bytes()), "", "{}", acting.escape_debug());
        }
    }

    #[test]
    fn what_is_allowed_does_not_carry_what_is_not() {
        assert_eq!(passed(b"\x1b[?1049;1000;25h"), "\x1b[?1049h\x1b[?25h");
        assert_eq!(passed(b"\x1b[?1048;52h"), "\x1b[?1048h");
        assert_eq!(passed("\u{9b}5n\u{9d}52;c;eA==\u{9c}x".as_bytes()), "");
        assert_eq!(passed(b"\x9b5n"), "\u{fffd}5n");
        assert_eq!(passed("\x1b]2;a\u{9c}\u{9b}6nb\x07".as_bytes()), "\x1b]2;a6nb\x07");
        assert_eq!(passed(b"\x1b[\x1b[6n1m"), "1m");
        assert_eq!(passed(b"\x1b]0;x\x1b[5n"), "");
    }

    #[test]
    fn a_terminal_is_put_back_from_the_alternate_screen() {
        let mut filter = Filter::default();
        filter.pass(b"\x1b[?1049h", &mut Vec::new());
        assert!(filter.restore().starts_with(b"\x1b[?1049l"));
        filter.pass(b"\x1b[?1049l", &mut Vec::new());
        assert!(!filter.restore().starts_with(b"\x1b[?1049l"));
    }

    proptest! {
        #[test]
        fn passing_twice_changes_nothing_more(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\x1b'), Just(b'['), Just(b']'), Just(b';'), Just(b'?'), any::<u8>(), b'0'..=b'9'], 0..200)) {
            let once = passed(&bytes);
            prop_assert_eq!(passed(once.as_bytes()), once.clone());
            prop_assert!(once.chars().all(|c| !matches!(c, '\u{80}'..='\u{9f}')), "no C1: {:?}", once);
        }

        #[test]
        fn it_passes_the_same_however_it_is_cut(
            text in "(\x1b[\\[\\]PZc]|[?;0-9nmhlt\x07a])*", at in 0..80_usize,
        ) {
            let (before, after) = text.as_bytes().split_at(at.min(text.len()));
            let (mut filter, mut shown) = (Filter::default(), Vec::new());
            filter.pass(before, &mut shown);
            filter.pass(after, &mut shown);
            prop_assert_eq!(String::from_utf8(shown).unwrap(), passed(text.as_bytes()));
        }
    }
}
