-- migrate:up
-- Why: every tenant table that follows is protected by the same three functions.

CREATE FUNCTION set_tenant(tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- SET LOCAL and not set_config(): PgBouncer's transaction mode and Citus both carry it.
    EXECUTE format('SET LOCAL app.current_tenant = %L', tenant);
END $$;
COMMENT ON FUNCTION set_tenant IS 'Opens a transaction for one tenant: its first statement, always alone.';

CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE AS $$
    -- After a transaction the setting is '' and not NULL.
    SELECT nullif(current_setting('app.current_tenant', true), '')::uuid
$$;
COMMENT ON FUNCTION current_tenant IS 'The tenant of this transaction; NULL, which matches no row, outside of one.';

CREATE FUNCTION protect_tenant_table(tenant_table regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY tenant_isolation ON %s USING (tenant_id = current_tenant())', tenant_table);
END $$;
COMMENT ON FUNCTION protect_tenant_table IS 'Row-level security for a table with tenant_id, the same for all of them.';

CREATE FUNCTION bump_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION bump_version IS 'Optimistic locking: nobody can change a row without giving it the next version.';

-- migrate:down
