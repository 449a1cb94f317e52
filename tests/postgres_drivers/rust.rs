//! sqlx: its own parser of the protocol, statements that it names and keeps, streams that are given up, copies, pools.

use std::fmt::Debug;

use futures_util::TryStreamExt as _;
use serde_json::json;
use sqlx_core::connection::Connection as _;
use sqlx_core::error::Error;
use sqlx_core::executor::Executor as _;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::raw_sql::raw_sql;
use sqlx_core::row::Row as _;
use sqlx_postgres::types::{PgInterval, PgMoney};
use sqlx_postgres::{
    PgAdvisoryLock, PgConnectOptions, PgConnection, PgDatabaseError, PgErrorPosition, PgListener,
    PgPoolOptions, PgSslMode, Postgres,
};

use crate::way::{Place, Said, Ways};

const MEGABYTES_16: usize = 16 << 20;

impl Said {
    fn attempt<T: Debug>(&mut self, name: &str, outcome: Result<T, Error>) {
        match outcome {
            Ok(value) => self.show(name, value),
            Err(error) => {
                let error = error.as_database_error().unwrap().downcast_ref::<PgDatabaseError>();
                let at = error.position().map(|position| match position {
                    PgErrorPosition::Original(at) => at.to_string(),
                    PgErrorPosition::Internal { position, query } => format!("{position} of {query}"),
                });
                let place =
                    [error.schema(), error.table(), error.column(), error.constraint(), error.r#where()];
                let told = (error.message(), error.detail(), error.hint());
                self.show(name, (error.severity(), error.code(), told, at, place, error.routine()));
            }
        }
    }
}

fn options(place: &Place) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .port(place.port)
        .username(&place.user)
        .password(&place.password)
        .database("ledger")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(&place.ca_file)
        .application_name("with sqlx")
        .options([("work_mem", "6MB")])
        .statement_cache_capacity(20)
}

async fn parameters(connection: &mut PgConnection, said: &mut Said) -> Result<(), Error> {
    macro_rules! back {
        ($kind:literal, $type:ty, $value:expr) => {{
            let sql = concat!("SELECT $1::", $kind, ", pg_typeof($1::", $kind, ")::text");
            let sent: $type = $value;
            let row = query(sql).bind(sent.clone()).fetch_one(&mut *connection).await?;
            let value: $type = row.try_get(0)?;
            assert!(value.eq(&sent), "{}", $kind);
            said.show($kind, (value, row.try_get::<String, _>(1)?));
        }};
    }
    back!("int2", i16, 32_767);
    back!("int4", i32, i32::MIN);
    back!("int8", Option<i64>, Some(-9_223_372_036_854_775_808));
    back!("int8", Option<i64>, None);
    back!("float4", f32, 1.5e-30);
    back!("float8", f64, f64::NEG_INFINITY);
    back!("text", String, "ünï ☃ 𝄞 ' \\ \" $1\n\t".to_owned());
    back!("text", String, String::new());
    back!("text", Option<String>, None);
    back!("bool", bool, true);
    back!("bytea", Vec<u8>, (0..=255).collect());
    back!("bytea", Vec<u8>, Vec::new());
    back!("int4[]", Vec<Option<i32>>, vec![Some(1), None, Some(-3)]);
    back!("text[]", Vec<String>, vec!["a,b".to_owned(), String::new(), "q\"\\".to_owned()]);
    back!("int8[]", Vec<i64>, Vec::new());
    back!("interval", PgInterval, PgInterval { months: 14, days: -3, microseconds: 7 });
    back!("money", PgMoney, PgMoney(123_456));
    back!("text", String, "ü☃x".repeat(MEGABYTES_16 / 6));
    back!("bytea", Vec<u8>, vec![0xfe; MEGABYTES_16]);
    Ok(())
}

async fn prepared(connection: &mut PgConnection, said: &mut Said) -> Result<(), Error> {
    let mut sum = 0;
    for n in 0..100 {
        sum += query_scalar::<_, i32>("SELECT $1::int4 * 2 AS prepared")
            .bind(n)
            .fetch_one(&mut *connection)
            .await?;
    }
    said.show("prepared", sum);
    for n in 0..60 {
        // More than it keeps: they are closed as others come.
        let sql = format!("SELECT $1::int4 + {n}");
        sum += query_scalar::<_, i32>(&sql).bind(1).fetch_one(&mut *connection).await?;
    }
    let kept = query_scalar::<_, i64>("SELECT count(*) FROM pg_prepared_statements")
        .fetch_one(&mut *connection)
        .await?;
    said.show("kept", (sum, kept, connection.cached_statements_size()));
    connection.clear_cached_statements().await?;
    let once = query_scalar::<_, i32>("SELECT $1::int4 AS once").persistent(false).bind(7);
    said.show("once", once.fetch_one(&mut *connection).await?);
    let described =
        connection.describe("SELECT id, owner || $1 AS o FROM accounts WHERE balance > $2").await?;
    let columns: Vec<_> = described.columns.iter().map(|column| format!("{column:?}")).collect();
    said.show("described", (columns, described.parameters, described.nullable));
    raw_sql("CREATE TEMP TABLE shape (a int); INSERT INTO shape VALUES (1)")
        .execute(&mut *connection)
        .await?;
    said.show("before", query("SELECT * FROM shape").fetch_one(&mut *connection).await?.len());
    raw_sql("ALTER TABLE shape ADD b text DEFAULT 'new'").execute(&mut *connection).await?;
    said.attempt(
        "after",
        query("SELECT * FROM shape").fetch_one(&mut *connection).await.map(|row| row.len()),
    );
    Ok(())
}

async fn streams(connection: &mut PgConnection, said: &mut Said) -> Result<(), Error> {
    let sql = "SELECT n, repeat('x', 1000) FROM generate_series(1, $1::int4) n";
    {
        let mut rows = query(sql).bind(5_000).fetch(&mut *connection);
        let mut sum = 0;
        while let Some(row) = rows.try_next().await? {
            sum += row.try_get::<i32, _>(0)?;
            if sum > 1_000 {
                break;
            }
        }
        said.show("given up at", sum);
    }
    let all = query(sql).bind(5_000).fetch_all(&mut *connection).await?;
    said.show("all", all.len());
    said.show("one", query(sql).bind(5_000).fetch_optional(&mut *connection).await?.map(|row| row.len()));
    let mut many =
        raw_sql("SELECT 1; VALUES (2), (3); CREATE TEMP TABLE m (n int); INSERT INTO m VALUES (1), (2); ;")
            .fetch_many(&mut *connection);
    let mut steps = Vec::new();
    while let Some(step) = many.try_next().await? {
        steps.push(
            step.either(|done| done.rows_affected().to_string(), |row| format!("{:?}", row.get::<i32, _>(0))),
        );
    }
    drop(many);
    said.show("steps", steps);
    Ok(())
}

async fn transactions(connection: &mut PgConnection, said: &mut Said) -> Result<(), Error> {
    raw_sql("CREATE TEMP TABLE kept (n int CONSTRAINT small CHECK (n < 10))")
        .execute(&mut *connection)
        .await?;
    let mut outer = connection.begin().await?;
    query("INSERT INTO kept VALUES ($1)").bind(1).execute(&mut *outer).await?;
    let mut inner = outer.begin().await?;
    said.attempt(
        "check",
        query("INSERT INTO kept VALUES ($1)").bind(11).execute(&mut *inner).await.map(|_| ()),
    );
    said.attempt("aborted", query("SELECT 1").execute(&mut *inner).await.map(|_| ()));
    inner.rollback().await?;
    let mut dropped = outer.begin().await?;
    query("INSERT INTO kept VALUES (2)").execute(&mut *dropped).await?;
    drop(dropped);
    outer.commit().await?;
    let kept = query_scalar::<_, i32>("TABLE kept").fetch_all(&mut *connection).await?;
    said.show("kept", kept);
    for (name, sql) in [
        ("syntax", "SELEC 1"),
        ("position", "SELECT 'ünï', nowhere FROM accounts"),
        ("divided", "SELECT 1 / (id - id) FROM accounts"),
        ("unknown type", "SELECT $1::nowhere"),
        ("inner", "DO $$ BEGIN EXECUTE 'SELECT nowhere'; END $$"),
        (
            "raised",
            "DO $$ BEGIN RAISE EXCEPTION 'mine ü' USING ERRCODE = 'P0042', DETAIL = 'so', HINT = 'do'; END $$",
        ),
    ] {
        said.attempt(name, query(sql).execute(&mut *connection).await.map(|done| done.rows_affected()));
    }
    said.attempt(
        "several",
        raw_sql("SELECT 1; SELECT 1/0; SELECT 2").execute(&mut *connection).await.map(|_| ()),
    );
    said.show("goes on", query_scalar::<_, i32>("SELECT 42").fetch_one(&mut *connection).await?);
    Ok(())
}

async fn copies(connection: &mut PgConnection, said: &mut Said) -> Result<(), Error> {
    raw_sql("CREATE TEMP TABLE copied (n int, t text)").execute(&mut *connection).await?;
    let lines = (0..20_000).fold(String::new(), |lines, n| lines + &format!("{n}\tü{n}\n"));
    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
    said.show("columns", (copy.num_columns(), copy.is_textual()));
    for chunk in lines.as_bytes().chunks(50_001) {
        copy.send(chunk).await?;
    }
    said.show("in", copy.finish().await?);
    let out: Vec<_> =
        connection.copy_out_raw("COPY copied TO STDOUT (FORMAT csv)").await?.try_collect().await?;
    said.show("out", (out.len(), out.concat().len()));
    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
    copy.send(&b"1\tx\n"[..]).await?;
    copy.abort("changed my mind").await?;
    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await?;
    copy.send(&b"not a number\tx\n"[..]).await?;
    said.attempt("bad row", copy.finish().await);
    let rows = query_scalar::<_, i64>("SELECT count(*) FROM copied").fetch_one(&mut *connection).await?;
    said.show("rows", rows);
    Ok(())
}

async fn pools(place: &Place, said: &mut Said) -> Result<(), Error> {
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options(place)).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen_all(["news", "Other ü"]).await?;
    for (channel, payload) in [("news", "one ü"), ("Other ü", ""), ("news", "two")] {
        query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(&pool).await?;
    }
    for _ in 0..3 {
        let heard = listener.recv().await?;
        said.show("heard", (heard.channel(), heard.payload()));
    }
    let asks = (0..16).map(|n| {
        let pool = pool.clone();
        async move { query_scalar::<_, i32>("SELECT $1::int4 + 1").bind(n).fetch_one(&pool).await }
    });
    said.show("at once", futures_util::future::try_join_all(asks).await?);
    let lock = PgAdvisoryLock::new("mine");
    let held = lock.acquire(pool.acquire().await?).await?;
    said.show("locked", lock.try_acquire(pool.acquire().await?).await?.is_left());
    held.release_now().await?;
    drop(listener);
    pool.close().await;
    Ok(())
}

async fn script(place: &Place) -> Result<String, Error> {
    let mut said = Said::default();
    let mut connection = PgConnection::connect_with(&options(place)).await?;
    connection.ping().await?;
    let shown = "SELECT current_setting('work_mem') || current_setting('application_name') || ssl \
                 FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    said.show("settings", query_scalar::<Postgres, String>(shown).fetch_one(&mut connection).await?);
    said.show("version", connection.server_version_num().map(|version| version / 10_000));
    parameters(&mut connection, &mut said).await?;
    prepared(&mut connection, &mut said).await?;
    streams(&mut connection, &mut said).await?;
    transactions(&mut connection, &mut said).await?;
    copies(&mut connection, &mut said).await?;
    connection.close().await?;
    pools(place, &mut said).await?;
    Ok(said.0)
}

#[test]
fn sqlx_is_told_through_the_gateway_what_it_is_told_directly() {
    let ways = Ways::open();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    ways.the_same_here(|place| runtime.block_on(script(place)).unwrap());
    let prepared = ways.executions("SELECT $1::int4 * 2 AS prepared");
    assert_eq!((prepared.len(), &prepared[99]), (100, &vec![json!("99")]), "one record for each execution");
    assert_eq!(ways.executions("SELECT $1::int4 AS once"), [[json!("7")]]);
    let notified = ways.executions("SELECT pg_notify($1, $2)");
    assert_eq!(notified[1], [json!("Other ü"), json!("")]);
}
