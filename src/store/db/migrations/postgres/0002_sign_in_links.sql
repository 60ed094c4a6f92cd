-- Links that sign a person in to the console of one tenant, each once: SHA-256 of what is secret in it. `session_ttl` is
-- in seconds, `expires_at` in UNIX seconds.
CREATE TABLE sign_in_links (
    code_sha256 BYTEA PRIMARY KEY,
    tenant BIGINT NOT NULL REFERENCES tenants (slot),
    scope TEXT NOT NULL,
    session_ttl BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
