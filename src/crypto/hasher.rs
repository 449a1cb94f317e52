//! SHA-256 over bytes that come in pieces.

use std::io::{self, Read};

use aws_lc_rs::digest;

use super::{Hash, to_hash};

#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Hash {
        to_hash(self.0.finish().as_ref())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    pub fn new(from: R) -> Self {
        Self { from, hasher: Hasher::new() }
    }

    /// The hash of everything, with what was not read so far.
    pub fn finish(mut self) -> io::Result<Hash> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(to)?;
        self.hasher.update(to.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_as_their_whole() {
        let mut hasher = Hasher::new();
        for piece in [&b"a"[..], b"", b"bc"] {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), crate::crypto::sha256(&[b"abc"]));
    }

    #[test]
    fn what_is_read_through_it_counts_and_what_is_not() {
        let mut reader = HashingReader::new(&b"abc"[..]);
        let mut first = [0; 1];
        reader.read_exact(&mut first).unwrap();
        assert_eq!((first, reader.finish().unwrap()), ([b'a'], crate::crypto::sha256(&[b"abc"])));
    }
}
