//! The document has every kind, every action and every field, and nothing that no record has.

use std::collections::{BTreeMap, BTreeSet};

use sallyport::audit::export::Format;
use serde_json::Value;

use crate::samples::{self, exported};

const DOCUMENT: &str = include_str!("../../docs/audit-record.md");

/// The fields in the table behind each heading.
fn tables() -> BTreeMap<String, BTreeSet<String>> {
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| `") {
            let (first, rest) = row.split_once('|').unwrap();
            assert!(
                rest.matches('|').count() >= 2,
                "a field has a type, a unit and when it is there: {line}"
            );
            // A row may have several fields that are alike.
            let names =
                format!("`{first}").split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            tables.entry(heading.clone()).or_default().extend(names);
        }
    }
    tables
}

/// Every path of a value down to what is no object: `approvals[].by.name`.
fn paths(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                // What these hold is free: names of modes, and what an action is about.
                if ["modes", "detail"].contains(&path.as_str()) {
                    found.insert(path);
                } else {
                    paths(&path, value, found);
                }
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            found.insert(prefix.to_owned());
            for value in values {
                paths(&format!("{prefix}[]"), value, found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}

#[tokio::test]
async fn every_field_of_every_kind_is_in_the_document() {
    let (_dir, log) = samples::log().await;
    let tables = tables();
    let every = &tables["In every record"];
    let context = &tables["In every record of a connection"];
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in exported(&log, Format::Jsonl) {
        let kind = record["kind"].as_str().unwrap();
        let heading = format!("`{kind}`");
        let table = tables.get(&heading).unwrap_or_else(|| panic!("the document has no {heading}"));
        let of_connection = !["event", "recovered"].contains(&kind);
        let mut found = BTreeSet::new();
        paths("", &record, &mut found);
        for path in &found {
            let known =
                every.contains(path) || table.contains(path) || (of_connection && context.contains(path));
            assert!(known, "`{path}` of {heading} is not in the document: {record}");
        }
        let of_kind = found.into_iter().filter(|path| !every.contains(path) || table.contains(path));
        seen.entry(heading)
            .or_default()
            .extend(of_kind.filter(|path| !of_connection || !context.contains(path)));
    }
    for (heading, fields) in &tables {
        if let Some(seen) = seen.get(heading) {
            assert_eq!(fields - seen, BTreeSet::new(), "{heading} has fields that no record has");
        }
    }
}

#[test]
fn every_action_is_in_the_document() {
    let documented = &tables()["Actions"];
    let ours: BTreeSet<String> = samples::actions()
        .into_iter()
        .map(|action| serde_json::to_value(action).unwrap().as_str().unwrap().to_owned())
        .collect();
    assert_eq!(documented, &ours);
}
