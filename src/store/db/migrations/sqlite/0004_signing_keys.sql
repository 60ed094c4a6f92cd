-- Keys that tokens are signed with. The last one signs; the one before still checks. Times are UNIX seconds; NULL: a key
-- of a version that kept none.
CREATE TABLE signing_keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    ed25519_seed BLOB NOT NULL,
    created_at INTEGER
) STRICT;

INSERT INTO signing_keys (ed25519_seed) SELECT ed25519_seed FROM signing_key;

DROP TABLE signing_key;
