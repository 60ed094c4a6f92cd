-- One row: who this database is, and how often its tenants changed.
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    instance TEXT NOT NULL,
    changes INTEGER NOT NULL
) STRICT;

INSERT INTO store (id, instance, changes) VALUES (1, lower(hex(randomblob(16))), 0);

-- AUTOINCREMENT: the edges index by slot, so a deleted tenant's slot must never name another. The row of a deleted
-- tenant stays, because the change feed tells of it.
CREATE TABLE tenants (
    slot INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version INTEGER NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX tenants_live_name ON tenants (name) WHERE deleted = 0;

CREATE TABLE tenant_domains (
    host TEXT PRIMARY KEY NOT NULL,
    tenant INTEGER NOT NULL REFERENCES tenants (slot),
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tenant_domains_tenant ON tenant_domains (tenant, position);

-- Times are UNIX seconds. The fingerprint is that of a public client's metadata. The reference is checked at the
-- commit: checked at once, it would make SQLite journal every insertion of many rows a second time.
CREATE TABLE clients (
    client_id TEXT PRIMARY KEY NOT NULL,
    tenant INTEGER NOT NULL REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    metadata TEXT NOT NULL,
    client_secret_sha256 BLOB,
    fingerprint BLOB,
    issued_at INTEGER NOT NULL
) STRICT;

CREATE INDEX clients_tenant ON clients (tenant);

-- Not unique: a tenant may begin to fold equal clients when it has some already.
CREATE INDEX clients_fingerprint ON clients (tenant, fingerprint) WHERE fingerprint IS NOT NULL;

CREATE TABLE signing_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    ed25519_seed BLOB NOT NULL
) STRICT;
