-- Instants are microseconds since the Unix epoch, UTC. Nothing but the outbox is ever deleted:
-- the history of requests, verdicts, sessions and connections is kept.

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    domain        TEXT NOT NULL,
    groups        TEXT NOT NULL CHECK (json_valid(groups)),
    password_hash TEXT NOT NULL,
    scram_salt    BLOB NOT NULL CHECK (length(scram_salt) = 16),
    disabled      INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    principal  TEXT NOT NULL REFERENCES users (id),
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    stored_key BLOB NOT NULL CHECK (length(stored_key) = 32),
    server_key BLOB NOT NULL CHECK (length(server_key) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX tokens_of_principal ON tokens (principal) WHERE revoked_at IS NULL;

-- `verdict` is the whole state as JSON; `state` and `session` repeat of it what constraints need.
CREATE TABLE requests (
    id               TEXT PRIMARY KEY,
    requester        TEXT NOT NULL,
    requester_name   TEXT NOT NULL,
    requester_domain TEXT NOT NULL,
    ask              TEXT NOT NULL CHECK (json_valid(ask)),
    ask_hash         TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    lapses_at        INTEGER NOT NULL CHECK (lapses_at >= created_at),
    state            TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'cancelled', 'lapsed')),
    verdict          TEXT NOT NULL CHECK (json_extract(verdict, '$.state') = state),
    session          TEXT UNIQUE CHECK ((state = 'approved') = (session IS NOT NULL)),
    version          INTEGER NOT NULL CHECK (version >= 0),
    UNIQUE (id, requester),
    UNIQUE (id, session),
    FOREIGN KEY (session) REFERENCES sessions (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX requests_of_principal ON requests (requester, created_at);
CREATE INDEX requests_pending ON requests (created_at) WHERE state = 'pending';
CREATE INDEX requests_by_age ON requests (created_at);

-- One row per person and ask: nobody counts twice, and nobody approves their own.
CREATE TABLE approvals (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    request   TEXT NOT NULL,
    requester TEXT NOT NULL,
    approver  TEXT NOT NULL CHECK (approver <> requester),
    ask_hash  TEXT NOT NULL,
    body      TEXT NOT NULL CHECK (json_valid(body)),
    UNIQUE (request, approver, ask_hash),
    FOREIGN KEY (request, requester) REFERENCES requests (id, requester)
) STRICT;

-- At most one session per request, only of a request that was approved as exactly this session,
-- and never longer than four hours.
CREATE TABLE sessions (
    id               TEXT PRIMARY KEY,
    request          TEXT NOT NULL UNIQUE,
    principal        TEXT NOT NULL,
    principal_name   TEXT NOT NULL,
    principal_domain TEXT NOT NULL,
    target           TEXT NOT NULL,
    access           TEXT NOT NULL,
    reason           TEXT NOT NULL,
    ticket           TEXT,
    break_glass      INTEGER NOT NULL CHECK (break_glass IN (0, 1)),
    approvals        TEXT NOT NULL CHECK (json_valid(approvals)),
    granted_at       INTEGER NOT NULL,
    ends_at          INTEGER NOT NULL CHECK (ends_at >= granted_at AND ends_at - granted_at <= 14400000000),
    revoked_at       INTEGER,
    revocation       TEXT CHECK (revocation IS NULL OR json_valid(revocation)),
    concluded_at     INTEGER CHECK (concluded_at >= ends_at),
    CHECK ((revoked_at IS NULL) = (revocation IS NULL)),
    FOREIGN KEY (request, id) REFERENCES requests (id, session) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX sessions_of_principal ON sessions (principal, granted_at);
CREATE INDEX sessions_open ON sessions (granted_at) WHERE revoked_at IS NULL AND concluded_at IS NULL;
CREATE INDEX sessions_by_age ON sessions (granted_at);

CREATE TABLE blocks (
    id             TEXT PRIMARY KEY,
    principal      TEXT NOT NULL,
    principal_name TEXT NOT NULL,
    target         TEXT,
    why            TEXT NOT NULL,
    by             TEXT NOT NULL CHECK (json_valid(by)),
    at             INTEGER NOT NULL,
    until          INTEGER,
    lifted         TEXT CHECK (lifted IS NULL OR json_valid(lifted))
) STRICT;
CREATE INDEX blocks_of_principal ON blocks (principal) WHERE lifted IS NULL;

CREATE TABLE connections (
    id             TEXT PRIMARY KEY,
    session        TEXT NOT NULL REFERENCES sessions (id),
    principal      TEXT NOT NULL,
    principal_name TEXT NOT NULL,
    target         TEXT NOT NULL,
    node           TEXT NOT NULL,
    client         TEXT NOT NULL,
    opened_at      INTEGER NOT NULL,
    ended          TEXT CHECK (ended IS NULL OR json_valid(ended))
) STRICT;
CREATE INDEX connections_of_session ON connections (session, opened_at);
CREATE INDEX connections_of_principal ON connections (principal, opened_at);
CREATE INDEX connections_open ON connections (node, opened_at) WHERE ended IS NULL;
CREATE INDEX connections_by_age ON connections (opened_at);

CREATE TABLE leases (
    id         TEXT PRIMARY KEY,
    session    TEXT NOT NULL REFERENCES sessions (id),
    target     TEXT NOT NULL,
    access     TEXT NOT NULL,
    handle     TEXT NOT NULL,
    address    TEXT NOT NULL,
    access_role TEXT NOT NULL,
    ends_at    INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('intended', 'issued', 'releasing', 'released')),
    changed_at INTEGER NOT NULL,
    last_error TEXT
) STRICT;
CREATE UNIQUE INDEX leases_open ON leases (session) WHERE state <> 'released';

-- AUTOINCREMENT: an id is never used again, although rows leave once they are in the audit log.
CREATE TABLE outbox (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    at    INTEGER NOT NULL,
    event TEXT NOT NULL CHECK (json_valid(event))
) STRICT;

-- One row: the latest instant ever seen, and a counter that proves that writing works.
CREATE TABLE node (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    high_water INTEGER NOT NULL,
    checks     INTEGER NOT NULL
) STRICT;
INSERT INTO node (id, high_water, checks) VALUES (1, 0, 0);

-- What was decided stays decided.
CREATE TRIGGER requests_decided BEFORE UPDATE ON requests WHEN OLD.state <> 'pending'
BEGIN SELECT RAISE(ABORT, 'a decided request does not change'); END;
CREATE TRIGGER requests_ask BEFORE UPDATE ON requests
WHEN NEW.id <> OLD.id OR NEW.requester <> OLD.requester OR NEW.ask <> OLD.ask
  OR NEW.ask_hash <> OLD.ask_hash OR NEW.lapses_at <> OLD.lapses_at OR NEW.version <= OLD.version
BEGIN SELECT RAISE(ABORT, 'what was asked does not change, and every step raises the version'); END;
CREATE TRIGGER approvals_kept BEFORE UPDATE ON approvals
BEGIN SELECT RAISE(ABORT, 'an approval does not change'); END;
CREATE TRIGGER sessions_window BEFORE UPDATE ON sessions
WHEN OLD.revoked_at IS NOT NULL OR NEW.granted_at <> OLD.granted_at OR NEW.ends_at <> OLD.ends_at
  OR NEW.principal <> OLD.principal OR NEW.target <> OLD.target OR NEW.access <> OLD.access
BEGIN SELECT RAISE(ABORT, 'a session changes only by running out and by being revoked, each once'); END;
CREATE TRIGGER connections_ended BEFORE UPDATE ON connections WHEN OLD.ended IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a connection ends only once'); END;
CREATE TRIGGER blocks_lifted BEFORE UPDATE ON blocks WHEN OLD.lifted IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a block is lifted only once'); END;
CREATE TRIGGER tokens_revoked BEFORE UPDATE ON tokens
WHEN OLD.revoked_at IS NOT NULL OR NEW.expires_at <> OLD.expires_at OR NEW.hash <> OLD.hash
BEGIN SELECT RAISE(ABORT, 'a token changes only once, by being revoked'); END;
CREATE TRIGGER leases_forwards BEFORE UPDATE ON leases
WHEN OLD.state = 'released' OR NEW.session <> OLD.session
  OR (OLD.state = 'releasing' AND NEW.state IN ('intended', 'issued'))
  OR (OLD.state = 'issued' AND NEW.state = 'intended')
BEGIN SELECT RAISE(ABORT, 'a credential lease only moves forwards'); END;

-- No credential outlives its session.
CREATE TRIGGER leases_clipped BEFORE INSERT ON leases
WHEN NEW.ends_at > (SELECT ends_at FROM sessions WHERE id = NEW.session)
BEGIN SELECT RAISE(ABORT, 'a credential lease ends with its session'); END;
CREATE TRIGGER leases_stay_clipped BEFORE UPDATE ON leases
WHEN NEW.ends_at > (SELECT ends_at FROM sessions WHERE id = NEW.session)
BEGIN SELECT RAISE(ABORT, 'a credential lease ends with its session'); END;

CREATE TRIGGER users_kept BEFORE DELETE ON users BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER tokens_kept BEFORE DELETE ON tokens BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER requests_kept BEFORE DELETE ON requests BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER approvals_stay BEFORE DELETE ON approvals BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER sessions_kept BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER blocks_kept BEFORE DELETE ON blocks BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER connections_kept BEFORE DELETE ON connections BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
CREATE TRIGGER leases_kept BEFORE DELETE ON leases BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
