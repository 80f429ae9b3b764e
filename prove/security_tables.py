"""What the application's role may do to every table, view, sequence and function, tried out one by one.

The lists are the catalogue's own, so that what a later migration brings is tried as well.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import asyncpg

APP = "guthi_app"
REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.WrongObjectTypeError)
"""For want of a right, or because it is a view."""
SHARED: Mapping[str, str] = {
    "state_transitions": "the state maps, the same for all",
    "maintenance_runs": "runs of cron jobs, which speak of no tenant",
    "schema_migrations": "dbmate's",
}
"""Tables without tenant_id, and why they need none."""
TEXT_THAT_NAMES_NOBODY = {"role", "state", "kind", "status", "make_partitions"}
"""What a function that crosses tenants may return beside ids, numbers and times."""

_RELATIONS = """
SELECT c.relname AS name, c.relkind::text AS kind, c.relispartition AS is_partition, EXISTS (
    SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
) AS has_tenant, (
    SELECT coalesce(array_agg(p.privilege), '{}')
    FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
    WHERE has_table_privilege('guthi_app', c.oid, p.privilege)
       OR (p.privilege <> 'DELETE' AND has_any_column_privilege('guthi_app', c.oid, p.privilege))
) AS granted, (
    SELECT coalesce(array_agg(p.privilege), '{}')
    FROM unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS p (privilege)
    WHERE has_table_privilege('guthi_app', c.oid, p.privilege)
) AS dangerous, c.relrowsecurity AND c.relforcerowsecurity AS is_forced,
coalesce('security_invoker=true' = any(c.reloptions), false) AS is_invoker
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
"""
_POLICIES = """
SELECT tablename || ': ' || policyname FROM pg_policies WHERE schemaname = 'public' AND NOT (
    permissive = 'PERMISSIVE' AND cmd = 'ALL' AND qual = '(tenant_id = current_tenant())' AND (
        -- The second says the same, cheaper for each row that is written.
        with_check IS NULL OR with_check = '((tenant_id)::text = current_setting(''app.current_tenant''::text, true))'
    )
)
"""
_DEFINERS = """
SELECT p.proname AS name, coalesce(p.proconfig, '{}') AS settings,
    has_function_privilege('public', p.oid, 'EXECUTE') AS is_public, t.names, t.types
FROM pg_proc AS p
CROSS JOIN LATERAL (
    SELECT array_agg(coalesce(o.name, p.proname)) AS names, array_agg(o.type::regtype::text) AS types FROM (
        SELECT p.proargnames[n] AS name, p.proallargtypes[n] AS type
        FROM generate_subscripts(p.proallargtypes, 1) AS n WHERE p.proargmodes[n] IN ('o', 't', 'b')
        UNION ALL
        SELECT a.attname, a.atttypid FROM pg_type AS y JOIN pg_attribute AS a ON a.attrelid = y.typrelid
        WHERE y.oid = p.prorettype AND y.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT NULL, y.oid FROM pg_type AS y WHERE y.oid = p.prorettype AND y.typrelid = 0 AND p.proallargtypes IS NULL
    ) AS o
) AS t
WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
ORDER BY p.proname
"""
_ROLE = """
SELECT format('guthi_app is %s', what) FROM pg_roles AS r, LATERAL (VALUES
    (r.rolsuper, 'a superuser'), (r.rolbypassrls, 'beyond row-level security'), (r.rolcreaterole, 'able to make roles'),
    (r.rolcreatedb, 'able to make databases'), (r.rolreplication, 'able to replicate'),
    (EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid), 'a member of another role'),
    (EXISTS (SELECT FROM pg_class WHERE relowner = r.oid), 'the owner of a table'),
    (EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid), 'the owner of a function'),
    (has_schema_privilege(r.oid, 'public', 'CREATE'), 'able to make things in public')
) AS t (is_so, what) WHERE r.rolname = 'guthi_app' AND t.is_so
UNION ALL
SELECT 'guthi_app may use the sequence ' || relname FROM pg_class
WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
  AND (has_sequence_privilege('guthi_app', oid, 'SELECT') OR has_sequence_privilege('guthi_app', oid, 'UPDATE'))
"""
_HARMLESS = {"uuid", "bigint", "integer", "boolean", "double precision", "date", "timestamp with time zone"}
_HARMLESS |= {"bytea", "void", "trigger"}
"""Types of which no word of a society's can be made; bytea are hashes."""


class Tables:
    """`wrong` has a line for each thing that must not be; `tried` counts the cells of the matrix."""

    def __init__(self, owner: asyncpg.Connection, app: asyncpg.Connection, own: UUID, other: UUID) -> None:
        self.wrong: list[str] = []
        self.tried: Counter[str] = Counter()
        self._owner, self._app, self._own, self._other = owner, app, own, other

    async def try_all(self) -> None:
        await self._catalogue()
        for relation in await self._owner.fetch(_RELATIONS):
            await self._try(relation)

    async def _catalogue(self) -> None:
        self.wrong += [row[0] for row in await self._owner.fetch(_ROLE)]
        self.wrong += [f"a policy of its own kind: {row[0]}" for row in await self._owner.fetch(_POLICIES)]
        for function in await self._owner.fetch(_DEFINERS):
            self.tried["SECURITY DEFINER functions"] += 1
            name = function["name"]
            if "search_path=public, pg_temp" not in function["settings"]:
                self.wrong.append(f"{name} runs as the owner without a fixed search_path")
            if function["is_public"]:
                self.wrong.append(f"{name} runs as the owner for everybody")
            self.wrong += [
                f"{name} crosses tenants and returns {column} {kind}"
                for column, kind in zip(function["names"], function["types"], strict=True)
                if kind.removeprefix("setof ") not in _HARMLESS and column not in TEXT_THAT_NAMES_NOBODY
            ]

    async def _try(self, relation: asyncpg.Record) -> None:
        name, granted = relation["name"], set(relation["granted"])
        if relation["dangerous"]:
            self.wrong.append(f"{APP} has {relation['dangerous']} on {name}")
        if relation["is_partition"] and granted:
            self.wrong.append(f"{APP} reaches the partition {name} past its parent")
        if not relation["has_tenant"]:
            if name not in SHARED:
                self.wrong.append(f"{name} has no tenant_id")
            return
        if relation["kind"] in "rp" and not relation["is_forced"]:
            self.wrong.append(f"{name} does not force row-level security")
        if relation["kind"] not in "rp" and (not relation["is_invoker"] or granted - {"SELECT"}):
            self.wrong.append(f"the view {name} is not read as its reader, or can be written")
        for who, tenant in (("nobody", None), ("the owner of the rows", self._other), ("another tenant", self._own)):
            await self._try_as(name, granted, who, tenant)

    async def _try_as(self, name: str, granted: set[str], who: str, tenant: UUID | None) -> None:
        """Everything is tried on the rows of `other`: only who is that tenant may do what was granted."""
        its_own = tenant == self._other
        stand = await self._owner.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id = $1", self._other)
        tries = {
            "SELECT": ("SELECT count(*) FROM {} WHERE tenant_id = $1", stand if its_own else 0),
            "INSERT": ("INSERT INTO {} (tenant_id) VALUES ($1)", None),
            "UPDATE": ("UPDATE {} SET tenant_id = tenant_id WHERE tenant_id = $1", stand if its_own else 0),
            "DELETE": ("DELETE FROM {} WHERE tenant_id = $1", stand if its_own else 0),
            "TRUNCATE": ("TRUNCATE {}", None),
        }
        for verb, (statement, wanted) in tries.items():
            self.tried["cells of tenant x table x verb"] += 1
            reached = await self._reach(tenant, statement.format(name))
            if verb not in granted or (verb == "INSERT" and not its_own):
                good = reached is None
            else:
                good = verb == "INSERT" or reached == wanted or (its_own and reached == -1)
            if not good:
                self.wrong.append(f"{who} reaches {reached} rows by {verb} on {name}, where {wanted} are meant")
        if "UPDATE" in granted and tenant == self._own:
            given_away = await self._reach(tenant, f"UPDATE {name} SET tenant_id = $1")
            if given_away:
                self.wrong.append(f"rows of {name} can be given to another tenant")

    async def _reach(self, tenant: UUID | None, statement: str) -> int | None:
        """Rows that were reached, undone at once; None: refused for want of a right; -1: refused for their content."""
        transaction = self._app.transaction()
        await transaction.start()
        try:
            if tenant is not None:
                await self._app.execute("SELECT set_tenant($1)", tenant)
            arguments = [self._other] if "$1" in statement else []
            if statement.startswith("SELECT"):
                count: int = await self._app.fetchval(statement, *arguments)
                return count
            return int((await self._app.execute(statement, *arguments)).rsplit(" ", 1)[-1])
        except REFUSED:
            return None
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.FeatureNotSupportedError):
            return -1
        except ValueError:  # TRUNCATE counts nothing: that it got through is bad enough
            return 0
        finally:
            with contextlib.suppress(asyncpg.PostgresError):
                await transaction.rollback()
