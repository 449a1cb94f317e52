//! What a statement's text tells without understanding it: which words are in it. A word inside
//! a string or comment counts too: it errs on the side of caution.

/// Which names a statement could change behind the protocol's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Touches {
    pub statements: bool,
    pub portals: bool,
}

impl Touches {
    fn and(self, other: Self) -> Self {
        Self { statements: self.statements || other.statements, portals: self.portals || other.portals }
    }
}

/// What was prepared by the protocol may do, when SQL runs it by its name: whichever it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByName {
    touches: Touches,
    may_copy_in: bool,
}

impl ByName {
    pub(super) fn prepared(&mut self, sql: &[u8]) {
        self.touches = self.touches.and(touches(sql));
        self.may_copy_in |= may_copy_in(sql);
    }

    /// Which names this text could change.
    pub(super) fn touches(self, sql: &[u8]) -> Touches {
        let own = touches(sql);
        if runs_by_name(sql) { own.and(self.touches) } else { own }
    }

    /// Whether this text may make the server read COPY data from the client.
    pub(super) fn may_copy_in(self, sql: &[u8]) -> bool {
        may_copy_in(sql) || (self.may_copy_in && runs_by_name(sql))
    }
}

fn runs_by_name(sql: &[u8]) -> bool {
    contains(sql, "execute")
}

/// By the text that is forwarded.
fn touches(sql: &[u8]) -> Touches {
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

fn may_copy_in(sql: &[u8]) -> bool {
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

    #[test]
    fn what_was_prepared_counts_where_it_may_be_run_by_its_name() {
        let mut by_name = ByName::default();
        by_name.prepared(b"COPY t FROM STDIN");
        by_name.prepared(b"DEALLOCATE s1");
        assert!(by_name.may_copy_in(b"EXECUTE c") && by_name.touches(b"execute d").statements);
        assert!(!by_name.may_copy_in(b"SELECT 1") && by_name.touches(b"SELECT 1") == Touches::default());
        assert!(!ByName::default().may_copy_in(b"EXECUTE c"));
    }
}
