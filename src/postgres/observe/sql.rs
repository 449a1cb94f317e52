//! What a statement's text tells without understanding it: which words are in it. A word inside
//! a string or comment counts too: it errs on the side of caution.

/// Which names a statement could change behind the protocol's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Touches {
    pub statements: bool,
    pub portals: bool,
}

/// By the text that is forwarded.
pub(super) fn touches(sql: &[u8]) -> Touches {
    Touches {
        statements: ["prepare", "deallocate", "discard"].into_iter().any(|word| contains(sql, word)),
        portals: ["declare", "close", "cursor", "discard"].into_iter().any(|word| contains(sql, word)),
    }
}

/// By the tag of a command that completed.
pub(super) fn tag_touches(tag: &[u8]) -> Touches {
    match tag {
        b"PREPARE" | b"DEALLOCATE" | b"DEALLOCATE ALL" => Touches { statements: true, portals: false },
        b"DISCARD ALL" => Touches { statements: true, portals: true },
        b"DECLARE CURSOR" | b"CLOSE CURSOR" | b"CLOSE CURSOR ALL" => {
            Touches { statements: false, portals: true }
        }
        _ => Touches::default(),
    }
}

/// Whether this text may make the server read COPY data from the client.
pub(super) fn may_copy_in(sql: &[u8]) -> bool {
    // COPY … FROM STDOUT is the same.
    let from_client = || contains(sql, "stdin") || (contains(sql, "stdout") && contains(sql, "from"));
    (contains(sql, "copy") && from_client()) || contains(sql, "start_replication")
}

/// Case-insensitive; `word` is lower case ASCII.
pub(super) fn contains(sql: &[u8], word: &str) -> bool {
    let word = word.as_bytes();
    let Some(first) = word.first() else { return true };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), sql).any(|at| {
        sql.get(at..at.saturating_add(word.len())).is_some_and(|head| head.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_place() {
        assert!(touches(b"dO $$ begin execute 'dEaLLocate s1'; end $$").statements);
        assert!(touches(b"ddeallocate").statements);
        assert!(touches(b"/* CLOSE p1 */").portals);
        assert_eq!(touches(b"SELECT dealloc, prepar FROM t"), Touches::default());
        assert!(may_copy_in(b"copy t from\n STDIN"));
        assert!(!may_copy_in(b"COPY t TO STDOUT"));
    }
}
