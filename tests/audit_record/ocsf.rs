//! Every record becomes an event that the published schema allows.

use std::collections::{BTreeMap, BTreeSet};

use sallyport::audit::export::Format;
use sallyport::audit::export::ocsf::class::CLASSES;
use serde_json::{Value, json};

use crate::samples::{self, exported};
use crate::schema::Schema;

#[tokio::test]
async fn every_record_becomes_an_event_of_the_published_schema() {
    let (_dir, log) = samples::log().await;
    let (records, events) = (exported(&log, Format::Jsonl), exported(&log, Format::Ocsf));
    assert_eq!(records.len(), events.len());
    let schema = Schema::published();
    let mut made: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (record, event) in records.iter().zip(&events) {
        let faults = schema.faults(event);
        assert!(faults.is_empty(), "{faults:#?} of {event} made of {record}");
        let what = record.get("action").unwrap_or(&record["kind"]).as_str().unwrap().to_owned();
        made.entry(event["class_uid"].as_i64().unwrap()).or_default().insert(what);
    }
    // Each class is made of something, and no other is.
    assert_eq!(made.keys().copied().collect::<BTreeSet<_>>(), schema.classes(), "{made:#?}");
    let ours: BTreeSet<i64> = CLASSES.iter().map(|class| class.uid.into()).collect();
    assert_eq!(ours, schema.classes());
}

#[tokio::test]
async fn nothing_of_a_record_is_lost_and_its_integrity_is_told() {
    let (_dir, log) = samples::log().await;
    let (records, events) = (exported(&log, Format::Jsonl), exported(&log, Format::Ocsf));
    for (index, (record, event)) in records.iter().zip(&events).enumerate() {
        let (unmapped, metadata) = (&event["unmapped"], &event["metadata"]);
        for (key, value) in record.as_object().unwrap() {
            match key.as_str() {
                "v" => assert_eq!(metadata["log_version"], json!(value.to_string())),
                "rec" | "seq" | "kind" | "action" => {}
                "at" => assert_eq!(&metadata["original_time"], value),
                "node" => assert_eq!(&metadata["product"]["uid"], value),
                _ => assert_eq!(&unmapped[key], value, "{key} of {record}"),
            }
        }
        let uid = format!("{}:{}", record["rec"].as_str().unwrap(), record["seq"]);
        assert_eq!(metadata["uid"], json!(uid));
        let code = record.get("action").unwrap_or(&record["kind"]);
        assert_eq!((&metadata["event_code"], &metadata["sequence"]), (code, &json!(index)));
        assert_eq!(unmapped["integrity"]["index"], json!(index));
        assert_eq!(unmapped["integrity"]["record"], event["raw_data_hash"]["value"]);
        if record["kind"] == "ended" {
            let before = &events[index - 1]["unmapped"]["integrity"]["recording"];
            if records[index - 1]["rec"] == record["rec"] {
                assert_eq!(&record["chain"], before, "the recording's chain before its end");
            }
        }
    }
}

/// What the classes of the most telling records are.
#[tokio::test]
async fn records_become_the_classes_that_the_document_names() {
    let (_dir, log) = samples::log().await;
    let events = exported(&log, Format::Ocsf);
    let document = include_str!("../../docs/audit-record.md");
    let table = document.split("## As OCSF events").nth(1).expect("the document says what becomes what");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    for event in &events {
        let code = event["metadata"]["event_code"].as_str().unwrap();
        let class = event["class_uid"].to_string();
        let names = |row: &&&str| {
            let cells: Vec<&str> = row.split('|').collect();
            cells[1].contains(&format!("`{code}`")) && cells[2].contains(&class)
        };
        assert!(
            rows.iter().any(|row| names(&row)),
            "{code} becomes {class}, which the document does not say"
        );
    }
}

#[test]
fn the_schema_finds_what_is_not_allowed() {
    let schema = Schema::published();
    let event = json!({
        "activity_id": 1, "activity_name": "Logon", "category_uid": 3, "category_name": "x", "class_uid": 3002,
        "class_name": "Authentication", "type_uid": 300_201, "type_name": "Authentication: Logon", "severity_id": 1,
        "time": 1, "metadata": { "version": "1.8.0", "product": { "name": "x" } }, "user": { "name": "a" },
        "service": { "name": "x" },
    });
    assert_eq!(schema.faults(&event), [] as [&str; 0]);
    let with = |key: &str, value: Value| {
        let mut event = event.clone();
        let object = event.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(key)
        } else {
            object.insert(key.to_owned(), value)
        };
        event
    };
    for wrong in [
        with("user", Value::Null),
        with("user", json!({})),
        with("user", json!({ "name": 7 })),
        with("user", json!({ "name": "a", "credential_uid": "x" })),
        with("service", Value::Null),
        with("activity_id", json!(8)),
        with("severity_id", json!(7)),
        with("time", json!("now")),
        with("type_uid", json!(300_202)),
        with("class_uid", json!(3999)),
        with("surprise", json!(1)),
        with("src_endpoint", json!({ "ip": "nowhere" })),
        with("src_endpoint", json!({ "name": "x", "port": 70000 })),
        with("device", json!({})),
        with("auth_factors", json!({ "factor_type_id": 7 })),
        with("auth_factors", json!([{ "factor_type_id": 12 }])),
        with("metadata", json!({ "version": "1.8.0" })),
    ] {
        assert!(!schema.faults(&wrong).is_empty(), "{wrong}");
    }
}
