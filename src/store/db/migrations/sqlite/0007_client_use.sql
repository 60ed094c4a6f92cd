-- When an authorization server asked for a client last, in UNIX seconds; NULL if none ever did.
ALTER TABLE clients ADD COLUMN last_used_at INTEGER;

-- When a registration was answered with a client that was there already, in UNIX seconds; NULL if none was.
ALTER TABLE clients ADD COLUMN answered_at INTEGER;

-- Which guard rails a client got when it was made.
ALTER TABLE clients ADD COLUMN third_party_security_mode TEXT NOT NULL DEFAULT 'strict';

-- Whether the operator lets the tenant's owner choose the permissive mode.
ALTER TABLE tenants ADD COLUMN permissive_eligible INTEGER NOT NULL DEFAULT 0;

-- The oldest first, by the last answer, of those that registered themselves, that no server ever asked for, and that the
-- owner never changed.
CREATE INDEX clients_unused ON clients (tenant, coalesce(answered_at, issued_at))
    WHERE last_used_at IS NULL AND is_dynamic = 1 AND updated_at IS NULL;

-- Whether a server ever asked for a client of a tenant.
CREATE INDEX clients_used ON clients (tenant) WHERE last_used_at IS NOT NULL;

-- Whether, and what, a tenant grants by default.
CREATE INDEX client_grants_default ON client_grants (tenant) WHERE client_id IS NULL;
