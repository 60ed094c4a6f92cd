-- What a tenant's owner says of APIs, connections and grants: each row is one object of the Management API as JSON, in
-- the order of creation. The columns that are made of it are those by which it is found. Times are UNIX milliseconds;
-- the version counts the row's own writes.
CREATE TABLE resource_servers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    identifier TEXT NOT NULL AS (data ->> '$.identifier') STORED,
    UNIQUE (tenant, identifier)
) STRICT;

CREATE INDEX resource_servers_order ON resource_servers (tenant, number);

CREATE TABLE connections (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    name TEXT NOT NULL AS (data ->> '$.name') STORED,
    UNIQUE (tenant, name)
) STRICT;

CREATE INDEX connections_order ON connections (tenant, number);

-- A grant goes with its API and with its client.
CREATE TABLE client_grants (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    client_id TEXT AS (data ->> '$.client_id') STORED REFERENCES clients (client_id) ON DELETE CASCADE,
    audience TEXT NOT NULL AS (data ->> '$.audience') STORED,
    subject_type TEXT NOT NULL AS (data ->> '$.subject_type') STORED,
    FOREIGN KEY (tenant, audience) REFERENCES resource_servers (tenant, identifier) ON DELETE CASCADE
) STRICT;

CREATE INDEX client_grants_order ON client_grants (tenant, number);

-- One grant of a client, or one default, for each API and subject type.
CREATE UNIQUE INDEX client_grants_whose
    ON client_grants (tenant, audience, subject_type, coalesce(client_id, ''));

CREATE INDEX client_grants_client ON client_grants (client_id) WHERE client_id IS NOT NULL;
