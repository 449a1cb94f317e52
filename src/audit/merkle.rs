//! The Merkle tree over a log's records (RFC 9162, section 2.1): its root, proofs that some records are in it
//! without the others, and proofs that a log is the beginning of a longer one.
//!
//! A leaf is a record's hash, [`record_hash`](super::chain::record_hash), which is the RFC's leaf hash
//! already. A proof for a set of leaves holds the roots of the largest whole subtrees without any of them,
//! from left to right: what it takes, beside the leaves themselves, to compute the root.

use std::ops::Range;

use crate::crypto::{Hash, sha256};

/// A node over two (RFC 9162, section 2.1.1).
fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], left, right])
}

/// A growing tree: as many hashes as its size has bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// The roots of whole subtrees, the largest first: one for each bit of `size`.
    peaks: Vec<Hash>,
}

/// As kept in files: the size, and the peaks in hexadecimal digits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptTree {
    size: u64,
    peaks: Vec<String>,
}

impl Tree {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn kept(&self) -> KeptTree {
        KeptTree { size: self.size, peaks: self.peaks.iter().map(|peak| crate::crypto::hex(peak)).collect() }
    }

    /// None when it cannot be a tree's.
    pub(super) fn from_kept(kept: &KeptTree) -> Option<Self> {
        let peaks: Option<Vec<_>> = kept.peaks.iter().map(|peak| crate::crypto::from_hex(peak)).collect();
        let peaks = peaks.filter(|peaks| peaks.len() == kept.size.count_ones() as usize)?;
        Some(Self { size: kept.size, peaks })
    }

    pub fn push(&mut self, leaf: &Hash) {
        let mut carried = *leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                carried = node(&left, &carried);
            }
            size >>= 1;
        }
        self.peaks.push(carried);
        self.size = self.size.saturating_add(1);
    }

    /// The root of the whole subtree over `range`, if it is one of the peaks.
    fn peak(&self, range: &Range<u64>) -> Option<Hash> {
        let mut start = 0;
        let sizes = (0..u64::BITS).rev().map(|bit| 1 << bit).filter(|size| self.size & size != 0);
        for (peak, size) in self.peaks.iter().zip(sizes) {
            if *range == (start..start + size) {
                return Some(*peak);
            }
            start += size;
        }
        None
    }

    /// The tree over the leaves from `start` on, where a peak begins there.
    fn from(&self, start: u64) -> Self {
        let size = self.size.saturating_sub(start);
        let count = usize::try_from(size.count_ones()).unwrap_or(0);
        let peaks = self.peaks.get(self.peaks.len().saturating_sub(count)..).unwrap_or_default();
        Self { size, peaks: peaks.to_vec() }
    }

    /// The tree's hash. Of an empty one: the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => sha256(&[]),
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
        }
    }
}

/// Proves that a tree is the beginning of a larger one (RFC 9162, section 2.1.4), from the leaves that came
/// since, given one after the other. Every hash of the proof is a peak of the old tree, or new altogether.
#[derive(Debug)]
pub struct Growth {
    now: Tree,
    size: u64,
    /// With the places of those that are still to come.
    proof: Vec<Hash>,
    /// Still to come, the first one last: where in the proof, and over which leaves.
    wanted: Vec<(usize, Range<u64>)>,
    part: Tree,
}

impl Growth {
    /// From `old` to a tree of `size`.
    pub fn new(old: &Tree, size: u64) -> Self {
        let mut growth =
            Self { now: old.clone(), size, proof: Vec::new(), wanted: Vec::new(), part: Tree::default() };
        if old.size > 0 && old.size < size {
            growth.walk(old, old.size, 0..size, true);
            growth.wanted.reverse();
        }
        growth
    }

    /// `SUBPROOF` of the first `first` leaves of `range`.
    fn walk(&mut self, old: &Tree, first: u64, range: Range<u64>, is_known: bool) {
        let length = range.end - range.start;
        if first == length {
            if !is_known {
                self.want(old, range);
            }
            return;
        }
        let middle = range.start + split(length);
        if first <= middle - range.start {
            self.walk(old, first, range.start..middle, is_known);
            self.want(old, middle..range.end);
        } else {
            self.walk(old, first - (middle - range.start), middle..range.end, false);
            self.want(old, range.start..middle);
        }
    }

    fn want(&mut self, old: &Tree, range: Range<u64>) {
        let peak = old.peak(&range);
        if peak.is_none() {
            self.wanted.push((self.proof.len(), range));
        }
        self.proof.push(peak.unwrap_or_default());
    }

    pub fn push(&mut self, leaf: &Hash) {
        let index = self.now.size;
        self.now.push(leaf);
        let Some((place, range)) = self.wanted.last() else { return };
        if !range.contains(&index) {
            return;
        }
        self.part.push(leaf);
        if range.end == self.now.size {
            if let Some(hash) = self.proof.get_mut(*place) {
                *hash = std::mem::take(&mut self.part).root();
            }
            self.wanted.pop();
        }
    }

    /// The proof and the larger tree; `None` while leaves are lacking. Of nothing, and where nothing has grown, the
    /// proof is empty.
    pub fn finish(self) -> Option<(Vec<Hash>, Tree)> {
        (self.now.size == self.size).then_some((self.proof, self.now))
    }
}

/// Whether `proof` shows that the tree of `old` (size and root) is the beginning of the tree of `new` (RFC 9162,
/// section 2.1.4.2).
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    /// The roots of the old and of the whole tree that the proof says, for a part of it.
    fn walk(old: u64, length: u64, known: Option<Hash>, proof: &mut &[Hash]) -> Option<(Hash, Hash)> {
        let mut next = || {
            let (last, rest) = proof.split_last()?;
            *proof = rest;
            Some(*last)
        };
        if old == length {
            let root = known.or_else(next)?;
            return Some((root, root));
        }
        let middle = split(length);
        // What is proved last stands highest.
        let beside = next()?;
        if old <= middle {
            let (part, whole) = walk(old, middle, known, proof)?;
            Some((part, node(&whole, &beside)))
        } else {
            let (part, whole) = walk(old - middle, length - middle, None, proof)?;
            Some((node(&beside, &part), node(&beside, &whole)))
        }
    }
    let ((old, old_root), (new, new_root)) = (old, new);
    if old == 0 || old == new {
        return old <= new && proof.is_empty() && old_root == if old == 0 { sha256(&[]) } else { new_root };
    }
    let mut rest = proof;
    old < new && walk(old, new, Some(old_root), &mut rest) == Some((old_root, new_root)) && rest.is_empty()
}

/// Where the left subtree of one over `length` leaves, more than one, ends.
fn split(length: u64) -> u64 {
    1 << (u64::BITS - 1 - (length - 1).leading_zeros())
}

/// The largest subtrees of a tree of `size` that have none of `chosen`, from left to right. `chosen` goes up,
/// and is below `size`.
pub fn complement(size: u64, chosen: &[u64]) -> Vec<Range<u64>> {
    fn walk(range: Range<u64>, chosen: &[u64], found: &mut Vec<Range<u64>>) {
        if chosen.is_empty() {
            return found.push(range);
        }
        let length = range.end - range.start;
        if length > 1 {
            let middle = range.start + split(length);
            let (left, right) = chosen.split_at(chosen.partition_point(|index| *index < middle));
            walk(range.start..middle, left, found);
            walk(middle..range.end, right, found);
        }
    }
    let mut found = Vec::new();
    if size > 0 {
        walk(0..size, chosen, &mut found);
    }
    found
}

/// Gathers the hashes of a proof from all leaves, given one after the other.
#[derive(Debug)]
pub struct Prover {
    /// Still to come, the first one last.
    wanted: Vec<Range<u64>>,
    next: u64,
    tree: Tree,
    proof: Vec<Hash>,
}

impl Prover {
    /// For the leaves `chosen` of a tree of `size`: as [`complement`]. The leaves that are given begin where `before` ends;
    /// none of those in it is chosen.
    pub fn new(before: &Tree, size: u64, chosen: &[u64]) -> Self {
        let mut wanted = complement(size, chosen);
        wanted.reverse();
        let mut prover = Self { wanted, next: before.size, tree: Tree::default(), proof: Vec::new() };
        // A subtree that ends before them is one of the peaks: its parent has a leaf that is chosen, and none of those.
        while let Some(range) = prover.wanted.pop_if(|range| range.end <= before.size) {
            prover.proof.extend(before.peak(&range));
        }
        if let Some(range) = prover.wanted.last().filter(|range| range.start < before.size) {
            prover.tree = before.from(range.start);
        }
        prover
    }

    pub fn push(&mut self, leaf: &Hash) {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        let Some(range) = self.wanted.last() else { return };
        if !range.contains(&index) {
            return;
        }
        self.tree.push(leaf);
        if range.end == self.next {
            self.proof.push(std::mem::take(&mut self.tree).root());
            self.wanted.pop();
        }
    }

    /// The proof; `None` while leaves are lacking.
    pub fn finish(self) -> Option<Vec<Hash>> {
        self.wanted.is_empty().then_some(self.proof)
    }
}

/// The root of the tree of `size` that has these `leaves` (index and hash, going up) and for the rest what
/// `proof` says; `None` where they do not make one. The size has to be known otherwise: what is behind the last
/// leaf is as large as it says.
pub fn root_of(size: u64, leaves: &[(u64, Hash)], proof: &[Hash]) -> Option<Hash> {
    fn walk(
        range: Range<u64>,
        leaves: &[(u64, Hash)],
        proof: &mut std::slice::Iter<'_, Hash>,
    ) -> Option<Hash> {
        let length = range.end - range.start;
        match leaves {
            [] => proof.next().copied(),
            [(_, hash)] if length == 1 => Some(*hash),
            _ if length == 1 => None,
            _ => {
                let middle = range.start + split(length);
                let (left, right) = leaves.split_at(leaves.partition_point(|(index, _)| *index < middle));
                let left = walk(range.start..middle, left, proof)?;
                Some(node(&left, &walk(middle..range.end, right, proof)?))
            }
        }
    }
    let in_order = leaves.is_sorted_by(|(one, _), (other, _)| one < other);
    let within = leaves.last().is_none_or(|(index, _)| *index < size);
    if !in_order || !within {
        return None;
    }
    if size == 0 {
        return proof.is_empty().then(|| sha256(&[]));
    }
    let mut rest = proof.iter();
    let root = walk(0..size, leaves, &mut rest)?;
    rest.next().is_none().then_some(root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::chain::record_hash;
    use crate::crypto::hex;

    /// The entries that Certificate Transparency's implementations are tested with, and the roots of the trees
    /// of the first none, one, two … of them.
    const ENTRIES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_that_other_implementations_publish() {
        let mut tree = Tree::default();
        for (size, root) in ROOTS.into_iter().enumerate() {
            assert_eq!(hex(&tree.root()), root, "of {size}");
            if let Some(entry) = ENTRIES.get(size) {
                tree.push(&record_hash(entry));
            }
        }
        assert_eq!(tree.size(), 8);
    }

    #[test]
    fn the_rest_of_a_tree_is_its_largest_whole_subtrees() {
        assert_eq!(complement(7, &[0]), [1..2, 2..4, 4..7]);
        assert_eq!(complement(7, &[3, 6]), [0..2, 2..3, 4..6]);
        assert_eq!(complement(3, &[]), vec![0..3]);
        assert_eq!(complement(1, &[0]), []);
        assert_eq!(complement(0, &[]), []);
    }

    fn leaf(index: u64) -> Hash {
        record_hash(&index.to_be_bytes())
    }

    fn prove(size: u64, chosen: &[u64]) -> (Hash, Vec<(u64, Hash)>, Vec<Hash>) {
        let (mut tree, mut prover) = (Tree::default(), Prover::new(&Tree::default(), size, chosen));
        for index in 0..size {
            tree.push(&leaf(index));
            prover.push(&leaf(index));
        }
        let leaves = chosen.iter().map(|index| (*index, leaf(*index))).collect();
        (tree.root(), leaves, prover.finish().unwrap())
    }

    proptest! {
        #[test]
        fn what_came_before_the_leaves_that_are_here_is_proved_from_its_peaks(
            size in 1_u64..200, before in 0_u64..200, picked in proptest::collection::btree_set(0_u64..200, 1..12),
        ) {
            let before = before % size;
            let chosen: Vec<u64> = picked.into_iter().filter(|index| (before..size).contains(index)).collect();
            prop_assume!(!chosen.is_empty());
            let (_, _, expected) = prove(size, &chosen);
            let mut tree = Tree::default();
            for index in 0..before {
                tree.push(&leaf(index));
            }
            let mut prover = Prover::new(&tree, size, &chosen);
            for index in before..size {
                prover.push(&leaf(index));
            }
            prop_assert_eq!(prover.finish(), Some(expected));
            prop_assert_eq!(Tree::from_kept(&tree.kept()), Some(tree));
        }

        #[test]
        fn any_leaves_are_proved_and_no_others(size in 1_u64..70, picked in proptest::collection::btree_set(0_u64..70, 0..12), bit in 0_usize..256) {
            let chosen: Vec<u64> = picked.into_iter().filter(|index| *index < size).collect();
            let (root, leaves, proof) = prove(size, &chosen);
            prop_assert_eq!(root_of(size, &leaves, &proof), Some(root));
            for index in 0..leaves.len() {
                let mut other = leaves.clone();
                other[index].1[bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(root_of(size, &other, &proof), Some(root));
                let mut fewer = leaves.clone();
                fewer.remove(index);
                prop_assert_ne!(root_of(size, &fewer, &proof), Some(root));
            }
            for index in 0..proof.len() {
                let mut other = proof.clone();
                other[index][bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(root_of(size, &leaves, &other), Some(root));
            }
            let mut longer = proof.clone();
            longer.push(root);
            prop_assert_eq!(root_of(size, &leaves, &longer), None);
        }
    }

    /// From the leaves, as the RFC defines it (section 2.1.4.1).
    fn subproof(old: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
        let root = |leaves: &[Hash]| {
            let mut tree = Tree::default();
            for leaf in leaves {
                tree.push(leaf);
            }
            tree.root()
        };
        if old == leaves.len() {
            return if is_known { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        if old <= left.len() {
            let mut proof = subproof(old, left, is_known);
            proof.push(root(right));
            proof
        } else {
            let mut proof = subproof(old - left.len(), right, false);
            proof.push(root(left));
            proof
        }
    }

    #[test]
    fn a_log_is_shown_to_be_the_beginning_of_a_longer_one() {
        let leaves: Vec<Hash> = (0..40).map(leaf).collect();
        let mut trees = vec![Tree::default()];
        for leaf in &leaves {
            let mut next = trees.last().unwrap().clone();
            next.push(leaf);
            trees.push(next);
        }
        let state = |size: usize| (u64::try_from(size).unwrap(), trees[size].root());
        for old in 0..trees.len() {
            for new in old..trees.len() {
                let mut growth = Growth::new(&trees[old], state(new).0);
                for leaf in &leaves[old..new] {
                    growth.push(leaf);
                }
                let (proof, now) = growth.finish().unwrap();
                if old > 0 && old < new {
                    assert_eq!(proof, subproof(old, &leaves[..new], true), "{old} of {new}");
                    assert!(Growth::new(&trees[old], state(new).0).finish().is_none());
                }
                assert_eq!(now, trees[new]);
                assert!(is_consistent(state(old), state(new), &proof), "{old} of {new}");
                let other = [7; 32];
                if old > 0 {
                    assert!(!is_consistent((state(old).0, other), state(new), &proof), "{old} of {new}");
                }
                if old < new {
                    assert!(old == 0 || !is_consistent(state(old), (state(new).0, other), &proof));
                    assert!(!is_consistent(state(new), state(old), &proof), "shorter");
                }
                for index in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[index] = other;
                    assert!(!is_consistent(state(old), state(new), &changed), "{old} of {new}, {index}");
                    changed.remove(index);
                    assert!(!is_consistent(state(old), state(new), &changed), "{old} of {new}, {index}");
                }
                let longer = [&proof[..], &[other]].concat();
                assert!(!is_consistent(state(old), state(new), &longer), "{old} of {new}");
            }
        }
    }

    #[test]
    fn what_makes_no_tree_has_no_root() {
        let (_, leaves, proof) = prove(5, &[1, 3]);
        let twice = [leaves[0], leaves[0], leaves[1]];
        assert_eq!(root_of(5, &twice, &proof), None);
        let backwards = [leaves[1], leaves[0]];
        assert_eq!(root_of(5, &backwards, &proof), None);
        assert_eq!(root_of(3, &leaves, &proof), None, "beyond its end");
        assert_eq!(root_of(u64::MAX, &[(u64::MAX - 1, leaf(0))], &[]), None);
        assert_eq!(root_of(0, &[], &[]), Some(sha256(&[])));
    }
}
