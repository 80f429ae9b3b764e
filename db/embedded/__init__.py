"""PostgreSQL and Valkey out of wheels, for `guthi dev`, tests and benches: no container, root or not.

Both are stopped by whoever started them and can be started again at the same address. Neither belongs to the
terminal's process group, so that Ctrl-C reaches their supervisor only, which then stops them in order.
"""

from db.embedded.errors import EmbeddedServerError
from db.embedded.postgres import POSTGRES_BIN_PATH, ROLES, EmbeddedPostgres, postmaster_pid
from db.embedded.valkey import EmbeddedValkey, free_port

__all__ = [
    "POSTGRES_BIN_PATH",
    "ROLES",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "free_port",
    "postmaster_pid",
]
