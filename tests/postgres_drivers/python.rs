//! Python's drivers: psycopg 3 and 2, asyncpg, and `SQLAlchemy` over two of them.

use std::process::Command;

use serde_json::json;

use crate::support::amazon;
use crate::way::{Ways, scripts};

fn python(script: &str) -> impl Fn() -> Command {
    move || {
        let mut command = Command::new(amazon::python("python"));
        command.arg(scripts().join(script));
        command
    }
}

#[test]
fn psycopg_3_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(python("with_psycopg3.py"));
    let prepared = ways.executions("SELECT $1::int4 * 2 AS prepared");
    assert_eq!(prepared.len(), 51, "one record for each execution");
    assert_eq!(prepared[50], [json!("7")]);
    let empty = ways.executions("SELECT $1::text, $2::text, $3::text IS NULL");
    assert_eq!(empty, [[json!(""), json!(true), json!(true)], [json!(""), json!(true), json!(true)]]);
    let piped = ways.executions("INSERT INTO piped VALUES ($1, $2)");
    assert!(piped.contains(&vec![json!("299"), json!("ü299")]), "{piped:?}");
}

#[test]
fn psycopg_2_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(python("with_psycopg2.py"));
    let statements = ways.bastion.statements();
    let named = |sql: &str| statements.iter().filter(|one| one["sql"] == sql).count();
    assert_eq!(named("EXECUTE own (19)"), 1);
    assert_eq!(named("FETCH FORWARD 7 FROM \"parts\""), 7);
    let latin_1 = data_encoding::BASE64.encode(b"SELECT '\xfc', '\xe9', length('\xfc')");
    assert_eq!(statements.iter().filter(|one| one["b64"] == latin_1).count(), 1);
    assert!(
        statements.iter().any(|one| one["how"] == "function"),
        "large objects are read by function calls"
    );
}

#[test]
fn asyncpg_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(python("with_asyncpg.py"));
    let prepared = ways.executions("SELECT $1::int4 * 2 AS prepared");
    assert_eq!((prepared.len(), &prepared[99]), (101, &vec![json!("99")]));
    let batch = ways.executions("INSERT INTO batch VALUES ($1, $2)");
    assert_eq!(batch.len(), 3080, "one record for each execution");
    assert_eq!(batch[2999], [json!("2999"), json!("ü2999")]);
    // Parts of one portal: each fetch is an execution.
    let fetched = ways.executions("SELECT generate_series(1, $1::int4)");
    assert!(fetched.len() >= 6 && fetched.iter().all(|one| *one == [json!("57")]), "{fetched:?}");
}

#[test]
fn sqlalchemy_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(python("with_sqlalchemy.py"));
    // Hundreds of rows in one statement: its parameters are recorded in parts.
    let records = ways.bastion.records();
    let inserts = records.iter().filter(|one| one.to_string().contains("\"person ü 7\""));
    assert!(inserts.count() >= 2, "one by each driver");
}
