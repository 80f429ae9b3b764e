"""Daily: does every sequence and every counter give a number that is free? `guthi sequences repair` mends them."""

from typing import Any

from core.telemetry import emit
from db.queries import sql
from jobs.engine.engine import Engine


async def check_sequences(engine: Engine) -> dict[str, Any]:
    async with engine.database.connection() as connection:
        rows = [row async for row in sql.sequence_health_counts(connection)]
    broken = {f"{row['kind']} {row['status']}": row["found"] for row in rows if row["status"] != "ok"}
    emit("sequences_checked", broken=sum(broken.values()), found=broken)
    return {"checked": sum(row["found"] for row in rows), "broken": broken}
