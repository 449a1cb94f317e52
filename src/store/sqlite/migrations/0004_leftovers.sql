-- What the janitor has found at a source, until it is seen to be ended. The session may be one that the store does not
-- know: it was restored from a copy.
CREATE TABLE leftovers (
    place TEXT NOT NULL,
    handle TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('orphan', 'open', 'deny')),
    session TEXT NOT NULL,
    target TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (place, handle)
) STRICT;
