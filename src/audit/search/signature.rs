//! What a block of text may hold, in few bytes: one bit for each run of four characters in it.
//!
//! A text that is looked for can only be in a block whose signature has the bits of all its runs. Unlike
//! an index of words, a signature finds any part of a word, of a number or of what stands between
//! them, and it has a size that is known beforehand, whatever the text is: runs that share a bit cost a
//! look at a block, never a hit that is not there and never one that is missed.

/// Characters in a run.
const RUN: usize = 4;
/// Bits for each different run, while there is room.
const BITS: usize = 6;
/// So much of the size of what it stands for may a signature take, in percent.
const SHARE: u64 = 7;
/// From so many on, runs are looked through for those that are there twice.
const FEW: usize = 16 << 10;

/// The runs of a folded text, as hashes.
pub(super) fn runs(folded: &str) -> impl Iterator<Item = u32> {
    let mut last = [0_u32; RUN];
    folded.chars().enumerate().filter_map(move |(index, character)| {
        last.rotate_left(1);
        if let Some(slot) = last.last_mut() {
            *slot = u32::from(character);
        }
        (index + 1 >= RUN).then(|| hash(last))
    })
}

fn hash(run: [u32; RUN]) -> u32 {
    let mixed = run.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, character| {
        (hash ^ u64::from(*character)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    });
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    u32::try_from(mixed >> 32).unwrap_or(0)
}

/// Collects the runs of a block.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    hashes: Vec<u32>,
    /// So many, from the first, are sorted and different.
    distinct: usize,
}

impl Runs {
    pub(super) fn add(&mut self, folded: &str) {
        self.hashes.extend(runs(folded));
        if self.hashes.len() - self.distinct >= self.distinct.max(FEW) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.distinct = self.hashes.len();
    }

    /// The signature of what was added, which stood in `source` bytes of the log.
    pub(super) fn sign(&mut self, source: u64) -> Vec<u8> {
        self.settle();
        let most = usize::try_from(source.saturating_mul(SHARE) / 100).unwrap_or(usize::MAX).max(1);
        let mut signature = vec![0_u8; (self.distinct * BITS).div_ceil(8).clamp(1, most)];
        for hash in &self.hashes {
            let (byte, bit) = place(*hash, signature.len());
            if let Some(byte) = signature.get_mut(byte) {
                *byte |= bit;
            }
        }
        signature
    }
}

/// Which byte of a signature, and which bit of it, stands for a run.
fn place(hash: u32, length: usize) -> (usize, u8) {
    let bits = u64::try_from(length).unwrap_or(0).saturating_mul(8);
    let bit = (u64::from(hash).saturating_mul(bits)) >> 32;
    (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
}

/// Whether a block with this signature may hold a text with these runs.
pub(super) fn may_hold(signature: &[u8], wanted: &[u32]) -> bool {
    wanted.iter().all(|hash| {
        let (byte, bit) = place(*hash, signature.len());
        signature.get(byte).is_some_and(|byte| byte & bit != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signature(texts: &[&str], source: u64) -> Vec<u8> {
        let mut all = Runs::default();
        for text in texts {
            all.add(text);
        }
        all.sign(source)
    }

    fn wanted(text: &str) -> Vec<u32> {
        runs(text).collect()
    }

    #[test]
    fn what_is_short_has_no_runs_and_may_be_anywhere() {
        assert_eq!(wanted("abc"), Vec::<u32>::new());
        assert!(may_hold(&signature(&[], 100), &wanted("abc")));
    }

    #[test]
    fn other_texts_are_told_apart_as_a_rule() {
        let words: Vec<String> =
            (0..2_000_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
        let (inside, outside) = words.split_at(1_000);
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        let signature = signature(&inside, 1 << 20);
        let wrong = outside.iter().filter(|word| may_hold(&signature, &wanted(word))).count();
        assert!(wrong < 20, "{wrong} of 1000");
    }

    #[test]
    fn a_signature_takes_its_share_at_most() {
        let text: String = (0..100_000_u32)
            .map(|n| char::from_u32(0x4e00 + n.wrapping_mul(7919) % 20_000).unwrap())
            .collect();
        assert_eq!(signature(&[&text], 10_000).len(), 700);
        assert!(may_hold(
            &signature(&[&text], 10_000),
            &wanted(&text.chars().skip(500).take(30).collect::<String>())
        ));
    }

    proptest! {
        #[test]
        fn nothing_that_is_there_is_missed(texts in proptest::collection::vec("\\PC{0,30}", 1..20), source in 0..4_000_u64) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let signature = signature(&texts, source);
            for text in texts {
                prop_assert!(may_hold(&signature, &wanted(text)));
            }
        }
    }
}
