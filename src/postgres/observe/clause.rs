//! What a statement's text says that it does, where the protocol does not tell: which table a COPY is of, and which
//! settings are changed that decide what later statements mean.
//!
//! Statements in one text are numbered from 0, as the target completes them. Where their numbers cannot be told nothing is
//! said at all: in a text with a body of statements (`BEGIN ATOMIC`), or one that does not end as it should. Of what runs
//! inside `DO`, functions and strings nothing is known.

use std::sync::Arc;

use bytes::Bytes;

use super::LONGEST_SHOWN;
use crate::postgres::lexer::{Kind, Lexer, Strings, Token};

/// PostgreSQL's limit of a table's columns.
const MOST_COLUMNS: usize = 1600;
/// How long all names of a COPY may be, in bytes: they are one record.
const LONGEST_NAMES: usize = 128 << 10;
/// How many statements of one text are told of.
const MOST_CLAUSES: usize = 64;
/// How many tokens of a statement are looked at: a COPY with its columns.
const MOST_TOKENS: usize = 2 * MOST_COLUMNS + 32;

/// The table and columns of a COPY, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOf {
    pub table: String,
    /// Empty when none are named.
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clause {
    Copy(CopyOf),
    /// Which settings, how the target calls the command when it is done, and the statement.
    Sets(&'static [&'static str], &'static [u8], Bytes),
}

/// Of a text: which statement, and what it does. None for nearly every text.
pub(super) type Clauses = Option<Arc<[(u64, Clause)]>>;

const SEARCH_PATH: &str = "search_path";
const ROLE: &str = "role";
const AUTHORIZATION: &str = "session_authorization";

pub(super) fn clauses(sql: &[u8], strings: Strings) -> Clauses {
    let words = ["copy", "role", "authorization", SEARCH_PATH, "schema", "reset", "discard"];
    if !words.into_iter().any(|word| super::sql::contains(sql, word)) {
        return None;
    }
    let mut found = Vec::new();
    let (mut statement, mut number, mut depth) = (Vec::new(), 0, 0_usize);
    for token in Lexer::new(sql, strings).filter(|token| token.kind != Kind::Comment || !token.is_ended()) {
        if !token.is_ended() || token.is_word(sql, "atomic") {
            return None;
        }
        match token.text(sql) {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            b";" if depth == 0 => {
                if !statement.is_empty() {
                    found.extend(clause(sql, &statement).map(|clause| (number, clause)));
                    number += 1;
                }
                statement.clear();
                continue;
            }
            _ => {}
        }
        if statement.len() < MOST_TOKENS {
            statement.push(token);
        }
    }
    found.extend(clause(sql, &statement).map(|clause| (number, clause)));
    (1..=MOST_CLAUSES).contains(&found.len()).then(|| found.into())
}

fn clause(sql: &[u8], tokens: &[Token]) -> Option<Clause> {
    let mut words = Words { sql, tokens };
    if words.eat("copy") {
        return copy(words).map(Clause::Copy);
    }
    let (settings, tag): (&'static [&'static str], &'static [u8]) = if words.eat("set") {
        (set(words)?, b"SET")
    } else if words.eat("reset") {
        (if words.eat("all") { &[SEARCH_PATH] } else { setting(words)? }, b"RESET")
    } else if words.eat("discard") && words.eat("all") {
        (&[AUTHORIZATION, ROLE, SEARCH_PATH], b"DISCARD ALL")
    } else {
        return None;
    };
    let (start, end) = (tokens.first()?.start, tokens.last()?.end);
    let text = sql.get(start..end)?;
    let text = text.get(..LONGEST_SHOWN).unwrap_or(text);
    Some(Clause::Sets(settings, tag, Bytes::copy_from_slice(text)))
}

/// After `SET`.
fn set(mut words: Words<'_>) -> Option<&'static [&'static str]> {
    let mut scoped = words;
    if scoped.eat("local") || (scoped.eat("session") && !scoped.eat("authorization")) {
        words = scoped;
    }
    // Another name for it.
    if words.eat("schema") { Some(&[SEARCH_PATH]) } else { setting(words) }
}

fn setting(mut words: Words<'_>) -> Option<&'static [&'static str]> {
    let mut session = words;
    if session.eat("session") && session.eat("authorization") {
        return Some(&[AUTHORIZATION]);
    }
    let (name, _) = words.name()?;
    let is = |setting: &str| name.eq_ignore_ascii_case(setting.as_bytes());
    if is(SEARCH_PATH) {
        Some(&[SEARCH_PATH])
    } else if is(ROLE) {
        Some(&[ROLE])
    } else if is(AUTHORIZATION) {
        Some(&[AUTHORIZATION])
    } else {
        None
    }
}

/// After `COPY`: a name, perhaps columns, and then a direction. What is a query has no name.
fn copy(mut words: Words<'_>) -> Option<CopyOf> {
    words.eat("binary");
    let mut table = words.name()?.1;
    while words.eat_punctuation(".") {
        table = table + "." + &words.name()?.1;
    }
    let mut columns = Vec::new();
    if words.eat_punctuation("(") {
        loop {
            columns.push(words.name()?.1);
            if words.eat_punctuation(")") {
                break;
            }
            if !words.eat_punctuation(",") || columns.len() == MOST_COLUMNS {
                return None;
            }
        }
    }
    let length = table.len() + columns.iter().map(String::len).sum::<usize>();
    (length <= LONGEST_NAMES && (words.eat("from") || words.eat("to"))).then_some(CopyOf { table, columns })
}

/// What is left of a statement's tokens.
#[derive(Clone, Copy)]
struct Words<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
}

impl<'a> Words<'a> {
    fn eat_if(&mut self, is_it: impl Fn(&Token) -> bool) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if is_it(first) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let sql = self.sql;
        self.eat_if(|token| token.is_word(sql, word))
    }

    fn eat_punctuation(&mut self, punctuation: &str) -> bool {
        let sql = self.sql;
        self.eat_if(|token| token.is_punctuation(sql, punctuation))
    }

    /// A name without its quotes, and as it is written.
    fn name(&mut self) -> Option<(&'a [u8], String)> {
        let (first, rest) = self.tokens.split_first()?;
        if !matches!(first.kind, Kind::Word | Kind::QuotedName) {
            return None;
        }
        self.tokens = rest;
        let (start, end) = first.content();
        let written = std::str::from_utf8(first.text(self.sql)).ok()?;
        Some((self.sql.get(start..end)?, written.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sql: &str) -> Vec<(u64, Clause)> {
        clauses(sql.as_bytes(), Strings::Standard).map(|clauses| clauses.to_vec()).unwrap_or_default()
    }

    fn copied(sql: &str) -> Option<(String, Vec<String>)> {
        match &told(sql)[..] {
            [(0, Clause::Copy(CopyOf { table, columns }))] => Some((table.clone(), columns.clone())),
            [] => None,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn a_copy_says_its_table_and_columns_as_they_are_written() {
        for (sql, table, columns) in [
            ("COPY t FROM STDIN", "t", &[][..]),
            (
                "copy /* from */ Public . \"T a\" (A, \"b,)\") to stdout (format csv)",
                "Public.\"T a\"",
                &["A", "\"b,)\""],
            ),
            ("COPY BINARY t TO STDOUT;", "t", &[]),
            ("COPY a.b.c(d) FROM STDIN WHERE d > 1", "a.b.c", &["d"]),
        ] {
            let columns = columns.iter().map(|column| (*column).to_owned()).collect();
            assert_eq!(copied(sql), Some((table.to_owned(), columns)), "{sql}");
        }
        for sql in [
            "COPY (SELECT 1) TO STDOUT",
            "COPY t",
            "COPY t (a, ) FROM STDIN",
            "COPY t (a b) FROM STDIN",
            "SELECT 'COPY t FROM STDIN'",
            "DO $$ COPY t FROM STDIN $$",
            "COPY t FROM STDIN; SELECT 'unended",
        ] {
            assert_eq!(copied(sql), None, "{sql}");
        }
        let wide =
            |length: usize| format!("COPY t ({}) FROM STDIN", vec!["x".repeat(length); 1600].join(","));
        assert_eq!(copied(&wide(63)).map(|(_, columns)| columns.len()), Some(1600));
        assert_eq!(copied(&wide(100)), None);
        assert_eq!(copied(&format!("COPY t (a{}) TO STDOUT", ",a".repeat(1600))), None);
    }

    #[test]
    fn what_changes_the_meaning_of_later_statements_is_known() {
        let sets = |sql: &str| match &told(sql)[..] {
            [(0, Clause::Sets(settings, tag, text))] => {
                Some((settings.join(" "), String::from_utf8_lossy(tag).into_owned(), text.clone()))
            }
            [] => None,
            other => panic!("{sql}: {other:?}"),
        };
        for (sql, settings, tag) in [
            ("SET search_path TO a, b", "search_path", "SET"),
            ("set local \"Search_Path\" = 'x'", "search_path", "SET"),
            ("SET SESSION SCHEMA 'x'", "search_path", "SET"),
            ("SET ROLE admin", "role", "SET"),
            ("SET LOCAL role = none", "role", "SET"),
            ("SET SESSION ROLE x", "role", "SET"),
            ("SET SESSION AUTHORIZATION x", "session_authorization", "SET"),
            ("SET SESSION SESSION AUTHORIZATION DEFAULT", "session_authorization", "SET"),
            ("SET LOCAL SESSION AUTHORIZATION x", "session_authorization", "SET"),
            ("RESET SESSION AUTHORIZATION", "session_authorization", "RESET"),
            ("RESET ROLE", "role", "RESET"),
            ("RESET ALL", "search_path", "RESET"),
            ("DISCARD ALL", "session_authorization role search_path", "DISCARD ALL"),
        ] {
            let expected = (settings.to_owned(), tag.to_owned(), Bytes::copy_from_slice(sql.as_bytes()));
            assert_eq!(sets(sql), Some(expected), "{sql}");
        }
        for sql in [
            "SELECT set_config('search_path', 'x', false)",
            "SET statement_timeout = 5 -- search_path",
            "DISCARD PLANS",
            "ALTER ROLE a SET search_path = b",
            "DO $$ BEGIN SET ROLE admin; END $$",
            "EXPLAIN SELECT role FROM t",
        ] {
            assert_eq!(sets(sql), None, "{sql}");
        }
    }

    #[test]
    fn statements_of_one_text_are_numbered_as_they_complete() {
        let numbers = |sql: &str| told(sql).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(";;SELECT 1; SET ROLE a;; -- ;\nSELECT ';'; COPY t FROM STDIN;"), [1, 3]);
        assert_eq!(numbers("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); RESET ROLE"), [1]);
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SET ROLE a";
        assert_eq!(numbers(body), [0_u64; 0]);
        assert_eq!(numbers(&"SET ROLE a;".repeat(MOST_CLAUSES + 1)), [0_u64; 0]);
    }
}
