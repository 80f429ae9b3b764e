"""The kinds of batch job that this application has, and the engine that runs them."""

from arq.connections import ArqRedis

from core.calls import intercept
from core.faults import Faults
from core.settings import Settings
from db.database import Database
from jobs.create_contributions import CreateContributions
from jobs.engine.bell import Bell
from jobs.engine.engine import Engine
from jobs.engine.model import BatchKind
from jobs.engine.presence import PresenceBoard
from jobs.engine.progress import ProgressBoard
from jobs.import_members import ImportMembers
from jobs.notify_agents_new_cycle import NotifyAgentsNewCycle
from jobs.remove_contributions import RemoveContributions

KINDS: tuple[BatchKind, ...] = (
    CreateContributions(),
    RemoveContributions(),
    NotifyAgentsNewCycle(),
    ImportMembers(),
)


def build_engine(settings: Settings, database: Database, redis: ArqRedis) -> Engine:
    """The same engine in the API, which starts and steers, and in the worker, which runs."""
    faults = Faults(settings.faults)
    if faults.at_calls:
        intercept(faults.around)
    return Engine(
        database=database,
        bell=Bell(redis, settings),
        progress=ProgressBoard(redis, settings),
        presence=PresenceBoard(redis, settings),
        settings=settings,
        kinds={kind.name: kind for kind in KINDS},
        faults=faults,
    )
