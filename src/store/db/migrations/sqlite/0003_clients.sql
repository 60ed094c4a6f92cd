-- Clients, numbered in the order of their creation. `issued_at` is in UNIX seconds, `updated_at` in UNIX milliseconds and
-- NULL if the client was never changed; the version says how often it was written. `is_dynamic` is 0 for a client that the
-- tenant's owner made. `owner` is what only the owner may say of it: a JSON object, or NULL. The number is a column: the
-- bare rowid may change when SQLite compacts the file. The fingerprint is that of a public client's metadata as it
-- registered itself with. The reference is checked at the commit: checked at once, it would make SQLite journal every
-- insertion of many rows a second time.
CREATE TABLE numbered_clients (
    number INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    tenant INTEGER NOT NULL REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    metadata TEXT NOT NULL,
    client_secret_sha256 BLOB,
    fingerprint BLOB,
    issued_at INTEGER NOT NULL,
    app_type TEXT NOT NULL,
    is_dynamic INTEGER NOT NULL DEFAULT 1,
    version INTEGER NOT NULL DEFAULT 1,
    updated_at INTEGER,
    owner TEXT
) STRICT;

INSERT INTO numbered_clients (client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type)
SELECT client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at,
    iif(metadata ->> '$.application_type' = 'native', 'native', 'regular_web')
FROM clients ORDER BY rowid;

DROP TABLE clients;
ALTER TABLE numbered_clients RENAME TO clients;

-- The number is part of every index.
CREATE INDEX clients_tenant ON clients (tenant, app_type);

-- Not unique: a tenant may begin to fold equal clients when it has some already.
CREATE INDEX clients_fingerprint ON clients (tenant, fingerprint) WHERE fingerprint IS NOT NULL;

-- How many clients of a tenant and of a type there are among 2,048 numbers, so that nobody counts all to tell how many
-- there are, or walks over all to find a page in the middle.
CREATE TABLE client_blocks (
    tenant INTEGER NOT NULL,
    block INTEGER NOT NULL,
    app_type TEXT NOT NULL,
    clients INTEGER NOT NULL,
    PRIMARY KEY (tenant, block, app_type)
) STRICT, WITHOUT ROWID;

INSERT INTO client_blocks (tenant, block, app_type, clients)
SELECT tenant, number >> 11, app_type, count(*) FROM clients GROUP BY tenant, number >> 11, app_type;
