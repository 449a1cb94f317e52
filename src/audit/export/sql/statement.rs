//! One statement of a transcript: run where that does what was done, else shown.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use data_encoding::BASE64;

use super::comment;
use super::lexer;
use super::literal::{described, length, literal, type_name};
use crate::audit::record::{How, Parameter, Statement, StatementEnd, StatementOutcome};
use crate::domain::text::on_lines;
use crate::domain::time::Timestamp;

/// No longer text is kept of a statement, and no longer list of parameters, in bytes.
const LONGEST: usize = 8 << 20;

/// A statement's text, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct Text {
    kept: Vec<u8>,
    length: usize,
}

impl Text {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(piece.len());
        if self.length <= LONGEST {
            self.kept.extend_from_slice(piece);
        }
    }
}

/// A statement's parameters, as far as they are kept.
#[derive(Debug, Default)]
pub(super) struct Params {
    kept: Vec<Parameter>,
    bytes: usize,
}

impl Params {
    pub(super) fn push(&mut self, params: &[Parameter]) {
        let bytes: usize = params.iter().map(|param| size_of::<Parameter>() + length(param)).sum();
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= LONGEST {
            self.kept.extend_from_slice(params);
        }
    }
}

/// What came of a statement.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) at: Timestamp,
    pub(super) end: StatementEnd,
}

/// A statement until it is written.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) at: Timestamp,
    n: u64,
    how: How,
    /// Why its text, or the parameters, do not do what was done.
    differs: Option<&'static str>,
    sql: Text,
    params: Params,
    pub(super) copied_in: bool,
    pub(super) fate: Option<Fate>,
}

/// What stands in the file for a statement.
enum Shown {
    Run(String),
    /// The same in other words, with the text itself as comment.
    Rewritten(String),
    /// Instead of it, because of what the target made of it.
    Instead {
        sql: &'static str,
        why: &'static str,
    },
    Comment {
        why: Cow<'static, str>,
    },
}

impl Held {
    pub(super) fn new(begun: &Statement, sql: Text, params: Params, at: Timestamp) -> Self {
        let (n, how) = (begun.n, begun.how);
        let differs = if !begun.certain {
            Some("it is not certain that the target ran this one")
        } else if begun.masked > 0 {
            Some("a secret in it was masked")
        } else {
            begun.resumes.map(|_| "it went on where an earlier one had stopped")
        };
        Self { at, n, how, differs, sql, params, copied_in: false, fate: None }
    }

    /// How much memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.sql.kept.len() + self.params.bytes.min(LONGEST)
    }

    pub(super) fn write(&self, who: &str, to: &mut impl Write) -> io::Result<()> {
        let shown = self.shown();
        let outcome = match &self.fate {
            Some(fate) => format!("{} {}", outcome(&fate.end), fate.at),
            None => "outcome not known".to_owned(),
        };
        let why = match &shown {
            Shown::Run(_) | Shown::Rewritten(_) => String::new(),
            Shown::Instead { why, .. } => format!("; {why}"),
            Shown::Comment { why } => format!("; not run here: {why}"),
        };
        comment(to, &format!("{} [{}] {who}: {outcome}{why}", self.at, self.n))?;
        for (number, param) in (1..).zip(&self.params.kept) {
            comment(to, &format!("  ${number} = {}", described(param)))?;
        }
        match shown {
            Shown::Run(sql) => writeln!(to, "{sql}"),
            Shown::Rewritten(sql) => {
                self.as_comment(to)?;
                writeln!(to, "{sql}")
            }
            Shown::Instead { sql, .. } => {
                self.as_comment(to)?;
                writeln!(to, "{sql}")
            }
            Shown::Comment { .. } => self.as_comment(to),
        }
    }

    fn as_comment(&self, to: &mut impl Write) -> io::Result<()> {
        if self.sql.length > LONGEST {
            return comment(to, &format!("  ({} bytes: sallyport replay has them)", self.sql.length));
        }
        match std::str::from_utf8(&self.sql.kept) {
            Ok(sql) => on_lines(sql).split('\n').try_for_each(|line| comment(to, &format!("  {line}"))),
            Err(_) => comment(to, &format!("  (not text, base64) {}", BASE64.encode(&self.sql.kept))),
        }
    }

    fn run(as_it_was: bool, sql: String) -> Shown {
        if as_it_was { Shown::Run(sql) } else { Shown::Rewritten(sql) }
    }

    fn shown(&self) -> Shown {
        let shown = |why: &'static str| Shown::Comment { why: why.into() };
        let Some(fate) = &self.fate else { return shown("it is not known what came of it") };
        match fate.end.outcome {
            StatementOutcome::Done => {}
            StatementOutcome::Failed => return shown("it failed"),
            StatementOutcome::Skipped => return shown("an earlier one had failed"),
            StatementOutcome::Cancelled => return shown("it was cancelled"),
            StatementOutcome::Unknown => return shown("it is not known what came of it"),
        }
        match self.how {
            How::Simple | How::Extended => {}
            How::Function => return shown("a function call has no text"),
            How::Prepare => return shown("it was prepared only"),
        }
        if let Some(why) = self.differs {
            return shown(why);
        }
        if self.copied_in {
            return shown("the data that was copied is not in the record");
        }
        if self.sql.length > LONGEST {
            return shown("it is too long");
        }
        let Ok(sql) = std::str::from_utf8(&self.sql.kept) else { return shown("it is not text") };
        if on_lines(sql) != sql {
            return shown("it holds characters that do not show");
        }
        let ascii = match lexer::standing_alone(sql) {
            Ok(ascii) => ascii,
            Err(why) => return shown(why),
        };
        // What the target said that it did instead: a commit after a failure.
        let first = first_word(sql).to_ascii_lowercase();
        if fate.end.tag.as_deref() == Some("ROLLBACK")
            && ["commit", "end", "prepare"].contains(&first.as_str())
        {
            return Shown::Instead { sql: "ROLLBACK;", why: "the target rolled back" };
        }
        if self.params.bytes > LONGEST {
            return shown("its parameters are too long");
        }
        if self.params.kept.is_empty() {
            return Self::run(matches!(ascii, Cow::Borrowed(_)), format!("{ascii}\n;"));
        }
        if !["select", "insert", "update", "delete", "merge", "values", "with"].contains(&first.as_str()) {
            return shown("SQL has no way to run it with parameters");
        }
        let params = &self.params.kept;
        match params.iter().map(literal).collect::<Option<Vec<_>>>() {
            Some(values) => {
                Self::run(matches!(ascii, Cow::Borrowed(_)), prepared(self.n, &ascii, params, &values))
            }
            None => shown("a parameter was not kept as text, or not whole"),
        }
    }
}

fn prepared(n: u64, sql: &str, params: &[Parameter], values: &[String]) -> String {
    let types: Vec<&str> = params.iter().map(|param| type_name(param.oid)).collect();
    let (types, values) = (types.join(", "), values.join(", "));
    format!(
        "PREPARE sallyport_{n} ({types}) AS\n{sql}\n;\nEXECUTE sallyport_{n} ({values});\nDEALLOCATE sallyport_{n};"
    )
}

/// What came of a statement, in words.
pub(super) fn outcome(end: &StatementEnd) -> String {
    let word = match end.outcome {
        StatementOutcome::Done => "done",
        StatementOutcome::Failed => "FAILED",
        StatementOutcome::Skipped => "skipped",
        StatementOutcome::Cancelled => "cancelled",
        StatementOutcome::Unknown => "outcome unknown",
    };
    let mut text = word.to_owned();
    for part in [&end.tag, &end.sqlstate, &end.message].into_iter().flatten() {
        _ = write!(text, ", {part}");
    }
    if let Some(rows) = end.rows {
        _ = write!(text, ", {rows} rows");
    }
    if let Some(micros) = end.duration_us {
        _ = write!(text, ", {}.{:03} ms", micros / 1000, micros % 1000);
    }
    text
}

/// The first word behind white space and comments; `sql` is known to be whole.
fn first_word(sql: &str) -> &str {
    let mut rest =
        sql.trim_start_matches(|symbol: char| symbol.is_ascii_whitespace() || ";(".contains(symbol));
    loop {
        let after = if rest.starts_with("--") {
            rest.find('\n').and_then(|end| rest.get(end..))
        } else if rest.starts_with("/*") {
            rest.find("*/").and_then(|end| rest.get(end + 2..))
        } else {
            break;
        };
        rest = after.unwrap_or_default().trim_start();
    }
    let end = rest.find(|symbol: char| !symbol.is_ascii_alphabetic()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::Format;

    const START: Timestamp = Timestamp::from_micros(1_795_468_800_000_000);

    fn held(sql: &str, params: &[Parameter], outcome: StatementOutcome, tag: &str) -> Held {
        let begun = Statement::new(1, How::Extended, sql.as_bytes());
        let mut bound = Params::default();
        bound.push(params);
        let mut text = Text::default();
        text.push(sql.as_bytes());
        let end = StatementEnd { tag: Some(tag.to_owned()), ..StatementEnd::new(1, outcome) };
        let fate = Some(Fate { at: START, end });
        Held { fate, ..Held::new(&begun, text, bound, START) }
    }

    fn written(held: &Held) -> String {
        let mut bytes = Vec::new();
        held.write("alice", &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// What of a text is not comment.
    fn run(held: &Held) -> String {
        let text = written(held);
        text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_was_done_is_run_and_the_rest_shown() {
        let done = StatementOutcome::Done;
        assert_eq!(run(&held("select 1 -- one", &[], done, "SELECT 1")), "select 1 -- one\n;");
        for outcome in [
            StatementOutcome::Failed,
            StatementOutcome::Skipped,
            StatementOutcome::Cancelled,
            StatementOutcome::Unknown,
        ] {
            let text = written(&held("drop table\nt", &[], outcome, ""));
            assert!(text.lines().all(|line| line.starts_with("--")), "{text}");
            assert!(text.contains("--   drop table\n--   t\n") && text.contains("not run here"), "{text}");
        }
        for sql in ["select '\\'; \\! id", "select 1\u{1b}[2J", "select 'a\r\\! id'", "select $$"] {
            let text = written(&held(sql, &[], done, ""));
            assert!(text.lines().all(|line| line.starts_with("--")), "{text}");
            assert!(!text.contains(['\r', '\u{1b}']), "{text}");
        }
        assert_eq!(run(&held("COMMIT", &[], done, "ROLLBACK")), "ROLLBACK;");
        assert_eq!(run(&held("COMMIT", &[], done, "COMMIT")), "COMMIT\n;");
        assert_eq!(run(&held("ROLLBACK", &[], done, "ROLLBACK")), "ROLLBACK\n;");
        let copy = Held { copied_in: true, ..held("copy t from stdin", &[], done, "COPY 1") };
        assert_eq!(run(&copy), "");
        let statement = Statement::new(2, How::Extended, b"alter role a password '***'");
        let (masked, resumes) =
            (Statement { masked: 1, ..statement.clone() }, Statement { resumes: Some(1), ..statement });
        for begun in [masked, resumes] {
            let differs = Held::new(&begun, Text::default(), Params::default(), START).differs;
            let one = Held { differs, ..held("alter role a password '***'", &[], done, "ALTER ROLE") };
            assert!(differs.is_some() && run(&one).is_empty(), "{begun:?}");
        }
        let mut long = held("select 1", &[], done, "SELECT 1");
        long.sql.push(&vec![b' '; LONGEST]);
        assert_eq!(run(&long), "");
    }

    #[test]
    fn parameters_are_values_of_their_types_or_keep_it_from_running() {
        let text = |text: &str, oid| Parameter::new(Some(text.as_bytes()), Format::Text, oid);
        let none = Parameter::new(None, Format::Text, 20);
        let mut bytes = Parameter::new(Some(b"\0\xff"), Format::Binary, 17);
        let params = [text("it's", 25), none, bytes.clone(), text("a\\b\nc\u{202e}é", 0)];
        let sql = "/* x */ insert into t values ($1, $2, $3, $4)";
        assert_eq!(
            run(&held(sql, &params, StatementOutcome::Done, "INSERT 0 1")),
            "PREPARE sallyport_1 (text, bigint, bytea, unknown) AS\n\
             /* x */ insert into t values ($1, $2, $3, $4)\n;\n\
             EXECUTE sallyport_1 ('it''s', NULL, decode('00ff', 'hex'), E'a\\\\b\\nc\\U0000202E\\U000000E9');\n\
             DEALLOCATE sallyport_1;"
        );
        bytes.oid = 1700;
        assert_eq!(run(&held("select $1", &[bytes], StatementOutcome::Done, "SELECT 1")), "");
        let long = Parameter { length: Some(9000), ..text("head", 25) };
        assert_eq!(run(&held("select $1", &[long], StatementOutcome::Done, "SELECT 1")), "");
        assert_eq!(run(&held("call p($1)", &[text("1", 23)], StatementOutcome::Done, "CALL")), "");
    }
}
