//! The tamper-evident record of what was done. See `docs/audit-log.md` for the format.
