//! node-postgres, with its cursors and copies.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::way::{Ways, scripts};

fn node() -> Command {
    let packages =
        Path::new(env!("CARGO_BIN_EXE_sallyport")).ancestors().nth(2).unwrap().join("node/node_modules");
    assert!(packages.exists(), "{} is not there: deploy/test makes it", packages.display());
    let mut command = Command::new("node");
    command.arg("--no-deprecation").arg(scripts().join("with_node.js")).env("NODE_PATH", packages);
    command
}

#[test]
fn node_postgres_prints_through_the_gateway_what_it_prints_directly() {
    let ways = Ways::open();
    ways.the_same(node);
    let prepared = ways.executions("SELECT $1::int4 * 2 AS prepared");
    assert_eq!((prepared.len(), &prepared[199]), (201, &vec![json!("199")]), "and one that was deallocated");
    let empty = ways.executions("SELECT $1::text, $2::text, $3::bytea");
    assert_eq!(empty, [[json!(""), json!(true), json!("")]]);
    let read = ways.executions("SELECT n, n * n AS s FROM generate_series(1, $1::int4) n");
    assert!(read.len() >= 3 && read.iter().all(|one| *one == [json!("25")]), "{read:?}");
}
