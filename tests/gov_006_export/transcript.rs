//! Transcripts: psql runs what was done.

use std::fs;

use serde_json::Value;

use crate::support::Finished;
use crate::support::calls::text;
use crate::world::World;

#[test]
fn a_transcript_does_what_was_done_when_psql_runs_it_and_nothing_else() {
    let world = World::start(&["alice", "frank"]);
    let (bastion, postgres) = (world.bastion(), &world.postgres);
    let granted = world.work();
    let mark = bastion.scratch().join("broken-out");
    world.drive(&mark);
    let file = bastion.scratch().join("transcript.sql");
    let export = ["export", "--format", "sql", "--session", &granted.session, "-o", file.to_str().unwrap()];
    bastion.run_as("frank", &export).success().says("statements");
    let sql = fs::read_to_string(&file).unwrap();
    for shown in [
        "alice",
        "23505",
        "not run here: it failed",
        "copied to the target: 11 bytes",
        "the target rolled back",
    ] {
        assert!(sql.contains(shown), "`{shown}` is not in {sql}");
    }
    let escape = sql.lines().find(|line| line.contains("touch ") && line.contains("broken-out")).unwrap();
    assert!(escape.starts_with("--"), "{escape}");

    // On an empty database it does what was done.
    postgres.query("postgres", "CREATE DATABASE scratch").success();
    let mut psql = postgres.client("psql", "scratch");
    let run = psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output().unwrap();
    Finished::from(run).success();
    assert!(!mark.exists(), "a statement's text was run by psql: {sql}");
    let content = "SELECT json_agg(t ORDER BY id) FROM t WHERE id < 100";
    let (done, again) = (postgres.value("ledger", content), postgres.value("scratch", content));
    assert_eq!(again, done, "{sql}");
    assert!(done.contains("hara") && done.contains("漢字 🏦 it's!"), "{done}");
    let rows: Value = serde_json::from_str(&done).unwrap();
    let ids: Vec<i64> = rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 5, 6, 7]);

    // One connection of it, from the files, is the same part.
    let connection = text(&bastion.ended_recording_with("CREATE TABLE")[0]["connection"]);
    let part = world.export("frank", "sql", &["--connection", &connection]);
    let (dir, id) = (bastion.audit_dir(), connection.as_str());
    let from_files =
        ["audit", "export", "--format", "sql", "--audit-dir", dir.to_str().unwrap(), "--connection", id];
    assert_eq!(bastion.operator(&from_files).success().stdout, part);
    assert!(part.contains("CREATE TABLE") && !part.contains("PREPARE"), "{part}");
}
