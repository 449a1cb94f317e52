//! The driver tokio-postgres: prepared statements, pipelining, portals, binary COPY, notifications.

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Notification};

use crate::support::Bastion;
use crate::support::driver::{self, connector};

/// A client and the tasks that carry its connection; notifications come out of the channel.
async fn connect(
    bastion: &Bastion,
    tasks: &mut JoinSet<()>,
) -> (Client, mpsc::UnboundedReceiver<Notification>) {
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").hostaddr("127.0.0.1".parse().unwrap()).port(bastion.postgres_port);
    config.user("alice+ledger-dev").password(bastion.token("alice")).dbname("ledger");
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    driver::connect(&config, &bastion.ca_file(), tasks).await
}

fn run(test: impl AsyncFnOnce(&Bastion)) {
    let (_postgres, bastion) = crate::dba();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let patience = crate::support::process::PATIENCE * 2;
    runtime.block_on(async { tokio::time::timeout(patience, test(&bastion)).await }).unwrap();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one conversation on one connection, in order")]
fn prepared_statements_pipelines_and_portals_work() {
    run(async |bastion| {
        let mut tasks = JoinSet::new();
        let (mut client, _) = connect(bastion, &mut tasks).await;
        let typed = client
            .prepare_typed(
                "SELECT $1 + 1, $2 || '!', $3, $4",
                &[Type::INT8, Type::TEXT, Type::BYTEA, Type::FLOAT8],
            )
            .await
            .unwrap();
        let (bytes, none) = (vec![0_u8, 255, 0], None::<f64>);
        let row = client.query_one(&typed, &[&41_i64, &"ünï", &bytes, &none]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 42);
        assert_eq!(row.get::<_, &str>(1), "ünï!");
        assert_eq!(row.get::<_, Vec<u8>>(2), bytes);
        assert_eq!(row.get::<_, Option<f64>>(3), None);

        // Many at once on one connection: they are sent before the first is answered.
        let square = client.prepare("SELECT $1::int4 * $1::int4").await.unwrap();
        let numbers: Vec<i32> = (1..=500).collect();
        let queries = numbers.iter().map(|n| {
            let (client, square) = (&client, &square);
            async move { client.query_one(square, &[n]).await.unwrap().get::<_, i32>(0) }
        });
        let squares = futures_util::future::join_all(queries).await;
        assert_eq!(squares, numbers.iter().map(|n| n * n).collect::<Vec<_>>());

        // An error in the middle of a pipeline is its own query's alone.
        let divide = client.prepare("SELECT 100 / $1::int4").await.unwrap();
        let divisors = [5, 0, 4];
        let results = futures_util::future::join_all(divisors.iter().map(|n| {
            let (client, divide) = (&client, &divide);
            async move { client.query_one(divide, &[n]).await.map(|row| row.get::<_, i32>(0)) }
        }))
        .await;
        assert_eq!(results[0].as_ref().unwrap(), &20);
        assert_eq!(results[1].as_ref().unwrap_err().code(), Some(&SqlState::DIVISION_BY_ZERO));
        assert_eq!(results[2].as_ref().unwrap(), &25);

        // A portal that is fetched from in pieces.
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT generate_series(1, 10)", &[]).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 4).await.unwrap();
            if rows.is_empty() {
                break;
            }
            seen.push(rows.len());
        }
        assert_eq!(seen, [4, 4, 2]);
        transaction.execute("CREATE TABLE undone (n int)", &[]).await.unwrap();
        transaction.rollback().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("CREATE TABLE kept (n int)", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        let rows =
            client.query("SELECT relname FROM pg_class WHERE relname IN ('undone', 'kept')", &[]).await;
        assert_eq!(rows.unwrap().len(), 1);

        // 20 MB in one parameter.
        let large = "x".repeat(20_000_000);
        let row = client.query_one("SELECT length($1::text)", &[&large]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 20_000_000);

        let statements = bastion.statements();
        let executed =
            |sql: &str| statements.iter().filter(|one| one["sql"] == sql && one["how"] == "extended").count();
        assert_eq!(executed("SELECT $1::int4 * $1::int4"), 500, "one record for each execution");
        let typed = statements
            .iter()
            .find(|one| one["sql"] == "SELECT $1 + 1, $2 || '!', $3, $4" && one["how"] == "extended");
        let parameters = typed.unwrap()["params"].as_array().unwrap();
        assert_eq!(parameters.len(), 4);
        assert_eq!(parameters[3]["null"], true);
        let long =
            statements.iter().find(|one| one["sql"] == "SELECT length($1::text)" && one["how"] == "extended");
        assert_eq!(long.unwrap()["params"][0]["length"], 20_000_000);
    });
}

#[test]
fn binary_copies_notifications_and_cancels_work() {
    run(async |bastion| {
        let mut tasks = JoinSet::new();
        let (client, _) = connect(bastion, &mut tasks).await;
        let (listener, mut heard) = connect(bastion, &mut tasks).await;
        client.batch_execute("CREATE TABLE c (n int4, t text)").await.unwrap();
        let sink = client.copy_in("COPY c FROM STDIN (FORMAT binary)").await.unwrap();
        let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
        for n in 0..10_000_i32 {
            writer.as_mut().write(&[&n, &(n % 3 != 0).then(|| n.to_string())]).await.unwrap();
        }
        assert_eq!(writer.as_mut().finish().await.unwrap(), 10_000);
        let out =
            client.copy_out("COPY (SELECT * FROM c ORDER BY n) TO STDOUT (FORMAT binary)").await.unwrap();
        let rows: Vec<_> =
            BinaryCopyOutStream::new(out, &[Type::INT4, Type::TEXT]).try_collect().await.unwrap();
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows[4].get::<Option<&str>>(1), Some("4"));
        assert_eq!(rows[3].get::<Option<&str>>(1), None);
        // A copy that the client gives up.
        let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY c FROM STDIN").await.unwrap());
        sink.send(Bytes::from_static(b"1\tnever\n")).await.unwrap();
        drop(sink);
        let count = client.query_one("SELECT count(*) FROM c", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 10_000);

        listener.batch_execute("LISTEN news").await.unwrap();
        client.query("SELECT pg_notify('news', $1)", &[&"something ünï happened"]).await.unwrap();
        let notification = heard.recv().await.unwrap();
        assert_eq!((notification.channel(), notification.payload()), ("news", "something ünï happened"));

        let cancel = client.cancel_token();
        let sleeping = client.batch_execute("SELECT pg_sleep(600)");
        let cancelling = async {
            let active = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            while listener.query_one(active, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
            cancel.cancel_query(connector(&bastion.ca_file())).await.unwrap();
        };
        let (slept, ()) = futures_util::future::join(sleeping, cancelling).await;
        assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(client.query_one("SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
        drop((client, listener));
        tasks.join_all().await;
        bastion.verify().success();
    });
}
