//! Files that others own as well: Sallyport keeps one marked block in each and leaves every other line
//! as it is.

const BEGIN_MARK: &str = "# BEGIN sallyport";
const END: &str = "# END sallyport";

/// Whether the file has a block of ours.
pub(super) fn has_block(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(BEGIN_MARK))
}

/// `text` with `block`, written by the subcommand `writer`, in place of our block, or before everything
/// else when there was none: libpq and ssh take the first line that fits.
pub(super) fn with_block(text: &str, writer: &str, block: &str) -> String {
    let (before, after) = around_block(text);
    let body = block.trim_end_matches('\n');
    format!("{before}{BEGIN_MARK} (written by `sallyport {writer}`)\n{body}\n{END}\n{after}")
}

/// What stands before and after our block. A block without its end reaches to where the next line
/// begins that cannot be ours: nothing foreign is taken away, at worst old lines of ours stay.
pub(super) fn around_block(text: &str) -> (&str, &str) {
    let Some(start) = line_starting(text, BEGIN_MARK) else { return ("", text) };
    let (before, rest) = text.split_at(start);
    let first_line = rest.find('\n').map_or(rest.len(), |end| end + 1);
    match line_starting(rest, END) {
        Some(end) => {
            let (_, tail) = rest.split_at(end);
            let end_line = tail.find('\n').map_or(tail.len(), |end| end + 1);
            (before, tail.split_at(end_line).1)
        }
        None => (before, rest.split_at(first_line).1),
    }
}

/// Where the first line begins that starts with `mark`.
fn line_starting(text: &str, mark: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with(mark) {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{END, has_block};

    const BEGIN: &str = "# BEGIN sallyport (written by `sallyport config psql`)";

    fn with_block(text: &str, block: &str) -> String {
        super::with_block(text, "config psql", block)
    }

    #[test]
    fn a_block_is_replaced_in_place_and_foreign_lines_stay() {
        let foreign = "mine:5432:*:me:secret\n# a note";
        let once = with_block(foreign, "a:1:*:*:t1\n");
        assert_eq!(once, format!("{BEGIN}\na:1:*:*:t1\n{END}\nmine:5432:*:me:secret\n# a note"));
        let moved = format!("first\n{once}");
        let twice = with_block(&moved, "a:1:*:*:t2\n");
        assert_eq!(twice, format!("first\n{BEGIN}\na:1:*:*:t2\n{END}\nmine:5432:*:me:secret\n# a note"));
    }

    #[test]
    fn writing_the_same_block_again_changes_nothing() {
        let once = with_block("x\n", "a\nb\n");
        assert_eq!(with_block(&once, "a\nb\n"), once);
    }

    #[test]
    fn a_block_that_lost_its_end_takes_no_foreign_line_with_it() {
        let text = with_block(&format!("{BEGIN}\nold\nmine\n"), "new\n");
        assert_eq!(text, format!("{BEGIN}\nnew\n{END}\nold\nmine\n"));
    }

    #[test]
    fn a_file_without_a_block_has_none() {
        assert!(!has_block("# sallyport\n"));
        assert!(has_block(&with_block("", "x")));
    }
}
