//! Token by token; and that nothing is lost, nothing panics.

use proptest::prelude::*;

use super::*;

fn tokens(sql: &str, strings: Strings) -> Vec<(Kind, &str)> {
    let text = |token: Token| (token.kind, std::str::from_utf8(token.text(sql.as_bytes())).unwrap());
    Lexer::new(sql.as_bytes(), strings).map(text).collect()
}

#[track_caller]
fn check(sql: &str, expected: &[(Kind, &str)]) {
    assert_eq!(tokens(sql, Strings::Standard), expected, "{sql}");
}

const PLAIN: Kind = Kind::String(Prefix::None);
use Kind::{Comment, DollarString, Number, Operator, Other, Parameter, Punctuation, QuotedName, Word};

#[test]
fn words_names_and_numbers() {
    check("SELECT\x0bä_1$b\x0cFROM", &[(Word, "SELECT"), (Word, "ä_1$b"), (Word, "FROM")]);
    check(r#""a""b"u&"\0041"x"#, &[(QuotedName, r#""a""b""#), (QuotedName, r#"u&"\0041""#), (Word, "x")]);
    check(
        "1 1.5 .5 1e-3 1E5 0x1F 1_000 1.e2",
        &["1", "1.5", ".5", "1e-3", "1E5", "0x1F", "1_000", "1.e2"].map(|number| (Number, number)),
    );
    check("1..10", &[(Number, "1"), (Punctuation, ".."), (Number, "10")]);
    check("1ex $12a", &[(Number, "1"), (Word, "ex"), (Parameter, "$12"), (Word, "a")]);
    check(
        "t.a[1]::int",
        &[
            (Word, "t"),
            (Punctuation, "."),
            (Word, "a"),
            (Punctuation, "["),
            (Number, "1"),
            (Punctuation, "]"),
            (Punctuation, "::"),
            (Word, "int"),
        ],
    );
}

#[test]
fn strings_of_every_prefix() {
    check("'it''s' 'b'", &[(PLAIN, "'it''s'"), (PLAIN, "'b'")]);
    check(r"'a\' b", &[(PLAIN, r"'a\'"), (Word, "b")]);
    check(
        r"E'a\' b' e'\\'",
        &[(Kind::String(Prefix::Escape), r"E'a\' b'"), (Kind::String(Prefix::Escape), r"e'\\'")],
    );
    assert_eq!(tokens(r"'a\' b' c", Strings::Escaped), [(PLAIN, r"'a\' b'"), (Word, "c")]);
    check(
        "U&'\\0041' B'01' x'ff' N'a' f'b'",
        &[
            (Kind::String(Prefix::Unicode), "U&'\\0041'"),
            (Kind::String(Prefix::Bits), "B'01'"),
            (Kind::String(Prefix::Hexadecimal), "x'ff'"),
            (Kind::String(Prefix::National), "N'a'"),
            (Word, "f"),
            (PLAIN, "'b'"),
        ],
    );
    check("$$a$b$$ $t$x$$y$t$ $", &[(DollarString, "$$a$b$$"), (DollarString, "$t$x$$y$t$"), (Other, "$")]);
}

#[test]
fn operators_end_where_the_server_ends_them() {
    check("a<-1", &[(Word, "a"), (Operator, "<"), (Operator, "-"), (Number, "1")]);
    check("a @-1", &[(Word, "a"), (Operator, "@-"), (Number, "1")]);
    check(
        "a*/* c */-- d\n->>",
        &[(Word, "a"), (Operator, "*"), (Comment, "/* c */"), (Comment, "-- d"), (Operator, "->>")],
    );
    let signs = "+".repeat(200);
    assert_eq!(tokens(&signs, Strings::Standard), vec![(Operator, "+"); 200]);
    check("+-+@+", &[(Operator, "+-+@+")]);
    check("=+-", &[(Operator, "="), (Operator, "+"), (Operator, "-")]);
    check("+--x", &[(Operator, "+"), (Comment, "--x")]);
    check("a:=b => c", &[(Word, "a"), (Punctuation, ":="), (Word, "b"), (Operator, "=>"), (Word, "c")]);
}

#[test]
fn comments_nest_and_end_with_either_end_of_line() {
    check("/* a /* b */ ' */x", &[(Comment, "/* a /* b */ ' */"), (Word, "x")]);
    check("-- a\rb", &[(Comment, "-- a"), (Word, "b")]);
}

#[test]
fn what_does_not_end_ends_with_the_text_and_says_so() {
    for sql in ["'a", "E'a\\", "\"a", "$$a$", "$a$b$$", "/* /* */", "'a''", "U&'"] {
        let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), Strings::Standard).collect();
        let [token] = tokens[..] else { panic!("{sql}: {tokens:?}") };
        assert!(!token.is_ended() && token.text(sql.as_bytes()) == sql.as_bytes(), "{sql}: {token:?}");
        let (start, end) = token.content();
        assert!(start <= end && end == sql.len(), "{sql}: {token:?}");
    }
}

#[test]
fn content_is_what_stands_between_the_quotes() {
    let sql = b"E'a' $t$b$t$ \"c\" d u&'e'";
    let contents: Vec<&[u8]> = Lexer::new(sql, Strings::Standard)
        .map(|token| {
            let (start, end) = token.content();
            &sql[start..end]
        })
        .collect();
    assert_eq!(contents, [b"a", b"b", b"c", b"d", b"e"]);
    let part: Vec<Token> = Lexer::within(sql, (2, 8), Strings::Standard).collect();
    assert_eq!((part[0].start, part[0].end, part[0].kind), (2, 3, Word));
    assert_eq!(part.last().unwrap().end, 8);
}

proptest! {
    #[test]
    fn every_byte_is_in_a_token_or_white(
        text in r#"(select|'|''|\\|\$\$|\$a\$|\$1|--|/\*|\*/|E'|U&'|"|\n|\r| |1\.5e|0x|\.\.|::|<-|@|;|ä|\x00){0,40}"#,
        escaped: bool,
    ) {
        let sql = text.as_bytes();
        let strings = if escaped { Strings::Escaped } else { Strings::Standard };
        let mut at = 0;
        for token in Lexer::new(sql, strings) {
            prop_assert!(sql[at..token.start].iter().all(|byte| is_space(*byte)));
            prop_assert!(token.start < token.end && token.end <= sql.len());
            let (start, end) = token.content();
            prop_assert!(token.start <= start && start <= end && end <= token.end);
            prop_assert!(token.is_ended() || token.end == sql.len());
            at = token.end;
        }
        prop_assert!(sql[at..].iter().all(|byte| is_space(*byte)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(sql in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Lexer::new(&sql, Strings::Escaped).count() <= sql.len());
    }

    /// Tokens one by one, with something white between them, are the same tokens.
    #[test]
    fn tokens_put_apart_stay_the_same(text in r"(a|'b'|\$\$c\$\$|1|\$2|<=|\(|,|::|/\*d\*/| ){0,20}") {
        let kinds = |sql: &[u8]| Lexer::new(sql, Strings::Standard).map(|token| token.kind).collect::<Vec<_>>();
        let apart: Vec<&[u8]> = Lexer::new(text.as_bytes(), Strings::Standard).map(|token| token.text(text.as_bytes())).collect();
        prop_assert_eq!(kinds(&apart.join(&b'\n')), kinds(text.as_bytes()));
    }
}

#[test]
fn a_string_goes_on_in_the_next_line_as_it_began() {
    let escaped = Kind::String(Prefix::Escape);
    check("E'a'\n'\\''; x", &[(escaped, "E'a'"), (escaped, "'\\''"), (Punctuation, ";"), (Word, "x")]);
    check(
        "E'a' -- b\n -- c\r '\\' x'",
        &[(escaped, "E'a'"), (Comment, "-- b"), (Comment, "-- c"), (escaped, "'\\' x'")],
    );
    check("E'a' '\\' x", &[(escaped, "E'a'"), (PLAIN, "'\\'"), (Word, "x")]);
    check("E'a' /*\n*/ '\\' x", &[(escaped, "E'a'"), (Comment, "/*\n*/"), (PLAIN, "'\\'"), (Word, "x")]);
    check("E'a'\n, '\\' x", &[(escaped, "E'a'"), (Punctuation, ","), (PLAIN, "'\\'"), (Word, "x")]);
    let bits = Kind::String(Prefix::Bits);
    assert_eq!(tokens("b'0'\n'\\' x", Strings::Escaped), [(bits, "b'0'"), (bits, "'\\'"), (Word, "x")]);
}

#[test]
fn a_comment_ends_an_operator_however_long() {
    for before in ["", "@"] {
        for length in [1, 2, 61, 62, 63, 64, 65, 200] {
            let sql = format!("2*{before}{}--'\n1", "+".repeat(length));
            let tokens = tokens(&sql, Strings::Standard);
            assert!(tokens.contains(&(Comment, "--'")), "{sql}: {tokens:?}");
        }
    }
}
