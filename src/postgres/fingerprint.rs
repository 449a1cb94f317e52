//! Which statements are the same but for their values.
//!
//! A fingerprint is the first eight bytes of SHA-256 over the statement as [`normalised`] gives it: its tokens with one space
//! between them, without comments and the last semicolon; every string, number and parameter is `$`, with its sign where no
//! value stands before that; words are in lower case, names in quotes as they are. A list of nothing but values between
//! the parentheses of `IN` or of a row of `VALUES` is one value, and rows that are then alike are one row.
//!
//! Bodies between dollar quotes are strings: all `DO $$…$$` have the same fingerprint.

use super::lexer::{Kind, Lexer, Strings, Token};
use crate::crypto;

pub type Fingerprint = [u8; 8];

/// What stands for a value: no operator is written so.
const VALUE: &[u8] = b"$";
/// How deep parentheses are whose lists are looked into.
const DEEPEST: u32 = 63;
/// How much room is made at once, in bytes.
const ROOM: usize = 64 << 10;

/// `None` when there is no statement in the text.
pub fn fingerprint(sql: &[u8], strings: Strings) -> Option<Fingerprint> {
    let text = normalised(sql, strings);
    if text.is_empty() {
        return None;
    }
    crypto::sha256(&[&text]).first_chunk().copied()
}

/// The text that two statements with one fingerprint share.
pub fn normalised(sql: &[u8], strings: Strings) -> Vec<u8> {
    let room = (sql.len() + sql.len() / 2).min(ROOM);
    let mut normaliser = Normaliser {
        sql,
        out: Vec::with_capacity(room),
        last: Last::Nothing,
        sign: None,
        depth: 0,
        lists: 0,
        rows: None,
    };
    for token in Lexer::new(sql, strings) {
        normaliser.token(token);
    }
    let mut out = normaliser.out;
    if out.ends_with(b";") {
        out.truncate(out.len().saturating_sub(2));
    }
    out
}

/// The token before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Value {
        is_string: bool,
    },
    /// With how long the text was before it.
    Comma {
        after_value: bool,
        before: usize,
    },
    In,
    Values,
    Open,
    Operator,
    Semicolon,
    Other,
}

/// The rows of a `VALUES`.
#[derive(Debug, Clone, Copy)]
struct Rows {
    depth: u32,
    /// Where the row that is being written begins.
    start: usize,
    /// Where the one before begins and ends.
    before: Option<(usize, usize)>,
}

struct Normaliser<'a> {
    sql: &'a [u8],
    out: Vec<u8>,
    last: Last,
    /// A sign that may belong to the number behind it: what was before it, and how long the text then was.
    sign: Option<(Last, usize)>,
    depth: u32,
    /// A bit for each depth whose parentheses hold a list.
    lists: u64,
    rows: Option<Rows>,
}

impl Normaliser<'_> {
    fn token(&mut self, token: Token) {
        let text = token.text(self.sql);
        let sign = if token.kind == Kind::Comment { return } else { self.sign.take() };
        if self.rows.is_some_and(|rows| rows.depth == self.depth) && !matches!(text, b"(" | b",") {
            self.rows = None;
        }
        match (token.kind, text) {
            (Kind::String(_) | Kind::DollarString, _) => self.value(true),
            (Kind::Number, _) => {
                if let Some((last, length)) = sign {
                    self.out.truncate(length);
                    self.last = last;
                }
                self.value(false);
            }
            (Kind::Parameter, _) => self.value(false),
            (Kind::Word, _) => self.word(text),
            (Kind::Operator, _) => {
                let is_unary = matches!(
                    self.last,
                    Last::Nothing
                        | Last::Comma { .. }
                        | Last::Open
                        | Last::Operator
                        | Last::In
                        | Last::Values
                );
                let sign = (is_unary && matches!(text, b"-" | b"+")).then_some((self.last, self.out.len()));
                self.push(text, Last::Operator);
                self.sign = sign;
            }
            (Kind::Punctuation, b"(") => self.open(),
            (Kind::Punctuation, b")") => self.close(),
            (Kind::Punctuation, b"[") => self.push(text, Last::Open),
            (Kind::Punctuation, b",") => {
                let after_value = matches!(self.last, Last::Value { .. });
                let before = self.out.len();
                self.push(text, Last::Comma { after_value, before });
            }
            (Kind::Punctuation, b";") => {
                if !matches!(self.last, Last::Nothing | Last::Semicolon) {
                    self.push(text, Last::Semicolon);
                }
            }
            _ => self.push(text, Last::Other),
        }
    }

    fn space(&mut self) {
        if !self.out.is_empty() {
            self.out.push(b' ');
        }
    }

    fn push(&mut self, text: &[u8], last: Last) {
        self.space();
        self.out.extend_from_slice(text);
        self.last = last;
    }

    fn word(&mut self, text: &[u8]) {
        self.space();
        let start = self.out.len();
        self.out.extend_from_slice(text);
        let word = self.out.get_mut(start..).unwrap_or_default();
        word.make_ascii_lowercase();
        self.last = match &*word {
            b"in" => Last::In,
            b"values" => {
                self.rows = Some(Rows { depth: self.depth, start: 0, before: None });
                Last::Values
            }
            _ => Last::Other,
        };
    }

    fn value(&mut self, is_string: bool) {
        match self.last {
            // A string that goes on in the next line.
            Last::Value { is_string: true } if is_string => {}
            Last::Comma { after_value: true, before } if self.is_in_list() => {
                self.out.truncate(before);
                self.last = Last::Value { is_string };
            }
            _ => self.push(VALUE, Last::Value { is_string }),
        }
    }

    fn is_in_list(&self) -> bool {
        self.depth <= DEEPEST && self.lists & (1 << self.depth) != 0
    }

    fn open(&mut self) {
        let mut is_list = self.last == Last::In;
        if let Some(rows) = self.rows.as_mut().filter(|rows| rows.depth == self.depth) {
            rows.start = self.out.len();
            is_list |= matches!(self.last, Last::Values | Last::Comma { .. });
        }
        self.push(b"(", Last::Open);
        self.depth = self.depth.saturating_add(1);
        if self.depth <= DEEPEST {
            let bit = 1 << self.depth;
            self.lists = if is_list { self.lists | bit } else { self.lists & !bit };
        }
    }

    fn close(&mut self) {
        self.push(b")", Last::Other);
        self.depth = self.depth.saturating_sub(1);
        let Some(rows) = self.rows.as_mut().filter(|rows| rows.depth == self.depth) else { return };
        let row = (rows.start, self.out.len());
        let text = |(start, end): (usize, usize)| self.out.get(start..end).unwrap_or_default();
        match rows.before {
            Some(before) if text(before) == text(row) => self.out.truncate(before.1),
            _ => rows.before = Some(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(sql: &str) -> String {
        String::from_utf8(normalised(sql.as_bytes(), Strings::Standard)).unwrap()
    }

    #[test]
    fn values_white_space_comments_and_case_make_no_difference() {
        let same = [
            "SELECT * FROM t WHERE a = 1 AND b = 'x'",
            "select *\n\tfrom T -- all of them\n where A=$2 and b = E'it\\'s' ;",
            "SELECT /* ' */ * FROM t WHERE a = -1.5e3 AND b = $q$x$q$;;",
            "SELECT * FROM t WHERE a = 0x1F AND b = 'x'\n 'y'",
        ];
        for sql in same {
            assert_eq!(normal(sql), "select * from t where a = $ and b = $", "{sql}");
        }
        let print = |sql: &str| fingerprint(sql.as_bytes(), Strings::Standard);
        assert!(print(same[0]).is_some() && print(same[0]) == print(same[1]));
        assert_ne!(print("SELECT a FROM t"), print("SELECT \"A\" FROM t"));
        assert_ne!(print("SELECT a - 1"), print("SELECT a"));
        assert_eq!((print(""), print(" -- nothing\n;")), (None, None));
    }

    #[test]
    fn the_fingerprint_is_what_the_document_says() {
        let expected = crypto::sha256(&[b"select $"]);
        assert_eq!(fingerprint(b"SELECT 1", Strings::Standard).as_ref(), expected.first_chunk());
    }

    #[test]
    fn lists_of_values_are_one_value() {
        for (sql, expected) in [
            ("a IN (1, 2, 3)", "a in ( $ )"),
            ("a NOT IN ($1,$2)", "a not in ( $ )"),
            ("a IN (-1, +2, 'x', a, 3, 4)", "a in ( $ , a , $ )"),
            ("a IN (SELECT f(1, 2))", "a in ( select f ( $ , $ ) )"),
            ("f(1, 2)", "f ( $ , $ )"),
            ("(a, b) IN ((1, 2), (3, 4))", "( a , b ) in ( ( $ , $ ) , ( $ , $ ) )"),
            ("INSERT INTO t (a, b) VALUES (1, 2), (3, 4), (5, 6)", "insert into t ( a , b ) values ( $ )"),
            ("VALUES (1, DEFAULT, 2), (3, default, 4)", "values ( $ , default , $ )"),
            ("VALUES (1), (now()), (2), (3)", "values ( $ ) , ( now ( ) ) , ( $ )"),
            (
                "VALUES (1, 2) ON CONFLICT (a, b) DO UPDATE SET x = (1)",
                "values ( $ ) on conflict ( a , b ) do update set x = ( $ )",
            ),
            ("SELECT (VALUES (1), (2)), (3)", "select ( values ( $ ) ) , ( $ )"),
            ("SELECT a-1, -1, (-$1), 2 - -3", "select a - $ , $ , ( - $ ) , $ - $"),
            ("SELECT 1; ; SELECT 2;", "select $ ; select $"),
        ] {
            assert_eq!(normal(sql), expected, "{sql}");
        }
    }

    #[test]
    fn how_many_there_are_makes_no_difference() {
        let list = |count: usize| format!("SELECT 1 WHERE a IN ({})", vec!["7"; count].join(", "));
        let rows = |count: usize| format!("INSERT INTO t VALUES {}", vec!["($1, 'x')"; count].join(","));
        assert_eq!(normal(&list(1)), normal(&list(1000)));
        assert_eq!(normal(&rows(1)), normal(&rows(1000)));
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        assert_eq!(normal(&deep).matches('(').count(), 500);
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_so(sql in r"(select|IN|VALUES|a|'b'|\$\$c\$\$|1|\$2|<=|\(|\)|,|;|::|/\*d\*/| ){0,40}") {
            let once = normal(&sql);
            // A value stands for itself here.
            let values: Vec<&str> = once.split(' ').map(|word| if word == "$" { "1" } else { word }).collect();
            prop_assert_eq!(normal(&values.join(" ")), once);
        }

        #[test]
        fn arbitrary_bytes_never_panic(sql in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(normalised(&sql, Strings::Escaped).len() <= 2 * sql.len());
        }

        #[test]
        fn values_do_not_show(number in 1000..u64::MAX, word in "[a-z]{6,12}", count in 1..5_usize) {
            let values = vec![format!("{number}, '{word}'"); count].join(", ");
            let sql = normal(&format!("UPDATE t SET x = '{word}' WHERE y IN ({values}) OR z = {number}"));
            prop_assert_eq!(sql, "update t set x = $ where y in ( $ ) or z = $");
        }
    }
}
