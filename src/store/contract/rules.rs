//! The rules. A function's name is its rule; it panics when the store breaks it.

#![expect(clippy::missing_panics_doc, reason = "to panic is how a rule says that it is broken")]

mod access;
mod evidence;
mod leftovers;
mod people;
mod role;
mod ssh;

pub use access::*;
pub use evidence::*;
pub use leftovers::*;
pub use people::*;
pub use role::*;
pub use ssh::*;

use crate::store::{StoreError, StoreResult};

fn conflict<T>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Conflict { .. }))
}

fn exists<T>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Exists { .. }))
}

fn not_found<T>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::NotFound { .. }))
}
