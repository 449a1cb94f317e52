-- Who may come by SSH. A removed key stays as history; its row no longer keeps anybody else from it.
CREATE TABLE ssh_keys (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint TEXT NOT NULL,
    principal   TEXT NOT NULL REFERENCES users (id),
    line        TEXT NOT NULL,
    comment     TEXT NOT NULL,
    added_at    INTEGER NOT NULL,
    added_by    TEXT NOT NULL,
    removed_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX ssh_keys_in_force ON ssh_keys (fingerprint) WHERE removed_at IS NULL;
CREATE INDEX ssh_keys_of_principal ON ssh_keys (principal) WHERE removed_at IS NULL;

CREATE TRIGGER ssh_keys_removed BEFORE UPDATE ON ssh_keys
WHEN OLD.removed_at IS NOT NULL OR NEW.fingerprint <> OLD.fingerprint OR NEW.principal <> OLD.principal
  OR NEW.line <> OLD.line
BEGIN SELECT RAISE(ABORT, 'a key changes only once, by being removed'); END;
CREATE TRIGGER ssh_keys_kept BEFORE DELETE ON ssh_keys BEGIN SELECT RAISE(ABORT, 'history is kept'); END;

-- Certificates that were issued to the user before this instant are void.
ALTER TABLE users ADD COLUMN ssh_certificates_void_before INTEGER;

-- A secret that is no longer needed is deleted, not kept; that there was one is in the audit log.
CREATE TABLE second_factors (
    principal TEXT PRIMARY KEY REFERENCES users (id),
    secret    BLOB NOT NULL CHECK (length(secret) = 20),
    last_step INTEGER NOT NULL CHECK (last_step >= 0)
) STRICT;
CREATE TRIGGER second_factors_forwards BEFORE UPDATE ON second_factors
WHEN NEW.secret = OLD.secret AND NEW.last_step <= OLD.last_step
BEGIN SELECT RAISE(ABORT, 'a code is accepted once'); END;
