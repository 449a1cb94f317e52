//! tokio-postgres: binary parameters, pipelines by themselves, portals, binary copies, notifications, cancels.

use std::fmt::Debug;

use ::tokio::sync::mpsc;
use ::tokio::task::JoinSet;
use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::{SinkExt as _, TryStreamExt as _};
use serde_json::json;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Notification, SimpleQueryMessage};

use crate::support::driver::{self, connector};
use crate::way::{Place, Said, Ways};

const ASLEEP: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1";
const SLEEP: &str = "SELECT pg_sleep(600)";

fn attempt<T: Debug>(said: &mut Said, name: &str, outcome: Result<T, Error>) {
    match outcome {
        Ok(value) => said.show(name, value),
        Err(error) => {
            let told = error.as_db_error();
            said.show(
                name,
                told.map(|told| (told.code(), told.message(), told.detail(), told.hint(), told.position())),
            );
        }
    }
}

async fn connect(place: &Place, tasks: &mut JoinSet<()>) -> (Client, mpsc::UnboundedReceiver<Notification>) {
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").port(place.port).user(&place.user).password(&place.password).dbname("ledger");
    config.ssl_mode(tokio_postgres::config::SslMode::Require).options("-c work_mem=7MB");
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    driver::connect(&config, &place.ca_file, tasks).await
}

async fn parameters(client: &Client, said: &mut Said) -> Result<(), Error> {
    macro_rules! back {
        ($kind:literal, $type:ty, $value:expr) => {{
            let sql = concat!("SELECT $1::", $kind, ", pg_typeof($1::", $kind, ")::text");
            let sent: $type = $value;
            let row = client.query_one(sql, &[&sent]).await?;
            let value: $type = row.try_get(0)?;
            assert!(value.eq(&sent), "{}", $kind);
            said.show($kind, (value, row.try_get::<_, String>(1)?));
        }};
    }
    back!("int2", i16, -32_768);
    back!("int4", Option<i32>, None);
    back!("int8", i64, i64::MIN);
    back!("float4", f32, 1.5e-30);
    back!("float8", f64, f64::INFINITY);
    back!("text", String, "ünï ☃ 𝄞 ' \\ \" $1\n\t".to_owned());
    back!("text", String, String::new());
    back!("text", Option<String>, None);
    back!("bool", bool, false);
    back!("bytea", Vec<u8>, (0..=255).collect());
    back!("bytea", Vec<u8>, Vec::new());
    back!("int4[]", Vec<Option<i32>>, vec![Some(1), None, Some(-3)]);
    back!("text[]", Vec<String>, vec!["a,b".to_owned(), String::new(), "q\"\\".to_owned()]);
    back!("text", String, "ü☃x".repeat((16 << 20) / 6));
    back!("bytea", Vec<u8>, vec![0xfe; 16 << 20]);
    Ok(())
}

async fn pipelines(client: &Client, said: &mut Said) -> Result<(), Error> {
    let divide = client.prepare("SELECT 100 / $1::int4 AS divided").await?;
    said.show("columns", divide.columns().iter().map(|column| column.name().to_owned()).collect::<Vec<_>>());
    // They are sent before the first is answered; an error is its own query's alone.
    let numbers: Vec<i32> = (-50..50).collect();
    let asked = numbers.iter().map(async |n| client.query_one(&divide, &[n]).await);
    for (n, outcome) in join_all(asked).await.into_iter().enumerate() {
        attempt(said, &format!("divided {n}"), outcome.map(|row| row.get::<_, i32>(0)));
    }
    let simple = client
        .simple_query("SELECT 1 AS a, NULL AS b; CREATE TEMP TABLE s (n int); INSERT INTO s VALUES (1), (2)")
        .await?;
    for message in simple {
        match message {
            SimpleQueryMessage::Row(row) => said.show("row", (row.get(0), row.get(1))),
            SimpleQueryMessage::CommandComplete(rows) => said.show("done", rows),
            _ => said.show("columns", ""),
        }
    }
    attempt(said, "no table", client.query("SELECT * FROM nowhere", &[]).await.map(|rows| rows.len()));
    attempt(said, "no value", client.batch_execute("SELECT 1; SELEKT 2; SELECT 3").await);
    Ok(())
}

async fn portals(client: &mut Client, said: &mut Said) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT generate_series(1, $1::int4)", &[&10]).await?;
    loop {
        let rows = transaction.query_portal(&portal, 4).await?;
        if rows.is_empty() {
            break;
        }
        said.show("part", rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>());
    }
    transaction.execute("CREATE TEMP TABLE undone (n int)", &[]).await?;
    transaction.rollback().await?;
    attempt(said, "undone", client.execute("INSERT INTO undone VALUES (1)", &[]).await);
    let mut outer = client.transaction().await?;
    outer.execute("CREATE TEMP TABLE kept (n int CHECK (n < 10))", &[]).await?;
    let inner = outer.transaction().await?;
    attempt(said, "checked", inner.execute("INSERT INTO kept VALUES ($1)", &[&11]).await);
    inner.rollback().await?;
    said.show("kept", outer.execute("INSERT INTO kept SELECT generate_series(1, 9)", &[]).await?);
    outer.commit().await
}

async fn copies(client: &Client, said: &mut Said) -> Result<(), Error> {
    client.batch_execute("CREATE TEMP TABLE copied (n int4, t text)").await?;
    let sink = client.copy_in("COPY copied FROM STDIN (FORMAT binary)").await?;
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for n in 0..20_000_i32 {
        writer.as_mut().write(&[&n, &(n % 3 != 0).then(|| format!("ü{n}"))]).await?;
    }
    said.show("in", writer.as_mut().finish().await?);
    let out = client.copy_out("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT (FORMAT binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(out, &[Type::INT4, Type::TEXT]).try_collect().await?;
    let some = rows.iter().skip(3).take(2).map(|row| row.get::<Option<String>>(1));
    said.show("out", (rows.len(), some.collect::<Vec<_>>()));
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY copied FROM STDIN").await?);
    sink.send(Bytes::from_static(b"1\tnever\n")).await?;
    // Given up.
    drop(sink);
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY copied FROM STDIN").await?);
    sink.send(Bytes::from_static(b"not a number\tx\n")).await?;
    attempt(said, "bad row", sink.as_mut().finish().await);
    said.show("rows", client.query_one("SELECT count(*) FROM copied", &[]).await?.get::<_, i64>(0));
    Ok(())
}

async fn script(place: &Place) -> Result<String, Error> {
    let (mut said, mut tasks) = (Said::default(), JoinSet::new());
    let (mut client, _) = connect(place, &mut tasks).await;
    let (listener, mut heard) = connect(place, &mut tasks).await;
    said.show("work_mem", client.query_one("SHOW work_mem", &[]).await?.get::<_, String>(0));
    parameters(&client, &mut said).await?;
    pipelines(&client, &mut said).await?;
    portals(&mut client, &mut said).await?;
    copies(&client, &mut said).await?;
    listener.batch_execute("LISTEN news").await?;
    client.query("SELECT pg_notify('news', $1)", &[&"something ünï"]).await?;
    said.show(
        "heard",
        heard.recv().await.map(|heard| (heard.channel().to_owned(), heard.payload().to_owned())),
    );
    let cancel = client.cancel_token();
    let cancelling = async {
        while listener.query_one(ASLEEP, &[&SLEEP]).await?.get::<_, i64>(0) == 0 {}
        cancel.cancel_query(connector(&place.ca_file)).await
    };
    let (slept, cancelled) = join(client.batch_execute(SLEEP), cancelling).await;
    cancelled?;
    assert_eq!(slept.as_ref().unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    attempt(&mut said, "cancelled", slept);
    said.show("goes on", client.query_one("SELECT 7", &[]).await?.get::<_, i32>(0));
    drop((client, listener));
    tasks.join_all().await;
    Ok(said.0)
}

#[test]
fn tokio_postgres_is_told_through_the_gateway_what_it_is_told_directly() {
    let ways = Ways::open();
    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ways.the_same_here(|place| runtime.block_on(script(place)).unwrap());
    let divided = ways.executions("SELECT 100 / $1::int4 AS divided");
    assert_eq!((divided.len(), &divided[99]), (100, &vec![json!("49")]), "one record for each execution");
    let parts = ways.executions("SELECT generate_series(1, $1::int4)");
    assert_eq!(parts, vec![vec![json!("10")]; parts.len()]);
    assert!(parts.len() >= 3, "each part of a portal is on record");
}
