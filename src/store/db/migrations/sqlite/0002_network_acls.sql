-- Bytes of a tenant's active access rules, so that a page of the change feed is cut before the rules are read.
ALTER TABLE tenants ADD COLUMN network_acl_bytes INTEGER NOT NULL DEFAULT 0;

-- Access rules, numbered in the order of their creation. Times are UNIX milliseconds; the version says how often the row
-- was written, the size how much there is in the rule: a JSON array. The rule stands last: it may be megabytes long, and
-- a look at the others passes it by.
CREATE TABLE network_acls (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant INTEGER NOT NULL REFERENCES tenants (slot),
    description TEXT NOT NULL,
    active INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    size TEXT NOT NULL,
    redirect_host TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    rule TEXT NOT NULL
) STRICT;

-- The order of evaluation.
CREATE INDEX network_acls_order ON network_acls (tenant, priority, number);

-- What is left of the fleet's limit on a tenant's registrations: the 16 bytes of a bucket, and when it changed: the 16
-- bytes of the id of the machine's boot, and nanoseconds of its monotonic clock.
CREATE TABLE buckets (
    tenant INTEGER PRIMARY KEY REFERENCES tenants (slot) DEFERRABLE INITIALLY DEFERRED,
    tokens BLOB NOT NULL,
    boot BLOB NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- What happened to a tenant. The date is in UNIX milliseconds, the data JSON.
CREATE TABLE tenant_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL REFERENCES tenants (slot),
    date INTEGER NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;

-- The newest of a tenant first; the id is part of every index.
CREATE INDEX tenant_log_tenant ON tenant_log (tenant, date);
