//! What is recognised; and what people hide in.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn standard(sql: &str) -> Vec<StatementFacts> {
    classify(sql.as_bytes(), Strings::Standard).into_iter().map(|statement| statement.facts).collect()
}

/// The one statement of a text.
#[track_caller]
fn one(sql: &str) -> StatementFacts {
    let statements = standard(sql);
    let [statement] = &statements[..] else { panic!("{sql}: {statements:?}") };
    statement.clone()
}

fn set(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn kinds(sql: &str, expected: &str) {
    let facts = one(sql);
    assert!(facts.known, "{sql}: {facts:?}");
    assert_eq!(facts.kinds, set(expected), "{sql}");
}

#[track_caller]
fn unknown(sql: &str) {
    let statements = standard(sql);
    assert!(statements.iter().any(|facts| !facts.known), "{sql}: {statements:?}");
}

#[test]
fn commands_by_their_first_word() {
    for (sql, expected) in [
        ("SELECT 1", "select"),
        ("  /* x */ select 1 -- y", "select"),
        ("(SELECT 1) UNION (SELECT 2)", "select"),
        ("VALUES (1)", "values"),
        ("TABLE accounts", "table"),
        ("INSERT INTO t VALUES (1)", "insert"),
        ("INSERT INTO t SELECT 1", "insert select"),
        ("END", "commit"),
        ("START TRANSACTION READ ONLY", "begin"),
        ("ABORT", "rollback"),
        ("ROLLBACK TO SAVEPOINT a", "rollback_to"),
        ("ROLLBACK AND NO CHAIN", "rollback"),
        ("LOCK TABLE t IN ACCESS SHARE MODE", "lock_share"),
        ("LOCK TABLE t IN SHARE MODE", "lock"),
        ("COMMIT AND CHAIN", "begin commit"),
        ("PREPARE TRANSACTION 'x'", "prepare_transaction"),
        ("COMMIT PREPARED 'x'", "commit_prepared"),
        ("rollback prepared 'x'", "rollback_prepared"),
        ("ROLLBACK WORK AND NO CHAIN", "rollback"),
        ("DROP TABLE t", "drop"),
        ("CREATE TABLE t (a int REFERENCES u ON DELETE CASCADE ON UPDATE RESTRICT)", "create"),
        ("GRANT UPDATE, DELETE ON t TO u", "grant"),
        ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u ON DELETE SET NULL", "alter"),
        ("COPY t FROM STDIN", "copy_from"),
        ("COPY t (a, b) TO STDOUT (FORMAT binary)", "copy_to"),
        ("SELECT * FROM t FOR UPDATE", "select"),
        ("SELECT * FROM t FOR NO KEY UPDATE", "select"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "insert update"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "insert"),
        ("CREATE SCHEMA x GRANT ALL ON hr.salaries TO public", "create grant"),
        ("EXPLAIN SELECT 1", "explain select"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "declare select"),
        ("FETCH 10 FROM c", "fetch"),
    ] {
        kinds(sql, expected);
    }
}

#[test]
fn a_text_may_hold_several_statements() {
    let statements = standard("BEGIN; DELETE FROM t WHERE a = 1;; COMMIT; -- end");
    let kinds: Vec<_> = statements.iter().map(|facts| facts.kinds.clone()).collect();
    assert_eq!(kinds, [set("begin"), set("delete"), set("commit")]);
    assert_eq!(standard(" ; -- nothing"), []);
}

#[test]
fn what_hides_in_another_command_is_found() {
    for (sql, expected) in [
        ("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone", "delete select"),
        ("WITH a AS (SELECT 1), b AS (UPDATE t SET a = 1) SELECT 1", "select update"),
        ("WITH a AS (SELECT 1) DELETE FROM t", "delete select"),
        (
            "SELECT * FROM (WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x) y",
            "insert select",
        ),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "copy_to delete"),
        ("COPY (SELECT 1) TO PROGRAM 'sh'", "copy_program copy_to select"),
        ("COPY t FROM '/etc/passwd'", "copy_file copy_from"),
        ("EXPLAIN ANALYZE DELETE FROM t", "delete explain"),
        ("EXPLAIN (ANALYZE true, FORMAT json) DELETE FROM t", "delete explain"),
        ("explain(analyze)update t set a=1", "explain update"),
        ("EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", "create explain select"),
        ("EXPLAIN (SELECT 1)", "explain select"),
        ("PREPARE x (int) AS DELETE FROM t WHERE a = $1", "delete prepare"),
        ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "delete merge"),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (1)", "insert merge"),
        ("SELECT 1 INTO copied FROM t", "create select"),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM u", "create delete insert"),
        ("CREATE RULE r AS ON INSERT TO t DO UPDATE u SET a = 1", "create insert update"),
        ("CREATE TABLE x AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "create delete select"),
        ("SELECT 1 /* ; */ ; ", "select"),
        ("SELECT ';DELETE FROM t'", "select"),
        ("SELECT \"DELETE\" FROM t", "select"),
        ("SELECT $$ DELETE FROM t $$", "select"),
        ("/* /* */ SELECT 1; */ DELETE FROM t", "delete"),
        ("SELECT E'\\'' , 'x' INTO y", "create select"),
        ("DELETE/**/FROM/**/t", "delete"),
        ("D\u{00e9}lete", ""),
        (
            "WITH RECURSIVE x(a) AS (SELECT 1) SEARCH BREADTH FIRST BY a SET key UPDATE t SET b = 0",
            "select update",
        ),
        ("SELECT 1 IS DISTINCT FROM 2 INTO stolen", "create select"),
        ("SELECT extract(year FROM now()) INTO stolen", "create select"),
    ] {
        if expected.is_empty() { unknown(sql) } else { kinds(sql, expected) }
    }
    // Two statements, as the server cuts them.
    for sql in [
        format!("SELECT 2*{}--'\n1; DELETE FROM t; --'", "+".repeat(62)),
        format!("SELECT 2*@{}--'\n1; DELETE FROM t; --'", "+".repeat(61)),
        "SELECT E'a'\n'\\''; DELETE FROM t; --'".to_owned(),
        "SELECT E'a' -- x\n'\\''; DELETE FROM t; --'".to_owned(),
    ] {
        let kinds: Vec<_> = standard(&sql).into_iter().map(|facts| facts.kinds).collect();
        assert_eq!(kinds, [set("select"), set("delete")], "{sql}");
    }
    // The same bytes, cut differently.
    let sql = br"SELECT '\'; DELETE FROM t; --'";
    assert_eq!(classify(sql, Strings::Standard).len(), 2);
    assert_eq!(classify(sql, Strings::Escaped).len(), 1);
    let sql = br"SELECT E'\'; DELETE FROM t; --'";
    assert_eq!(classify(sql, Strings::Standard).len(), 1);
}

#[test]
fn what_cannot_be_told_is_not_known() {
    for sql in [
        "DO $$ BEGIN DELETE FROM t; END $$",
        "CALL housekeeping()",
        "EXECUTE x",
        "EXPLAIN ANALYZE EXECUTE x",
        "CREATE TABLE t AS EXECUTE x(1)",
        "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM t; END",
        "IDENTIFY_SYSTEM",
        "START_REPLICATION SLOT s PHYSICAL 0/0",
        "frobnicate t",
        "SELECT 'x",
        "SELECT 1 /* DELETE",
        "SELECT $a$ x $b$",
        "SELECT * FROM U&\"\\0070ayroll\"",
        "SELECT 1)",
        "SELECT 1_$$ ; DELETE FROM t; --$$",
        "SELECT 0x1F$$ ; DELETE FROM t; --$$",
        "SELECT 1FROM t",
        "SELECT * FROM GEHÄLTER",
        "PREPARE x",
        "DECLARE c CURSOR",
        "EXPLAIN",
        "$1",
        "1",
    ] {
        unknown(sql);
    }
    for sql in [b"SELECT * FROM geh\xe4lter".as_slice(), b"SELECT * FROM \"geh\xe4lter\""] {
        assert!(classify(sql, Strings::Standard).iter().all(|statement| !statement.facts.known));
    }
    unknown(&format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)));
    unknown(&"SELECT 1;".repeat(5_000));
    let many: Vec<String> = (0..5_000).map(|n| format!("t{n}")).collect();
    unknown(&format!("SELECT * FROM {}", many.join(", ")));
}

#[test]
fn each_change_of_rows_needs_its_own_where() {
    for (sql, expected) in [
        ("DELETE FROM t WHERE a = 1", true),
        ("DELETE FROM t", false),
        ("UPDATE t SET a = 1 WHERE b", true),
        ("UPDATE t SET a = (SELECT 1 WHERE true)", false),
        ("UPDATE t SET a = 1 FROM u WHERE u.a = t.a", true),
        ("WITH x AS (DELETE FROM t) SELECT 1 WHERE true", false),
        ("WITH x AS (DELETE FROM t WHERE a = 1) SELECT 1", true),
        ("WITH x AS (SELECT 1 WHERE true) DELETE FROM t", false),
        ("DELETE FROM t USING u WHERE t.a = u.a RETURNING *", true),
        ("UPDATE t SET a = 1 /* WHERE true */", false),
        ("UPDATE t SET a = ' WHERE '", false),
        ("UPDATE t SET \"where\" = 1", false),
        ("UPDATE t SET a = count(*) FILTER (WHERE true)", false),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", false),
        ("EXPLAIN ANALYZE UPDATE t SET a = 1", false),
        ("DELETE FROM t RETURNING 1 AS where", false),
        ("DELETE FROM t RETURNING t.where", false),
        (
            "MERGE INTO t USING (SELECT 1 AS where) s ON true WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s.where \
             IS NULL THEN DO NOTHING",
            false,
        ),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; SELECT 1 WHERE true)", false),
        ("SELECT 1", true),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1", true),
        ("INSERT INTO t SELECT a FROM t ON CONFLICT (a) DO UPDATE SET a = 1", false),
        ("INSERT INTO t TABLE t ON CONFLICT (a) DO UPDATE SET a = 1", false),
        ("INSERT INTO t SELECT a FROM s WHERE b ON CONFLICT (a) DO UPDATE SET a = 1", false),
        ("INSERT INTO t SELECT a FROM s ON CONFLICT (a) DO UPDATE SET a = 1 WHERE t.a < 5", true),
    ] {
        assert_eq!(one(sql).has_where, expected, "{sql}");
    }
}

#[test]
fn relations_are_what_stands_where_relations_stand() {
    for (sql, expected) in [
        ("SELECT a, b FROM t", "t"),
        (
            "SELECT * FROM Hr.\"Payroll\" p, ONLY u AS x JOIN v ON v.a = f(x, y), w WHERE z IN (SELECT 1 FROM q)",
            "Payroll hr.Payroll u v w q",
        ),
        ("SELECT * FROM generate_series(1, 2) g, LATERAL f(g) h, t", "t"),
        ("SELECT * FROM (t CROSS JOIN u) JOIN (SELECT 1 FROM v) w USING (id)", "t u v"),
        ("INSERT INTO hr.pay (a, b) SELECT c FROM d", "pay hr.pay d"),
        ("UPDATE ONLY t SET a = 1 FROM u", "t u"),
        ("DELETE FROM t USING u, v WHERE true", "t u v"),
        ("DELETE FROM t USING (u CROSS JOIN (SELECT 1) o) RETURNING u.*", "t u"),
        ("DELETE FROM t USING u JOIN v USING (id), (w CROSS JOIN x)", "t u v w x"),
        (
            "MERGE INTO t USING (s CROSS JOIN (SELECT 1) o) ON false WHEN NOT MATCHED THEN INSERT VALUES (s.a)",
            "s t",
        ),
        ("WITH c AS (SELECT 1 FROM a JOIN b ON true) DELETE FROM t USING (u CROSS JOIN v)", "a b t u v"),
        ("SELECT * FROM t JOIN u USING (id, a), v JOIN w ON true JOIN x USING (id)", "t u v w x"),
        ("SELECT * FROM t JOIN (u JOIN v USING (id)) USING (id)", "t u v"),
        (
            "SELECT 1 FROM t JOIN u ON percentile_cont(0.5) WITHIN GROUP (ORDER BY o.x) > 0, salaries s",
            "salaries t u",
        ),
        ("SELECT * FROM \"GEHÄLTER\", gehälter", "GEHÄLTER gehälter"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 1", "s t"),
        ("TRUNCATE TABLE a, b.c CASCADE", "a b.c c"),
        ("COPY hr.pay (a) TO STDOUT", "pay hr.pay"),
        ("COPY (SELECT * FROM t) TO STDOUT", "t"),
        ("TABLE t", "t"),
        ("COPY BINARY salaries TO STDOUT", "salaries"),
        ("SELECT * FROM t AS set, salaries", "salaries t"),
        ("SELECT * FROM t values, salaries", "salaries t"),
        ("SELECT * FROM a JOIN b ON a.set = b.set, salaries", "a b salaries"),
        ("SELECT * FROM postgres.hr.pay", "hr.pay pay postgres.hr.pay"),
        ("LOCK TABLE a, b IN EXCLUSIVE MODE", "a b"),
        ("WITH x AS (SELECT 1 FROM a) SELECT * FROM x", "a x"),
        ("SELECT 1 INTO n FROM t", "n t"),
        ("EXPLAIN SELECT * FROM t", "t"),
        ("SELECT '/* FROM t */' -- FROM u\n FROM v", "v"),
    ] {
        assert_eq!(one(sql).tables, set(expected), "{sql}");
    }
    // Where it is not told apart, everything named counts.
    assert!(one("DROP TABLE IF EXISTS hr.pay CASCADE").tables.contains("hr.pay"));
    assert!(one("CREATE INDEX ON payroll (a)").tables.contains("payroll"));
    assert!(one("GRANT SELECT ON TABLE payroll TO bob").tables.contains("payroll"));
    assert!(one("ALTER TABLE payroll RENAME TO p").tables.contains("payroll"));
}

proptest! {
    #[test]
    fn any_text_is_classified(text in ".{0,200}", escaped: bool) {
        let strings = if escaped { Strings::Escaped } else { Strings::Standard };
        let _ = classify(text.as_bytes(), strings);
    }

    #[test]
    fn blanks_and_comments_between_words_change_nothing(
        sql in proptest::sample::select(&[
            "WITH gone AS ( DELETE FROM t RETURNING * ) SELECT * FROM gone",
            "UPDATE t SET a = 1 WHERE b = 'x'",
            "EXPLAIN ( ANALYZE ) DELETE FROM t",
            "COPY ( SELECT * FROM t ) TO STDOUT",
            "MERGE INTO t USING s ON t . a = s . a WHEN MATCHED THEN DELETE",
        ][..]),
        fill in proptest::collection::vec(proptest::sample::select(&[" ", "\n", "\t", "/**/", "/* ' */", "-- \"\n", "/*/*;*/*/"][..]), 30),
    ) {
        let words = sql.split(' ').zip(&fill);
        let filled: String = words.flat_map(|(word, fill)| [word, fill]).collect();
        prop_assert_eq!(standard(&filled), standard(sql));
    }
}

#[test]
fn what_is_prepared_and_run_by_name() {
    let prepared = |sql: &str| {
        let mut all = classify(sql.as_bytes(), Strings::Standard);
        assert_eq!(all.len(), 1, "{sql}");
        all.remove(0).prepared
    };
    let made = |name: &str| Prepared::Made(Some(name.to_owned()));
    let run = |name: &str| Prepared::Run(name.to_owned());
    for (sql, expected) in [
        ("PREPARE Dump(oid, text) AS SELECT 1", made("dump")),
        ("prepare /* x */ \"Du\"\"mp\" as SELECT 1", made("Du\"mp")),
        ("PREPARE prepare AS SELECT 1", made("prepare")),
        ("PREPARE \"as\" AS DELETE FROM t", made("as")),
        ("PREPARE transaction AS DELETE FROM t", made("transaction")),
        ("PREPARE \u{e4} AS SELECT 1", Prepared::Made(None)),
        ("PREPARE U&\"d\" AS SELECT 1", Prepared::Made(None)),
        ("EXECUTE Dump", run("dump")),
        ("EXECUTE dump('1', f(2, (3)))", run("dump")),
        ("EXECUTE \"Dump\" ()", run("Dump")),
        ("EXECUTE execute", run("execute")),
        ("EXECUTE dump delete", Prepared::No),
        ("EXECUTE dump (1) (2)", Prepared::No),
        ("EXECUTE dump (1), x", Prepared::No),
        ("EXECUTE a.dump", Prepared::No),
        ("EXECUTE (dump)", Prepared::No),
        ("(EXECUTE dump)", Prepared::No),
        ("EXECUTE 'dump'", Prepared::No),
        ("EXECUTE", Prepared::No),
        ("EXECUTE dump(1", run("dump")),
        ("EXECUTE U&\"dump\"", Prepared::No),
        ("EXECUTE \u{e4}", Prepared::No),
        ("EXPLAIN ANALYZE EXECUTE dump", Prepared::No),
        ("CREATE TABLE t AS EXECUTE dump", Prepared::No),
        ("PREPARE a AS EXECUTE dump", Prepared::Made(None)),
        ("SELECT 1", Prepared::No),
    ] {
        assert_eq!(prepared(sql), expected, "{sql}");
    }
    let long = "x".repeat(64);
    assert_eq!(prepared(&format!("EXECUTE {long}")), Prepared::No);
    assert_eq!(prepared(&format!("PREPARE {long} AS SELECT 1")), Prepared::Made(None));
    // What its arguments do counts, whatever it runs.
    assert_eq!(one("EXECUTE a((DELETE))").kinds, set("delete execute"));
    assert!(!one("PREPARE a AS EXECUTE b").known);
}

#[test]
fn a_name_of_many_parts_takes_no_more_than_its_length() {
    assert_eq!(one("SELECT * FROM a.b.c").tables, set("a.b.c b.c c"));
    unknown(&format!("SELECT * FROM a{}", ".a".repeat(4)));
    let sql = format!("SELECT * FROM a{}", ".a".repeat(100_000));
    let facts = one(&sql);
    assert!(!facts.known && facts.tables.iter().map(String::len).sum::<usize>() < 100);
}
