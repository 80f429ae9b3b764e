"""DBOS: a durable workflow from a queue, each of its steps one transaction with a batch."""

import os
import sys
import threading

import psycopg
from common import BATCH, BATCH_ROWS, DATABASE_URL, GET_RUN, NEW_RUN, ids, obey, say
from dbos import DBOS, DBOSClient, SQLAlchemyDatasource
from psycopg.rows import dict_row

URL = DATABASE_URL.replace("postgresql://", "postgresql+psycopg://")
QUEUE = "cycles"
database = SQLAlchemyDatasource.create(URL) if sys.argv[1] == "worker" else None


def transaction(function):
    return database.transaction(isolation_level="READ COMMITTED")(function) if database else function


@transaction
def insert_batch(run):
    connection = database.sql_session().connection().connection.driver_connection
    row = connection.cursor(row_factory=dict_row).execute(BATCH, {**run, "rows": BATCH_ROWS}).fetchone()
    return str(row["cursor"]), row["status"]


@DBOS.workflow()
def create_contributions(run):
    while run["status"] != "Active":
        run["cursor"], run["status"] = insert_batch(run)


def worker():
    # Its executor's id is what a restarted worker finds the workflows by that it left.
    name = os.environ["BENCH_WORKER"]
    DBOS(config={"name": "peers", "system_database_url": URL, "executor_id": name, "log_level": "WARNING"})
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    say("ready")
    threading.Event().wait()


def act(client, connection, order):
    if order["do"] == "stop":
        client.cancel_workflow(order["run_id"])
        return
    connection.execute(NEW_RUN.format(*["%s"] * 4), ids(order))
    row = connection.cursor(row_factory=dict_row).execute(GET_RUN, [order["run_id"]]).fetchone()
    run = {name: str(value) for name, value in row.items()}
    options = {"workflow_name": "create_contributions", "queue_name": QUEUE, "workflow_id": order["run_id"]}
    client.enqueue(options, run)


if __name__ == "__main__":
    if sys.argv[1] == "setup":
        DBOS(config={"name": "peers", "system_database_url": URL, "log_level": "WARNING"})
        SQLAlchemyDatasource.create(URL)
        DBOS.launch()
        DBOS.destroy()
    elif sys.argv[1] == "worker":
        worker()
    else:
        with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
            client = DBOSClient(system_database_url=URL)
            obey(lambda order: act(client, connection, order))
