//! The use cases: request, review, connect, revoke, sweep.
