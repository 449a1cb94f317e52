//! The record schema: every kind of record, every action and every field is in `docs/audit-record.md`, and every
//! record becomes an event that the schema of OCSF 1.8.0 allows.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in the test's own helpers too, a step that fails fails the test"
)]

#[path = "audit_record/document.rs"]
mod document;
#[path = "support/log.rs"]
mod log;
#[path = "audit_record/ocsf.rs"]
mod ocsf;
#[path = "audit_record/registers.rs"]
mod registers;
#[path = "audit_record/samples.rs"]
mod samples;
#[path = "audit_record/schema.rs"]
mod schema;
