//! What counts as the same text: case and the amount of white space do not matter, nor does what
//! cannot be seen.

use std::borrow::Cow;

/// Longest text that can be looked for, in characters.
pub(super) const LONGEST_NEEDLE: usize = 200;
/// How many characters stand before what was found in an excerpt, and in all of it.
const BEFORE: usize = 60;
const EXCERPT: usize = 200;

/// On one line, with single spaces: white space, control characters and what could not be decoded each
/// separate words, and characters without a width are left out, so that they hide nothing.
pub(super) fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    let mut gap = false;
    for character in text.chars() {
        if is_gap(character) {
            gap = true;
        } else if !is_invisible(character) {
            if gap && !tidied.is_empty() {
                tidied.push(' ');
            }
            gap = false;
            tidied.push(character);
        }
    }
    tidied
}

/// Whether a character separates words.
pub(super) fn is_gap(character: char) -> bool {
    character.is_whitespace() || character.is_control() || character == char::REPLACEMENT_CHARACTER
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Without case, character by character: as many as before.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        return Cow::Owned(text.chars().map(lower).collect());
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn lower(character: char) -> char {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

/// A text that is looked for. An empty one is found everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needle(String);

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self(fold(&tidy(text)).into_owned())
    }

    pub(super) fn folded(&self) -> &str {
        &self.0
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.0.chars().count() > LONGEST_NEEDLE
    }

    /// What stands around the first place in `tidied` where this is found, if it ends behind the first `old`
    /// characters.
    pub(super) fn excerpt(&self, tidied: &str, old: usize) -> Option<String> {
        let folded = fold(tidied);
        let mut from = 0;
        loop {
            let at = from + folded.get(from..)?.find(&self.0)?;
            let before = folded.get(..at)?.chars().count();
            let length = self.0.chars().count();
            if old == 0 || before + length > old {
                return Some(around(tidied, before, length));
            }
            from = at + folded.get(at..)?.chars().next()?.len_utf8();
        }
    }
}

/// So much of `text` around some of its characters as people want to see.
fn around(text: &str, at: usize, length: usize) -> String {
    let is_short = text.chars().nth(EXCERPT).is_none();
    let start = if is_short { 0 } else { at.saturating_sub(BEFORE) };
    let most = EXCERPT.max(length + BEFORE);
    let mut rest = text.chars().skip(start);
    let mut excerpt: String = if start > 0 { "…".to_owned() } else { String::new() };
    excerpt.extend(rest.by_ref().take(most));
    if rest.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_white_space_and_what_cannot_be_seen_do_not_matter() {
        for (text, wanted) in [
            ("DROP\n\t TABLE  accounts", "drop table accounts"),
            ("straße GRÖSSE", "Straße größe"),
            ("pass\u{200b}word", "PASSWORD"),
            ("a\u{fffd}b", "a b"),
            ("x", "  x "),
        ] {
            let found = Needle::new(wanted).excerpt(&tidy(text), 0);
            assert_eq!(found.is_some(), wanted != "Straße größe", "{text:?} {wanted:?}");
        }
    }

    #[test]
    fn only_what_ends_in_the_new_part_is_found_there() {
        let needle = Needle::new("ab");
        assert_eq!(needle.excerpt("ab ab", 2), Some("ab ab".to_owned()));
        assert_eq!(needle.excerpt("ab x", 2), None);
        assert_eq!(needle.excerpt("xab", 2), Some("xab".to_owned()));
    }

    #[test]
    fn an_excerpt_has_a_bounded_length_and_says_where_it_was_cut() {
        let text = format!("{} needle {}", "a".repeat(500), "b".repeat(500));
        let excerpt = Needle::new("needle").excerpt(&text, 0).unwrap();
        assert!(
            excerpt.starts_with('…') && excerpt.ends_with('…') && excerpt.contains("needle"),
            "{excerpt}"
        );
        assert_eq!(excerpt.chars().count(), EXCERPT + 2);
    }

    proptest! {
        #[test]
        fn every_part_of_a_text_is_found_in_it(text in "\\PC{1,60}", from in 0..60_usize, length in 1..20_usize) {
            let part: String = text.chars().skip(from).take(length).collect();
            prop_assert!(Needle::new(&part).excerpt(&tidy(&text), 0).is_some());
        }
    }
}
