-- migrate:up
-- Why: a member begins as an application, and no row takes an arrow that its state map does not have.

CREATE TABLE state_transitions (
    machine text NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (machine, from_state, to_state)
);
COMMENT ON TABLE state_transitions IS
    'Every arrow of every state map, as domain/states.py and jobs/engine/model.py have them: a test compares.';
GRANT SELECT ON state_transitions TO guthi_app;

INSERT INTO state_transitions (machine, from_state, to_state, reason) VALUES
('member', 'Pending', 'UnderReview', 'an officer looks into the application'),
('member', 'Pending', 'Rejected', 'withdrawn, or not eligible at first sight; the reason is kept'),
('member', 'UnderReview', 'Approved', 'taken in: the member number is given'),
('member', 'UnderReview', 'Rejected', 'not taken in, or died before; the reason is kept'),
('member', 'Approved', 'Active', 'the entry is complete: owes from now on'),
('member', 'Approved', 'Inactive', 'withdrew after all; the number stays theirs'),
('member', 'Approved', 'Deceased', 'died before the entry was complete'),
('member', 'Active', 'Inactive', 'leaves the society, or rests: owes nothing from now on'),
('member', 'Active', 'Suspended', 'held back by the society, such as for arrears; the reason is kept'),
('member', 'Active', 'Deceased', 'died: a cycle may be started'),
('member', 'Inactive', 'Active', 'comes back: owes again from now on'),
('member', 'Inactive', 'Deceased', 'died while not active'),
('member', 'Suspended', 'Active', 'the cause is mended: owes again from now on'),
('member', 'Suspended', 'Inactive', 'leaves instead of coming back'),
('member', 'Suspended', 'Deceased', 'died while suspended'),
('cycle', 'Initializing', 'Active', 'every contribution is made and counted'),
('cycle', 'Initializing', 'Failed', 'the job failed; the rows made so far stay hidden'),
('cycle', 'Initializing', 'Cancelled', 'an operator cancelled the job'),
('cycle', 'Failed', 'Initializing', 'an operator retries the job from its cursors'),
('cycle', 'Failed', 'Cancelled', 'an operator gives the failed job up; its rows are removed'),
('cycle', 'Active', 'Completed', 'every contribution is paid or given up'),
('contribution', 'Pending', 'Paid', 'the member paid'),
('contribution', 'Pending', 'Failed', 'given up as uncollectable'),
('contribution', 'Failed', 'Paid', 'paid after all'),
('contribution', 'Paid', 'Pending', 'the payment was taken back: it bounced, or was another member''s'),
('job', 'Queued', 'Processing', 'a runner took the first lease'),
('job', 'Queued', 'Paused', 'an operator holds it back before it begins'),
('job', 'Queued', 'Cancelled', 'an operator does not want it after all'),
('job', 'Queued', 'Failed', 'a runner died again and again right after a retry or a resume'),
('job', 'Processing', 'Completed', 'the last shard ended and the rows were counted'),
('job', 'Processing', 'Failed', 'an error that no retry helps, or too many without progress'),
('job', 'Processing', 'Paused', 'an operator stops it where it stands'),
('job', 'Processing', 'Cancelled', 'an operator gives it up'),
('job', 'Paused', 'Queued', 'an operator lets it go on from its cursors'),
('job', 'Paused', 'Cancelled', 'an operator gives it up'),
('job', 'Failed', 'Queued', 'an operator retries it from its cursors, the cause being mended'),
('job', 'Failed', 'Cancelled', 'an operator gives it up instead of retrying');

CREATE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was text := to_jsonb(old) ->> tg_argv[1];
    wanted text := to_jsonb(new) ->> tg_argv[1];
BEGIN
    IF NOT EXISTS (
        SELECT FROM state_transitions AS s
        WHERE s.machine = tg_argv[0] AND s.from_state = was AND s.to_state = wanted
    ) THEN
        RAISE EXCEPTION 'a % that is % cannot become %', tg_argv[0], was, wanted USING ERRCODE = 'check_violation';
    END IF;
    RETURN new;
END $$;
COMMENT ON FUNCTION check_transition IS
    'Refuses an arrow that the map does not have. Arguments: the machine, the column. db/errors.py reads its message.';

CREATE TRIGGER check_transition BEFORE UPDATE OF status ON members
FOR EACH ROW WHEN (old.status <> new.status) EXECUTE FUNCTION check_transition('member', 'status');
CREATE TRIGGER check_transition BEFORE UPDATE OF cycle_status ON contribution_cycles
FOR EACH ROW WHEN (old.cycle_status <> new.cycle_status) EXECUTE FUNCTION check_transition('cycle', 'cycle_status');
CREATE TRIGGER check_transition BEFORE UPDATE OF contribution_status ON contributions
FOR EACH ROW WHEN (old.contribution_status <> new.contribution_status)
EXECUTE FUNCTION check_transition('contribution', 'contribution_status');
CREATE TRIGGER check_transition BEFORE UPDATE OF state ON batch_jobs
FOR EACH ROW WHEN (old.state <> new.state) EXECUTE FUNCTION check_transition('job', 'state');

-- Where a row may begin. The condition is all that a good row costs: the function runs only to refuse.
CREATE FUNCTION refuse_beginning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a % cannot begin as %', tg_argv[0], to_jsonb(new) ->> tg_argv[1] USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER check_beginning BEFORE INSERT ON members
FOR EACH ROW WHEN (new.status NOT IN ('Pending', 'Active', 'Inactive', 'Deceased'))
EXECUTE FUNCTION refuse_beginning('member', 'status');
CREATE TRIGGER check_beginning BEFORE INSERT ON contribution_cycles
FOR EACH ROW WHEN (new.cycle_status <> 'Initializing') EXECUTE FUNCTION refuse_beginning('cycle', 'cycle_status');
CREATE TRIGGER check_beginning BEFORE INSERT ON batch_jobs
FOR EACH ROW WHEN (new.state <> 'Queued') EXECUTE FUNCTION refuse_beginning('job', 'state');
-- A contribution is to cost no trigger: the app may not name its status at all, so the default stands.
REVOKE INSERT ON contributions FROM guthi_app;
GRANT INSERT (tenant_id, cycle_id, member_id, contribution_amount, due_date) ON contributions TO guthi_app;

-- NOT VALID, and never to be validated: the constraints until now were narrower, so what stands fits, and a scan of
-- all members under a lock would be for nothing.
-- What is ignored is the very purpose: a client must learn that an applicant has no number yet.
ALTER TABLE members
    -- squawk-ignore ban-drop-not-null
    ALTER COLUMN member_number DROP NOT NULL,
    -- squawk-ignore ban-drop-not-null
    ALTER COLUMN joined_on DROP NOT NULL,
    ADD COLUMN status_reason text,
    ADD COLUMN reviewed_at timestamptz,
    ADD COLUMN approved_at timestamptz,
    ADD COLUMN died_on date,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT members_status_check,
    ADD CONSTRAINT members_status_check CHECK (
        status IN ('Pending', 'UnderReview', 'Approved', 'Active', 'Inactive', 'Suspended', 'Deceased', 'Rejected')
    ) NOT VALID,
    ADD CONSTRAINT members_number_check CHECK (
        (member_number IS NULL) = (status IN ('Pending', 'UnderReview', 'Rejected'))
        AND (member_number IS NULL) = (joined_on IS NULL)
    ) NOT VALID,
    ADD CONSTRAINT members_reason_check CHECK (status NOT IN ('Suspended', 'Rejected') OR status_reason IS NOT NULL)
    NOT VALID,
    ADD CONSTRAINT members_died_on_check CHECK (died_on IS NULL OR status = 'Deceased') NOT VALID;
COMMENT ON COLUMN members.member_number IS 'Given by the approval, and kept for good; NULL for who was not taken in.';
COMMENT ON COLUMN members.joined_on IS 'The day of the approval; NULL as long as there is no number.';
COMMENT ON COLUMN members.status_reason IS 'Why the member came into the present status, where somebody said so.';
COMMENT ON COLUMN members.reviewed_at IS 'When an officer took the application up; NULL for who was brought in by an import.';
COMMENT ON COLUMN members.died_on IS 'The day of the death; NULL for the dead that an import brought in.';

-- migrate:down
