//! Short-lived credentials: issued for one session, destroyed with it.
