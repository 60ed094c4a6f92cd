-- Clients of which an edge may know something that is no longer true, in the order of the changes; without an id, all
-- clients of the tenant. The numbers are those of `store.changes`, which counts the changes of tenants too. Old rows go:
-- the store remembers the last one that went, so that a reader who did not hear of it is told so.
CREATE TABLE client_changes (
    version INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    client_id TEXT
) STRICT;

ALTER TABLE store ADD COLUMN forgotten_client_changes INTEGER NOT NULL DEFAULT 0;
