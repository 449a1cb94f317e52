//! Text that somebody else wrote, made safe to show: nothing in it moves a terminal's cursor, reads
//! in another order than it is written, or passes for a line of its own.

/// On one line: line breaks, tabs and all other characters that control are shown as escapes.
pub fn on_one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// On as many lines as it has: line feeds and tabs stay. Whoever shows the lines among others of
/// their own sees to it that they can be told apart.
pub fn on_lines(text: &str) -> String {
    escaped(text, |symbol| matches!(symbol, '\n' | '\t'))
}

fn escaped(text: &str, stays: fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for symbol in text.chars() {
        if controls(symbol) && !stays(symbol) {
            shown.extend(symbol.escape_default());
        } else {
            shown.push(symbol);
        }
    }
    shown
}

/// Control characters, those that set the direction of writing, and Unicode's own line breaks.
fn controls(symbol: char) -> bool {
    symbol.is_control()
        || matches!(symbol, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor_or_turn_the_line() {
        for (text, shown) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\rb", "a\\rb"),
            ("a\u{85}b", "a\\u{85}b"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("ü – 漢字 🏦 'quoted' \"too\" \\", "ü – 漢字 🏦 'quoted' \"too\" \\"),
        ] {
            assert_eq!(on_one_line(text), shown);
            assert_eq!(on_lines(text), shown);
        }
    }

    #[test]
    fn only_what_may_have_lines_has_them() {
        assert_eq!(on_lines("zwei\n\tZeilen"), "zwei\n\tZeilen");
        assert_eq!(on_one_line("zwei\n\tZeilen"), "zwei\\n\\tZeilen");
    }
}
