//! Who is at work on which session's credential, on this node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::id::SessionId;

/// A slot for each session that has or had a credential.
#[derive(Debug)]
pub(super) struct Slots<T>(Mutex<HashMap<SessionId, Arc<T>>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Slots<T> {
    pub(super) fn of(&self, session: &SessionId) -> Arc<T> {
        Arc::clone(self.lock().entry(session.clone()).or_default())
    }

    /// Forgets the session's slot, which is `mine`, unless somebody else has it as well: they would then be at work
    /// beside whoever comes next.
    pub(super) fn forget(&self, session: &SessionId, mine: Arc<T>) {
        let mut slots = self.lock();
        drop(mine);
        if slots.get(session).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            slots.remove(session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_somebody_waits_for_is_not_made_anew_for_the_next() {
        let (slots, session) = (Slots::<u8>::default(), SessionId::from_random([1; 10]));
        let (mine, theirs) = (slots.of(&session), slots.of(&session));
        slots.forget(&session, mine);
        assert!(Arc::ptr_eq(&slots.of(&session), &theirs));
        slots.forget(&session, theirs);
        assert!(slots.lock().is_empty());
    }
}
