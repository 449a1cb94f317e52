//! What a real server did for a text is what the rules were told of it: random statements, and spoiled ones, are run by
//! the server, which counts the tables that it read and the rows that it changed. `SALLYPORT_TEST_ROUNDS` says how many.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::collections::BTreeSet;

use sallyport::postgres::classify::classify;
use sallyport::postgres::lexer::Strings;
use support::Postgres;
use support::driver::connector;
use support::load::Moments;
use support::postgres::SUPERUSER_PASSWORD;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Each has one column, and no index: what is read is scanned.
const TABLES: &str = "CREATE TABLE t AS SELECT generate_series(1, 3) AS a; CREATE TABLE u AS TABLE t; CREATE TABLE v AS TABLE t";
const COUNTS: &str = "SELECT relname, seq_scan, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables \
                      WHERE relname IN ('t', 'u', 'v') ORDER BY relname";
const BLANKS: [&str; 9] =
    [" ", " ", " ", "\n", "\t", "/**/", " /* ; */ ", "/* /* x */ DELETE ' */", " -- ' ;\n"];
const VALUES: [&str; 12] = [
    "1",
    "2.0::int",
    "length('DELETE FROM t')",
    r"length(E'\'; DELETE FROM u; --')",
    "length($$ ' ; UPDATE v $$)",
    "length($x$ $$ ' $x$)",
    r"length(U&'d\0061t\+000061')",
    "length('a' \n 'b''c')",
    "CASE WHEN true THEN 1 END",
    "length(B'101')",
    "(ARRAY[1, 2])[1]",
    "1 + -1",
];
const SPOIL: &[u8] = b"'\"$/*-;()eE\\ ,.=1U&";

/// Random SQL: every query has one column of integers, so that each fits where any is wanted.
struct Dice {
    moments: Moments,
    names: u32,
}

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // The high bits: the low ones of some generators repeat soon.
        usize::try_from((self.moments.next() >> 16) % limit as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let index = self.below(from.len());
        from[index]
    }

    fn maybe(&mut self, text: impl FnOnce(&mut Self) -> String) -> String {
        if self.below(2) == 0 { text(self) } else { String::new() }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("n{}", self.names)
    }

    fn table(&mut self) -> &'static str {
        self.pick(&["t", "u", "v", "public.t", "\"u\"", "V", "public . \"v\"", "postgres.public.t"])
    }

    fn value(&mut self, depth: u32) -> String {
        match self.below(6) {
            0 if depth > 0 => {
                format!("(SELECT count(*)::int FROM ({}) {})", self.query(depth - 1), self.name())
            }
            1 if depth > 0 => format!("({} LIMIT 1)", self.query(depth - 1)),
            _ => self.pick(&VALUES).to_owned(),
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        match self.below(5) {
            0 if depth > 0 => format!("EXISTS ({})", self.query(depth - 1)),
            1 if depth > 0 => format!("{} IN ({})", self.value(0), self.query(depth - 1)),
            2 => format!("{} > 0 OR true", self.value(depth)),
            3 => "NOT false".to_owned(),
            _ => "1 IS DISTINCT FROM 2".to_owned(),
        }
    }

    fn filter(&mut self, depth: u32) -> String {
        self.maybe(|dice| format!(" WHERE {}", dice.condition(depth)))
    }

    fn source(&mut self, depth: u32) -> String {
        let name = self.name();
        match self.below(14) {
            0 if depth > 0 => format!("({} CROSS JOIN {})", self.source(depth - 1), self.source(depth - 1)),
            1 if depth > 0 => format!("({}) {name}", self.query(depth - 1)),
            2 if depth > 0 => format!("{}, {}", self.source(depth - 1), self.source(depth - 1)),
            3 if depth > 0 => format!("{} JOIN {} ON true", self.source(depth - 1), self.source(depth - 1)),
            4 if depth > 0 => {
                format!("{} LEFT JOIN {} ON false", self.source(depth - 1), self.source(depth - 1))
            }
            5 if depth > 0 => format!("LATERAL ({}) AS {name}", self.query(depth - 1)),
            6 if depth > 0 => {
                let (one, other) = (self.table(), self.table());
                let also = self.name();
                format!("({one} {name} JOIN {other} AS {also} USING (a)) AS j{name}")
            }
            7 => format!("ONLY {} {name}", self.table()),
            8 => format!("ONLY ({}) AS {name} (b)", self.table()),
            9 => format!("{} * {name}", self.table()),
            10 => format!("{} AS {name} TABLESAMPLE SYSTEM (100)", self.table()),
            11 => format!("generate_series(1, 2) {name}"),
            _ => format!("{} AS {name}", self.table()),
        }
    }

    fn query(&mut self, depth: u32) -> String {
        match self.below(10) {
            0 => format!("TABLE {}", self.table()),
            1 => format!("VALUES ({}), (7)", self.value(depth)),
            2 if depth > 0 => format!("{} UNION ALL {}", self.query(depth - 1), self.query(depth - 1)),
            3 if depth > 0 => format!("({})", self.query(depth - 1)),
            4 if depth > 0 => {
                let name = self.name();
                format!("(WITH {name} AS ({}) SELECT 1 FROM {name})", self.query(depth - 1))
            }
            5 if depth > 0 => format!("SELECT {}", self.value(depth - 1)),
            _ => format!("SELECT {} FROM {}{}", self.value(depth), self.source(depth), self.filter(depth)),
        }
    }

    /// Something that changes rows and gives a column back.
    fn change(&mut self, depth: u32) -> String {
        let (table, name) = (self.table(), self.name());
        let change = match self.below(9) {
            0 => format!("DELETE FROM {table} {name}{}", self.filter(depth)),
            1 => format!(
                "DELETE FROM ONLY {table} AS {name} USING {}{}",
                self.source(depth),
                self.filter(depth)
            ),
            2 => format!("UPDATE {table} SET a = {}{}", self.value(depth), self.filter(depth)),
            3 => {
                format!(
                    "UPDATE {table} AS {name} SET (a) = ROW({}) FROM {}",
                    self.value(depth),
                    self.source(depth)
                )
            }
            4 => format!("INSERT INTO {table} {}", self.query(depth)),
            5 => format!(
                "INSERT INTO {table} AS {name} (a) OVERRIDING USER VALUE VALUES ({})",
                self.value(depth)
            ),
            6 => format!("INSERT INTO {table} DEFAULT VALUES ON CONFLICT DO NOTHING"),
            7 => format!("UPDATE ONLY {table} SET a = DEFAULT WHERE {}", self.condition(depth)),
            _ => format!("DELETE FROM {table} USING ({}) AS {name}", self.query(depth)),
        };
        format!("{change} RETURNING 1")
    }

    fn merge(&mut self, depth: u32) -> String {
        let (table, name) = (self.table(), self.name());
        let source = match self.below(3) {
            0 => format!("({}) AS s{name}", self.query(depth)),
            1 => format!("(t AS s{name} CROSS JOIN (SELECT 1) o{name})"),
            _ => format!("{} s{name}", self.table()),
        };
        let then = match self.below(4) {
            0 => "WHEN MATCHED THEN DELETE".to_owned(),
            1 => format!("WHEN MATCHED AND {} THEN UPDATE SET a = {}", self.condition(0), self.value(0)),
            2 => "WHEN NOT MATCHED THEN INSERT VALUES (8)".to_owned(),
            _ => "WHEN NOT MATCHED THEN DO NOTHING".to_owned(),
        };
        // No row matches twice.
        format!("MERGE INTO {table} AS {name} USING {source} ON {} {then}", self.pick(&["false", "1 = 2"]))
    }

    fn statement(&mut self, depth: u32) -> String {
        let (name, also) = (self.name(), self.name());
        match self.below(15) {
            0 | 1 => self.query(depth),
            2 | 3 => self.change(depth),
            4 => {
                let then = if self.below(2) == 0 { self.query(depth) } else { self.change(depth) };
                format!(
                    "WITH {name} AS ({}), {also} (b) AS MATERIALIZED ({}) {then}",
                    self.change(depth),
                    self.query(depth)
                )
            }
            5 => format!("WITH RECURSIVE {name} AS ({}) {}", self.change(depth), self.query(depth)),
            6 if depth > 0 => format!("EXPLAIN ANALYZE {}", self.statement(depth - 1)),
            7 if depth > 0 => format!("EXPLAIN (ANALYZE true, COSTS off) {}", self.statement(depth - 1)),
            8 => format!("CREATE TEMP TABLE {name} (b) AS {}", self.query(depth)),
            9 => format!("SELECT {} AS b INTO TEMP {name} FROM {}", self.value(depth), self.source(depth)),
            10 => format!("COPY ({}) TO '/dev/null'", self.change(depth)),
            11 => format!("DECLARE {name} CURSOR FOR {}; FETCH ALL FROM {name}", self.query(depth)),
            12 => format!("PREPARE {name} AS {}; EXECUTE {name}", self.change(depth)),
            13 => self.merge(depth),
            _ => format!("{}; {}", self.query(depth), self.change(depth)),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let depth = u32::try_from(self.below(4)).unwrap();
        let statement = self.statement(depth);
        let mut text = Vec::new();
        for word in statement.split(' ') {
            if !text.is_empty() {
                text.extend_from_slice(self.pick(&BLANKS).as_bytes());
            }
            text.extend_from_slice(word.as_bytes());
        }
        match self.below(6) {
            0 => text.make_ascii_uppercase(),
            1 => text.make_ascii_lowercase(),
            2 | 3 => self.spoil(&mut text),
            _ => {}
        }
        text
    }

    /// A byte less, one more, or another; a few times.
    fn spoil(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let (at, byte) = (self.below(text.len()), SPOIL[self.below(SPOIL.len())]);
            match self.below(3) {
                0 => _ = text.remove(at),
                1 => text.insert(at, byte),
                _ => text[at] = byte,
            }
            if text.is_empty() {
                return;
            }
        }
    }
}

/// What was read and changed of each table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    table: String,
    /// Scans; rows inserted, updated and deleted.
    counts: [i64; 4],
}

async fn counts(client: &Client) -> Vec<Counts> {
    let read = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let number = |column: usize| row.get(column).unwrap().parse().unwrap();
        Some(Counts { table: row.get(0).unwrap().to_owned(), counts: [1, 2, 3, 4].map(number) })
    };
    client.simple_query(COUNTS).await.unwrap().iter().filter_map(read).collect()
}

/// What the server did for `sql`, table by table; `None` where it refused it.
async fn done(client: &Client, sql: &str) -> Option<Vec<Counts>> {
    client.batch_execute("ROLLBACK; DEALLOCATE ALL; BEGIN").await.unwrap();
    let before = counts(client).await;
    client.batch_execute(sql).await.ok()?;
    let after = counts(client).await;
    let differences = before.into_iter().zip(after).map(|(before, after)| {
        assert_eq!(before.table, after.table);
        let pairs = before.counts.into_iter().zip(after.counts);
        let counts: Vec<i64> = pairs.map(|(before, after)| after - before).collect();
        Counts { table: after.table, counts: counts.try_into().unwrap() }
    });
    Some(differences.collect())
}

/// Whether it was known what the text does; it must be what was done then.
fn check(sql: &str, done: &[Counts]) -> bool {
    let statements = classify(sql.as_bytes(), Strings::Standard);
    if statements.iter().any(|statement| !statement.facts.known) {
        return false;
    }
    let all = |of: fn(&sallyport::postgres::classify::Classified) -> &BTreeSet<String>| -> BTreeSet<&str> {
        statements.iter().flat_map(of).map(String::as_str).collect()
    };
    let (kinds, tables) = (all(|one| &one.facts.kinds), all(|one| &one.facts.tables));
    for Counts { table, counts } in done {
        let is_touched = counts.iter().any(|count| *count != 0);
        assert!(!is_touched || tables.contains(table.as_str()), "{table} is not among {tables:?}: {sql}");
        for (kind, count) in ["insert", "update", "delete"].into_iter().zip(&counts[1..]) {
            assert!(*count == 0 || kinds.contains(kind), "{kind} is not among {kinds:?}: {sql}");
        }
    }
    true
}

#[test]
fn what_the_server_does_is_what_the_rules_are_told() {
    let postgres = Postgres::start();
    let rounds = std::env::var("SALLYPORT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").port(postgres.port).user("postgres").password(SUPERUSER_PASSWORD);
        config.dbname("postgres").ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(connector(&postgres.ca_file())).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        client.batch_execute(TABLES).await.unwrap();
        let mut dice = Dice { moments: Moments(0x5a11_9007), names: 0 };
        let (mut ran, mut changed, mut known) = (0, 0, 0);
        let rounds = rounds.unwrap_or(4_000);
        for _ in 0..rounds {
            let Ok(sql) = String::from_utf8(dice.text()) else { continue };
            if sql.contains('\0') {
                continue;
            }
            if let Some(done) = done(&client, &sql).await {
                ran += 1;
                changed += usize::from(done.iter().any(|one| one.counts[1..] != [0, 0, 0]));
                known += usize::from(check(&sql, &done));
            }
        }
        assert!(ran * 2 > rounds && changed * 4 > ran, "{ran} of {rounds} ran, {changed} changed something");
        assert!(known * 4 > ran * 3, "of {ran} {known} were known");
        drop(client);
        tasks.join_next().await.unwrap().unwrap().unwrap();
    });
}
