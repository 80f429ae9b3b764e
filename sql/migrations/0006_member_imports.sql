-- migrate:up
-- Why: a CSV is staged as it came, then checked and turned into members batch by batch.

CREATE TABLE member_import_rows (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    line_no bigint NOT NULL,
    full_name text,
    gender text,
    tier text,
    agent text,
    phone text,
    email text,
    status text,
    joined_on text,
    member_number text,
    problem text,
    PRIMARY KEY (tenant_id, import_id, line_no)
);
COMMENT ON TABLE member_import_rows IS
    'Staging: the fields as they were written, taken away by import_members. No foreign key: it is a scratch pad.';
COMMENT ON COLUMN member_import_rows.import_id IS 'The subject of the import_members job.';
COMMENT ON COLUMN member_import_rows.line_no IS 'The line of the file at which the row begins; the header is line 1.';
COMMENT ON COLUMN member_import_rows.problem IS 'What is wrong with the row''s form, found while it was read.';
CREATE INDEX member_import_rows_number ON member_import_rows (tenant_id, import_id, member_number, line_no)
WHERE member_number IS NOT NULL;
COMMENT ON INDEX member_import_rows_number IS 'Finds the line on which a number stood before.';
SELECT protect_tenant_table('member_import_rows');
GRANT SELECT, INSERT, DELETE ON member_import_rows TO guthi_app;

CREATE FUNCTION checked_import_rows(tenant uuid, import uuid, after_line bigint, last_line bigint)
RETURNS TABLE (
    line_no bigint, full_name text, gender text, status text, tier_id uuid, agent_id uuid, phone text, email text,
    joined_on date, member_number text, counter_name text, counter_value bigint, problems text[]
) LANGUAGE sql STABLE AS $$
    SELECT
        r.line_no, r.full_name, upper(coalesce(r.gender, 'O')), coalesce(r.status, 'Active'), t.tier_id, a.agent_id,
        r.phone, r.email,
        CASE WHEN pg_input_is_valid(d.joined_on, 'date') THEN d.joined_on::date END,
        r.member_number, number.parts[1], number.parts[2]::bigint,
        -- Each problem is 'column: reason'.
        CASE WHEN r.problem IS NOT NULL THEN ARRAY['row: ' || r.problem] ELSE array_remove(ARRAY[
            CASE
                WHEN r.full_name IS NULL THEN 'full_name: is required'
                WHEN length(r.full_name) > 200 THEN 'full_name: is longer than 200 characters'
                WHEN r.full_name ~ '[[:cntrl:]]' THEN 'full_name: must be one line, without control characters'
            END,
            CASE WHEN upper(r.gender) NOT IN ('F', 'M', 'O') THEN 'gender: must be F, M or O' END,
            CASE
                WHEN r.tier IS NULL THEN 'tier: is required'
                WHEN t.tier_id IS NULL THEN 'tier: no tier has the code ' || left(r.tier, 50)
            END,
            CASE WHEN r.agent IS NOT NULL AND a.agent_id IS NULL
                THEN 'agent: no agent has the code ' || left(r.agent, 50) END,
            CASE WHEN r.phone !~ '^\+?[0-9][0-9 ()-]{4,24}$' THEN 'phone: is not a phone number' END,
            CASE WHEN length(r.email) > 254 OR r.email !~ '^[^@\s[:cntrl:]]+@[^@\s[:cntrl:]]+$' THEN 'email: is not an e-mail address' END,
            CASE WHEN r.status NOT IN ('Active', 'Inactive', 'Deceased')
                THEN 'status: must be Active, Inactive or Deceased' END,
            CASE
                WHEN d.joined_on !~ '^\d{4}-\d\d-\d\d$' OR NOT pg_input_is_valid(d.joined_on, 'date')
                    THEN 'joined_on: must be a date like 2020-01-31'
                WHEN d.joined_on::date > current_date THEN 'joined_on: lies in the future'
                WHEN d.joined_on::date < '1800-01-01' THEN 'joined_on: lies too far in the past'
            END,
            CASE
                WHEN r.member_number !~ '^[A-Za-z0-9][A-Za-z0-9/.-]{0,39}$'
                    THEN 'member_number: may hold letters, digits, dashes, dots and slashes, at most 40'
                WHEN r.member_number ~ ('^' || s.prefix || '-\d+-[A-Z]-\d+$') AND number.parts IS NULL
                    THEN 'member_number: must look like ' || s.prefix || '-2025-F-000123'
                WHEN number.parts[2]::bigint = 0 THEN 'member_number: counts from 1'
                WHEN EXISTS (
                    SELECT FROM members AS m WHERE m.tenant_id = tenant AND m.member_number = r.member_number
                ) THEN 'member_number: a member has it already'
                WHEN EXISTS (
                    SELECT FROM member_import_rows AS e
                    WHERE e.tenant_id = tenant AND e.import_id = import
                      AND e.member_number = r.member_number AND e.line_no < r.line_no
                ) THEN 'member_number: stands on a line before this one'
            END
        ], NULL) END
    FROM member_import_rows AS r
    JOIN tenants AS s ON s.tenant_id = r.tenant_id
    LEFT JOIN tiers AS t ON t.tenant_id = r.tenant_id AND t.code = r.tier
    LEFT JOIN agents AS a ON a.tenant_id = r.tenant_id AND a.code = r.agent
    CROSS JOIN LATERAL (SELECT coalesce(r.joined_on, current_date::text) AS joined_on) AS d
    CROSS JOIN LATERAL (
        -- Six digits, or more without a leading zero: one way to write each number.
        SELECT regexp_match(
            r.member_number, '^(' || s.prefix || '-\d{4}-[FMO])-(\d{6}|[1-9]\d{6,8})$'
        ) AS parts
    ) AS number
    WHERE r.tenant_id = tenant AND r.import_id = import AND r.line_no > after_line AND r.line_no <= last_line
$$;
COMMENT ON FUNCTION checked_import_rows IS
    'Staged rows with what their codes name and what is wrong with them; a row without problems can become a member.';
GRANT EXECUTE ON FUNCTION checked_import_rows TO guthi_app;

-- migrate:down
