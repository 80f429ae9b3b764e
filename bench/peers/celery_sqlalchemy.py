"""Celery with SQLAlchemy: one task reads pages of members and inserts them in bulk, its place committed with each."""

import sys
from decimal import Decimal
from uuid import UUID

from celery import Celery
from celery.signals import worker_ready
from common import DATABASE_URL, NEW_RUN, REDIS_URL, ids, obey, say
from sqlalchemy import column, create_engine, func, insert, or_, select, table, text, update
from sqlalchemy.orm import Session

PAGE = 5_000
app = Celery("peers", broker=REDIS_URL)
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
app.conf.update(broker_connection_retry_on_startup=True, task_default_queue="bench-celery")
engine = create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://"))


def columns(name, *names):
    return table(name, *map(column, names))


memberships = columns("tier_memberships", "tenant_id", "tier_id", "member_id", "valid_from", "valid_to")
contributions = columns("contributions", "tenant_id", "cycle_id", "member_id", "contribution_amount", "due_date")
runs = columns("bench_runs", "run_id", "tenant_id", "tier_id", "dead", "status", "processed", "cursor")


@app.task(name="create_contributions")
def create_contributions(run_id):
    run_id = UUID(run_id)
    with Session(engine) as session:
        is_last = False
        while not is_last:
            run = session.execute(select(runs).where(runs.c.run_id == run_id).with_for_update()).one()
            due = session.scalar(select(text("current_date + 15")))
            open_now = or_(memberships.c.valid_to.is_(None), memberships.c.valid_to > func.now())
            page = session.scalars(
                select(memberships.c.member_id)
                .where(memberships.c.tenant_id == run.tenant_id, memberships.c.tier_id == run.tier_id)
                .where(memberships.c.member_id > run.cursor, memberships.c.member_id != run.dead)
                .where(memberships.c.valid_from <= func.now(), open_now)
                .order_by(memberships.c.member_id)
                .limit(PAGE)
            ).all()
            shared = {
                "tenant_id": run.tenant_id,
                "cycle_id": run.run_id,
                "contribution_amount": Decimal(100),
                "due_date": due,
            }
            if page:
                session.execute(insert(contributions), [{**shared, "member_id": member} for member in page])
            is_last = len(page) < PAGE
            moved = {"processed": run.processed + len(page), "cursor": page[-1] if page else run.cursor}
            status = "Active" if is_last else run.status
            session.execute(update(runs).where(runs.c.run_id == run_id).values(status=status, **moved))
            session.commit()


@worker_ready.connect
def tell(**_):
    say("ready")


def act(order):
    with engine.begin() as connection:
        connection.exec_driver_sql(NEW_RUN.format(*["%s"] * 4), ids(order))
    create_contributions.delay(order["run_id"])


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        app.worker_main(["worker", "--concurrency=2", "--loglevel=WARNING", "--without-gossip", "--without-mingle"])
    elif sys.argv[1] == "client":
        obey(act)
