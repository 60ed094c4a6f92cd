-- Events are asked for in the order in which they were written, which is that of the ids: part of every index.
DROP INDEX tenant_log_tenant;
CREATE INDEX tenant_log_order ON tenant_log (tenant);
