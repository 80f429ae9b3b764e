-- The two roles of the database `guthi`. Run by the superuser; a second run changes nothing.
-- Passwords are not set here: the embedded server trusts its socket, compose's init script sets them.

DO $$
BEGIN
    -- Owns every table; BYPASSRLS because migrations, doctor and backups look across tenants.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'guthi_owner') THEN
        CREATE ROLE guthi_owner;
    END IF;
    -- What the API and the workers are: owns nothing, so that row-level security always binds it.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'guthi_app') THEN
        CREATE ROLE guthi_app;
    END IF;
END $$;

ALTER ROLE guthi_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS;
ALTER ROLE guthi_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- The app's statements are short or plain scans: compiling them costs more than it saves.
ALTER ROLE guthi_app SET jit = off;
