//! DT-002: passwords in statements are not on record, and reach the target all the same.

mod support;

use support::secrets::assert_nowhere;
use support::{Bastion, Options, Postgres};

const SECRET: &str = "correct-Horse-4711";

#[test]
fn passwords_in_statements_are_masked_in_the_record_alone() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "erin"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let statements = [
        format!("ALTER ROLE nobody PASSWORD '{SECRET}'"),
        format!("CREATE USER MAPPING FOR nobody SERVER none OPTIONS (user 'x', password '{SECRET}')"),
        format!("SELECT 'host=db password={SECRET}', 'postgres://ann:{SECRET}@db/x'"),
        format!("DO $$ BEGIN EXECUTE 'ALTER ROLE nobody PASSWORD ''{SECRET}'''; END $$"),
    ];
    for statement in &statements {
        // Most are refused by the target; they are on record as well.
        let _answer = bastion.psql("alice", "ledger-dev", statement);
    }
    let answer = bastion.psql("alice", "ledger-dev", &statements[2]).success();
    assert_eq!(answer.stdout, format!("host=db password={SECRET}|postgres://ann:{SECRET}@db/x\n"));
    // The setting that decides how strings are read is followed.
    let file = bastion.scratch().join("escaped.sql");
    let lines =
        format!("SET standard_conforming_strings = off;\nALTER ROLE nobody PASSWORD 'a\\'{SECRET}';\n");
    std::fs::write(&file, lines).unwrap();
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-f", file.to_str().unwrap()]);
    assert!(!psql.output().unwrap().status.success());

    assert_nowhere(&bastion, SECRET);
    for statement in &statements {
        let begin = statement.split(SECRET).next().unwrap();
        assert!(postgres.log().contains(begin), "{statement}");
    }
    assert!(postgres.log().contains(SECRET), "the target got it");
    let records = bastion.records();
    let masked: Vec<u64> = records.iter().filter_map(|record| record["masked"].as_u64()).collect();
    assert_eq!(masked, [1, 1, 2, 1, 2, 1]);
    let kept = |text: &str| records.iter().any(|record| record["sql"] == text);
    assert!(kept("ALTER ROLE nobody PASSWORD '***'"));
    assert!(kept("SELECT 'host=db password=***', 'postgres://ann:***@db/x'"));
    assert!(kept("ALTER ROLE nobody PASSWORD '***';"));
    bastion.verify().success();
}
