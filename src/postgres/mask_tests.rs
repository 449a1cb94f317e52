//! What is masked, and what stays.

use proptest::prelude::*;

use super::*;

fn mask(sql: &str) -> String {
    masked(sql.as_bytes(), Strings::Standard)
        .map_or_else(|| sql.to_owned(), |(text, _)| String::from_utf8(text).unwrap())
}

#[test]
fn secrets_are_masked_and_nothing_else() {
    let cases = [
        ("ALTER ROLE ann PASSWORD 'hunter2'", "ALTER ROLE ann PASSWORD '***'"),
        (
            "alter user ann with encrypted PassWord E'hun\\'ter2' valid until 'x'",
            "alter user ann with encrypted PassWord E'***' valid until 'x'",
        ),
        (
            "CREATE ROLE a PASSWORD /* ' */ -- '\n 'hunter''2'; SELECT 'b'",
            "CREATE ROLE a PASSWORD /* ' */ -- '\n '***'; SELECT 'b'",
        ),
        ("CREATE ROLE a PASSWORD $q$hunter2$q$ LOGIN", "CREATE ROLE a PASSWORD $q$***$q$ LOGIN"),
        ("CREATE ROLE a PASSWORD U&'hunter2'", "CREATE ROLE a PASSWORD U&'***'"),
        ("ALTER ROLE a PASSWORD NULL; SELECT 'x'", "ALTER ROLE a PASSWORD NULL; SELECT 'x'"),
        (
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'ann', password 'hunter2', SET sslpassword 'x y')",
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'ann', password '***', SET sslpassword '***')",
        ),
        (
            "SELECT dblink_connect('host=db password=hunter2 user=ann')",
            "SELECT dblink_connect('host=db password=*** user=ann')",
        ),
        (
            "SELECT dblink('password = ''hun ter2'' dbname=x', 'SELECT 1')",
            "SELECT dblink('password = ''***'' dbname=x', 'SELECT 1')",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'postgres://ann:hunter2@db/x?password=again&a=b' PUBLICATION p",
            "CREATE SUBSCRIPTION s CONNECTION 'postgres://ann:***@db/x?password=***&a=b' PUBLICATION p",
        ),
        (
            "DO $$ BEGIN ALTER ROLE a PASSWORD 'hunter2'; EXECUTE 'SELECT 1'; END $$",
            "DO $$ BEGIN ALTER ROLE a PASSWORD '***'; EXECUTE 'SELECT 1'; END $$",
        ),
        (
            "DO $$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', 'a', 'hunter2'); PERFORM 'x'; END $$",
            "DO $$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD***', '***', '***'); PERFORM 'x'; END $$",
        ),
        ("EXECUTE 'ALTER ROLE a PASSWORD ''hunter2'''", "EXECUTE 'ALTER ROLE a PASSWORD***'"),
        (
            "SELECT 'ALTER ROLE a PASSWORD ' || quote_literal('hunter2')",
            "SELECT 'ALTER ROLE a PASSWORD***' || quote_literal('***')",
        ),
        (
            "SELECT password, 'x' FROM users WHERE password_hash = 'y'",
            "SELECT password, 'x' FROM users WHERE password_hash = 'y'",
        ),
        ("SELECT * FROM users WHERE password = 'hunter2'", "SELECT * FROM users WHERE password = '***'"),
        (
            "SELECT \"password\" FROM users WHERE name = 'ann'",
            "SELECT \"password\" FROM users WHERE name = 'ann'",
        ),
        ("SELECT 'a' -- password 'x'", "SELECT 'a' -- password 'x'"),
        ("SELECT 1", "SELECT 1"),
    ];
    for (sql, expected) in cases {
        assert_eq!(mask(sql), expected, "{sql}");
    }
}

#[test]
fn connection_strings_are_masked_however_they_are_written() {
    let cases = [
        ("SELECT 'https://example.org/a', 'b'", "SELECT 'https://example.org/a', 'b'"),
        (
            "SELECT dblink_connect($$host=db user=ann password=hunter2$$)",
            "SELECT dblink_connect($$host=db user=ann password=***$$)",
        ),
        (
            "DO $a$ BEGIN PERFORM dblink($q$ postgres://ann:hunter2@db/x$q$, $$SELECT 'b'$$); END $a$",
            "DO $a$ BEGIN PERFORM dblink($q$ postgres://ann:***@db/x$q$, $$SELECT 'b'$$); END $a$",
        ),
        ("SELECT dblink('password=abc&def host=h')", "SELECT dblink('password=*** host=h')"),
        ("SELECT dblink('password=ab''cd host=h')", "SELECT dblink('password=*** host=h')"),
        ("SELECT dblink('postgres://ann:se\"cr''et@db/x')", "SELECT dblink('postgres://ann:***@db/x')"),
        (
            "EXECUTE 'SELECT dblink(''password=abc'', t) FROM t'",
            "EXECUTE 'SELECT dblink(''password=***'', t) FROM t'",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(mask(sql), expected, "{sql}");
    }
}

#[test]
fn bodies_in_other_languages_are_read_as_well() {
    let python =
        "DO $$\nsql = 'ALTER ROLE bob PASSWORD ''hunter2'''\nplpy.execute(sql)\n$$ LANGUAGE plpython3u";
    assert!(!mask(python).contains("hunter2"), "{}", mask(python));
    let json = r#"SELECT '{"url":"https://x","mail":"bob@y.z"}', 'postgres://a'"#;
    assert_eq!(mask(json), json);
}

#[test]
fn every_way_of_writing_a_secret_is_known() {
    let cases = [
        ("ALTER ROLE a PASSWORD 'abc'\n  'def' LOGIN", "ALTER ROLE a PASSWORD '***'\n  '***' LOGIN"),
        (
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'x', \"password\" 's3cret')",
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'x', \"password\" '***')",
        ),
        // White space is more to PostgreSQL than to others, and a comment ends with either end of a line.
        ("ALTER ROLE a PASSWORD\x0b'hunter2'", "ALTER ROLE a PASSWORD\x0b'***'"),
        ("-- a\rALTER ROLE a PASSWORD 'hunter2'", "-- a\rALTER ROLE a PASSWORD '***'"),
        (r"SELECT dblink('password=hun\ ter2 host=h')", r"SELECT dblink('password=*** host=h')"),
        (r"SELECT dblink(E'password=\'hun ter2\' host=h')", r"SELECT dblink(E'password=\'***\' host=h')"),
    ];
    for (sql, expected) in cases {
        assert_eq!(mask(sql), expected, "{sql}");
    }
}

#[test]
fn parameters_are_secret_where_strings_would_be_and_messages_do_not_tell_either() {
    let parameters = |sql: &str| {
        secrets(sql.as_bytes(), Strings::Standard)
            .map(|secrets| secrets.parameters.into_iter().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    for (sql, expected) in [
        ("SELECT * FROM users WHERE name = $1 AND password = $2 AND id = $3", vec![2]),
        ("SELECT format('ALTER ROLE %I PASSWORD %L', $1, $2); SELECT $3", vec![1, 2]),
        ("SELECT password, $1 FROM users", vec![]),
        ("CREATE FUNCTION f(text) AS $$ SELECT 1 FROM users WHERE password = $1 $$", vec![]),
    ] {
        assert_eq!(parameters(sql), expected, "{sql}");
    }
    let secrets = secrets(b"ALTER USER bob SET PASSWORD 'hunter2'", Strings::Standard).unwrap();
    let message = without(r#"syntax error at or near "'hunter2'""#, &secrets.values.unwrap());
    assert_eq!(message, r#"syntax error at or near "'***'""#);
    let of = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect::<BTreeSet<_>>();
    assert_eq!(without("as it was", &of(&["", "hunter2"])), "as it was");
    // What is put in is not looked into again, and the longer one goes first.
    assert_eq!(without("*ab*", &of(&["*", "a", "ab"])), "*********");
    let values = |sql: &str| super::secrets(sql.as_bytes(), Strings::Standard).unwrap().values;
    assert_eq!(values(&"SELECT 'password=ab', 'password=ab'; ".repeat(5)), Some(of(&["ab"])));
    assert_eq!(values(&format!("SELECT 'password={}'", "x".repeat(2_000))), None);
    assert_eq!(values("SELECT 'password=ab''cd'"), None, "the server says ab'cd");
}

#[test]
fn what_cannot_be_read_for_certain_is_masked_from_the_word_on() {
    let cases = [
        ("ALTER ROLE a PASSWORD 'hunter2", "ALTER ROLE a PASSWORD ***"),
        ("DO $$ ALTER ROLE a PASSWORD 'hunter2'", "DO $$ ALTER ROLE a PASSWORD***"),
        ("ALTER ROLE \"a PASSWORD 'hunter2'", "ALTER ROLE \"a PASSWORD***"),
    ];
    for (sql, expected) in cases {
        assert_eq!(mask(sql), expected, "{sql}");
    }
}

#[test]
fn a_backslash_means_what_the_servers_setting_says() {
    let sql = r"ALTER ROLE a PASSWORD 'x\' hunter2'; SELECT 'b'";
    let (escaped, _) = masked(sql.as_bytes(), Strings::Escaped).unwrap();
    assert_eq!(escaped, b"ALTER ROLE a PASSWORD '***'; SELECT 'b'");
    assert_eq!(mask(r"ALTER ROLE a PASSWORD 'x\'; SELECT 'b'"), "ALTER ROLE a PASSWORD '***'; SELECT 'b'");
}

#[test]
fn what_is_no_secret_stays_whatever_words_are_beside_it() {
    for sql in [
        "SELECT 'password reset', secret FROM customers WHERE account = '4711'",
        r"SELECT 'password\', * FROM salaries WHERE name = 'ann'",
        "SELECT $$password$$, iban FROM accounts WHERE id = 'x'",
        "INSERT INTO notes VALUES ('my password is on the desk', 'ann')",
    ] {
        assert_eq!(mask(sql), sql);
    }
    // Whatever is put in strings, what stands outside of them stays.
    let hiding = "SELECT 'user password', 'x' FROM salaries";
    assert_eq!(mask(hiding), "SELECT 'user password', '***' FROM salaries");
}

#[test]
fn of_values_connection_strings_are_masked() {
    let mask = |value: &str| {
        masked_value(value.as_bytes(), true).map(|(text, count)| (String::from_utf8(text).unwrap(), count))
    };
    assert_eq!(mask("host=db password=hunter2"), Some(("host=db password=***".to_owned(), 1)));
    assert_eq!(mask("postgres://ann:hun:ter@2@db/x"), Some(("postgres://ann:***@db/x".to_owned(), 1)));
    assert_eq!(mask("password=hun'ter&2 host=db"), Some(("password=*** host=db".to_owned(), 1)));
    assert_eq!(mask("my password"), None);
    assert_eq!(mask("hunter2"), None);
    // Where the rest is not there, its `@` may be in that.
    let (text, count) = masked_value(b"postgres://ann:hunt", false).unwrap();
    assert_eq!((&text[..], count), (&b"postgres://ann:***"[..], 1));
    assert_eq!(masked_value(b"postgres://ann:hunt", true), None);
    assert_eq!(masked_value(b"https://example.org/a:b", false), None);
}

fn form() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("ALTER ROLE a PASSWORD '", "' VALID UNTIL 'now'"),
        ("CREATE USER MAPPING FOR a SERVER s OPTIONS (password '", "')"),
        ("SELECT dblink_connect('host=h password=", " dbname=d')"),
        ("SELECT dblink_connect('postgresql://u:", "@h/d')"),
        ("SELECT dblink_connect($$user=u password=", " dbname=d$$)"),
        ("CREATE SUBSCRIPTION s CONNECTION $q$postgres://u:", "@h/d$q$ PUBLICATION p"),
        ("DO $a$ BEGIN EXECUTE 'ALTER ROLE a PASSWORD ''", "'''; END $a$"),
        ("ALTER ROLE a PASSWORD $x$", "$x$"),
        ("ALTER ROLE a PASSWORD E'", "'"),
    ])
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), is_whole: bool) {
        let _ = masked(&[b"password".as_slice(), &bytes].concat(), Strings::Escaped);
        let _ = masked_value(&[&bytes, b"password=".as_slice()].concat(), is_whole);
    }

    #[test]
    fn sql_like_text_never_panics(text in r"(password|'|''|\\|\$\$|\$a\$|--|/\*|\*/|://|@|:|=|;| |x|E'|\n){0,40}") {
        let _ = masked(text.as_bytes(), Strings::Standard);
        let _ = masked(text.as_bytes(), Strings::Escaped);
    }

    #[test]
    fn a_secret_does_not_stay((before, after) in form(), secret in "[A-Za-z0-9!#%*+,.^_~&=\"-]{12,24}") {
        let sql = format!("SELECT 1; {before}{secret}{after}; SELECT 2");
        let text = mask(&sql);
        prop_assert!(!text.contains(&secret), "{}", text);
        prop_assert!(text.starts_with("SELECT 1; ") && text.ends_with("; SELECT 2"), "{}", text);
    }
}

#[test]
fn a_quote_in_a_password_ends_no_address_that_is_not_in_quotes() {
    assert_eq!(mask("SELECT 'postgres://u:a\",b@h/d'"), "SELECT 'postgres://u:***@h/d'");
    let json = "SELECT '{\"a\": \"https://host\", \"b\": \"x:y@z\"}'";
    assert_eq!(mask(json), json);
}

/// In time that grows with the length: otherwise this takes hours.
#[test]
fn a_text_full_of_one_sign_and_without_the_other_is_read_once() {
    for sign in ["password ", "https://host/x ", "password,", "://password,"] {
        let text = format!("SELECT '{}'", sign.repeat((4 << 20) / sign.len()));
        assert_eq!(masked(text.as_bytes(), Strings::Standard), None, "{sign}");
    }
    let secret = format!("SELECT '{}password=hunter2'", "https://host/x ".repeat(100_000));
    assert!(mask(&secret).ends_with(" password=***'"));
}
