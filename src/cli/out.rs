//! All that commands print. Texts that came from elsewhere (reasons, comments, names) are shown so
//! that nothing in them can move a terminal's cursor.

use std::io::{self, ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::exit::{Exit, Failure};
use crate::domain::text::{on_lines, on_one_line};

/// Writes to standard output, exactly. A closed pipe (`| head`) ends the command quietly.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    written(io::stdout().lock().write_all(bytes))
}

pub(super) fn flush() -> Result<(), Failure> {
    written(io::stdout().lock().flush())
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
        _ => Failure::of("cannot write to standard output", &error),
    })
}

/// One line.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    bytes(format!("{}\n", on_lines(text.as_ref())).as_bytes())
}

/// A value for scripts.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::of("cannot write the answer as JSON", &error))?;
    bytes(format!("{text}\n").as_bytes())
}

/// A line for people, beside the result.
pub(super) fn note(text: impl AsRef<str>) {
    // There is nobody to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}", on_lines(text.as_ref()));
}

/// Rows under headings, as wide as the terminal; `nothing` when there are none.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    nothing: &str,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.map(str::to_uppercase));
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| one_line(&cell))));
    if table.is_empty() {
        note(nothing);
        return Ok(());
    }
    bytes(format!("{}\n", table.trim_fmt()).as_bytes())
}

fn one_line(text: &str) -> String {
    on_one_line(&text.replace(['\n', '\t'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_and_moves_no_cursor() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a b\\u{1b}[2J");
    }
}
