//! JDBC: PostgreSQL's own driver, as Debian has it.

use std::process::Command;

use serde_json::json;

use crate::way::{Ways, scripts};

fn java() -> Command {
    let mut command = Command::new("java");
    // Compiled where it stands; the encoding is of what it prints.
    command.args(["-Dfile.encoding=UTF-8", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.args(["-cp", "/usr/share/java/postgresql.jar"]).arg(scripts().join("WithJdbc.java"));
    command
}

#[test]
fn jdbc_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(java);
    let prepared = ways.executions("SELECT $1::int4 * 2 AS prepared");
    assert_eq!(prepared.len(), 200, "one record for each execution");
    assert_eq!(prepared[199], [json!("199")]);
    let batch = ways.executions("INSERT INTO batch (n, t, at) VALUES ($1, $2, $3)\nRETURNING \"id\"");
    assert!(batch.iter().any(|one| one[..2] == [json!("999"), json!(true)]), "{:?}", batch.last());
    // Fetches of seven rows, each an execution of one portal.
    let fetched = ways.executions("SELECT n, n * n FROM generate_series(1, $1) n");
    assert!(fetched.len() > 143 && fetched.iter().all(|one| *one == [json!("1000")]), "{}", fetched.len());
}
