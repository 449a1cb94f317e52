-- What was handed out of AWS roles. It may outlive its session (AWS gives nothing for less than 15 minutes): then it
-- is denied at the role from the session's end on.
CREATE TABLE role_sessions (
    session      TEXT PRIMARY KEY REFERENCES sessions (id),
    target       TEXT NOT NULL,
    access       TEXT NOT NULL,
    role         TEXT NOT NULL,
    region       TEXT NOT NULL,
    endpoint     TEXT,
    iam_endpoint TEXT,
    deny_as      TEXT,
    identity     TEXT NOT NULL UNIQUE,
    policy       TEXT NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('open', 'denying', 'denied', 'over')),
    changed_at   INTEGER NOT NULL,
    last_error   TEXT
) STRICT;
CREATE INDEX role_sessions_open ON role_sessions (state) WHERE state <> 'over';

CREATE TRIGGER role_sessions_forwards BEFORE UPDATE ON role_sessions
WHEN OLD.state = 'over' OR NEW.session <> OLD.session OR NEW.role <> OLD.role
  OR NEW.identity <> OLD.identity OR NEW.policy <> OLD.policy
  OR (OLD.state = 'denying' AND NEW.state = 'open')
  OR (OLD.state = 'denied' AND NEW.state IN ('open', 'denying'))
BEGIN SELECT RAISE(ABORT, 'what was handed out only moves towards its end'); END;
CREATE TRIGGER role_sessions_kept BEFORE DELETE ON role_sessions
BEGIN SELECT RAISE(ABORT, 'history is kept'); END;
