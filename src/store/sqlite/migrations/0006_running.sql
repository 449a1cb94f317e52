-- What goes on as a session's credential though no gateway carries it can be a leftover too.
ALTER TABLE leftovers RENAME TO leftovers_before;
CREATE TABLE leftovers (
    place TEXT NOT NULL,
    handle TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('orphan', 'open', 'running', 'deny')),
    session TEXT NOT NULL,
    target TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (place, handle)
) STRICT;
INSERT INTO leftovers SELECT place, handle, kind, session, target, found_at, last_error
FROM leftovers_before ORDER BY rowid;
DROP TABLE leftovers_before;
