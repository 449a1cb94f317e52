//! Buffers in which records are put together. They go from a connection's thread to the writer and back: to free on one
//! thread what another has allocated costs more than what is done with it.

use std::sync::{Mutex, PoisonError};

/// So many are kept.
const KEPT: usize = 256;
/// Of no more bytes each: what is larger is rare.
const LARGEST: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// One with anything in it, or a new one.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, buffers: &mut Vec<Vec<u8>>) {
        buffers.retain(|buffer| buffer.capacity() <= LARGEST);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(buffers.len());
        kept.extend(buffers.drain(..room));
        drop(kept);
        buffers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_such_a_size_are_kept() {
        let spares = Spares::default();
        assert_eq!(spares.take().capacity(), 0);
        let mut buffers: Vec<Vec<u8>> = (0..300).map(|_| Vec::with_capacity(1000)).collect();
        buffers.extend([Vec::with_capacity(LARGEST + 1), Vec::with_capacity(LARGEST)]);
        spares.give_back(&mut buffers);
        assert!(buffers.is_empty());
        let kept: Vec<_> =
            (0..300).map(|_| spares.take().capacity()).filter(|capacity| *capacity > 0).collect();
        assert_eq!((kept.len(), kept.iter().max()), (KEPT, Some(&1000)));
    }
}
