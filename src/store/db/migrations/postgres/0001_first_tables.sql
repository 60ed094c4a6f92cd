-- The tables of SQLite's first eight migrations. What each is for is told there; here is what is different.
--
-- Numbers that are 0 or 1 stay numbers, and JSON stays text, so that one text of a statement serves both databases. Text
-- is compared byte by byte. An index on SQLite's tables has the row's number at its end; here it is named.

CREATE TABLE store (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    instance TEXT NOT NULL,
    changes BIGINT NOT NULL,
    forgotten_client_changes BIGINT NOT NULL DEFAULT 0
);

INSERT INTO store (id, instance, changes) VALUES (1, replace(gen_random_uuid()::text, '-', ''), 0);

-- Slots are given under the lock of the row of `store`, the largest and one more; a sequence would leave gaps.
CREATE TABLE tenants (
    slot BIGINT PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    deleted BIGINT NOT NULL DEFAULT 0,
    network_acl_bytes BIGINT NOT NULL DEFAULT 0,
    permissive_eligible BIGINT NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX tenants_live_name ON tenants (name) WHERE deleted = 0;

CREATE TABLE tenant_domains (
    host TEXT COLLATE "C" PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    position BIGINT NOT NULL
);

CREATE INDEX tenant_domains_tenant ON tenant_domains (tenant, position);

-- Numbers come from a sequence, so that stores that register for different tenants do not wait for each other.
CREATE SEQUENCE client_numbers;

CREATE TABLE clients (
    number BIGINT PRIMARY KEY,
    client_id TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    metadata TEXT NOT NULL,
    client_secret_sha256 BYTEA,
    fingerprint BYTEA,
    issued_at BIGINT NOT NULL,
    app_type TEXT COLLATE "C" NOT NULL,
    is_dynamic BIGINT NOT NULL DEFAULT 1,
    version BIGINT NOT NULL DEFAULT 1,
    updated_at BIGINT,
    owner TEXT,
    last_used_at BIGINT,
    answered_at BIGINT,
    third_party_security_mode TEXT NOT NULL DEFAULT 'strict'
);

CREATE INDEX clients_tenant ON clients (tenant, app_type, number);

CREATE INDEX clients_fingerprint ON clients (tenant, fingerprint) WHERE fingerprint IS NOT NULL;

CREATE INDEX clients_unused ON clients (tenant, coalesce(answered_at, issued_at), number)
    WHERE last_used_at IS NULL AND is_dynamic = 1 AND updated_at IS NULL;

CREATE INDEX clients_used ON clients (tenant) WHERE last_used_at IS NOT NULL;

CREATE TABLE client_blocks (
    tenant BIGINT NOT NULL,
    block BIGINT NOT NULL,
    app_type TEXT COLLATE "C" NOT NULL,
    clients BIGINT NOT NULL,
    PRIMARY KEY (tenant, block, app_type)
);

CREATE TABLE client_changes (
    version BIGINT PRIMARY KEY,
    tenant BIGINT NOT NULL,
    client_id TEXT COLLATE "C"
);

CREATE TABLE network_acls (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    description TEXT NOT NULL,
    active BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    size TEXT NOT NULL,
    redirect_host TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    rule TEXT NOT NULL
);

CREATE INDEX network_acls_order ON network_acls (tenant, priority, number);

-- The boot is that of a machine, or the start of this server, whose clock all stores share.
CREATE TABLE buckets (
    tenant BIGINT PRIMARY KEY REFERENCES tenants (slot),
    tokens BYTEA NOT NULL,
    boot BYTEA NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE tenant_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    date BIGINT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL
);

CREATE INDEX tenant_log_order ON tenant_log (tenant, id);

CREATE TABLE signing_keys (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ed25519_seed BYTEA NOT NULL,
    created_at BIGINT
);

-- PostgreSQL has no character U+0000, not even in the JSON that it reads members of.
CREATE TABLE resource_servers (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    version BIGINT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    identifier TEXT COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (replace(data, '\u0000', '\ufffd')::json ->> 'identifier') STORED,
    UNIQUE (tenant, identifier)
);

CREATE INDEX resource_servers_order ON resource_servers (tenant, number);

CREATE TABLE connections (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    version BIGINT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL GENERATED ALWAYS AS (replace(data, '\u0000', '\ufffd')::json ->> 'name') STORED,
    UNIQUE (tenant, name)
);

CREATE INDEX connections_order ON connections (tenant, number);

CREATE TABLE client_grants (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    version BIGINT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    client_id TEXT COLLATE "C" GENERATED ALWAYS AS (replace(data, '\u0000', '\ufffd')::json ->> 'client_id') STORED
        REFERENCES clients (client_id) ON DELETE CASCADE,
    audience TEXT COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (replace(data, '\u0000', '\ufffd')::json ->> 'audience') STORED,
    subject_type TEXT COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (replace(data, '\u0000', '\ufffd')::json ->> 'subject_type') STORED,
    FOREIGN KEY (tenant, audience) REFERENCES resource_servers (tenant, identifier) ON DELETE CASCADE
);

CREATE INDEX client_grants_order ON client_grants (tenant, number);

CREATE UNIQUE INDEX client_grants_whose
    ON client_grants (tenant, audience, subject_type, coalesce(client_id, ''));

CREATE INDEX client_grants_client ON client_grants (client_id) WHERE client_id IS NOT NULL;

CREATE INDEX client_grants_default ON client_grants (tenant) WHERE client_id IS NULL;
