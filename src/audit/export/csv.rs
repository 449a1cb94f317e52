//! Comma-separated values as in RFC 4180, safe to open in a spreadsheet.

use std::io::{self, Write};

/// A cell that begins with one of these is a formula to a spreadsheet: text that somebody else wrote must not
/// be one.
const FORMULA: [char; 9] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '＠'];

/// Writes one line. What a spreadsheet would take for a formula gets an apostrophe before it, which shows that
/// it is text.
pub(super) fn row<'a>(to: &mut impl Write, cells: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    for (place, cell) in cells.into_iter().enumerate() {
        if place > 0 {
            to.write_all(b",")?;
        }
        let guard = if cell.starts_with(FORMULA) { "'" } else { "" };
        if guard.is_empty() && !cell.contains([',', '"', '\r', '\n']) {
            to.write_all(cell.as_bytes())?;
        } else {
            write!(to, "\"{guard}{}\"", cell.replace('"', "\"\""))?;
        }
    }
    to.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(cells: &[&str]) -> String {
        let mut bytes = Vec::new();
        row(&mut bytes, cells.iter().copied()).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads one line back, strictly.
    fn read(line: &str) -> Vec<String> {
        let mut rest = line.strip_suffix("\r\n").unwrap().chars().peekable();
        let mut cells = vec![String::new()];
        loop {
            let cell = cells.last_mut().unwrap();
            if rest.next_if_eq(&'"').is_some() {
                loop {
                    match rest.next().expect("a closing quote") {
                        '"' if rest.next_if_eq(&'"').is_none() => break,
                        symbol => cell.push(symbol),
                    }
                }
            } else {
                while let Some(symbol) = rest.next_if(|symbol| *symbol != ',') {
                    assert!(!['"', '\r', '\n'].contains(&symbol), "{line}");
                    cell.push(symbol);
                }
            }
            match rest.next() {
                Some(',') => cells.push(String::new()),
                None => return cells,
                Some(other) => panic!("`{other}` behind a cell of {line}"),
            }
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_formulas_are_text() {
        assert_eq!(written(&["a", "", "b c"]), "a,,b c\r\n");
        assert_eq!(written(&["a,b", "say \"x\"", "1\r\n2"]), "\"a,b\",\"say \"\"x\"\"\",\"1\r\n2\"\r\n");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"] {
            assert!(written(&["a", formula]).starts_with("a,\"'"), "{formula}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cells in prop::collection::vec("[a-c=,\"\r\n é+']{0,8}", 1..5)) {
            let texts: Vec<&str> = cells.iter().map(String::as_str).collect();
            for (cell, read) in cells.iter().zip(read(&written(&texts))) {
                let guarded = cell.starts_with(FORMULA).then(|| format!("'{cell}"));
                prop_assert_eq!(&read, guarded.as_ref().unwrap_or(cell));
                prop_assert!(!read.starts_with(FORMULA));
            }
        }
    }
}
