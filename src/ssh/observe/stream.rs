//! A byte stream in one direction: a head to be kept, then count and hash; of a long one now and then, so
//! that not all is lost when its end is never seen.

use crate::crypto::Hash;
use crate::crypto::hasher::Hasher;

/// Past its head, a stream is summed up after so many bytes,
pub const SO_FAR_BYTES: u64 = 16 * 1024 * 1024;
/// or with the first bytes after so long.
pub const SO_FAR_US: u64 = 10_000_000;

/// What passed, all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSummary {
    pub bytes: u64,
    /// Of every byte, those of the head included.
    pub sha256: Hash,
    /// How many bytes the head had.
    pub head: u64,
}

#[derive(Debug, Clone)]
pub struct StreamObserver {
    bytes: u64,
    hasher: Hasher,
    limit: u64,
    /// Bytes and instant of the last sum.
    summed: (u64, u64),
}

impl StreamObserver {
    /// `head`: how many bytes from the first on are to be kept.
    pub fn new(head: u64) -> Self {
        Self { bytes: 0, hasher: Hasher::new(), limit: head, summed: (head, 0) }
    }

    /// Takes what passes; gives the part of it that still belongs to the head, if any.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let left = self.limit.saturating_sub(self.bytes);
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let kept = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        bytes.get(..kept).filter(|head| !head.is_empty())
    }

    /// The sum of what passed so far, when one is due. `now_us` never goes back.
    pub fn so_far(&mut self, now_us: u64) -> Option<StreamSummary> {
        let (bytes, at_us) = self.summed;
        let more = self.bytes.saturating_sub(bytes);
        if more == 0 {
            // All of it is kept: nothing is lost.
            self.summed.1 = now_us;
            return None;
        }
        if more < SO_FAR_BYTES && now_us.saturating_sub(at_us) < SO_FAR_US {
            return None;
        }
        self.summed = (self.bytes, now_us);
        Some(self.clone().finish())
    }

    /// How many bytes from the first on are kept.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes have passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn finish(self) -> StreamSummary {
        StreamSummary { bytes: self.bytes, sha256: self.hasher.finish(), head: self.bytes.min(self.limit) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::sha256;

    proptest! {
        #[test]
        fn a_split_stream_is_the_same_stream(
            whole in prop::collection::vec(any::<u8>(), 0..200),
            size in 1_usize..50,
            head in 0_u64..250,
        ) {
            let mut observer = StreamObserver::new(head);
            let mut kept = Vec::new();
            for chunk in whole.chunks(size) {
                kept.extend_from_slice(observer.push(chunk).unwrap_or_default());
            }
            let expected = &whole[..whole.len().min(usize::try_from(head).unwrap())];
            prop_assert_eq!(&kept, expected);
            let summary = observer.finish();
            prop_assert_eq!(summary.sha256, sha256(&[&whole]));
            prop_assert_eq!((summary.bytes, summary.head), (whole.len() as u64, kept.len() as u64));
        }
    }

    #[test]
    fn a_long_stream_is_summed_up_now_and_then_and_a_short_one_is_not() {
        let mut observer = StreamObserver::new(3);
        observer.push(b"abc");
        assert_eq!(observer.so_far(SO_FAR_US), None, "all of it is kept");
        observer.push(b"d");
        assert_eq!(observer.so_far(2 * SO_FAR_US - 1), None);
        observer.push(b"e");
        let sum = observer.so_far(2 * SO_FAR_US).unwrap();
        assert_eq!((sum.bytes, sum.sha256, sum.head), (5, sha256(&[b"abcde"]), 3));
        assert_eq!(observer.so_far(9 * SO_FAR_US), None, "nothing came since");
        observer.push(&vec![0; usize::try_from(SO_FAR_BYTES).unwrap()]);
        assert_eq!(observer.so_far(9 * SO_FAR_US).unwrap().bytes, SO_FAR_BYTES + 5);
    }

    #[test]
    fn nothing_is_kept_past_the_head() {
        let mut observer = StreamObserver::new(3);
        assert_eq!(observer.push(b"ab"), Some(&b"ab"[..]));
        assert_eq!(observer.push(b""), None);
        assert_eq!(observer.push(b"cdef"), Some(&b"c"[..]));
        assert_eq!(observer.push(b"g"), None);
        assert_eq!(observer.bytes(), 7);
    }
}
